//! What becomes of the sources when they have done their work in a boot.

use std::time::Duration;

/// `[release]`: whether the sources are closed when the store is open, and how the next start in the same boot goes
/// then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleasePlan {
    /// `None`: they are not closed; each start asks them, as often as they allow.
    pub after_close: Option<AfterClose>,
    /// Time, from when a source may have released, within which they are closed, whatever becomes of edgekeep.
    pub guard: Duration,
}

impl Default for ReleasePlan {
    fn default() -> Self {
        Self { after_close: None, guard: Duration::from_secs(60) }
    }
}

/// How a start goes in a boot whose sources are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterClose {
    /// The store stays sealed until the device is restarted, or somebody gives the recovery key.
    StaySealed,
    /// edgekeep restarts the device; not in its first ten minutes, so that it does not restart for ever.
    Reboot,
    /// A process that outlives edgekeep has kept the KEK. Weaker: root of this boot can have it from there, as it could
    /// from edgekeep.
    Keeper,
}

impl AfterClose {
    /// As the configuration writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StaySealed => "stay-sealed",
            Self::Reboot => "reboot",
            Self::Keeper => "keeper",
        }
    }
}
