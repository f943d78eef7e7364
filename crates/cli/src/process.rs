//! What the process asks of the kernel for itself.

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

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
