//! The owner's own ways in: a root token that ends, and another recovery key, by the whole executable.

use crate::device::Device;

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
}
