//! Bad configurations, bad hooks, bad disks: two lines that say what happened and what to do, the right exit code,
//! nothing half-written, nothing lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::device::Device;
use crate::part::{self, Mount};

/// A part of a configuration, and what must be said of it.
const CONFIGURATIONS: [(&str, &str); 10] = [
    ("[[service]\nname = \"a\"\n", "not TOML"),
    ("[[service]]\nname = \"a\"\n[telemetry]\n", "telemetry"),
    ("[[service]]\nname = \"a\"\nmodus = \"0400\"\n", "unknown key \"modus\""),
    ("[[service]]\nname = \"..\"\n", "\"..\""),
    ("[[service]]\nname = \"a/b\"\n", "the character '/'"),
    ("[[service]]\nname = \"a\\u0007b\"\n", "the character '\\u{7}'"),
    ("[[service]]\nname = \"a123456789a123456789a123456789a123456789a123456789a123456789a1234\"\n", "1 to 64"),
    ("[[service]]\nname = \"\"\n", "1 to 64"),
    ("[[service]]\nname = \"a\"\n[[service]]\nname = \"a\"\n", "the service a is there twice"),
    ("[[service]]\nname = \"a\"\nname = \"b\"\n", "not TOML"),
];

/// The same for a file of EdgeX's.
const EDGEX_FILES: [(&str, &str, &str); 8] = [
    ("token_config", "{\"core-data\": ", "not JSON"),
    ("token_config", "[]", "token-config.json"),
    ("token_config", "{\"core-data\": {\"edgex_use_default\": true}}", "edgex_use_default"),
    ("token_config", "{\"core-data\": {\"edgex_use_defaults\": true}, \"core-data\": {}}", "core-data"),
    ("token_config", "{\"../core-data\": {\"edgex_use_defaults\": true}}", "the character '/'"),
    ("token_config", "{\"core\\u0000data\": {\"edgex_use_defaults\": true}}", "the character '\\u{0}'"),
    ("secretstore_setup", "SecretStore:\n  RevokeRootTokens: [\n", "not YAML"),
    ("secretstore_setup", "SecretStore:\n  Shares: 5\n", "unknown key \"Shares\""),
];

#[test]
fn a_faulty_configuration_does_nothing() {
    for (sections, told) in CONFIGURATIONS {
        is_refused(&Device::new(sections), "edgekeep.toml:", told);
    }
}

#[test]
fn a_faulty_file_of_edgexs_does_nothing() {
    for (key, text, told) in EDGEX_FILES {
        let device = Device::new("");
        let name = if key == "token_config" { "token-config.json" } else { "configuration.yaml" };
        let file = device.dir().join(name);
        put(&file, text);
        device.add(&format!("[edgex]\n{key} = {file:?}\n"));
        is_refused(&device, name, told);
    }
}

fn is_refused(device: &Device, place: &str, told: &str) {
    let (code, said) = device.ends();
    assert_eq!(code, Some(64), "{told}: {said}");
    assert!(said.contains(place) && said.contains(told), "wanted {told:?} with {place:?}: {said}");
    let last: Vec<&str> = said.lines().rev().take(2).collect();
    assert!(last[0].starts_with(" hint: ") && last[1].ends_with("in the configuration; nothing was done"), "{said}");
    // Every fault is two lines as well: where and what, and the remedy.
    assert_eq!(said.lines().filter(|l| l.starts_with(" hint: ")).count() * 2, said.lines().count(), "{said}");
    assert!(!device.data_dir().exists() && !device.run_dir().exists(), "{told}: something was made");
}

