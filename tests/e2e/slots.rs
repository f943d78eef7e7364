//! The life of a device's keys: sources that come and go while it serves, and hardware that is another one day.

use std::io::Write as _;
use std::process::{Output, Stdio};

use testkit::{Swtpm, is_skipped};

use crate::device::Device;

/// What firmware and boot loader measure.
fn measure(tpm: &Swtpm) {
    tpm.extend(7, 0x77);
    tpm.extend(11, 0xbb);
}

fn tpm_source(tpm: &Swtpm) -> String {
    counted(tpm, 2)
}

fn counted(tpm: &Swtpm, releases: u8) -> String {
    format!("kind = \"tpm\"\ndevice = {:?}\npcrs = [7, 11]\nreleases_per_boot = {releases}\n", tpm.socket())
}

fn key_file(device: &Device) -> String {
    format!("kind = \"software\"\npath = {:?}\ndanger_software_key = true\n", device.dir().join("device.key"))
}

/// Puts these in the place of the sources that the configuration has.
fn configure(device: &Device, sources: &[String]) {
    let text = std::fs::read_to_string(device.config()).unwrap();
    let begins = text.find("[[source]]").or_else(|| text.find("[source]")).unwrap();
    let ends = text.find("[recovery]").unwrap();
    let sources: String = sources.iter().map(|s| format!("[[source]]\n{s}")).collect();
    #[allow(clippy::disallowed_methods)]
    std::fs::write(device.config(), format!("{}{sources}{}", &text[..begins], &text[ends..])).unwrap();
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    said(output)
}

fn list(device: &Device) -> serde_json::Value {
    let output = device.admin(&["seal", "slots", "list", "--format=json"]);
    serde_json::from_str(&done(&output)).unwrap()
}

/// From a key file to the TPM, without a restart; and the key file opens nothing afterwards.
#[test]
fn a_device_moves_from_one_source_to_another() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    measure(&tpm);
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    device.keep();
    let token = device.token("sensor");

    let refused = device.admin(&["seal", "slots", "remove", "1"]);
    assert_eq!((refused.status.code(), said(&refused).contains("is the last that opens the store")), (Some(1), true));
    configure(&device, &[key_file(&device), tpm_source(&tpm)]);
    let told = done(&device.admin(&["seal", "slots", "list"]));
    assert!(told.contains("no slot  source 2: tpm "), "{told}");
    assert!(done(&device.admin(&["seal", "slots", "add"])).contains("added: slot 2"));
    let slots = list(&device);
    assert_eq!(slots["slots"][1]["kind"], "tpm");
    assert_eq!((&slots["slots"][1]["releases_per_boot"], &slots["slots"][1]["opened"]), (&2.into(), &true.into()));
    let told = done(&device.admin(&["seal", "slots", "test"]));
    assert!(told.contains("slot 1  software: opens") && told.contains("slot 2  tpm: not asked"), "{told}");

    // Another limit: the slot is made anew in a boot in which the TPM has released nothing.
    configure(&device, &[key_file(&device), counted(&tpm, 3)]);
    assert_eq!(device.admin(&["seal", "slots", "reseal", "7"]).status.code(), Some(1));
    let told = done(&device.admin(&["seal", "slots", "reseal", "2"]));
    assert!(told.contains("added: slot 3") && told.contains("removed: slot 2"), "{told}");
    assert_eq!(list(&device)["slots"][1]["releases_per_boot"], 3);

    let told = done(&device.admin(&["seal", "slots", "remove", "1"]));
    assert!(told.contains("root key and data key are new") && told.contains("copies of the data directory"), "{told}");
    assert_eq!((device.kept(), device.token("sensor")), ("1".into(), token), "nobody was disturbed");
    configure(&device, &[counted(&tpm, 3)]);
    device.kill();
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(list(&device)["slots"].as_array().unwrap().len(), 1);
    device.kill();

    configure(&device, &[key_file(&device)]);
    device.up_until_it_says(|line| line.contains("no key slot for a source of kind `software`"));
}

