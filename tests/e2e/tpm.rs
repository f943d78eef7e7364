//! A device whose key is in its TPM: a real TPM 2.0 in software, which outlives the device's restarts as a chip does.

use testkit::{Swtpm, is_skipped};

use crate::chip::{boot, device_with_tpm, measure, section};
use crate::device::Device;

/// First boot, restart, new boots, one release too many, and an update that nobody announced.
#[test]
fn a_device_opens_in_the_state_that_was_agreed_and_as_often_as_agreed() {
    let Some((mut tpm, mut device)) = device_with_tpm("releases_per_boot = 2\n") else { return };
    let elsewhere = testkit::scratch_dir();
    let recovery = elsewhere.path().join("recovery.key");
    device.recover_to(&recovery);

    // Making the store uses no release up; starting it does.
    device.up();
    device.keep();
    device.kill();
    device.up();
    assert_eq!(device.kept(), "1", "the second release of this boot");
    device.kill();
    device.stays_sealed("gives nothing more in this boot");

    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));

    // Another firmware: sealed, and it is said why.
    boot(&mut tpm, &mut device, 0x78, 0xbb);
    let said = device.up_until_it_says(|line| line.contains("PCR 7 is ") && !line.contains("PCR 11"));
    assert!(!said.contains("ready-to-run"), "{said}");
    let (code, _) = device.wait(&["--gate", "ready-to-run", "--timeout", "1s"]);
    assert_ne!(code, Some(0), "nobody is let go");
    let recovered = device.admin(&["recover", "--key-file", recovery.to_str().unwrap()]);
    assert!(recovered.status.success(), "{recovered:?}");
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
    device.kill();

    // With the old firmware it is as before, but for the releases that the recovery has closed.
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
}

/// The store does not open, and edgekeep is started again and again: each start but the first rests before it asks, says so where
/// somebody would look, and asks at once when somebody says so.
#[test]
fn starts_that_come_to_nothing_leave_the_releases_of_a_boot_alone() {
    let Some((mut tpm, mut device)) = device_with_tpm("releases_per_boot = 4\n") else { return };
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    let store = device.data_dir().join("data/store.db");
    let whole = std::fs::read(&store).unwrap();
    write(&store, b"junk");
    let status = |device: &Device| {
        let mut command = device.edgekeep();
        let output = command.args(["ikm", "status", "--config"]).arg(device.config()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    device.stays_sealed("edgekeep stays sealed");
    for _ in 0..5 {
        device.up_until_it_says(|line| {
            line.contains("the start before ended before the store was served, after a key source had given the key")
                && line.contains("the key sources are asked in ")
        });
        let told = String::from_utf8(device.admin(&["doctor"]).stdout).unwrap();
        assert!(told.contains("edgekeep is starting") && told.contains("the key sources are asked in "), "{told}");
        device.kill();
    }
    let told = status(&device);
    assert!(told.contains("releases left in this boot: 2") && told.contains("the next one asks in "), "{told}");
    device.at_once = true;
    device.stays_sealed("edgekeep stays sealed");
    assert!(status(&device).contains("releases left in this boot: 1"));
    // Another boot of the kernel has its releases, and nobody waits in it.
    write(&store, &whole);
    device.at_once = false;
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
    assert!(!status(&device).contains("in a row"));
}

fn write(path: &std::path::Path, bytes: &[u8]) {
    use host::Disk;
    host::OsDisk.replace(path, bytes, 0o600, None).unwrap();
}

/// A disk in another device, and a TPM that comes late.
#[test]
fn a_device_waits_for_its_own_tpm_and_takes_no_other() {
    let Some((tpm, mut device)) = device_with_tpm("") else { return };
    let other = Swtpm::start();
    measure(&other, 0x77, 0xbb);
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));

    device.set("device", &format!("{:?}", other.socket()));
    device.stays_sealed("is not the one that the slot was made with");
    let nowhere = device.dir().join("nowhere");
    device.set("device", &format!("{nowhere:?}"));
    device.up_until_it_says(|line| line.contains("nowhere is not there"));
    std::os::unix::fs::symlink(tpm.socket(), &nowhere).unwrap();
    device.wait_for_gate("ready-to-run");
    assert_eq!(device.kept(), "1");
}

