//! A factory's line: twenty devices, each with a TPM of its own, provisioned by the script that the manual shows.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use testkit::{Swtpm, is_skipped};

use crate::device::EDGEKEEP;

/// Somebody's public key; nothing here is opened again.
const RECIPIENT: &str = "age1c334ulqmge6am09amvevmk3n8tg8r4wwn4hurp2x8w4wk7vsk95sz4z3s6";

/// A place for the devices of a line: their disks, and their memory.
struct Line {
    disks: tempfile::TempDir,
    memory: tempfile::TempDir,
}

impl Line {
    fn new() -> Self {
        let disks = tempfile::tempdir().unwrap();
        for dir in ["answers", "bin"] {
            std::fs::create_dir(disks.path().join(dir)).unwrap();
        }
        std::os::unix::fs::symlink(EDGEKEEP, disks.path().join("bin/edgekeep")).unwrap();
        let memory = tempfile::Builder::new().prefix("edgekeep-e2e-").tempdir_in("/dev/shm").unwrap();
        Self { disks, memory }
    }

    fn answers(&self, device: &str, source: &str, recovery: &str) {
        let (disk, memory) = (self.disks.path().join(device), self.memory.path().join(device));
        let text = format!(
            "data_dir = {disk:?}\nrun_dir = {memory:?}\n[source]\n{source}[recovery]\n{recovery}\n[[service]]\nname = \"sensor\"\n"
        );
        let file = self.disks.path().join(format!("answers/{device}.toml"));
        #[allow(clippy::disallowed_methods)]
        std::fs::write(file, text).unwrap();
    }

    fn run(&self, script: &str) -> Output {
        let path = format!("{}:/usr/bin:/bin", self.disks.path().join("bin").display());
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(self.disks.path()).env_clear().env("PATH", path);
        shell.stdin(Stdio::null()).output().unwrap()
    }

    fn record(&self, device: &str) -> Value {
        let text = std::fs::read(self.disks.path().join(format!("records/{device}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// The script of docs/hardware.md.
fn script() -> &'static str {
    let manual = include_str!("../../docs/hardware.md");
    let (_, after) = manual.split_once("```sh\n# provision.sh").expect("the manual has the script");
    after.split_once("```").unwrap().0
}

#[test]
fn twenty_devices_are_provisioned_by_the_manuals_script() {
    if is_skipped("swtpm") {
        return;
    }
    let line = Line::new();
    let tpms: Vec<Swtpm> = (0..20).map(|_| Swtpm::start()).collect();
    let names: Vec<String> = (0..20).map(|n| format!("device-{n:04}")).collect();
    for (name, tpm) in names.iter().zip(&tpms) {
        tpm.extend(7, 0x77);
        let source = format!("kind = \"tpm\"\ndevice = {:?}\nreleases_per_boot = 3\n", tpm.socket());
        line.answers(name, &source, &format!("age = [\"{RECIPIENT}\"]"));
    }
    let output = line.run(script());
    assert!(output.status.success(), "{output:?}");

    let mut seen: [BTreeSet<String>; 3] = Default::default();
    for name in &names {
        let record = line.record(name);
        let storage_key =
            &record["slots"][0]["facts"].as_array().unwrap().iter().find(|f| f[0] == "storage key").unwrap()[1];
        for (set, value) in seen.iter_mut().zip([&record["store"], &record["ca"], storage_key]) {
            set.insert(value.as_str().unwrap().to_owned());
        }
        let blob = std::fs::read(record["recovery"].as_str().unwrap()).unwrap();
        assert!(blob.starts_with(b"age-encryption.org/v1"), "the fleet's owner can open it");
    }
    assert_eq!(seen.map(|set| set.len()), [20; 3], "no two devices share a store, a CA or a TPM");
    is_golden(&line.record("device-0007"), line.disks.path());

    // Once more: each is refused, and keeps its record.
    let again = line.run(script());
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("this device was provisioned"));
    assert_eq!(line.record("device-0007")["format"], 1);
}

/// The record with everything in it that is one device's own struck out.
fn is_golden(record: &Value, root: &Path) {
    let mut text = serde_json::to_string_pretty(record).unwrap().replace(root.to_str().unwrap(), "");
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let own: BTreeSet<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| w.len() >= 16 && w.chars().all(hex))
        .map(str::to_owned)
        .collect();
    for word in own {
        text = text.replace(&word, &format!("<{} digits>", word.len()));
    }
    // Not every machine says both of itself.
    for own in ["hardware", "system"] {
        for said in ["null", "\"<64 digits>\""] {
            text = text.replace(&format!("\"{own}\": {said}"), &format!("\"{own}\": \"<64 digits, or null>\""));
        }
    }
    for fact in record["slots"][0]["facts"].as_array().unwrap() {
        // The TPM's socket has a name of its own.
        if fact[0] == "tpm" {
            text = text.replace(fact[1].as_str().unwrap(), "/dev/tpmrm0");
        }
    }
    // An index has a free number of the TPM's.
    if let Some(at) = text.find("0x0180ed") {
        text.replace_range(at + 8..at + 10, "NN");
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli/provision.json");
    if std::env::var_os("EDGEKEEP_BLESS").is_some() {
        #[allow(clippy::disallowed_methods)]
        std::fs::write(&golden, text.clone() + "\n").unwrap();
    }
    assert_eq!(text + "\n", std::fs::read_to_string(&golden).unwrap(), "EDGEKEEP_BLESS=1 writes it anew");
}

#[test]
fn nobody_is_asked_and_nothing_is_half_made() {
    let line = Line::new();
    let source =
        format!("kind = \"software\"\npath = {:?}\ndanger_software_key = true\n", line.disks.path().join("key"));
    line.answers("terminal", &source, "terminal = true");
    let output = line.run("edgekeep provision --answers answers/terminal.toml");
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    line.answers("hook", "kind = \"exec\"\npath = \"/nonexistent/hook\"\n", "none = true");
    let output = line.run("edgekeep provision --answers answers/hook.toml");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty() && !line.disks.path().join("hook/data").exists());
    line.answers("good", &source, "none = true");
    let output =
        line.run("edgekeep provision --answers answers/good.toml && edgekeep generalize --config answers/good.toml");
    assert_eq!(output.status.code(), Some(64), "it is not said that everything goes: {output:?}");
    assert!(line.disks.path().join("good/data/slots.a").exists());
    let output = line.run("edgekeep generalize --destroys-all-secrets --config answers/good.toml");
    assert!(output.status.success(), "{output:?}");
    assert!(!line.disks.path().join("good/data").exists() && !line.disks.path().join("key").exists());
}
