//! A device whose key is in its TPM: a real TPM 2.0 in software, which outlives the device's restarts as a chip does.

use std::time::Duration;

use testkit::{Swtpm, Tangd, is_skipped};

use crate::char_device::{CharDevice, FLUSH_CONTEXT};
use crate::chip::{boot, device_with_tpm, measure, section};
use crate::device::Device;
use crate::ikm::{Hook, line, refused};

/// First boot, restart, new boots, one release too many, and an update that nobody announced.
#[test]
fn a_device_opens_in_the_state_that_was_agreed_and_as_often_as_agreed() {
    if is_skipped("mounts") {
        return;
    }
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

/// The store does not open, and edgekeep is started again and again: each start but the first rests before it asks,
/// says so where somebody would look, and asks at once when somebody says so.
#[test]
fn starts_that_come_to_nothing_leave_the_releases_of_a_boot_alone() {
    if is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device_with_tpm("releases_per_boot = 4\n") else { return };
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    let store = device.data_dir().join("data/store.db");
    let whole = std::fs::read(&store).unwrap();
    device.write(&store, b"junk");
    let status = Device::ikm_status;
    device.stays_sealed("edgekeep stays sealed");
    // All of them within the first rest, of 30 s or more.
    for _ in 0..3 {
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
    device.write(&store, &whole);
    device.at_once = false;
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    device.up();
    assert_eq!(device.kept(), "1");
    assert!(!status(&device).contains("in a row"));
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

/// Predicted before the restart, in force after it, the way back open until the update has held; another image opens
/// nothing.
#[test]
fn an_update_is_predicted_and_committed_with_nobody_at_the_device() {
    if is_skipped("mounts") {
        return;
    }
    let Some((tpm, device)) = device_with_tpm("releases_per_boot = 2\n") else { return };
    follows_an_update(tpm, device);
}

/// The same of an index, and of a TPM that is of use with a server of the site alone: each gives its own once in a boot.
#[test]
fn an_update_goes_by_itself_where_the_key_is_in_an_index() {
    if is_skipped("mounts") {
        return;
    }
    let Some((tpm, device)) = device_with_tpm("releases_per_boot = 1\n") else { return };
    device.set("kind", "\"tpm-nv\"");
    follows_an_update(tpm, device);
}

#[test]
fn an_update_goes_by_itself_where_a_tpm_and_a_site_are_needed() {
    if is_skipped("mounts") || is_skipped("tang") {
        return;
    }
    let Some((tpm, device)) = device_with_tpm("") else { return };
    let site = Tangd::start();
    let of_tpm = section(&tpm, "releases_per_boot = 1\n");
    let of_site = format!("[[source.part.servers]]\nurl = {:?}\nthumbprint = {:?}\n", site.url(), site.thumbprint());
    let parts = format!("kind = \"all\"\n[[source.part]]\n{of_tpm}[[source.part]]\nkind = \"tang\"\n{of_site}");
    device.replace_section("source", &parts);
    follows_an_update(tpm, device);
}

/// Predicted, restarted into the new image, back into the old one, and committed; another image stays outside.
fn follows_an_update(mut tpm: Swtpm, mut device: Device) {
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
    if is_skipped("mounts") {
        return;
    }
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
    if is_skipped("mounts") {
        return;
    }
    let crates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let golden = crates.join("seal/tests/golden");
    // The key decides what opens the store, so its file is looked at; a checkout's may be anybody's.
    let vendor = testkit::scratch_dir();
    let key = vendor.path().join("vendor.pem");
    let pem = host::Disk::read(&host::OsDisk, &golden.join("pcr-rsa.pem"), 10_000).unwrap();
    host::Disk::replace(&host::OsDisk, &key, &pem, 0o644, None).unwrap();
    let signatures = golden.join("pcr-signature.json");
    let more = format!("pcr_public_key = {key:?}\npcr_signature = {signatures:?}\n");
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
    device.up_until_it_says(|line| line.contains("none of the key's 2 signatures is for sha256:11="));
}

/// `/dev/tpm0` and `/dev/tpmrm0`: on the first what was loaded is flushed, on the second the kernel does that.
#[test]
fn a_character_device_is_as_good_as_a_socket() {
    let Some(hook) = Hook::new("") else { return };
    for (name, flushed) in [("tpm0", true), ("tpmrm0", false)] {
        let device = CharDevice::new(&hook.tpm, &hook.path("."), name, Duration::ZERO);
        hook.write(
            "hook.toml",
            &format!("[source]\nkind = \"tpm\"\ndevice = {:?}\npcrs = [7]\n", device.path()),
            0o600,
        );
        let slot = hook.provision(&format!("{name}.slot"));
        let first = line(&hook.print(&slot));
        for _ in 0..4 {
            assert_eq!(line(&hook.print(&slot)), first);
        }
        let commands = device.commands();
        assert!(commands.len() > 20, "{commands:x?}");
        assert_eq!(commands.contains(&FLUSH_CONTEXT), flushed, "{name}: {commands:x?}");
    }
}

/// Linux keeps three objects and three sessions of an open file and evicts nothing: each kind of slot is made, looked at,
/// released and closed within that ([`CharDevice`] ends the test otherwise).
#[test]
fn the_kernels_resource_manager_has_room_for_every_kind_of_slot() {
    let Some(mut hook) = Hook::new("") else { return };
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("seal/tests/golden");
    let golden = golden.display();
    let signed =
        |key| format!("pcr_public_key = \"{golden}/pcr-{key}.pem\"\npcr_signature = \"{golden}/pcr-signature.json\"\n");
    let pin = hook.write("pin", "1234", 0o600);
    let everything = format!("window = \"1h\"\npin_file = {pin:?}\n");
    // A key with one signature that fits, and one with two.
    for key in [String::new(), signed("p256"), signed("rsa")] {
        for more in ["", &*everything] {
            for (kind, counted) in [
                ("tpm", ""),
                ("tpm", "releases_per_boot = 3\ncount_in = \"index\"\n"),
                ("tpm", "releases_per_boot = 1\ncount_in = \"gate\"\n"),
                ("tpm", "releases_per_boot = 3\ncount_in = \"gate\"\n"),
                ("tpm-nv", ""),
                ("tpm-nv", "releases_per_boot = 1\n"),
            ] {
                hook.tpm.reboot();
                measure(&hook.tpm, 0x77, 0xbb);
                let managed = CharDevice::new(&hook.tpm, &hook.path("."), "tpmrm0", Duration::ZERO);
                let source = format!("[source]\nkind = \"{kind}\"\ndevice = {:?}\npcrs = [7]\n", managed.path());
                hook.write("hook.toml", &format!("{source}{counted}{key}{more}"), 0o600);
                let slot = hook.provision("managed.slot");
                // With the storage key that the TPM keeps, and with one that is made anew.
                let first = line(&hook.print_as(kind, &slot));
                if !counted.contains("= 1") {
                    hook.tpm.forget_storage_key();
                    assert_eq!(line(&hook.print_as(kind, &slot)), first, "{kind} {counted}{key}{more}");
                    assert!(hook.ikm(&["status", "--slot", slot.to_str().unwrap()]).status.success());
                }
                drop(managed);
                std::fs::remove_file(hook.path("tpmrm0")).unwrap();
                std::fs::remove_file(&slot).unwrap();
            }
        }
    }
}

/// As above, of a store: made, opened, made anew, and made for another image.
#[test]
fn the_kernels_resource_manager_has_room_for_the_life_of_a_store() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("seal/tests/golden");
    let golden = golden.display();
    let signed =
        format!("pcr_public_key = \"{golden}/pcr-rsa.pem\"\npcr_signature = \"{golden}/pcr-signature.json\"\n");
    let Some((tpm, mut device)) = device_with_tpm(&format!("releases_per_boot = 8\ncount_in = \"index\"\n{signed}"))
    else {
        return;
    };
    device.set("pcrs", "[7]");
    let managed = CharDevice::new(&tpm, device.dir(), "tpmrm0", Duration::ZERO);
    device.set("device", &format!("{:?}", managed.path()));
    device.up();
    device.keep();
    let file = device.dir().join("next.pcrs");
    let next = hex::encode(secret::crypto::sha256(&[&[0; 32], &[0x78; 32]]));
    #[allow(clippy::disallowed_methods)]
    std::fs::write(&file, format!("sha256:7={next}\n")).unwrap();
    for args in [&["seal", "slots", "reseal", "1"][..], &["seal", "slots", "predict", "--pcrs", file.to_str().unwrap()]]
    {
        let told = device.admin(args);
        assert!(told.status.success(), "{told:?}");
    }
    device.kill();
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));
}

