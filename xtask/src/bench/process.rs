//! What the kernel says of a running process, proc(5).

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) anonymous: u64,
}

pub(super) fn memory(pid: u32) -> Result<Memory> {
    let text = read(pid, "status")?;
    let field = |name| number(&text, name).with_context(|| format!("{name} in /proc/{pid}/status"));
    Ok(Memory { resident: field("VmRSS:")?, anonymous: field("RssAnon:")? })
}

/// Bytes that the process has caused to be sent to a disk: pages that it made dirty, each once until it is written
/// back. What the file system adds for itself (journal, inodes) is not in it, nor is a tmpfs.
pub(super) fn written(pid: u32) -> Result<u64> {
    let text = read(pid, "io").context("a process that refuses to be dumped shows its I/O to root alone")?;
    number(&text, "write_bytes:").context("write_bytes in /proc/PID/io")
}

/// Processor time of all its threads so far, to the nanosecond.
pub(super) fn busy(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>().context("schedstat")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

fn read(pid: u32, name: &str) -> Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{name}"));
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|l| l.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// A process that ends with its owner, and all its group with it, by SIGKILL: a device without power gives no notice.
/// (A tracer that is killed alone lets go of what it traced, which then lives on.)
pub(super) struct Owned(pub(super) Child);

impl Owned {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        if let Some(group) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        }
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The machine in one line: processor, cores, kernel, and the file system that is measured.
pub(super) fn machine(dir: &Path) -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, m)| m.trim()));
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let (device, kind) = file_system(dir)?;
    ensure!(kind != "tmpfs", "{} is in memory: --dir must name a directory on the disk to be measured", dir.display());
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let (model, kernel) = (model.unwrap_or("unknown processor"), kernel.trim());
    Ok(format!("{model}, {cores} cores, Linux {kernel}, {kind} on {device}; load {load} before the first round"))
}

/// Device and type of the file system that a directory lies on.
fn file_system(dir: &Path) -> Result<(String, String)> {
    let output = Command::new("df").args(["--output=source,fstype"]).arg(dir).output().context("df")?;
    let text = String::from_utf8(output.stdout)?;
    let words: Vec<&str> = text.lines().last().unwrap_or_default().split_whitespace().collect();
    let [device, kind] = words.as_slice() else { anyhow::bail!("df says of {}: {text}", dir.display()) };
    Ok(((*device).to_owned(), (*kind).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_names() {
        let text = "VmPeak:\t   9 kB\nVmRSS:\t    5120 kB\nRssAnon:\t 2048 kB\n";
        assert_eq!(number(text, "VmRSS:"), Some(5120));
        assert_eq!(number(text, "VmSwap:"), None);
    }

    #[test]
    fn a_running_process_has_memory() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0, "{memory:?}");
    }
}
