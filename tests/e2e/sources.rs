//! Devices whose key is elsewhere: on servers of the site, or in a token.

use std::path::{Path, PathBuf};

use testkit::{SoftHsm, Tangd, Tanging, is_skipped};

use crate::device::{Device, EDGEKEEP};

fn tang_section(servers: &[Tangd], threshold: usize) -> String {
    let mut keys = format!("kind = \"tang\"\nthreshold = {threshold}\n");
    for server in servers {
        keys += &format!("[[source.servers]]\nurl = {:?}\nthumbprint = {:?}\n", server.url(), server.thumbprint());
    }
    keys
}

/// The whole life of a device whose key is held by two of three servers.
#[test]
fn a_device_is_sealed_while_too_few_servers_answer_and_opens_by_itself() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start(), Tangd::start(), Tangd::start()];
    let mut device = Device::with_services(&["sensor"]);
    device.replace_section("source", &tang_section(&tangds, 2));
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));

    tangds[0].becomes(Tanging::Down);
    device.up();
    assert_eq!(device.kept(), "1", "one of three may be away");
    assert_eq!(device.stop(), Some(0));

    tangds[1].becomes(Tanging::Down);
    let told = |line: &str| line.contains("1 of the 2 servers that are needed have helped");
    device.up_until_it_says(told);
    let (code, _) = device.wait(&["--gate", "ready-to-run", "--timeout", "1s"]);
    assert_ne!(code, Some(0), "nobody is let go meanwhile");
    tangds[1].becomes(Tanging::Well);
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
}

/// A device that was shut out on the servers, as a stolen one should be: sealed, and only its recovery key opens it.
#[test]
fn a_device_whose_key_was_deleted_on_the_server_stays_sealed() {
    if is_skipped("tang") {
        return;
    }
    let tangds = [Tangd::start()];
    let mut device = Device::with_services(&["sensor"]);
    device.replace_section("source", &tang_section(&tangds, 1));
    device.up();
    assert_eq!(device.stop(), Some(0));
    tangds[0].rotate();
    device.up();
    assert_eq!(device.stop(), Some(0), "a rotated key still answers");

    tangds[0].revoke_rotated();
    device.up_until_it_says(|line| line.contains("rotated away, or revoked"));
    let (code, _) = device.wait(&["--gate", "ready-to-run", "--timeout", "1s"]);
    assert_ne!(code, Some(0));
}

fn token_section(hsm: &SoftHsm, pin_file: &Path) -> String {
    let helper: PathBuf = Path::new(EDGEKEEP).with_file_name("ikm-pkcs11");
    assert!(helper.exists(), "{} is missing: cargo build -p edgekeep-ikm-pkcs11", helper.display());
    let (_, conf) = &hsm.env()[0];
    format!(
        "kind = \"pkcs11\"\nhelper = {helper:?}\nmodule = {:?}\ntoken = {:?}\nserial = {:?}\npin_file = {pin_file:?}\n\
         env = {{ SOFTHSM2_CONF = {conf:?} }}\n",
        SoftHsm::MODULE,
        hsm.label(),
        hsm.serial(),
    )
}

fn write_pin(path: &Path, pin: &str) {
    use host::Disk;
    host::OsDisk.replace(path, pin.as_bytes(), 0o600, None).unwrap();
}

/// A device with a card: it is waited for, a wrong PIN is tried once and not again, and with the right one all is as before.
#[test]
fn a_device_waits_for_its_token_and_spends_one_try_on_a_wrong_pin() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let mut device = Device::with_services(&["sensor"]);
    let pin_file = device.dir().join("pin");
    write_pin(&pin_file, SoftHsm::PIN);
    device.replace_section("source", &token_section(&hsm, &pin_file));
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));

    hsm.remove();
    device.up_until_it_says(|line| line.contains(hsm.serial()) && line.contains("is not there"));
    hsm.put_back();
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));

    write_pin(&pin_file, "00000000");
    device.at_once = true;
    device.stays_sealed("refuses the PIN");
    // Now few tries are left, as the token says; none is spent, be it the right one.
    write_pin(&pin_file, SoftHsm::PIN);
    device.stays_sealed("few tries are left");
    // Somebody logs in with another tool: that sets the count back.
    hsm.tool(&["--list-objects"]);
    device.up();
    assert_eq!(device.kept(), "1");
}
