//! What root finds in the memory of a running device: not the keys that open all others.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use host::{Entropy, OsClock, OsDisk, OsEntropy};
use seal::{ExecSource, TpmSource};

use crate::chip::{boot, device_with_tpm, measure};
use crate::device::Device;
use crate::part;
use crate::residue::{forms, opened, opened_by};

/// Fewer bytes could be chance.
const WINDOW: usize = 16;

/// A mapping of a process, as `/proc/PID/smaps` tells it.
struct Mapping {
    from: u64,
    to: u64,
    name: String,
    flags: Vec<String>,
}

fn mappings(pid: u32) -> Vec<Mapping> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            found.last_mut().unwrap().flags = flags.split_whitespace().map(str::to_owned).collect();
        } else if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let of = |t| u64::from_str_radix(t, 16).unwrap();
            let name = line.split_whitespace().nth(5).unwrap_or_default().to_owned();
            found.push(Mapping { from: of(from), to: of(to), name, flags: Vec::new() });
        }
    }
    found
}

/// Every byte that a core dump made by root would have, and more: all that `/proc/PID/mem` gives, but for pages that
/// are those of a file and cannot be written to.
fn readable(pid: u32) -> Vec<u8> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    let of_a_file = |m: &Mapping| m.name.starts_with('/') && !m.flags.iter().any(|f| f == "wr");
    for mapping in mappings(pid).into_iter().filter(|m| !of_a_file(m)) {
        let mut page = vec![0; 4096];
        for at in (mapping.from..mapping.to).step_by(page.len()) {
            if memory.read_exact_at(&mut page, at).is_ok() && !is_empty(&page) {
                all.extend_from_slice(&page);
            }
        }
    }
    all
}

fn is_empty(page: &[u8]) -> bool {
    page.iter().all(|b| *b == 0)
}

#[test]
fn root_finds_neither_key_material_nor_root_key_in_memory() {
    if testkit::is_skipped("memfd-secret") {
        return;
    }
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let seen = readable(device.pid());
    let status = device.admin(&["doctor"]);
    device.kill();
    assert!(seen.len() > 1 << 20, "{} bytes were read", seen.len());

    holds_no_key("memory", &seen, &in_locked_pages(opened(&device)), &device.data_dir());
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(told.contains("memory: keys are in pages that root and the kernel do not read (memfd_secret)"), "{told}");
}

/// The keys that open all others, and where they come from.
fn secrets_of(device: &Device) -> Vec<(String, Vec<u8>)> {
    of_all(opened(device))
}

/// Of what was opened, the keys that open all others.
fn of_all(mut secrets: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    secrets.retain(|(what, _)| ["root key", "key material"].contains(&what.as_str()) || what.starts_with("boot/"));
    assert!(secrets.len() >= 5, "key material, root key, KEK, and the keys of CA and server are looked for");
    for (_, pkcs8) in secrets.iter_mut().filter(|(what, _)| what.ends_with("/key")) {
        // Of an ECPrivateKey (RFC 5915) the OCTET STRING of 32 bytes: the rest is public.
        let at = pkcs8.windows(2).position(|w| w == [0x04, 0x20]).expect("a private key of P-256") + 2;
        *pkcs8 = pkcs8[at..at + 32].to_vec();
    }
    secrets
}

/// Of them, those that are in pages of their own. Keys of TLS are in ordinary memory while they serve: `doctor` and
/// THREATS.md say so.
fn in_locked_pages(opened: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut secrets = of_all(opened);
    secrets.retain(|(what, _)| !what.starts_with("boot/ca") && !what.starts_with("boot/server"));
    secrets
}

/// None of the secrets has a part in `seen`, where a search finds what is there: a path that the process works with.
fn holds_no_key(what: &str, seen: &[u8], secrets: &[(String, Vec<u8>)], path: &Path) {
    assert_eq!(found_in(seen, secrets), None, "in {what}");
    let there = ("a path".to_owned(), path.to_str().unwrap().as_bytes().to_vec());
    assert!(found_in(seen, &[there]).is_some(), "{what}: {} bytes", seen.len());
}

/// Whose secret has a part in `seen`, in any of the forms that bytes are written in.
fn found_in<'a>(seen: &[u8], secrets: &'a [(String, Vec<u8>)]) -> Option<&'a str> {
    let has = |part: &[u8]| memchr::memmem::find(seen, part).is_some();
    let is_there = |secret: &[u8]| forms(secret).iter().any(|form| form.windows(WINDOW).step_by(WINDOW / 2).any(has));
    secrets.iter().find(|(_, secret)| is_there(secret)).map(|(what, _)| what.as_str())
}

/// A core of a running process as root takes it with a debugger.
fn core_of(pid: u32) -> Vec<u8> {
    let place = testkit::scratch_dir();
    let mut gcore = Command::new("gcore");
    gcore.arg("-o").arg(place.path().join("core")).arg(pid.to_string());
    part::must(&mut gcore);
    let core = std::fs::read(place.path().join(format!("core.{pid}"))).unwrap();
    core.chunks(4096).filter(|page| !is_empty(page)).flatten().copied().collect()
}

#[test]
fn a_core_taken_by_root_holds_neither_key_material_nor_root_key() {
    if testkit::is_skipped("gdb") {
        return;
    }
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let core = core_of(device.pid());
    device.kill();
    assert!(core.len() > 1 << 20, "{} bytes", core.len());
    holds_no_key("the core", &core, &in_locked_pages(opened(&device)), &device.data_dir());
}

