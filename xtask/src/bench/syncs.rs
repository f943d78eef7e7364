//! How often a first boot waits for the disk: fsync and fdatasync, as strace sees them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::device::Device;

/// Syncs of a first boot until its gates are open, and of these the ones that SQLite makes; `None` without strace.
pub(super) fn of_first_boot(device: &Device, dir: &Path) -> Result<Option<Syncs>> {
    if Command::new("strace").arg("--version").output().is_err() {
        return Ok(None);
    }
    let trace = tempfile::NamedTempFile::new_in(dir)?;
    let path = trace.path().display().to_string();
    let words = ["strace", "-f", "-y", "-qq", "-e", "trace=fsync,fdatasync", "-e", "signal=none", "-o", &path];
    // Killed, so that what a clean stop writes is not counted.
    drop(device.boot_below(&words)?);
    let text = std::fs::read_to_string(trace.path()).context("what strace wrote")?;
    Ok(Some(count(&text)))
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Syncs {
    pub(super) all: usize,
    pub(super) store: usize,
    pub(super) audit: usize,
    pub(super) in_memory: usize,
}

/// One line a call; one that was interrupted by another thread's goes on in a `resumed` line, which is not counted
/// again.
fn count(trace: &str) -> Syncs {
    let mut syncs = Syncs::default();
    for line in trace.lines().filter(|l| l.contains("sync(") && !l.contains("resumed>")) {
        if line.contains("/dev/shm/") {
            // A tmpfs has no disk to wait for.
            syncs.in_memory += 1;
            continue;
        }
        syncs.all += 1;
        syncs.store += usize::from(line.contains("store.db"));
        syncs.audit += usize::from(line.contains("/audit"));
    }
    syncs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_counts_once() {
        let trace = "\
7 fsync(5</d/data/slots.a>) = 0
8 fdatasync(9</d/data/store.db-wal> <unfinished ...>
7 fdatasync(3</d/data/audit/ring-00>) = 0
8 <... fdatasync resumed>) = 0
7 fsync(4</dev/shm/run/ca.pem>) = 0
";
        assert_eq!(count(trace), Syncs { all: 3, store: 1, audit: 1, in_memory: 1 });
    }
}