/// Another board, a TPM that was cleared: one command with the recovery key, and the device starts by itself again.
#[test]
fn another_board_and_a_cleared_tpm_take_one_command_each() {
    if is_skipped("swtpm") || is_skipped("mounts") {
        return;
    }
    let (first, mut second) = (Swtpm::start(), Swtpm::start());
    measure(&first);
    measure(&second);
    let elsewhere = testkit::scratch_dir();
    let recovery = elsewhere.path().join("recovery.key");
    let mut device = Device::with_services(&["sensor"]);
    device.replace_section("source", &tpm_source(&first));
    device.recover_to(&recovery);
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));

    device.replace_section("source", &tpm_source(&second));
    for cleared in [false, true] {
        device.reboot();
        if cleared {
            second.reboot();
            measure(&second);
            second.clear();
        }
        device.up_until_it_says(|line| line.contains("is not the one that the slot was made with"));
        let key = std::fs::read(&recovery).unwrap();
        let output = device.admin_told(&["recover", "--key-file", "-", "--reseal"], &key);
        let told = done(&output);
        assert!(told.contains("added: slot ") && told.contains("removed: slot "), "{told}");
        device.wait_for_gate("ready-to-run");
        assert_eq!(device.kept(), "1");
        let again = device.admin_told(&["recover", "--key-file", "-", "--reseal"], &key);
        assert!(!again.status.success(), "the used key opens nothing, and the store is open");
        assert_eq!(device.stop(), Some(0));
    }
    // Nobody is there, and the device starts in its next boot.
    device.reboot();
    second.reboot();
    measure(&second);
    device.up();
    assert_eq!(device.kept(), "1");
    assert_eq!(device.stop(), Some(0));
    device.replace_section("source", &tpm_source(&first));
    device.up_until_it_says(|line| line.contains("is not the one that the slot was made with"));
}

impl Device {
    /// A command for the admin socket that reads this.
    fn admin_told(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.edgekeep();
        command.args(arguments).arg("--admin-socket").arg(self.run_dir().join("admin/admin.sock"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

/// The end of a device: nothing opens it, its TPM keeps nothing for it, and the receipt is in the operator's hand.
#[test]
fn an_erased_device_leaves_a_receipt_and_nothing_else() {
    if is_skipped("swtpm") {
        return;
    }
    let tpm = Swtpm::start();
    measure(&tpm);
    let mut device = Device::with_services(&["sensor"]);
    device.replace_section("source", &tpm_source(&tpm));
    device.up();
    device.keep();
    let receipt = device.dir().join("receipt.json");
    let slip = device.admin(&["erase", "--receipt", receipt.to_str().unwrap()]);
    assert_eq!((slip.status.code(), receipt.exists()), (Some(64), false), "{slip:?}");
    done(&device.admin(&["erase", "--destroys-all-secrets", "--receipt", receipt.to_str().unwrap()]));
    let signed: serde_json::Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
    let told: serde_json::Value = serde_json::from_str(signed["receipt"].as_str().unwrap()).unwrap();
    assert_eq!(told["slots"], serde_json::json!(["tpm"]));
    assert!(told["unseal"].as_str().unwrap().starts_with("there are no slot files"), "{told}");
    assert_eq!(told["remains"].as_array().unwrap().len(), 3, "the TPM keeps nothing: {told}");
    assert!(told["sources"][0].as_str().unwrap().contains("has no NV index 0x0180ed"), "it was asked: {told}");
    assert!(!device.data_dir().join("data").exists() && !device.secrets_dir().exists());
    let same = |output: &Output| serde_json::from_str::<serde_json::Value>(&done(output)).unwrap() == signed;
    assert!(same(&device.admin(&["erase", "--destroys-all-secrets"])), "the receipt of then");
    device.kill();
    device.up_until_it_says(|line| line.contains("this device was erased"));
    assert!(same(&device.admin(&["erase", "--destroys-all-secrets"])), "and in the next start");
}
