//! What root finds in the memory of a running device: not the keys that open all others.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::device::Device;
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

/// Every byte that a core dump made by root would have, and more: all that `/proc/PID/mem` gives.
fn readable(pid: u32) -> Vec<u8> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut all = Vec::new();
    for mapping in mappings(pid) {
        let mut page = vec![0; 4096];
        for at in (mapping.from..mapping.to).step_by(page.len()) {
            if memory.read_exact_at(&mut page, at).is_ok() {
                all.extend_from_slice(&page);
            }
        }
    }
    all
}

#[test]
fn root_finds_neither_key_material_nor_root_key_in_memory() {
    let mut device = Device::with_services(&["sensor"]);
    device.up();
    let seen = readable(device.pid());
    let status = device.admin(&["doctor"]);
    device.kill();
    assert!(seen.len() > 1 << 20, "{} bytes were read", seen.len());

    let mut secrets = opened(&device);
    secrets.retain(|(what, _)| what == "root key" || what.starts_with("boot/kek"));
    assert!(secrets.len() >= 2, "a root key and a KEK are looked for");
    let file = std::fs::read(device.dir().join("device.key")).unwrap();
    secrets.push(("key material".to_owned(), file[file.len() - 32..].to_vec()));
    let has = |part: &[u8]| memchr::memmem::find(&seen, part).is_some();
    for (what, secret) in &secrets {
        for form in forms(secret) {
            let found = form.windows(WINDOW).step_by(WINDOW / 2).any(has);
            assert!(!found, "{what} is in memory");
        }
    }
    // The search finds what is there.
    assert!(has(device.dir().to_str().unwrap().as_bytes()));
    let told = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(told.contains("memory: keys are in pages that root and the kernel do not read (memfd_secret)"), "{told}");
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
