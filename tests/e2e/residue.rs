//! What is left on disks, in core dumps and in output: nothing that is secret.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use host::{OsClock, OsDisk, OsEntropy, WallTime};
use seal::{Deadline, HOOK_LIMIT, KeySource, RecoveryKey, SlotFiles, SoftwareSource};
use store::{Store, StoreConfig, StorePath};

use crate::device::Device;
use crate::part;

/// Bytes of a secret that must not be found: fewer could be chance, more could miss a part.
const WINDOW: usize = 20;

/// Root key, keys of the CA and the server, service tokens and generated credentials are looked for in every persistent
/// byte, free pages and write-ahead log included, after a kill. The store's own values come from opening a copy of it.
#[test]
fn no_secret_is_on_any_disk() {
    let mut device = Device::edgex();
    device.up();
    for service in ["core-data", "ui"] {
        let output = device
            .as_service(service, &["kv", "put", &format!("secret/edgex/{service}/own"), "k=hush-hush-hush-hush-hush"]);
        assert!(output.status.success(), "{output:?}");
    }
    let tokens: Vec<String> = ["core-data", "ui", "security-proxy-auth"].map(|s| device.token(s)).to_vec();
    device.kill();

    let mut secrets: Vec<(String, Vec<u8>)> =
        tokens.iter().enumerate().map(|(n, t)| (format!("token {n}"), t.clone().into_bytes())).collect();
    secrets.extend(opened(&device));
    let found_kinds: HashSet<&str> = secrets.iter().map(|(what, _)| what.split(' ').next().unwrap()).collect();
    for kind in ["token", "root", "boot/ca", "boot/server", "kv", "password"] {
        assert!(found_kinds.contains(kind), "no {kind} among what is looked for: {found_kinds:?}");
    }

    // Each secret as it is, in hexadecimal and in base64: all windows of it.
    let mut windows: HashSet<&[u8]> = HashSet::new();
    let written: Vec<Vec<u8>> = secrets.iter().flat_map(|(_, s)| forms(s)).collect();
    for form in &written {
        windows.extend(form.windows(WINDOW));
    }
    let mut searched = 0;
    for file in files_below(device.dir()) {
        // The key file of the software source is the key: that is what it is, and what THREATS.md says of it.
        if file.ends_with("device.key") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        searched += bytes.len();
        if let Some(at) = bytes.windows(WINDOW).position(|w| w[0] != 0 && windows.contains(w)) {
            let window = &bytes[at..at + WINDOW];
            let whose = secrets.iter().find(|(_, s)| forms(s).iter().any(|f| f.windows(WINDOW).any(|w| w == window)));
            panic!("{} is in {} at {at}", whose.map_or("a secret", |(what, _)| what), file.display());
        }
    }
    assert!(searched > 1 << 20, "{searched} bytes searched");
    // The search finds what is there: the tokens, in their files on the tmpfs.
    let delivered: Vec<PathBuf> = files_below(&device.secrets_dir());
    assert!(delivered.iter().any(|f| std::fs::read(f).unwrap().windows(WINDOW).any(|w| windows.contains(w))));
}

/// A crash of the process writes no core file, even where the shell would allow one of any size.
#[test]
fn a_crash_leaves_no_core() {
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", device.pid())).unwrap();
    let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    // Not SIGSEGV: the runtime looks at that one for stack overflows and lets it pass.
    // Not dumpable: the kernel gives the process's files in /proc to root alone, and nobody may attach to it.
    part::must(Command::new("kill").args(["-ABRT", &device.pid().to_string()]));
    let status = device.ended();
    assert!(!status.contains("core dumped"), "{status}");
}

/// With the recovery key going to a file on another disk, no word of the output of an unattended first boot holds it.
#[test]
fn an_unattended_first_boot_never_shows_the_recovery_key() {
    let elsewhere = tempfile::Builder::new().prefix("edgekeep-e2e-").tempdir_in("/dev/shm").unwrap();
    let file = elsewhere.path().join("recovery.key");
    let mut device = Device::new("[[service]]\nname = \"sensor\"\n");
    device.recover_to(&file);
    device.up();
    let key = std::fs::read_to_string(&file).unwrap();
    let key = key.lines().map(str::trim).find(|l| l.starts_with("ekr1")).expect("the file has the key").to_owned();
    device.kill();
    let (_, groups) = key.split_once('-').unwrap();
    let joined = groups.replace('-', "");
    assert!(joined.len() > 50, "a key of several groups: {} bytes", key.len());
    let mut raw = Vec::new();
    RecoveryKey::parse(&key).unwrap().ikm().unwrap().hand_over(&mut raw).unwrap();
    // Two groups and more: single ones of four letters are found in any log by chance, in one run of a hundred.
    let parts = |text: &str, length| text.as_bytes().windows(length).map(<[u8]>::to_vec).collect::<HashSet<_>>();
    let mut sought = vec![(9, parts(groups, 9)), (8, parts(&joined, 8))];
    let whole: HashSet<_> = forms(&raw[2..]).iter().flat_map(|form| form.windows(WINDOW)).map(<[u8]>::to_vec).collect();
    sought.push((WINDOW, whole));
    // Most of the files is zeros.
    let found =
        |bytes: &[u8]| sought.iter().any(|(n, parts)| bytes.windows(*n).any(|w| w[0] != 0 && parts.contains(w)));
    assert!(found(&std::fs::read(&file).unwrap()), "the search finds what is there");
    for file in files_below(device.dir()).into_iter().chain(files_below(&device.run_dir())) {
        let bytes = std::fs::read(&file).unwrap_or_default();
        assert!(!found(&bytes), "a part of the recovery key is in {}", file.display());
    }
}