/// 300 ms more for each command, from the making of the store to the next start.
#[test]
fn a_device_whose_tpm_is_slow_starts_all_the_same() {
    let Some((tpm, mut device)) = device_with_tpm("releases_per_boot = 3\n") else { return };
    let slow = CharDevice::new(&tpm, device.dir(), "tpmrm0", Duration::from_millis(300));
    device.set("device", &format!("{:?}", slow.path()));
    device.up();
    device.keep();
    device.kill();
    device.up();
    assert_eq!(device.kept(), "1");
}

/// Two processes, which nobody but the TPM and the lock file keeps apart.
#[test]
fn two_hooks_at_once_have_one_release_between_them() {
    for counted in ["index", "gate"] {
        let Some(hook) = Hook::new(&format!("releases_per_boot = 1\ncount_in = \"{counted}\"\n")) else { return };
        let slot = hook.provision("one.slot");
        let outputs = std::thread::scope(|scope| {
            let both = [(); 2].map(|()| scope.spawn(|| hook.print(&slot)));
            both.map(|one| one.join().unwrap())
        });
        let (won, lost): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
        assert_eq!((won.len(), lost.len()), (1, 1), "{counted}: {outputs:?}");
        assert_eq!(line(won[0]).len(), 64);
        assert!(refused(lost[0]).contains("gives nothing more in this boot"));
    }
}