/// Key material that comes as text through a pipe: it is in the hook's file and nowhere else.
#[test]
fn a_core_taken_by_root_holds_nothing_that_a_hook_has_printed() {
    if testkit::is_skipped("gdb") {
        return;
    }
    let place = testkit::scratch_dir();
    let hook = place.path().join("hook");
    let mut octets = [0; 32];
    OsEntropy.fill(&mut octets);
    let mut device = Device::with_services(&["sensor"]);
    testkit::lay_program(&hook, &format!("#!/bin/sh\nprintf {}\n", hex::encode(octets)), 0o700);
    device.replace_section("source", &format!("kind = \"exec\"\npath = {hook:?}\n"));
    device.up();
    let core = core_of(device.pid());
    device.kill();
    let mut source = ExecSource::new(&hook, Vec::new(), None, Arc::new(OsClock::new().unwrap()));
    let secrets = in_locked_pages(opened_by(&device, &mut source));
    assert!(secrets.contains(&("key material".to_owned(), octets.to_vec())));
    holds_no_key("the core", &core, &secrets, &device.data_dir());
}

/// Who stands beside `up`: a guard while the TPM is asked, and the keeper that has the KEK from then on.
#[test]
fn a_core_of_guard_or_keeper_taken_by_root_holds_no_key() {
    if testkit::is_skipped("gdb") || testkit::is_skipped("mounts") {
        return;
    }
    let Some((mut tpm, mut device)) = device_with_tpm("releases_per_boot = 8\n") else { return };
    device.add("[release]\nafter_close = \"keeper\"\n");
    device.up();
    assert!(device.admin(&["seal"]).status.success());
    device.kill();
    boot(&mut tpm, &mut device, 0x77, 0xbb);
    tpm.falls_asleep();
    device.start();
    part::until(|| device.beside("guard").is_some(), || device.said());
    let guard = core_of(device.beside("guard").unwrap());
    // Whoever asks while the TPM is waited for hears what is known of plan and machine.
    let told = String::from_utf8(device.admin(&["doctor"]).stdout).unwrap();
    assert!(told.starts_with("edgekeep is starting (profile production)") && told.contains("memory: "), "{told}");
    tpm.wakes_up();
    device.wait_for_gate("ready-to-run");
    let (keeper, up) = (core_of(device.beside("keeper").unwrap()), core_of(device.pid()));
    // So that nothing of this test stays behind.
    assert!(device.admin(&["seal"]).status.success());
    device.kill();
    tpm.reboot();
    measure(&tpm, 0x77, 0xbb);
    let (disk, clock) = (Arc::new(OsDisk), Arc::new(OsClock::new().unwrap()));
    let lock = device.dir().join("lock");
    let mut source = TpmSource::new(tpm.socket(), Some(13), lock, disk, clock, Arc::new(OsEntropy));
    let secrets = in_locked_pages(opened_by(&device, &mut source));
    holds_no_key("the guard", &guard, &secrets, &device.config());
    holds_no_key("the keeper", &keeper, &secrets, &device.run_dir());
    holds_no_key("up", &up, &secrets, &device.data_dir());
}

/// Everything that a first boot, a restart and a service's work write, wherever to, as the kernel is asked for it.
#[test]
fn a_trace_of_all_writes_of_two_boots_holds_no_key() {
    if testkit::is_skipped("strace") {
        return;
    }
    let mut device = Device::with_services(&["sensor"]);
    let place = testkit::scratch_dir();
    let trace = place.path().join("trace");
    device.traced_to(&trace);
    for _ in 0..2 {
        device.up();
        let output = device.as_service("sensor", &["kv", "put", "secret/edgex/sensor/kept", "n=1"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(device.stop_behind(), Some(0));
    }
    let (mut seen, mut keys) = (Vec::new(), 0);
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        let (call, strings) = line.split_once('"').unwrap_or((line, ""));
        // The key file of the software source is the key: that is what it is.
        if bytes_of(call).windows(10).any(|w| w == b"device.key") {
            keys += 1;
            continue;
        }
        // Strings of one call stand side by side, as its buffers do.
        strings.split('"').step_by(2).for_each(|text| seen.extend(bytes_of(text)));
    }
    assert!(seen.len() > 200_000 && keys > 0, "{} bytes were written, {keys} calls wrote the key file", seen.len());
    assert_eq!(found_in(&seen, &secrets_of(&device)), None);
    // The search finds what is there: the token, in its file on the tmpfs.
    let token = ("token".to_owned(), device.token("sensor").into_bytes());
    assert!(found_in(&seen, &[token]).is_some());
}

/// The bytes that a text of `\xHH` stands for; whatever else is in it is left out.
fn bytes_of(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1).filter_map(|rest| rest.get(..2));
    digits.filter_map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
}

#[test]
fn pages_of_keys_are_neither_dumped_nor_inherited_nor_swapped() {
    if testkit::is_skipped("memfd-secret") {
        return;
    }
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let secret: Vec<Mapping> = mappings(device.pid()).into_iter().filter(|m| m.name.contains("secretmem")).collect();
    device.kill();
    assert!(
        !secret.is_empty(),
        "no memfd_secret(2) (before Linux 6.5 secretmem.enable=1): EDGEKEEP_TEST_SKIP=memfd-secret"
    );
    for mapping in secret {
        for flag in ["dd", "dc", "lo"] {
            assert!(mapping.flags.iter().any(|f| f == flag), "{flag} is missing of {:?}", mapping.flags);
        }
    }
}