/// Nothing measures anything on this machine: a store bound to that would be bound to nothing.
#[test]
fn no_store_is_bound_to_registers_that_nobody_extends() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    let mut device = Device::with_services(&["sensor"]);
    device.replace_section("source", &section(&tpm, ""));
    device.stays_sealed("PCR 7 was never extended");
    assert!(!device.data_dir().join("data").exists() && !device.data_dir().join("data.new").exists());
}

/// Predicted before the restart, in force after it, the way back open until the update has held; another image opens nothing.
#[test]
fn an_update_is_predicted_and_committed_with_nobody_at_the_device() {
    let Some((mut tpm, mut device)) = device_with_tpm("releases_per_boot = 2\n") else { return };
    device.up();
    device.keep();
    let told = |device: &Device, args: &[&str]| {
        let output = device.admin(args);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let commit = &["seal", "commit"][..];
    assert_eq!(told(&device, commit).0, Some(1), "there is nothing to commit");
    // What the vendor's build has measured, in the form of tpm2_pcrread.
    let digest = |byte: u8| hex::encode(secret::crypto::sha256(&[&[0; 32], &[byte; 32]]));
    let file = device.dir().join("next.pcrs");
    let values = format!("sha256:\n  7 : 0x{}\n  11: 0x{}\n", digest(0x77).to_uppercase(), digest(0xcc));
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&file, values).unwrap();
    let predict = ["seal", "slots", "predict", "--pcrs", file.to_str().unwrap()];
    let (code, text) = told(&device, &predict);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("added: slot 2") && text.contains("edgekeep seal commit"), "{text}");
    let (code, text) = told(&device, commit);
    assert!(code == Some(1) && text.contains("slot 2 was made for an image that has not opened"), "{text}");
    assert_eq!(device.stop(), Some(0));

    for kernel in [0xcc, 0xbb, 0xcc] {
        boot(&mut tpm, &mut device, 0x77, kernel);
        device.up();
        assert_eq!(device.kept(), "1", "{kernel:#x}");
        assert_eq!(device.stop(), Some(0));
    }
    boot(&mut tpm, &mut device, 0x77, 0xdd);
    device.stays_sealed("PCR 11 is ");

    boot(&mut tpm, &mut device, 0x77, 0xcc);
    device.up();
    let (code, text) = told(&device, commit);
    assert!(code == Some(0) && text.contains("removed: slot 1"), "{text}");
    assert_eq!(device.stop(), Some(0));
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.stays_sealed("PCR 11 is ");
    boot(&mut tpm, &mut device, 0x77, 0xcc);
    device.up();
    assert_eq!(device.kept(), "1");
}

/// An index of the TPM: once in a boot, and nobody else reads it then.
#[test]
fn a_device_whose_key_is_in_an_index_opens_once_in_a_boot() {
    let Some((mut tpm, mut device)) = device_with_tpm("releases_per_boot = 1\n") else { return };
    device.set("kind", "\"tpm-nv\"");
    device.up();
    device.keep();
    device.kill();
    device.stays_sealed("was read, or closed, in this boot");
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
}

/// Images that the vendor has signed open the store, with nobody there and nothing done before; others do not.
#[test]
fn a_device_bound_to_a_vendors_key_follows_its_updates() {
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let golden = crates.join("seal/tests/golden").display().to_string();
    let more = format!("pcr_public_key = \"{golden}/pcr-rsa.pem\"\npcr_signature = \"{golden}/pcr-signature.json\"\n");
    let Some((mut tpm, mut device)) = device_with_tpm(&more) else { return };
    device.set("pcrs", "[7]");
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    boot(&mut tpm, &mut device, 0x77, 0xcc);
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));
    boot(&mut tpm, &mut device, 0x77, 0xdd);
    device.up_until_it_says(|line| line.contains("is for what PCR 11 hold now"));
}
