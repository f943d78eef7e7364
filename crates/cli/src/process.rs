//! What the process asks of the kernel for itself.

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// No core dumps, and no debugger of the same user: both would show every key (CWE-528). Refusals by the kernel are no reason
/// to stop a command, and `doctor` tells about them.
pub(crate) fn harden() {
    if !host::in_force("not-dumpable") {
        return;
    }
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Keeps pages with secrets out of the swap, each from when it is first used. Whether the kernel allowed it.
pub(crate) fn lock_memory() -> bool {
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).is_ok()
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
    #[test]
    fn a_hardened_process_leaves_no_core() {
        super::harden();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), rustix::process::DumpableBehavior::NotDumpable);
        assert_eq!(rustix::process::getrlimit(rustix::process::Resource::Core).current, Some(0));
    }
}
