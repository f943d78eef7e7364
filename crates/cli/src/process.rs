//! What the process asks of the kernel for itself.

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use secret::Protection;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// No core dumps, and no debugger of the same user: both would show every key (CWE-528). Refusals by the kernel are no
/// reason to stop a command, and `doctor` tells about them.
pub(crate) fn harden() {
    if !host::in_force("not-dumpable") {
        return;
    }
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// How the memory of this process keeps what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Keys: they have pages of their own.
    pub(crate) keys: Protection,
    /// Whether everything else, values on their way among it, stays out of the swap.
    pub(crate) locked: bool,
}

/// Keeps all pages out of the swap, each from when it is first used, and asks what the pages of keys are.
pub(crate) fn lock_memory() -> Memory {
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    let locked = rustix::mm::mlockall(flags).is_ok();
    Memory { keys: secret::protection(), locked }
}

/// Has `init` restart the device, by the signal that Ctrl-Alt-Del sends it: systemd, sysvinit and busybox end the
/// services first.
pub(crate) fn restart_device(init: rustix::process::Pid) -> std::io::Result<()> {
    Ok(rustix::process::kill_process(init, rustix::process::Signal::INT)?)
}

/// Gives back the pages of the executable that the start alone needed. A kernel that refuses has them still, which
/// harms nothing.
pub(crate) fn give_back_start() {
    match memory::give_back_start() {
        Ok(bytes) => tracing::debug!(bytes, "the start's pages of the executable were given back"),
        Err(e) => tracing::debug!("the start's pages of the executable stay: {e}"),
    }
}

impl Memory {
    /// What is in force, for `doctor`.
    pub(crate) fn tell(self) -> String {
        let keys = match self.keys {
            Protection::Secret => "in pages that root and the kernel do not read (memfd_secret)",
            Protection::Locked => "locked, out of core dumps and children",
            Protection::Swappable => "out of core dumps and children",
        };
        let rest = if self.locked { "out of the swap" } else { "not locked" };
        format!(
            "keys are {keys}; the rest is {rest}. No pages of their own have: contexts of ciphers, TLS keys, values on their way"
        )
    }

    /// What it lacks, a sentence each.
    pub(crate) fn lacking(self) -> Vec<String> {
        let keys = match self.keys {
            Protection::Secret => None,
            Protection::Locked => Some(
                "root reads the keys from memory: the kernel has no memfd_secret(2), or no room for it (RLIMIT_MEMLOCK)",
            ),
            Protection::Swappable => Some("keys may be swapped out: the kernel refused to lock them (RLIMIT_MEMLOCK)"),
        };
        let rest = "values on their way may be swapped out: the kernel refused to lock them (RLIMIT_MEMLOCK)";
        keys.into_iter().chain((!self.locked).then_some(rest)).map(str::to_owned).collect()
    }
}

/// Log lines to standard error; `EDGEKEEP_LOG` says which, otherwise those from the level `usual` on.
pub(crate) fn log(usual: &str) {
    let level = std::env::var("EDGEKEEP_LOG").unwrap_or_else(|_| usual.to_owned());
    // `Targets` reads "warn,edgekeep=debug" as an EnvFilter does, without a regular-expression engine of a megabyte.
    let filter: Targets = level.parse().unwrap_or_else(|_| Targets::new().with_default(LevelFilter::WARN));
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_ansi(ansi).with_target(false).with_writer(std::io::stderr);
    // Only a second call could fail, and there is none.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

/// The user that runs this.
pub(crate) fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::{Memory, Protection};

    #[test]
    fn a_restart_is_asked_of_init_as_by_ctrl_alt_del() {
        // Never of this machine's: a shell stands in for it.
        let script = "trap 'exit 7' INT; echo up; while :; do sleep 1; done";
        // A shell hears no signal that whoever started these tests ignores.
        let mut init = std::process::Command::new("env");
        init.args(["--default-signal=INT", "sh", "-c", script]).stdout(std::process::Stdio::piped());
        let mut init = init.spawn().unwrap();
        let mut said = String::new();
        let stdout = init.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).unwrap();
        super::restart_device(rustix::process::Pid::from_child(&init)).unwrap();
        assert_eq!(init.wait().unwrap().code(), Some(7));
    }

    #[test]
    fn what_memory_lacks_is_said() {
        let said = |keys, locked| Memory { keys, locked }.lacking().len();
        assert_eq!((said(Protection::Secret, true), said(Protection::Secret, false)), (0, 1));
        assert_eq!((said(Protection::Locked, true), said(Protection::Swappable, false)), (1, 2));
        assert!(Memory { keys: Protection::Secret, locked: true }.tell().contains("contexts of ciphers"));
    }

    #[test]
    fn a_hardened_process_leaves_no_core() {
        super::harden();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).current, Some(0));
    }
}
