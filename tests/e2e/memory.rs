//! What root finds in the memory of a running device: not the keys that open all others.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::device::Device;
use crate::part;
use crate::residue::{forms, opened};

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

/// Every byte that a core dump made by root would have, and more: all that `/proc/PID/mem` gives, but for pages that are those of a file
/// and cannot be written to.
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
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let seen = readable(device.pid());
    let status = device.admin(&["doctor"]);
    device.kill();
    assert!(seen.len() > 1 << 20, "{} bytes were read", seen.len());

    let mut secrets = secrets_of(&device);
    secrets.retain(|(what, _)| !what.starts_with("boot/ca") && !what.starts_with("boot/server"));
    assert_eq!(found_in(&seen, &secrets), None, "in memory");
    // The search finds what is there.
    let there = ("a path".to_owned(), device.data_dir().to_str().unwrap().as_bytes().to_vec());
    assert!(found_in(&seen, &[there]).is_some());
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(told.contains("memory: keys are in pages that root and the kernel do not read (memfd_secret)"), "{told}");
}

/// The keys that open all others, and where they come from.
fn secrets_of(device: &Device) -> Vec<(String, Vec<u8>)> {
    let mut secrets = opened(device);
    secrets.retain(|(what, _)| what == "root key" || what.starts_with("boot/"));
    assert!(secrets.len() >= 4, "root key, KEK, and the keys of CA and server are looked for");
    for (_, pkcs8) in secrets.iter_mut().filter(|(what, _)| what.ends_with("/key")) {
        // Of an ECPrivateKey (RFC 5915) the OCTET STRING of 32 bytes: the rest is public.
        let at = pkcs8.windows(2).position(|w| w == [0x04, 0x20]).expect("a private key of P-256") + 2;
        *pkcs8 = pkcs8[at..at + 32].to_vec();
    }
    let file = std::fs::read(device.dir().join("device.key")).unwrap();
    secrets.push(("key material".to_owned(), file[file.len() - 32..].to_vec()));
    secrets
}

/// Whose secret has a part in `seen`, in any of the forms that bytes are written in.
fn found_in<'a>(seen: &[u8], secrets: &'a [(String, Vec<u8>)]) -> Option<&'a str> {
    let has = |part: &[u8]| memchr::memmem::find(seen, part).is_some();
    let is_there = |secret: &[u8]| forms(secret).iter().any(|form| form.windows(WINDOW).step_by(WINDOW / 2).any(has));
    secrets.iter().find(|(_, secret)| is_there(secret)).map(|(what, _)| what.as_str())
}

/// A core of the running device as root takes it with a debugger.
#[test]
fn a_core_taken_by_root_holds_neither_key_material_nor_root_key() {
    if testkit::is_skipped("gdb") {
        return;
    }
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let place = testkit::scratch_dir();
    let mut gcore = Command::new("gcore");
    gcore.arg("-o").arg(place.path().join("core")).arg(device.pid().to_string());
    part::must(&mut gcore);
    let core = std::fs::read(place.path().join(format!("core.{}", device.pid()))).unwrap();
    let core: Vec<u8> = core.chunks(4096).filter(|page| !is_empty(page)).flatten().copied().collect();
    device.kill();
    let mut secrets = secrets_of(&device);
    // Keys of TLS are in ordinary memory while they serve: `doctor` and THREATS.md say so.
    secrets.retain(|(what, _)| !what.starts_with("boot/ca") && !what.starts_with("boot/server"));
    assert_eq!(found_in(&core, &secrets), None);
    // The search finds what is there.
    let there = ("a path".to_owned(), device.data_dir().to_str().unwrap().as_bytes().to_vec());
    assert!(core.len() > 1 << 20 && found_in(&core, &[there]).is_some(), "{} bytes", core.len());
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
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let secret: Vec<Mapping> = mappings(device.pid()).into_iter().filter(|m| m.name.contains("secretmem")).collect();
    device.kill();
    assert!(!secret.is_empty(), "the kernel here has memfd_secret(2)");
    for mapping in secret {
        for flag in ["dd", "dc", "lo"] {
            assert!(mapping.flags.iter().any(|f| f == flag), "{flag} is missing of {:?}", mapping.flags);
        }
    }
}
