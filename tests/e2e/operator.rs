//! The owner's own ways in: a root token that ends, and another recovery key, by the whole executable.

use crate::device::Device;
use crate::part;

#[test]
fn the_owner_of_the_recovery_key_gets_a_root_token_and_another_key() {
    let elsewhere = tempfile::Builder::new().prefix("edgekeep-e2e-").tempdir_in("/dev/shm").unwrap();
    let file = elsewhere.path().join("recovery.key");
    let mut device = Device::with_services(&["sensor"]);
    device.recover_to(&file);
    device.up();
    let key = || std::fs::read_to_string(&file).unwrap();
    let first = key();
    let named = file.to_str().unwrap();
    let made = device.admin(&["operator", "generate-root", "--key-file", named, "--ttl", "5m"]);
    let (token, said) = (String::from_utf8(made.stdout).unwrap(), String::from_utf8(made.stderr).unwrap());
    assert!(made.status.success() && said.contains("the used recovery key opens nothing any more"), "{said}");
    assert_eq!(token.lines().count(), 1, "the token alone");
    let read = |path: &str| device.with_token(token.trim(), &["read", path]);
    assert!(read("sys/policies/acl/edgex-service-sensor").status.success());
    let ttl = device.with_token(token.trim(), &["token", "lookup", "-field=ttl"]);
    let ttl: u64 = String::from_utf8(ttl.stdout).unwrap().trim().parse().unwrap();
    assert!((1..=300).contains(&ttl), "{ttl} s");
    mounts_by_bao(&device, token.trim());

    let second = key();
    assert_ne!(first, second);
    let rekeyed = device.admin(&["operator", "rekey", "--key-file", named]);
    assert!(rekeyed.status.success(), "{rekeyed:?}");
    assert_ne!(second, key());
    let old = elsewhere.path().join("old");
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&old, second).unwrap();
    for verb in ["generate-root", "rekey"] {
        let refused = device.admin(&["operator", verb, "--key-file", old.to_str().unwrap()]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains("is not the recovery key of this store"), "{said}");
    }
    sealed(&device, old.to_str().unwrap(), named);
}

/// What somebody reads who finds it sealed, and has the key of before last at hand.
fn sealed(device: &Device, old: &str, newest: &str) {
    let at = device.run_dir();
    let ask = |arguments: &[&str]| {
        let output = device.edgekeep().args(arguments).arg("--run-dir").arg(&at).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert!(device.admin(&["seal"]).status.success());
    let (code, said) = ask(&["status"]);
    assert!(code == Some(2) && said.contains("the store is sealed: it was sealed on command"), "{code:?} {said}");
    let (code, said) = ask(&["recover", "--key-file", old]);
    assert!(code == Some(1) && said.contains("this is not the recovery key of this store"), "{code:?} {said}");
    assert!(said.contains("take the newest") && !said.contains("slot 2"), "{said}");
    // A key that is not this store's changes nothing.
    let (code, said) = ask(&["status"]);
    assert!(code == Some(2) && said.contains("the store is sealed: it was sealed on command"), "{code:?} {said}");
    assert_eq!(ask(&["recover", "--key-file", newest]).0, Some(0));
    assert_eq!(ask(&["status"]).0, Some(0));
    let (code, said) = ask(&["operator", "generate-root", "--key-file", newest, "--ttl", "48h"]);
    assert!(code == Some(64) && said.contains("1 s to 24 h"), "{code:?} {said}");
}

/// As a newcomer types it, without options.
fn mounts_by_bao(device: &Device, token: &str) {
    for arguments in [
        &["secrets", "enable", "-path=kv1", "kv"][..],
        &["kv", "put", "kv1/a", "n=1"],
        &["secrets", "tune", "-max-lease-ttl=30m", "kv1/"],
        &["auth", "enable", "-path=up2", "userpass"],
        &["auth", "tune", "-default-lease-ttl=10m", "up2/"],
        &["auth", "disable", "up2/"],
        &["secrets", "disable", "kv1/"],
    ] {
        let mut bao = std::process::Command::new(part::bao());
        bao.args(arguments).env_clear().env("HOME", device.dir()).env("BAO_TOKEN", token).env("BAO_ADDR", device.url());
        let output = bao.env("BAO_CACERT", device.run_dir().join("ca.pem")).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}
