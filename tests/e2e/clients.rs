//! EdgeX's own configuration, 18 services, by clients that know nothing of edgekeep.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::SiteCa;

use crate::combined::{Holder, write};
use crate::device::Device;
use crate::part;

/// Each of the 18 tokens reads and writes its own secrets, and is refused every other's: all pairs.
#[test]
fn all_pairs_by_hvac() {
    if part::is_skipped("clients") {
        return;
    }
    let mut device = Device::edgex();
    device.up();
    let script = part::root().join("tests/e2e/clients/all_pairs_hvac.py");
    let output =
        part::must(Command::new(part::in_venv("python")).arg(script).arg(device.url()).arg(device.secrets_dir()));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["services"], 18);
    assert_eq!(summary["pairs"], 18 * 17, "{summary}");
}

/// The same by the real OpenBao's command, with the variables that `edgekeep env` prints for it: 18 that may, 306 that
/// may not.
#[test]
fn all_pairs_by_bao() {
    if part::is_skipped("clients") {
        return;
    }
    let mut device = Device::edgex();
    device.up();
    let services: Vec<String> = std::fs::read_dir(device.secrets_dir())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(services.len(), 18);
    let program = part::bao();
    let bao = |service: &str, arguments: &[&str]| {
        Command::new(&program)
            .args(arguments)
            .env_clear()
            .env("HOME", device.dir())
            .env("VAULT_ADDR", device.url())
            .env("VAULT_CACERT", device.ca(service))
            .env("VAULT_TOKEN", device.token(service))
            .output()
            .unwrap()
    };
    let owns = |service: &String| {
        let own = format!("secret/edgex/{service}/by-bao");
        let put = bao(service, &["kv", "put", &own, "owner=me"]);
        assert!(put.status.success(), "{service}: {put:?}");
        let got = bao(service, &["kv", "get", "-field=owner", &own]);
        assert_eq!(String::from_utf8_lossy(&got.stdout).trim(), "me", "{service}: {got:?}");
    };
    let is_refused = |(service, other): &(&String, &String)| {
        let read = bao(service, &["read", &format!("secret/edgex/{other}/by-bao")]);
        assert!(!read.status.success(), "{service} read {other}'s secret");
        let said = String::from_utf8_lossy(&read.stderr);
        assert!(said.contains("403") && said.contains("permission denied"), "{service}: {said}");
    };
    // Every secret is there before anybody asks for another's.
    side_by_side(&services.iter().collect::<Vec<_>>(), |service| owns(service));
    let others = |service| services.iter().filter(move |other| *other != service);
    let pairs: Vec<_> = services.iter().flat_map(|s| others(s).map(move |o| (s, o))).collect();
    assert_eq!(pairs.len(), 18 * 17);
    side_by_side(&pairs, is_refused);
    let lookup = bao(&services[0], &["token", "lookup", "-format=json"]);
    assert!(lookup.status.success(), "{lookup:?}");
    let lookup: serde_json::Value = serde_json::from_slice(&lookup.stdout).unwrap();
    assert_eq!(lookup["data"]["renewable"], true);
    let renewed = bao(&services[0], &["token", "renew"]);
    assert!(renewed.status.success(), "{renewed:?}");
}

/// Roles and logins by certificate: by hvac, and by the real OpenBao's `login`.
#[test]
fn certificates_by_hvac_and_bao() {
    if part::is_skipped("clients") {
        return;
    }
    let (holder, site) = (Holder::start(), SiteCa::new());
    holder.trust(&site);
    let device = holder.device();
    let at = |name: &str, text: &str| write(&device.dir().join(name), text, 0o600);
    let (own, foreign) = (site.device("device-07"), SiteCa::new().device("device-07"));
    let (certificate, key) = (at("own.pem", &own.certificate), at("own.key", &own.key));
    let ca = device.ca("registrar");
    let token = device.secrets_dir().join("registrar/secrets-token.json");
    let script = part::root().join("tests/e2e/clients/certificates_hvac.py");
    let mut hvac = Command::new(part::in_venv("python"));
    hvac.arg(script).arg(device.url()).args([&token, &ca, &at("site.pem", site.pem()), &certificate, &key]);
    hvac.args([at("foreign.pem", &foreign.certificate), at("foreign.key", &foreign.key)]);
    assert_eq!(part::must(&mut hvac).stdout, b"done\n");

    let bao = |shown: &[(&str, &std::path::Path)]| {
        let mut bao = Command::new(part::bao());
        bao.args(["login", "-method=cert", "-no-store", "-field=token_policies", "-format=json"]);
        bao.env_clear().env("HOME", device.dir()).env("VAULT_ADDR", device.url()).env("VAULT_CACERT", &ca);
        bao.args(shown.iter().map(|(flag, file)| format!("-{flag}={}", file.display())));
        bao.arg("name=devices").output().unwrap()
    };
    let output = bao(&[("client-cert", &certificate), ("client-key", &key)]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<String>(),
        "[\"edgekeep-devices\"]"
    );
    let output = bao(&[]);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no client certificate found")
    );
}

/// Does the same for each, four at a time: each call of a client is a process that takes a tenth of a second to start.
fn side_by_side<T: Sync>(all: &[T], each: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    each(one);
                }
            });
        }
    });
}
