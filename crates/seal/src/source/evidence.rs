//! What a source lets go, and what can be said about it aloud.

use crate::ikm::Ikm;
use crate::slot::SlotPublic;

/// Facts about a source, safe to log and to keep: (name, value). Never anything of the key material.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence(pub Vec<(&'static str, String)>);

impl Evidence {
    /// How many releases are left in this boot, where the source counts them and says so.
    pub fn releases_left(&self) -> Option<u8> {
        self.0.iter().filter(|(name, _)| *name == RELEASES_LEFT).find_map(|(_, value)| value.parse().ok())
    }

    /// Which TPM among several parts the slot opens without: it was not needed, or is not in the state of the slot.
    pub fn left_out(&self) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == LEFT_OUT).map(|(_, value)| value.as_str())
    }

    pub(super) fn add_releases_left(&mut self, left: u8) {
        self.0.push((RELEASES_LEFT, left.to_string()));
    }
}

/// The fact by which a source says how often it still releases.
pub(super) const RELEASES_LEFT: &str = "releases left in this boot";

/// The fact by which a combination says that it does without one of its TPMs.
pub(super) const LEFT_OUT: &str = "opens without part";

/// A source that was provisioned, and has been seen to give back what it was given.
#[derive(Debug)]
pub struct Provisioned {
    /// What must be remembered to release it again.
    pub public: SlotPublic,
    /// The key material, for the slot that is about to be made.
    pub ikm: Ikm,
}

/// What a source let go.
#[derive(Debug)]
pub struct Released {
    /// The key material.
    pub ikm: Ikm,
    /// Under which facts.
    pub evidence: Evidence,
    /// How many more times in this boot; `None` where the source does not count.
    pub remaining_this_boot: Option<u8>,
}

/// Proof that a source was asked to close, and what that has come to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed(Closing);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    Never,
    UntilReboot,
}

impl Closed {
    /// For sources that have no such state: they release again whenever they are asked.
    pub(super) fn releases_on() -> Self {
        Self(Closing::Never)
    }

    /// For sources that were made to release nothing more, to anybody, in this boot.
    pub(super) fn until_reboot() -> Self {
        Self(Closing::UntilReboot)
    }

    /// Whether nothing more is released until the device is started anew.
    pub fn is_until_reboot(self) -> bool {
        self.0 == Closing::UntilReboot
    }
}

/// What a source still gives of a slot that was discarded, by asking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing, to nobody: how that was seen.
    Nothing(String),
    /// The key material, to whoever has a copy of the slot: what still gives it.
    Copies(String),
}
