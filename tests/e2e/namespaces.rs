//! As containers have it: the keeper and two services, each in a network of its own, each service its own user.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::device::{Device, EDGEKEEP};
use crate::part;
use crate::server::{HOSTILE, Server, open_dir, path};

/// Network namespaces on one bridge, removed with the test.
struct Networks {
    names: Vec<String>,
}

impl Networks {
    /// The first has the bridge and `10.77.0.1`; the others `10.77.0.2`, `10.77.0.3`.
    fn new(ip: &Path, count: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let made = NEXT.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = (0..count).map(|n| format!("ek{}-{made}-{n}", std::process::id())).collect();
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

/// As EdgeX's compose files have it: a store without TLS in another container, which waits for the bootstrapper's own
/// gate. Nothing is sent there in clear but on a private network, and where somebody has said so.
#[test]
fn a_bootstrapper_speaks_plain_text_on_a_private_network_alone_and_only_when_told() {
    if part::is_skipped("netns") || part::is_skipped("openbao") {
        return;
    }
    let ip = part::program("ip", "iproute2", &["/sbin", "/usr/sbin"]);
    let (networks, dir, bao) = (Networks::new(&ip, 2), open_dir(), part::bao());
    // An address that is not private (RFC 5737), at which the very same store answers.
    let [hub, other] = [&networks.names[0], &networks.names[1]];
    part::must(Command::new(&ip).args(["-n", hub, "addr", "add", "203.0.113.1/24", "dev", "br0"]));
    part::must(Command::new(&ip).args(["-n", other, "route", "add", "203.0.113.0/24", "via", "10.77.0.1"]));
    let within = |network: &str, program: &Path| {
        let mut command = Command::new(&ip);
        command.args(["netns", "exec", network]).arg(program).env_clear().env("PATH", path()).env("HOME", dir.path());
        command.env("STAGEGATE_BOOTSTRAPPER_HOST", "10.77.0.1").env("STAGEGATE_DATABASE_HOST", "10.77.0.1");
        command
    };
    let mut store = within(hub, Path::new(EDGEKEEP));
    store.args(["entry", "secret-store", "--"]).arg(&bao);
    store.args(["server", "-dev", "-dev-root-token-id=root", "-dev-listen-address=0.0.0.0:8200"]);
    let mut store = Server::start(&mut store, &dir.path().join("store.log"));
    store.until_it_says("waiting for tcp://10.77.0.1:54321");
    let mut gate = within(hub, Path::new(EDGEKEEP));
    let mut gate = Server::start(gate.args(["entry", "bootstrapper"]), &dir.path().join("gate.log"));
    gate.until_it_says("open: 10.77.0.1:54321");
    let ask = |arguments: &[&str]| {
        let mut command = within(hub, &bao);
        command.env("BAO_ADDR", "http://127.0.0.1:8200").env("BAO_TOKEN", "root").args(arguments).output().unwrap()
    };
    store.until(|| ask(&["status"]).status.success());
    assert_eq!(store.is().0, "bao", "the same process");

    let service = "security-bootstrapper-redis";
    let at = format!("secret/edgex/{service}/redisdb");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        #[allow(clippy::disallowed_methods)]
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let policy = file("policy.hcl", &format!("path \"{at}\" {{ capabilities = [\"read\"] }}\n"));
    let password = format!("password=@{}", file("password", HOSTILE));
    for arguments in [
        &["secrets", "disable", "secret"][..],
        &["secrets", "enable", "-path=secret", "-version=1", "kv"],
        &["kv", "put", &at, "username=default", &password],
        &["policy", "write", "redis", &policy],
    ] {
        let output = ask(arguments);
        assert!(output.status.success(), "{output:?}");
    }
    let token = String::from_utf8(ask(&["token", "create", "-policy=redis", "-field=token"]).stdout).unwrap();
    let token = file("token.json", &format!("{{\"auth\":{{\"client_token\":\"{}\"}}}}", token.trim()));

    let face = dir.path().join("security-bootstrapper");
    std::os::unix::fs::symlink(EDGEKEEP, &face).unwrap();
    let acl = dir.path().join("conf/edgex_redis_acl.conf");
    let configure = |host: &str, allowed: &str| {
        let mut command = within(other, &face);
        // What is refused is refused at once; what is allowed has the time that it needs.
        command.env("SECRETSTORE_HOST", host).env("SECRETSTORE_TOKENFILE", &token).env("EDGEX_STARTUP_DURATION", "120");
        command.env("DATABASECONFIG_PATH", dir.path().join("conf")).env("EDGEKEEP_DANGER_PLAIN_HTTP", allowed);
        let output = command.current_dir(dir.path()).arg("configureRedis").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = configure("10.77.0.1", "");
    assert!(code == Some(1) && said.contains("plain http to \"10.77.0.1\""), "{said}");
    let (code, said) = configure("203.0.113.1", "true");
    assert!(code == Some(1) && said.contains("it is not on a private network"), "{said}");
    assert!(!acl.exists());
    let (code, said) = configure("10.77.0.1", "true");
    assert!(code == Some(0) && said.contains("cross the network to 10.77.0.1 in clear"), "{said}");
    let digest = hex::encode(secret::crypto::sha256(&[HOSTILE.as_bytes()]));
    assert!(std::fs::read_to_string(&acl).unwrap().contains(&digest));
    assert_eq!(store.signal("TERM").code(), Some(0), "SIGTERM is the store's own");
}
