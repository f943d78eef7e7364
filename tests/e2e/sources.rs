//! Devices whose key is elsewhere: on servers of the site, or in a token.

use std::path::{Path, PathBuf};

use testkit::{SoftHsm, Tangd, Tanging, is_skipped};

use crate::device::{Device, EDGEKEEP};

pub(crate) fn tang_section(servers: &[Tangd], threshold: usize) -> String {
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

/// A token whose PIN comes in this way.
fn token_section_by(hsm: &SoftHsm, pin: &str) -> String {
    let helper: PathBuf = Path::new(EDGEKEEP).with_file_name("ikm-pkcs11");
    assert!(helper.exists(), "{} is missing: cargo build -p edgekeep-ikm-pkcs11", helper.display());
    let (_, conf) = &hsm.env()[0];
    format!(
        "kind = \"pkcs11\"\nhelper = {helper:?}\nmodule = {:?}\ntoken = {:?}\nserial = {:?}\n{pin}\n\
         env = {{ SOFTHSM2_CONF = {conf:?} }}\n",
        SoftHsm::MODULE,
        hsm.label(),
        hsm.serial(),
    )
}

pub(crate) fn token_section(hsm: &SoftHsm, pin_file: &Path) -> String {
    token_section_by(hsm, &format!("pin_file = {pin_file:?}"))
}

pub(crate) fn write_pin(path: &Path, pin: &str) {
    use host::Disk;
    host::OsDisk.replace(path, pin.as_bytes(), 0o600, None).unwrap();
}

/// A device with a card: it is waited for, a wrong PIN is tried once and not again, and with the right one all is as
/// before.
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

/// The end of a slot, and of a device, is the end of what was made in its token for it.
#[test]
fn an_erased_device_leaves_its_token_empty() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    // The owner's own, by the name of ours.
    hsm.tool(&["--keypairgen", "--key-type", "rsa:2048", "--id", "02", "--label", "edgekeep"]);
    let mut device = Device::with_services(&["sensor"]);
    let pin_file = device.dir().join("pin");
    write_pin(&pin_file, SoftHsm::PIN);
    device.replace_section("source", &token_section(&hsm, &pin_file));
    device.up();
    device.keep();
    let secrets = || hsm.tool(&["--list-objects", "--type", "secrkey"]);
    let first = secrets();
    assert_eq!(first.matches("Secret Key Object").count(), 1, "{first}");
    let output = device.admin(&["seal", "slots", "reseal", "1"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(secrets().matches("Secret Key Object").count(), 1, "the old one is gone: {}", secrets());
    assert_ne!(secrets(), first);
    assert_eq!(device.stop(), Some(0));
    device.up();
    assert_eq!(device.kept(), "1");

    // A receipt is for what was done: without the token there is none.
    hsm.remove();
    let erase = |device: &Device| device.admin(&["erase", "--destroys-all-secrets"]);
    let output = erase(&device);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("is not there"), "{said}");
    hsm.put_back();
    let output = erase(&device);
    assert!(output.status.success(), "{output:?}");
    let signed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let told: serde_json::Value = serde_json::from_str(signed["receipt"].as_str().unwrap()).unwrap();
    let source = told["sources"][0].as_str().unwrap();
    assert!(source.contains("has no key") && source.contains("asked for its key"), "{told}");
    assert!(!told["remains"].to_string().contains("a copy of slot"), "{told}");
    assert_eq!(secrets().matches("Secret Key Object").count(), 0);
    assert_eq!(hsm.tool(&["--list-objects", "--type", "privkey"]).matches("Private Key Object").count(), 1);
}

/// A PIN that whoever starts the device has, and no file; one start, one PIN.
#[test]
fn a_devices_pin_comes_on_a_descriptor() {
    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let mut device = Device::with_services(&["sensor"]);
    device.replace_section("source", &token_section_by(&hsm, "pin_fd = 5"));
    device.at_once = true;
    device.handed_on_5(SoftHsm::PIN);
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    device.handed_on_5("00000000");
    device.stays_sealed("refuses the PIN");
    hsm.tool(&["--list-objects"]);
    device.handed_on_5(SoftHsm::PIN);
    device.up();
    assert_eq!(device.kept(), "1");
}

/// What systemd hands over, in the place where it lays it: the key itself, and the PIN of a token.
#[test]
fn a_device_opens_by_its_credentials() {
    let mut device = Device::with_services(&["sensor"]);
    let directory = device.dir().join("credentials");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let (ikm, other) = ("64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80", "ab".repeat(31) + "cd");
    let lay = |text: &str| write_pin(&directory.join("ikm"), text);
    lay(ikm);
    device.replace_section(
        "source",
        &format!("kind = \"credential\"\nname = \"ikm\"\nform = \"hex\"\ndirectory = {directory:?}\n"),
    );
    device.at_once = true;
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));
    lay(&other);
    device.stays_sealed("was made with other key material");
    std::fs::remove_file(directory.join("ikm")).unwrap();
    device.up_until_it_says(|line| line.contains("is not there"));
    lay(ikm);
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));

    if is_skipped("softhsm") {
        return;
    }
    let hsm = SoftHsm::new("edge");
    let mut device = Device::with_services(&["sensor"]);
    write_pin(&directory.join("pin"), SoftHsm::PIN);
    device.replace_section("source", &token_section(&hsm, &directory.join("pin")));
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    device.up();
    assert_eq!(device.kept(), "1");
}