/// With a store of its own, in the run directory of one that runs: the demo does so, and a factory's `provision` by
/// slip.
#[test]
fn a_second_edgekeep_takes_neither_gates_nor_tokens_from_the_first() {
    let mut first = Device::with_services(&["sensor"]);
    first.up();
    let token = first.token("sensor");
    let second = Device::with_services(&["sensor"]);
    second.set("run_dir", &format!("{:?}", first.run_dir()));
    let (code, said) = second.ends();
    assert!(
        code == Some(2) && said.contains("held by another edgekeep") && said.contains("run_dir"),
        "{code:?} {said}"
    );
    let output = second.edgekeep().args(["provision", "--answers"]).arg(second.config()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(first.wait(&["--gate", "ready-to-run", "--timeout", "0"]).0, Some(0));
    assert_eq!(first.token("sensor"), token);
}

/// What a hook's script does, and what must be said of it.
const HOOKS: [(&str, &str); 6] = [
    ("exec yes 0123456789abcdef", "more than"),
    ("echo the card is broken >&2; exit 3", "exit status: 3"),
    ("echo this is no key", "is not key material"),
    ("exit 0", "is not key material"),
    ("printf %064d 0", "gave no usable key material"),
    ("printf %040d 123", "gave no usable key material"),
];

/// At a first boot nothing is left but the lock, and the device is sealed: code 2.
#[test]
fn a_bad_hook_makes_nothing() {
    for (script, told) in HOOKS {
        let device = with_hook(script, 0o700);
        hook_is_refused(&device, told);
    }
    let hangs = with_hook("sleep 100 & sleep 100", 0o700);
    allow(&hangs, "1s");
    hook_is_refused(&hangs, "did not finish within 1s");
    hook_is_refused(&with_hook("printf %064d 123", 0o777), "others may write to it");
    let device = with_hook("", 0o700);
    part::must(Command::new("rm").arg(device.dir().join("hook")));
    hook_is_refused(&device, "hook is not there");
}

/// At a later boot it stays sealed, and waits for a person; with the hook mended nothing is lost.
#[test]
fn a_hook_that_goes_bad_loses_nothing() {
    let good = "echo 64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";
    let mut device = with_hook(good, 0o700);
    device.up();
    let put = device.as_service("sensor", &["kv", "put", "secret/edgex/sensor/a", "x=1"]);
    assert!(put.status.success(), "{put:?}");
    assert_eq!(device.stop(), Some(0));
    let another = good.replace("64ac", "64ad");
    for (script, told) in [("echo junk", "is not key material"), (&another, "was made with other key material")] {
        hook(&device, script, 0o700);
        let lines = device.up_until("edgekeep stays sealed; the admin socket takes `edgekeep recover`");
        assert!(lines.contains(told) && lines.contains(" hint: "), "{lines}");
        assert_eq!(device.wait(&["--gate", "ready-to-run", "--timeout", "0"]).0, Some(2), "no gate is open");
        assert_eq!(device.stop(), Some(0), "it was told to end");
    }
    hook(&device, good, 0o700);
    device.up();
    assert_eq!(device.field("sensor", "secret/edgex/sensor/a", "x"), "1");
}

fn with_hook(script: &str, mode: u32) -> Device {
    let device = Device::new("[[service]]\nname = \"sensor\"\n");
    hook(&device, script, mode);
    allow(&device, "60s");
    device
}

/// Sets how long the hook may take.
fn allow(device: &Device, deadline: &str) {
    let path = device.dir().join("hook");
    device.replace_section("source", &format!("kind = \"exec\"\npath = {path:?}\ndeadline = {deadline:?}\n"));
}

fn hook(device: &Device, script: &str, mode: u32) {
    let path = device.dir().join("hook");
    testkit::lay_program(&path, &format!("#!/bin/sh\n{script}\n"), mode);
}

fn hook_is_refused(device: &Device, told: &str) {
    let (code, said) = device.ends();
    assert_eq!(code, Some(2), "{told}: {said}");
    assert!(said.starts_with("error: edgekeep is sealed: ") && said.contains(told), "wanted {told:?}: {said}");
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(names(&device.data_dir()), ["lock"], "{told}: something was left");
}

/// A data directory that cannot be written, and a run directory that cannot.
#[test]
fn an_unwritable_directory_is_named() {
    if part::is_skipped("mounts") {
        return;
    }
    for (key, expected) in [("data_dir", 2), ("run_dir", 64)] {
        let device = Device::new("[[service]]\nname = \"sensor\"\n");
        let mount = Mount::new(&device.dir().join("closed"), "ro");
        device.set(key, &format!("{:?}", mount.path().join("edgekeep")));
        let (code, said) = device.ends();
        assert_eq!((code, said.lines().count()), (Some(expected), 2), "{said}");
        assert!(
            said.contains("closed") && said.contains("Read-only file system") && said.contains(" hint: "),
            "{said}"
        );
        assert_eq!(names(mount.path()), [""; 0]);
    }
}

/// A first boot on a disk without room makes nothing. A disk that fills up under a running device takes no more, and
/// loses nothing; with room again it goes on.
#[test]
fn a_full_disk_loses_nothing() {
    if part::is_skipped("mounts") {
        return;
    }
    let mut device = Device::new("[[service]]\nname = \"sensor\"\n[audit]\nsegments = 3\nsegment_kib = 512\n");
    let small = Mount::new(&device.dir().join("small"), "size=256k");
    device.set("data_dir", &format!("{:?}", small.path().join("edgekeep")));
    let (code, said) = device.ends();
    assert_eq!((code, said.lines().count()), (Some(2), 2), "{said}");
    assert!(said.contains("No space left on device") && said.contains("room"), "{said}");
    assert_eq!(names(&small.path().join("edgekeep")), ["lock"], "half a device is left");
    assert!(!device.dir().join("device.key").exists(), "and the key that was made for it");

    let disk = Mount::new(&device.dir().join("disk"), "size=16m");
    device.set("data_dir", &format!("{:?}", disk.path().join("edgekeep")));
    device.up();
    let write = |n: usize| {
        let data = format!("x={}", n.to_string().repeat(20_000 / n.to_string().len()));
        device.as_service("sensor", &["kv", "put", &format!("secret/edgex/sensor/{n}"), &data])
    };
    (1..20).for_each(|n| assert!(write(n).status.success()));
    fill(&disk.path().join("filler"));
    let refused = (20..200).find(|n| !write(*n).status.success()).expect("the disk is full");
    let said = String::from_utf8(write(refused).stderr).unwrap();
    assert!(said.starts_with("error: ") && said.contains(" hint: "), "{said}");
    // What was told is there; a new gate is not shut by it.
    for n in 1..refused {
        let path = format!("secret/edgex/sensor/{n}");
        assert!(device.field("sensor", &path, "x").starts_with(&n.to_string()), "{n} of {refused}");
    }
    assert_eq!(device.wait(&["--gate", "ready-to-run", "--timeout", "0"]).0, Some(0));
    // What takes away needs no room, not even after a restart: a token of whoever has filled the disk is ended.
    let delete = |device: &Device, n: usize| {
        let deleted = device.as_service("sensor", &["kv", "delete", &format!("secret/edgex/sensor/{n}")]);
        assert!(deleted.status.success(), "{n}: {}", String::from_utf8_lossy(&deleted.stderr));
    };
    (2..10).for_each(|n| delete(&device, n));
    device.kill();
    device.up();
    (10..refused).for_each(|n| delete(&device, n));
    let gone = device.as_service("sensor", &["token", "revoke", "-self"]);
    assert!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
    device.kill();
    // Room again: it starts, and takes writes.
    part::must(Command::new("rm").arg(disk.path().join("filler")));
    device.up();
    let write = |n: usize| device.as_service("sensor", &["kv", "put", &format!("secret/edgex/sensor/{n}"), "x=again"]);
    assert!(write(refused).status.success());
    assert!(device.field("sensor", "secret/edgex/sensor/1", "x").starts_with('1'));
    for n in 2..refused {
        let read = device.as_service("sensor", &["kv", "get", "-field=x", &format!("secret/edgex/sensor/{n}")]);
        assert!(!read.status.success(), "{n} of {refused} was deleted");
    }
}

/// A disk that somebody has filled while edgekeep was down: SQLite finds no room for the files that it begins with, and
/// has the reserve's.
#[test]
fn a_store_that_was_closed_opens_on_a_full_disk() {
    if part::is_skipped("mounts") {
        return;
    }
    let mut device = Device::new("[[service]]\nname = \"sensor\"\n[audit]\nsegments = 3\nsegment_kib = 512\n");
    let disk = Mount::new(&device.dir().join("disk"), "size=16m");
    let data_dir = disk.path().join("edgekeep");
    device.set("data_dir", &format!("{data_dir:?}"));
    device.up();
    device.keep();
    assert_eq!(device.stop(), Some(0));
    assert!(!data_dir.join("data/store.db-shm").exists(), "closed cleanly");
    fill(&disk.path().join("filler"));
    device.up();
    assert_eq!(device.kept(), "1");
    let put = || device.as_service("sensor", &["kv", "put", "secret/edgex/sensor/more", "x=1"]);
    assert!(!put().status.success(), "what the reserve left is for removals");
    part::must(Command::new("rm").arg(disk.path().join("filler")));
    assert!(put().status.success());
}

/// Every non-empty proper subset of the state's parts is deleted: a missing slot copy is healed, everything else is
/// told by its name, with a code and a remedy, and not a byte of what is left changes.
#[test]
fn every_deleted_subset_is_told_and_nothing_is_lost() {
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    assert_eq!(device.stop(), Some(0));
    let whole = device.dir().join("whole");
    part::must(Command::new("cp").arg("-a").arg(device.data_dir()).arg(&whole));
    let parts = ["slots.a", "slots.b", "store.db", "audit"];
    for bits in 1u8..15 {
        part::must(Command::new("rm").arg("-rf").arg(device.data_dir()));
        part::must(Command::new("cp").arg("-a").arg(&whole).arg(device.data_dir()));
        let gone: Vec<&str> = (0..4).filter(|i| bits & (1 << i) != 0).map(|i| parts[i]).collect();
        for name in &gone {
            part::must(Command::new("rm").arg("-r").arg(device.data_dir().join("data").join(name)));
        }
        if let ["slots.a"] | ["slots.b"] = gone[..] {
            device.up();
            assert_eq!(device.stop(), Some(0));
            let copy = |name: &str| std::fs::read(device.data_dir().join("data").join(name)).unwrap();
            assert_eq!(copy("slots.a"), copy("slots.b"), "healed");
            continue;
        }
        let told = match (gone.contains(&"slots.a") && gone.contains(&"slots.b"), gone.contains(&"store.db")) {
            (false, false) => "the audit ring is missing",
            (false, true) => "store.db is missing",
            (true, false) => "slots.a and slots.b are missing",
            (true, true) => "slots and store are missing",
        };
        let before = contents(&device.data_dir());
        let (code, said) = device.ends();
        assert_eq!((code, said.lines().count()), (Some(2), 2), "{gone:?}: {said}");
        assert!(said.contains(told) && said.contains("reprovision --destroys-all-secrets"), "{gone:?}: {said}");
        assert!(contents(&device.data_dir()) == before, "{gone:?}: something was made, changed or removed");
    }
}

/// A gate that nobody planned, somebody else at the socket, an edgekeep that is not there: three codes, and words for
/// each.
#[test]
fn waiting_in_vain_has_a_reason() {
    if testkit::is_skipped("python3") {
        return;
    }
    let mut device = Device::with_services(&["sensor"]);
    let (code, said) = device.wait(&["--gate", "ready-to-run", "--timeout", "0"]);
    assert_eq!((code, said.lines().count()), (Some(2), 2), "{said}");
    device.up();
    let (code, said) = device.wait(&["--gate", "reddy-to-run"]);
    assert_eq!((code, said.lines().count()), (Some(64), 2), "{said}");
    // A service that expects edgekeep to run as another user meets whoever has taken its socket.
    let socket = device.dir().join("taken.sock");
    let mut squatter = part::squatter(&socket);
    let (code, said) = device.wait(&["--gate", "ready-to-run", "--socket", socket.to_str().unwrap()]);
    squatter.kill().unwrap();
    squatter.wait().unwrap();
    assert_eq!((code, said.lines().count()), (Some(1), 2), "{said}");
    assert!(said.contains("uid 4242"), "{said}");
}

/// Every file below a directory with its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Takes all room that is left.
fn fill(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::options().create_new(true).write(true).open(path).unwrap();
    for size in [1 << 16, 1 << 12] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[allow(clippy::disallowed_methods)]
fn put(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
