//! `up --check` refuses what `up` refuses, in the same words and with the same code, and makes nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::device::{Device, EDGEKEEP};
use crate::part::{self, Mount};

/// Makes a device's defect, and says what must be said of it.
type Defect = fn(&Device) -> &'static str;

/// Before the first boot.
const DEFECTS: [Defect; 17] = [
    |device| {
        exec(device, &device.dir().join("hook"));
        "hook is not there"
    },
    |device| {
        exec(device, &put(device, "hook", "#!/bin/sh\necho\n", 0o600));
        "is not executable"
    },
    |device| {
        exec(device, &put(device, "hook", "#!/bin/sh\necho\n", 0o777));
        "others may write to it"
    },
    |device| {
        device.replace_section("source", "kind = \"tpm\"\ndevice = \"/dev/edgekeep-has-no-such\"\n");
        "/dev/edgekeep-has-no-such is not there"
    },
    |device| {
        card(device, &device.dir().join("pin"), Path::new(EDGEKEEP));
        "pin cannot be used: it is not there"
    },
    |device| {
        card(device, &put(device, "pin", "1234\n", 0o644), Path::new(EDGEKEEP));
        "lets others in"
    },
    |device| {
        card(device, &put(device, "pin", "1234\n", 0o600), &device.dir().join("ikm-pkcs11"));
        "ikm-pkcs11 is not there"
    },
    |device| {
        let ca = device.dir().join("holder.pem");
        let login = "login = \"cert\"\nmount = \"transit\"\nname = \"one\"\nhold = \"transit\"\n";
        let files = format!("certificate = {ca:?}\ncertificate_key = {ca:?}\n");
        device.replace_section(
            "source",
            &format!("kind = \"escrow\"\nurl = \"https://127.0.0.1:1\"\nca = {ca:?}\n{files}{login}"),
        );
        "holder.pem is not there"
    },
    |device| {
        put(device, "device.key", "another's", 0o600);
        "device.key is there already, and this is a first boot"
    },
    |device| {
        let text = std::fs::read_to_string(device.config()).unwrap();
        let files = format!("tls_certificate = {0:?}\ntls_key = {0:?}\n", device.dir().join("server.pem"));
        put(device, "edgekeep.toml", &text.replace("[listen]\n", &format!("[listen]\n{files}")), 0o600);
        "server.pem: No such file or directory"
    },
    |device| {
        device.set("address", "\"192.0.2.1:8200\"");
        "192.0.2.1:8200"
    },
    |device| {
        device.replace_section("recovery", &format!("out = {:?}\n", device.dir().join("stick/key")));
        "No such file or directory"
    },
    |device| {
        device.replace_section("recovery", &format!("out = {:?}\n", device.dir().join("key")));
        "lies on the file system of"
    },
    |device| {
        device.replace_section(
            "recovery",
            "age = [\"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8q\"]\n",
        );
        "edgekeep.toml:8: age recipient 1 is no X25519 recipient"
    },
    |device| {
        device.set("run_dir", &format!("{:?}", device.dir().join("run")));
        "is not on a tmpfs"
    },
    |device| {
        device.set("run_dir", &format!("{:?}", device.run_dir().join("x".repeat(80))));
        "is too long for a socket"
    },
    |device| {
        device.set("data_dir", &format!("{:?}", device.dir().join("not/there")));
        "not/there cannot be used: No such file or directory"
    },
];

#[test]
fn what_up_refuses_check_refuses_in_the_same_words() {
    for defect in DEFECTS {
        let device = Device::with_services(&["sensor"]);
        let told = defect(&device);
        let before = names(device.dir());
        let checked = device.checks();
        assert!(checked.0 != Some(0) && checked.1.contains(told), "wanted {told:?}: {checked:?}");
        assert_eq!(names(device.dir()), before, "{told}: --check has made something");
        assert!(!device.run_dir().exists(), "{told}: --check has made the run directory");
        assert_eq!(device.ends(), checked, "{told}: what up says, and what --check has said");
    }
}

/// A file system that is mounted read-only is named as what it is, before and after the first boot, and is no fault of
/// the configuration.
#[test]
fn a_read_only_data_dir_is_called_so() {
    if part::is_skipped("mounts") {
        return;
    }
    let mut device = Device::with_services(&["sensor"]);
    let disk = Mount::new(&device.dir().join("disk"), "size=64m");
    let remount = |options: &str| {
        let options = format!("remount,{options}");
        part::must(std::process::Command::new("mount").args(["-o", &options]).arg(disk.path()));
    };
    // As a unit's StateDirectory is: there, and empty.
    std::fs::create_dir(disk.path().join("state")).unwrap();
    std::fs::set_permissions(disk.path().join("state"), PermissionsExt::from_mode(0o700)).unwrap();
    device.set("data_dir", &format!("{:?}", disk.path().join("state")));
    for first in [true, false] {
        remount("ro");
        let (code, said) = device.ends();
        assert_eq!((code, said.lines().count()), (Some(2), 2), "{said}");
        assert!(said.contains("state cannot be used: Read-only file system") && said.contains(" hint: "), "{said}");
        assert_eq!(device.checks(), (code, said));
        remount("rw");
        device.up();
        if first {
            assert_eq!(device.stop(), Some(0));
        }
    }
}

/// Of a device that has a store: what `up` waits for is said and is no refusal, and neither is an edgekeep that runs.
#[test]
fn what_up_waits_for_is_no_refusal() {
    let mut device = Device::with_services(&["sensor"]);
    let hook = "#!/bin/sh\necho 64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80\n";
    exec(&device, &put(&device, "hook", hook, 0o700));
    device.up();
    assert!(!device.plan().contains("waited for"), "{}", device.plan());
    assert_eq!(device.stop(), Some(0));
    std::fs::remove_file(device.dir().join("hook")).unwrap();
    assert!(device.plan().contains("hook is not there"), "{}", device.plan());
    let waits = device.up_until_it_says(|line| line.starts_with("edgekeep waits for its key source"));
    assert!(waits.contains("hook is not there"), "{waits}");
    device.kill();
    // What nobody waits for is refused, though the process stays to be recovered.
    put(&device, "hook", hook, 0o777);
    let (code, said) = device.checks();
    assert_eq!(code, Some(2), "{said}");
    let up = device.up_until("edgekeep stays sealed; the admin socket takes `edgekeep recover`");
    let up: Vec<&str> = up.lines().filter(|l| l.starts_with("error: ") || l.starts_with(" hint: ")).collect();
    assert_eq!(up.join("\n"), said);
    device.kill();
}

fn exec(device: &Device, hook: &Path) {
    device.replace_section("source", &format!("kind = \"exec\"\npath = {hook:?}\n"));
}

/// A card behind any library that is there.
fn card(device: &Device, pin: &Path, helper: &Path) {
    let module = part::linked_with(Path::new("/bin/sh")).into_iter().next().expect("a shell has a loader");
    device.replace_section(
        "source",
        &format!(
            "kind = \"pkcs11\"\nhelper = {helper:?}\nmodule = {module:?}\ntoken = \"device\"\nserial = \"1\"\npin_file = {pin:?}\n"
        ),
    );
}

fn put(device: &Device, name: &str, text: &str, mode: u32) -> std::path::PathBuf {
    let path = device.dir().join(name);
    testkit::lay_program(&path, text, mode);
    path
}

fn names(dir: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}
