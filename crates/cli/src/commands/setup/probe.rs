//! Looking at a device without touching it.

use std::path::{Path, PathBuf};

use config::Environment;
use delivery::{Backing, Medium};
use host::{Clock, Disk, FileKind};

/// What is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Findings {
    /// The TPM's device with the kernel's resource manager.
    pub(super) tpm: bool,
    /// The socket of the daemon for smart cards.
    pub(super) card: bool,
    /// EdgeX's hook, from the environment.
    pub(super) hook: Option<PathBuf>,
    /// Whether `/run` is in memory.
    pub(super) run_in_memory: bool,
    pub(super) systemd: bool,
    /// Whether the wall clock is later than this program.
    pub(super) clock: bool,
    pub(super) swap: bool,
    /// Names of token files' owners in EdgeX's images.
    pub(super) edgex_user: Option<String>,
}

impl Findings {
    /// Looks below `root`, which is `/` but for tests.
    pub(super) fn of(
        disk: &dyn Disk,
        medium: &dyn Medium,
        clock: &dyn Clock,
        environment: &Environment,
        root: &Path,
    ) -> Self {
        let there = |path: &str, kind: FileKind| matches!(disk.meta(&root.join(path)), Ok(Some(m)) if m.kind == kind);
        let value = |name: &str| environment.value(name).filter(|v| !v.is_empty());
        let swaps = disk.read(&root.join("proc/swaps"), 64 * 1024).map(|b| b.iter().filter(|c| **c == b'\n').count());
        Self {
            tpm: there("dev/tpmrm0", FileKind::Other),
            card: there("run/pcscd/pcscd.comm", FileKind::Other),
            hook: value("EDGEX_IKM_HOOK").or_else(|| value("IKM_HOOK")).map(PathBuf::from),
            run_in_memory: matches!(medium.backing(&root.join("run")), Ok(Backing::Memory)),
            systemd: there("run/systemd/system", FileKind::Dir),
            clock: clock.wall().unix_seconds() > OLDEST_SANE_SECONDS,
            swap: swaps.is_ok_and(|lines| lines > 1),
            edgex_user: value("EDGEX_USER").map(str::to_owned),
        }
    }

    /// For people, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |what: &str, yes: bool, then: &str, otherwise: &str| {
            format!("{what:<12} {}", if yes { then } else { otherwise })
        };
        let hook = self.hook.as_ref().map(|h| format!("found: {}", h.display())).unwrap_or_default();
        vec![
            line("TPM", self.tpm, "found: /dev/tpmrm0", "none at /dev/tpmrm0"),
            line(
                "smart card",
                self.card,
                "pcscd is running (this version uses it through an exec hook)",
                "pcscd is not running",
            ),
            line("IKM hook", self.hook.is_some(), &hook, "EDGEX_IKM_HOOK is not set"),
            line("/run", self.run_in_memory, "in memory: tokens go there", "not in memory: mount a tmpfs there"),
            line(
                "systemd",
                self.systemd,
                "runs this machine: packaging/edgekeep.service fits",
                "does not run this machine",
            ),
            line("clock", self.clock, "plausible", "earlier than this program; edgekeep boots all the same"),
            line("swap", !self.swap, "none", "in use: token files can reach the disk; turn it off or encrypt it"),
        ]
    }
}

/// 2025-01-01T00:00:00Z: earlier than any build of this program.
const OLDEST_SANE_SECONDS: i64 = 1_735_689_600;

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsDisk;

    struct Memory;
    impl Medium for Memory {
        fn backing(&self, path: &Path) -> std::io::Result<Backing> {
            Ok(if path.ends_with("run") { Backing::Memory } else { Backing::Disk })
        }
    }

    #[test]
    fn sees_what_is_there_and_only_that() {
        let root = tempfile::tempdir().unwrap();
        let clock = host::OsClock::new().unwrap();
        let look = |variables: &[(&str, &str)]| {
            Findings::of(&OsDisk, &Memory, &clock, &Environment::of(variables.iter().copied()), root.path())
        };
        let bare = look(&[]);
        assert!(!bare.tpm && !bare.card && !bare.systemd && !bare.swap && bare.hook.is_none() && bare.run_in_memory);
        std::fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        std::fs::create_dir_all(root.path().join("dev")).unwrap();
        // A regular file where the device should be is not a TPM.
        OsDisk.write_new(&root.path().join("dev/tpmrm0"), b"", 0o600, None).unwrap();
        let found = look(&[("EDGEX_IKM_HOOK", "/usr/bin/ikm"), ("IKM_HOOK", "/old")]);
        assert!(found.systemd && !found.tpm);
        assert_eq!(found.hook.as_deref(), Some(Path::new("/usr/bin/ikm")));
        assert_eq!(found.lines().len(), 7);
    }
}
