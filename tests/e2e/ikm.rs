//! `edgekeep ikm`: as EdgeX's hook beside a real TPM, in a container that has nothing, and as a judge of other hooks.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testkit::{Swtpm, is_skipped};

use crate::device::EDGEKEEP;
use crate::part;

/// A directory with the configuration of a hook.
pub(crate) struct Hook {
    dir: tempfile::TempDir,
    pub(crate) tpm: Swtpm,
}

impl Hook {
    pub(crate) fn new(more: &str) -> Option<Self> {
        Self::of("tpm", more)
    }

    fn of(kind: &str, more: &str) -> Option<Self> {
        if is_skipped("swtpm") {
            return None;
        }
        let hook = Self { dir: tempfile::tempdir().unwrap(), tpm: Swtpm::start() };
        hook.tpm.extend(7, 0x77);
        let text = format!("[source]\nkind = \"{kind}\"\ndevice = {:?}\npcrs = [7]\n{more}", hook.tpm.socket());
        hook.write("hook.toml", &text, 0o600);
        Some(hook)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use host::Disk;
        host::OsDisk.replace(&self.path(name), text.as_bytes(), mode, None).unwrap();
        self.path(name)
    }

    pub(crate) fn ikm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(EDGEKEEP);
        command.arg("ikm").args(arguments).arg("--config").arg(self.path("hook.toml"));
        command.env_clear().stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn provision(&self, name: &str) -> PathBuf {
        let out = self.path(name);
        let output = self.ikm(&["provision", "--as-hook", "--out", out.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
        out
    }

    pub(crate) fn print(&self, slot: &Path) -> Output {
        self.print_as("tpm", slot)
    }

    pub(crate) fn print_as(&self, kind: &str, slot: &Path) -> Output {
        self.ikm(&[kind, "--slot", slot.to_str().unwrap()])
    }

    /// As whoever asks what is left does.
    fn asked(&self, question: &str, slot: &Path) -> Output {
        let mut command = Command::new(EDGEKEEP);
        command.args(["ikm", "tpm", "--slot"]).arg(slot).arg("--config").arg(self.path("hook.toml"));
        command.env_clear().env("EDGEKEEP_IKM_ASK", question).stdin(Stdio::null()).output().unwrap()
    }
}

pub(crate) fn line(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let digits = text.strip_suffix('\n').unwrap();
    assert!(digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "not a hook's line");
    digits.to_owned()
}

fn line_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

pub(crate) fn refused(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_hook_prints_its_own_secret_as_often_as_agreed() {
    let Some(mut hook) = Hook::new("releases_per_boot = 2\n") else { return };
    let slot = hook.provision("one.slot");
    assert_eq!(std::fs::metadata(&slot).unwrap().permissions().mode() & 0o777, 0o600);
    let status = |hook: &Hook| {
        let output = hook.ikm(&["status", "--slot", slot.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for _ in 0..3 {
        let (code, told) = status(&hook);
        assert!(code == Some(0) && told.contains("releases left in this boot: 2"), "{told}");
    }
    let first = line(&hook.print(&slot));
    assert!(status(&hook).1.contains("releases left in this boot: 1"));
    assert_eq!(line(&hook.print(&slot)), first);
    let (code, told) = status(&hook);
    assert!(code == Some(2) && told.contains("gives nothing more in this boot"), "{told}");
    assert!(refused(&hook.print(&slot)).contains("gives nothing more in this boot"));

    hook.tpm.reboot();
    hook.tpm.extend(7, 0x77);
    assert_eq!(line(&hook.print(&slot)), first);
    hook.tpm.reboot();
    hook.tpm.extend(7, 0x78);
    assert!(refused(&hook.print(&slot)).contains("PCR 7 is"), "another firmware");
}

/// The secret in an index of the TPM: once in a boot, and what is left of that is told without using it up.
#[test]
fn a_hook_of_an_index_prints_once_in_a_boot() {
    let Some(mut hook) = Hook::of("tpm-nv", "releases_per_boot = 1\n") else { return };
    let slot = hook.provision("nv.slot");
    let print = |hook: &Hook| hook.ikm(&["tpm-nv", "--slot", slot.to_str().unwrap()]);
    let status = |hook: &Hook| hook.ikm(&["status", "--slot", slot.to_str().unwrap()]);
    let told = String::from_utf8(status(&hook).stdout).unwrap();
    assert!(told.contains("tpm-nv") && told.contains("releases left in this boot: 1"), "{told}");
    let first = line(&print(&hook));
    assert_eq!(status(&hook).status.code(), Some(2));
    assert!(refused(&print(&hook)).contains("was read, or closed, in this boot"));
    assert!(refused(&hook.print(&slot)).contains("run `edgekeep ikm tpm-nv`"));
    hook.tpm.reboot();
    hook.tpm.extend(7, 0x77);
    assert_eq!(line(&print(&hook)), first);
}

/// Whoever tries a hook of ours spends none of its releases, also through a script; and one release a boot is enough
/// for a device whose source it is.
#[test]
fn a_hook_of_ours_is_judged_for_nothing_and_opens_a_store_with_one_release() {
    let Some(mut hook) = Hook::new("releases_per_boot = 1\n") else { return };
    let (slot, config) = (hook.provision("one.slot"), hook.path("hook.toml"));
    let left = |hook: &Hook| {
        let output = hook.ikm(&["status", "--slot", slot.to_str().unwrap()]);
        let told = String::from_utf8(output.stdout).unwrap();
        u8::from(output.status.code() == Some(0) && told.contains("releases left in this boot: 1"))
    };
    let text = format!("#!/bin/sh\nexec {EDGEKEEP} ikm tpm --slot {} --config {}\n", slot.display(), config.display());
    let script = hook.path("hook");
    testkit::lay_program(&script, &text, 0o700);
    let named = hook.path("edgekeep-ikm");
    std::os::unix::fs::symlink(EDGEKEEP, &named).unwrap();
    let judge = |path: &Path, more: &[&str]| {
        let mut command = Command::new(EDGEKEEP);
        command.args(["ikm", "conformance"]).args(more).arg(path).env_clear();
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let variables =
        [format!("EDGEKEEP_IKM_SLOT={}", slot.display()), format!("EDGEKEEP_IKM_CONFIG={}", config.display())];
    for (path, more) in [(&script, &[][..]), (&named, &["--env", &variables[0], "--env", &variables[1]])] {
        let (code, told) = judge(path, more);
        assert!(code == Some(0) && told.contains("1 of 1; none was spent on this report"), "{told}");
        assert!(told.contains("Nothing speaks against it."), "{told}");
        assert_eq!(left(&hook), 1);
    }
    // A question that it does not know is no reason to print the key.
    let asked = hook.asked("perhaps", &slot);
    assert!(refused(&asked).contains("is no question to a hook"));
    assert_eq!(line_of(&hook.asked("status", &slot)), "edgekeep-ikm 1 counted 1 of 1");

    let mut device = crate::device::Device::with_services(&["sensor"]);
    device.replace_section("source", &format!("kind = \"exec\"\npath = {script:?}\n"));
    device.at_once = true;
    device.up();
    device.keep();
    assert_eq!(left(&hook), 0);
    assert_eq!(device.stop(), Some(0));
    device.stays_sealed("gives nothing more in this boot");
    assert_eq!(line_of(&hook.asked("status", &slot)), "edgekeep-ikm 1 counted 0 of 1");
    for _ in 0..2 {
        hook.tpm.reboot();
        hook.tpm.extend(7, 0x77);
        assert_eq!(left(&hook), 1);
        device.up();
        assert_eq!((device.kept().as_str(), left(&hook)), ("1", 0));
        assert_eq!(device.stop(), Some(0));
    }

    // Who wants to see the key itself says that it counts, and spends one.
    hook.tpm.reboot();
    hook.tpm.extend(7, 0x77);
    let (code, told) = judge(&script, &["--counts"]);
    assert!(code == Some(0) && told.contains("1 of 1, and 0 after it was run once"), "{told}");
    assert_eq!(left(&hook), 0);
}

/// A PIN that whoever starts edgekeep has, and no file.
#[test]
fn a_pin_comes_on_a_descriptor() {
    let Some(hook) = Hook::new("pin_fd = 5\n") else { return };
    let slot = hook.path("pin.slot");
    // A shell hands the read end of a pipe over as 5.
    let with = |pin: &str, arguments: &str| {
        let script = format!(
            "printf {pin} | (exec 5<&0 </dev/null; exec {EDGEKEEP} ikm {arguments} --config {})",
            hook.path("hook.toml").display()
        );
        Command::new("sh").args(["-c", &script]).env_clear().env("PATH", "/usr/bin:/bin").output().unwrap()
    };
    let made = with("1234", &format!("provision --as-hook --out {}", slot.display()));
    assert!(made.status.success(), "{made:?}");
    let print = format!("tpm --slot {}", slot.display());
    let first = line(&with("1234", &print));
    assert!(refused(&with("1235", &print)).contains("refuses the PIN"));
    assert_eq!(line(&with("1234", &print)), first);
    assert!(refused(&with("", &print)).contains("descriptor 5 cannot be used: a PIN of 1 to 255 bytes is expected"));
    let said = refused(&hook.print(&slot));
    assert!(said.contains("descriptor 5 cannot be used: nothing was handed over under this number"), "{said}");
}

/// Hook and store on one TPM: with one counter each would shut the other out, and so neither is set up like that
/// unnoticed.
#[test]
fn a_hook_and_a_store_do_not_count_by_one_register() {
    let Some(hook) = Hook::new("releases_per_boot = 2\n") else { return };
    let mut device = crate::device::Device::with_services(&["sensor"]);
    let section = |gate: u8| {
        let socket = hook.tpm.socket();
        format!("kind = \"tpm\"\ndevice = {socket:?}\npcrs = [7]\nreleases_per_boot = 2\ngate_pcr = {gate}\n")
    };
    device.replace_section("source", &section(13));
    let provision = |name: &str| {
        let mut command = Command::new(EDGEKEEP);
        command.args(["ikm", "provision", "--as-hook", "--config"]).arg(hook.path("hook.toml"));
        command.arg("--out").arg(hook.path(name)).env_clear().env("EDGEKEEP_CONFIG", device.config());
        command.stdin(Stdio::null()).output().unwrap()
    };
    let said = refused(&provision("same.slot"));
    assert!(said.contains("counts its releases by PCR 13 of the same TPM") && said.contains("gate_pcr"), "{said}");
    assert!(!hook.path("same.slot").exists());
    let check = || {
        let mut command = Command::new(EDGEKEEP);
        command.args(["up", "--check", "--config"]).arg(device.config()).env_clear();
        let output = command.env("EDGEKEEP_IKM_CONFIG", hook.path("hook.toml")).stdin(Stdio::null()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(check().contains("counts its releases by PCR 13 of the same TPM, as the store does"), "{}", check());
    let text = std::fs::read_to_string(hook.path("hook.toml")).unwrap();
    hook.write("hook.toml", &format!("{text}gate_pcr = 12\n"), 0o600);
    assert!(provision("other.slot").status.success());
    assert!(!check().contains("as the store does"));
    // And both have their own two.
    device.up();
    let print = || hook.print(&hook.path("other.slot"));
    assert_eq!(line(&print()), line(&print()));
    assert!(refused(&print()).contains("gives nothing more in this boot"));
    device.kill();
    device.up();
}

#[test]
fn only_what_was_made_for_a_hook_is_printed_and_never_on_a_terminal() {
    if testkit::is_skipped("script") {
        return;
    }
    let Some(hook) = Hook::new("") else { return };
    let said = refused(&hook.ikm(&["provision", "--out", hook.path("none").to_str().unwrap()]));
    assert!(said.contains("--as-hook") && !hook.path("none").exists(), "{said}");
    let (one, other) = (hook.provision("one.slot"), hook.provision("other.slot"));
    assert_ne!(line(&hook.print(&one)), line(&hook.print(&other)), "each file has its own");
    let again = refused(&hook.ikm(&["provision", "--as-hook", "--out", one.to_str().unwrap()]));
    assert!(again.contains("is there already"), "{again}");
    // A store's slots are none of a hook's business.
    let mut device = crate::device::Device::with_services(&["sensor"]);
    device.replace_section("source", &format!("kind = \"tpm\"\ndevice = {:?}\npcrs = [7]\n", hook.tpm.socket()));
    device.up();
    assert_eq!(device.stop(), Some(0));
    let said = refused(&hook.print(&device.data_dir().join("data/slots.a")));
    assert!(said.contains("was not made by `edgekeep ikm provision --as-hook`"), "{said}");
    // The wrong kind, and a file that somebody has changed.
    let wrong = refused(&hook.ikm(&["tang", "--slot", one.to_str().unwrap()]));
    assert!(wrong.contains("was made by a source of kind `tpm`"), "{wrong}");
    let mut bytes = std::fs::read(&one).unwrap();
    bytes[20] ^= 1;
    use host::Disk;
    host::OsDisk.replace(&one, &bytes, 0o600, None).unwrap();
    assert!(refused(&hook.print(&one)).contains("it is damaged"));

    // `script` gives it a terminal.
    let command =
        format!("{EDGEKEEP} ikm tpm --slot {} --config {}", other.display(), hook.path("hook.toml").display());
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script is missing: apt-get install bsdutils");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && shown.contains("is not shown on a terminal"), "{shown}");
    assert!(!shown.contains(&line(&hook.print(&other))));
}

/// A container made FROM scratch: the executable under the hook's name, what it is linked with, its two files, and the
/// TPM.
#[test]
fn a_container_that_has_nothing_else_runs_it() {
    let Some(hook) = Hook::new("") else { return };
    let slot = hook.provision("one.slot");
    let expected = line(&hook.print(&slot));
    let root = hook.path("root");
    for dir in ["etc/edgekeep", "proc", "tpm"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    for file in part::linked_with(Path::new(EDGEKEEP)) {
        let to = root.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        testkit::copy_program(&file, &to);
    }
    testkit::copy_program(Path::new(EDGEKEEP), &root.join("edgekeep-ikm"));
    std::fs::copy(&slot, root.join("etc/edgekeep/ikm-hook.slot")).unwrap();
    let text = "[source]\nkind = \"tpm\"\ndevice = \"/tpm/sock\"\npcrs = [7]\n";
    hook.write("root/etc/edgekeep/ikm-hook.toml", text, 0o600);
    // As container runtimes do: /proc, and the device.
    let script = "mount -t proc proc \"$0/proc\" && mount --bind \"$1\" \"$0/tpm\" && exec chroot \"$0\" /edgekeep-ikm";
    let mut container = Command::new("unshare");
    container.args(["--mount", "sh", "-c", script]).arg(&root).arg(hook.tpm.socket().parent().unwrap());
    let output =
        container.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null()).output().unwrap();
    assert_eq!(line(&output), expected);
}

/// Every kind of source behind EdgeX's hook, beside a store that has a source of that kind.
#[test]
fn each_source_is_a_hook_with_a_secret_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str, mode: u32| {
        use host::Disk;
        host::OsDisk.replace(&at(name), text.as_bytes(), mode, None).unwrap();
        at(name)
    };
    let (one, two) = ("64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80", "ab".repeat(31) + "cd");
    let script = at("vendors");
    testkit::lay_program(&script, &format!("#!/bin/sh\nprintf {one}\n"), 0o700);
    write("credential", &two, 0o600);
    let exec = format!("kind = \"exec\"\npath = {script:?}\n");
    let credential =
        format!("kind = \"credential\"\nname = \"credential\"\nform = \"hex\"\ndirectory = {:?}\n", dir.path());
    let of = |kind: &str, parts: &[&str]| {
        let parts: Vec<String> = parts.iter().map(|part| format!("[[source.part]]\n{part}")).collect();
        format!("{kind}{}", parts.concat())
    };
    let software = format!("kind = \"software\"\npath = {:?}\ndanger_software_key = true\n", at("FILE.key"));
    let holder = crate::combined::Holder::start();
    holder.admit("device-09");
    let mut sources = vec![
        ("software", software.clone()),
        ("exec", exec.clone()),
        ("credential", credential.clone()),
        ("escrow", holder.section("device-09", dir.path())),
        ("all", of("kind = \"all\"\n", &[&exec, &credential])),
        ("threshold", of("kind = \"threshold\"\nthreshold = 2\n", &[&exec, &credential, &software])),
    ];
    let tangs: Vec<testkit::Tangd> = (!is_skipped("tang")).then(testkit::Tangd::start).into_iter().collect();
    if !tangs.is_empty() {
        sources.push(("tang", crate::sources::tang_section(&tangs, 1)));
    }
    let hsm = (!is_skipped("softhsm")).then(|| testkit::SoftHsm::new("edge"));
    if let Some(hsm) = &hsm {
        crate::sources::write_pin(&at("pin"), testkit::SoftHsm::PIN);
        sources.push(("pkcs11", crate::sources::token_section(hsm, &at("pin"))));
    }
    let mut printed = vec![one.to_owned(), two.clone()];
    for (kind, section) in sources {
        // A key file is made by whoever has it, and is one slot's alone.
        let config =
            write("hook.toml", &format!("[source]\n{}", section.replace("FILE", &format!("{kind}-hook"))), 0o600);
        let ikm = |arguments: &[&str], file: &Path| {
            let mut command = Command::new(EDGEKEEP);
            command.arg("ikm").args(arguments).arg(file).arg("--config").arg(&config);
            command.env_clear().stdin(Stdio::null()).output().unwrap()
        };
        let slot = at(&format!("{kind}.slot"));
        let made = ikm(&["provision", "--as-hook", "--out"], &slot);
        assert!(made.status.success(), "{kind}: {made:?}");
        let secret = line(&ikm(&[kind, "--slot"], &slot));
        assert_eq!(line(&ikm(&[kind, "--slot"], &slot)), secret, "{kind}");
        assert!(!printed.contains(&secret), "{kind} prints what another has printed, or what its source has given");
        printed.push(secret);

        let mut device = crate::device::Device::with_services(&["sensor"]);
        device.replace_section("source", &section.replace("FILE", &format!("{kind}-store")));
        device.up();
        assert_eq!(device.stop(), Some(0));
        let said = refused(&ikm(&[kind, "--slot"], &device.data_dir().join("data/slots.a")));
        assert!(said.contains("was not made by `edgekeep ikm provision --as-hook`"), "{kind}: {said}");
    }
}

/// What a vendor sees; the reports themselves are a golden file of the seal crate.
#[test]
fn a_vendors_hook_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let judge = |name: &str, text: &str| {
        let path = dir.path().join(name);
        testkit::lay_program(&path, &format!("#!/bin/sh\n{text}\n"), 0o700);
        let mut command = Command::new(EDGEKEEP);
        command.args(["ikm", "conformance", "--runs", "2", "--env", "KEY=00112233445566778899aabbccddeeff"]).arg(&path);
        let output = command.env_clear().stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = judge("good", "printf $KEY$KEY");
    assert_eq!(code, Some(0), "{told}");
    assert!(told.ends_with("It conforms to the hook's contract.\n") && !told.contains("00112233"), "{told}");
    let (code, told) = judge("short", "printf 00");
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("BAD   32 octets or more: 1 octet"), "{told}");
}