/// The secrets of a copy of the device's store, opened as the device would by the key in its file.
pub(crate) fn opened(device: &Device) -> Vec<(String, Vec<u8>)> {
    let file = device.dir().join("device.key");
    opened_by(device, &mut SoftwareSource::new(file, Arc::new(OsDisk), Arc::new(OsEntropy)))
}

/// The same by another source; what it gives is among them.
pub(crate) fn opened_by(device: &Device, source: &mut dyn KeySource) -> Vec<(String, Vec<u8>)> {
    let copy = tempfile::tempdir().unwrap();
    let dir = copy.path().join("data");
    part::must(Command::new("cp").arg("-a").arg(device.data_dir().join("data")).arg(&dir));
    let (clock, entropy, disk) = (Arc::new(OsClock::new().unwrap()), Arc::new(OsEntropy), Arc::new(OsDisk));
    let found = SlotFiles::new(&*disk, &dir).read().unwrap();
    let public = found.set.slots_of(source.kind()).next().unwrap().public().clone();
    let released = source.release(&public, &seal::NoAuth, Deadline::after(&*clock, HOOK_LIMIT)).unwrap();
    let mut handed = Vec::new();
    released.ikm.hand_over(&mut handed).unwrap();
    let unlocked = found.set.unlock(source.kind(), released.ikm).unwrap();
    // Behind its length.
    let mut secrets = vec![("key material".to_owned(), handed.split_off(2))];
    secrets.push(("root key".to_owned(), unlocked.root.expose().to_vec()));
    let config = StoreConfig::new(dir.join("store.db"), disk, clock, entropy, WallTime(0));
    let store = Store::open(&config, &unlocked.root, unlocked.header().store.0).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut open = vec![Vec::<String>::new()];
    while let Some(dir) = open.pop() {
        for name in runtime.block_on(store.list(&StorePath::new(dir.clone()).unwrap())).unwrap() {
            let mut path = dir.clone();
            path.push(name.trim_end_matches('/').to_owned());
            if name.ends_with('/') {
                open.push(path);
                continue;
            }
            let entry = runtime.block_on(store.get(&StorePath::new(path.clone()).unwrap())).unwrap().unwrap();
            let value = entry.value.expose();
            let whole = path.join("/");
            if whole.starts_with("boot/kek") || ["boot/ca/key", "boot/server/key"].contains(&whole.as_str()) {
                let kind = path[..2].join("/");
                secrets.push((format!("{kind} {whole}"), value.to_vec()));
            } else if whole.starts_with("mnt/") && whole.ends_with("/own") {
                secrets.push((format!("kv {whole}"), value.to_vec()));
            } else if let Some(at) = value.iter().position(|b| *b == b'{')
                && let Ok(json) = serde_json::from_slice::<serde_json::Value>(&value[at..])
                && whole.starts_with("mnt/")
                && let Some(password) = json["password"].as_str()
            {
                secrets.push((format!("password {whole}"), password.as_bytes().to_vec()));
            }
        }
    }
    store.close();
    secrets
}

/// The secret itself, and as people and programs write bytes: in base64 wherever it begins among the bytes of something
/// longer.
pub(crate) fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    use base64::Engine;
    let standard = base64::engine::general_purpose::STANDARD_NO_PAD;
    // Characters that have a bit of what stands before, or behind, are not the secret's alone.
    let within = |before: usize| {
        let text = standard.encode([&vec![0; before], secret].concat()).into_bytes();
        text[(before * 8).div_ceil(6)..text.len() - 1].to_vec()
    };
    vec![secret.to_vec(), hex::encode(secret).into_bytes(), hex::encode_upper(secret).into_bytes()]
        .into_iter()
        .chain((0..3).map(within))
        .collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return files };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}
