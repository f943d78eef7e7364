//! As containers have it: the keeper and two services, each in a network of its own, each service its own user.

use std::process::{Command, Output};

use crate::device::{Device, EDGEKEEP};
use crate::part;

/// Network namespaces on one bridge, removed with the test.
struct Networks {
    names: Vec<String>,
}

impl Networks {
    /// The first has the bridge and `10.77.0.1`; the others `10.77.0.2`, `10.77.0.3`.
    fn new(ip: &std::path::Path, count: usize) -> Self {
        let names: Vec<String> = (0..count).map(|n| format!("ek{}-{n}", std::process::id())).collect();
        let run = |arguments: &[&str]| part::must(Command::new(ip).args(arguments));
        for name in &names {
            run(&["netns", "add", name]);
            run(&["-n", name, "link", "set", "lo", "up"]);
        }
        let hub = &names[0];
        run(&["-n", hub, "link", "add", "br0", "type", "bridge"]);
        run(&["-n", hub, "addr", "add", "10.77.0.1/24", "dev", "br0"]);
        run(&["-n", hub, "link", "set", "br0", "up"]);
        for (n, name) in names.iter().enumerate().skip(1) {
            let port = format!("p{n}");
            run(&["-n", hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", name]);
            run(&["-n", hub, "link", "set", &port, "master", "br0", "up"]);
            run(&["-n", name, "addr", "add", &format!("10.77.0.{}/24", n + 1), "dev", "eth0"]);
            run(&["-n", name, "link", "set", "eth0", "up"]);
        }
        Self { names }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        for name in &self.names {
            Command::new("ip").args(["netns", "del", name]).status().ok();
        }
    }
}

/// Each service reaches its own token file and its own secrets, over TLS and the network, and nothing of the other's.
#[test]
fn two_services_in_networks_of_their_own() {
    if part::is_skipped("netns") {
        return;
    }
    let ip = part::program("ip", "iproute2", &["/sbin", "/usr/sbin"]);
    let networks = Networks::new(&ip, 3);
    let mut device = Device::new(concat!(
        "[[service]]\nname = \"sensor\"\nuid = 1501\ngid = 1501\n",
        "[[service]]\nname = \"uploader\"\nuid = 1502\ngid = 1502\n",
    ));
    device.listen_in(&ip, &networks.names[0], "10.77.0.1");
    // Services go through directories that are not theirs.
    for dir in [device.run_dir().parent().unwrap(), device.dir()] {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    device.up();

    let service = |n: usize, uid: u32, script: &str| -> Output {
        Command::new(&ip)
            .args(["netns", "exec", &networks.names[n], "setpriv", "--reuid", &uid.to_string()])
            .args(["--regid", &uid.to_string(), "--clear-groups", "--no-new-privs", "sh", "-c", script, EDGEKEEP])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("VAULT_ADDR", device.url())
            .output()
            .unwrap()
    };
    let login = |name: &str| {
        let dir = device.secrets_dir().join(name);
        let dir = dir.display();
        format!(
            "export VAULT_CACERT={dir}/ca.pem; \
             VAULT_TOKEN=$(sed -E 's/.*\"client_token\": ?\"([^\"]+)\".*/\\1/' {dir}/secrets-token.json) || exit 99; \
             export VAULT_TOKEN; "
        )
    };
    for (n, uid, name, other) in [(1, 1501, "sensor", "uploader"), (2, 1502, "uploader", "sensor")] {
        let own = service(n, uid, &format!("{} echo v | \"$0\" kv put secret/edgex/{name}/k v=-", login(name)));
        assert!(own.status.success(), "{name}: {own:?}");
        let theirs = service(n, uid, &format!("{} \"$0\" kv get secret/edgex/{other}/k", login(name)));
        assert_eq!(theirs.status.code(), Some(1), "{name} asks for {other}'s secret: {theirs:?}");
        let file = device.secrets_dir().join(other).join("secrets-token.json");
        let stolen = service(n, uid, &format!("cat {}", file.display()));
        assert!(!stolen.status.success(), "{name} read {other}'s token file");
    }
}
