//! Where key material comes from: provision, then release under the policy that was agreed, then close.

mod exec;
mod software;

use std::num::NonZeroU8;
use std::time::Duration;

use host::{BootTime, Clock};

use crate::ikm::{Ikm, IkmError};
use crate::slot::{SlotPublic, SourceKind};

pub use exec::{ExecSource, HOOK_LIMIT};
pub use software::SoftwareSource;

/// A source of key material: hardware, a hook, or a file.
pub trait KeySource: Send {
    /// What kind it is; a slot opens only with the kind that it names.
    fn kind(&self) -> SourceKind;

    /// What can be said now without asking for key material.
    ///
    /// # Errors
    /// [`SourceError`] where the source is not there or not fit to be trusted.
    fn probe(&self) -> Result<Evidence, SourceError>;

    /// Makes or chooses the key material, under `policy`; returns what must be remembered to release it.
    ///
    /// # Errors
    /// [`SourceError::PolicyUnenforceable`] where the source cannot hold to the policy: it is never silently weakened.
    fn provision(&mut self, policy: &PolicyRequest) -> Result<SlotPublic, SourceError>;

    /// Gives the key material, by `deadline`.
    ///
    /// # Errors
    /// [`SourceError`].
    fn release(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Released, SourceError>;

    /// Ends the window in which the source releases, where it has one; may be called again.
    ///
    /// # Errors
    /// [`SourceError`].
    fn close(&mut self, slot: &SlotPublic) -> Result<(), SourceError>;
}

/// What must hold when the source releases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyRequest {
    /// Releases per kernel boot, counted by the source itself.
    pub releases_per_boot: Option<NonZeroU8>,
    /// Time after the start of the kernel within which alone it releases.
    pub window: Option<Duration>,
}

impl PolicyRequest {
    /// For sources that can enforce nothing.
    ///
    /// # Errors
    /// [`SourceError::PolicyUnenforceable`] if anything is asked for.
    pub(crate) fn must_be_empty(&self, kind: SourceKind) -> Result<(), SourceError> {
        let what = match self {
            Self { releases_per_boot: Some(_), .. } => "releases_per_boot",
            Self { window: Some(_), .. } => "window",
            Self { releases_per_boot: None, window: None } => return Ok(()),
        };
        Err(SourceError::PolicyUnenforceable { kind, what })
    }
}

/// The latest moment at which a release may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(pub BootTime);

impl Deadline {
    /// `limit` from now.
    pub fn after(clock: &dyn Clock, limit: Duration) -> Self {
        Self(clock.boottime().plus(limit))
    }

    /// The time left; zero when it has passed.
    pub fn left(self, clock: &dyn Clock) -> Duration {
        self.0.since(clock.boottime())
    }
}

/// Facts about a source, safe to log and to keep in evidence: (name, value).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence(pub Vec<(&'static str, String)>);

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

/// Who must act on a source's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// It may pass: try again, with a pause.
    Retry,
    /// An operator must change something; trying again is useless.
    Operator,
}

/// Why a source gives nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// What the source is made of is missing.
    #[error("{what} is not there")]
    NotPresent {
        /// Path or device.
        what: String,
    },
    /// Provisioning would displace key material that something may still hang on.
    #[error("{what} is there already, and may be what another store opens with")]
    AlreadyThere {
        /// Path or device.
        what: String,
    },
    /// Somebody else could have written what is about to be trusted.
    #[error("{path} is not trusted: {defect}")]
    NotTrusted {
        /// The file or directory.
        path: String,
        /// What is wrong with it.
        defect: String,
    },
    /// It is not what it should be.
    #[error("{what} is not a key file of edgekeep")]
    NotAKeyFile {
        /// The file.
        what: String,
    },
    /// The key material is another than the slot was made with, and the source knows it.
    #[error("{what} is not the one that the slot was made with: it names {found}, the slot {expected}")]
    OtherKey {
        /// The file or device.
        what: String,
        /// Its public name.
        found: String,
        /// The public name in the slot.
        expected: String,
    },
    /// The slot names another kind, or lacks what this kind needs.
    #[error("the slot was not made by a source of kind `{kind}`")]
    OtherSlot {
        /// The source that was asked.
        kind: SourceKind,
    },
    /// A policy was asked for that this source cannot hold to.
    #[error("a source of kind `{kind}` cannot enforce `{what}`")]
    PolicyUnenforceable {
        /// The source.
        kind: SourceKind,
        /// The policy.
        what: &'static str,
    },
    /// The deadline passed; everything that the source had started was killed.
    #[error("{what} did not finish within {limit:?}")]
    TimedOut {
        /// Path or device.
        what: String,
        /// The time it had.
        limit: Duration,
    },
    /// The hook ended with something else than status 0.
    #[error("{what} failed: {status}")]
    HookFailed {
        /// The hook.
        what: String,
        /// Exit status or signal.
        status: String,
    },
    /// The hook's output is not one line of lower-case hexadecimal octets.
    #[error("the output of {what} is not key material: {defect}")]
    BadOutput {
        /// The hook.
        what: String,
        /// What is wrong with it; never the output itself.
        defect: &'static str,
    },
    /// The octets are too few, too many or all the same.
    #[error("{what} gave no usable key material")]
    Ikm {
        /// Path or device.
        what: String,
        /// Which.
        #[source]
        source: IkmError,
    },
    /// Asked twice, it gave two answers: a store made with the first would never open again.
    #[error("{what} gave different key material when asked twice")]
    Drifts {
        /// Path or device.
        what: String,
    },
    /// A system call failed.
    #[error("{what} cannot be used")]
    Os {
        /// What was being done, and with what.
        what: String,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
}

impl SourceError {
    /// Who must act.
    pub fn remedy(&self) -> Remedy {
        match self {
            // A TPM or bus may be busy early in a boot, a device node may come late.
            Self::NotPresent { .. } | Self::TimedOut { .. } | Self::HookFailed { .. } | Self::Os { .. } => {
                Remedy::Retry
            }
            _ => Remedy::Operator,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotPresent { .. } => {
                "check `source` in edgekeep.toml, and that the file or device is there at this point of the boot"
            }
            Self::AlreadyThere { .. } => "move the file away if no store needs it, or name another path",
            Self::NotTrusted { .. } => {
                "it and every directory above it must belong to root or to edgekeep's user, and be writable for nobody else"
            }
            Self::NotAKeyFile { .. } => {
                "name the key file that edgekeep made for this store; it makes no use of any other file"
            }
            Self::OtherKey { .. } => "put back the key file of this store, or unseal with the recovery key",
            Self::OtherSlot { .. } => "set `source` to the kind that the store was made with",
            Self::PolicyUnenforceable { .. } => "take the policy away, or use a source that can enforce it",
            Self::TimedOut { .. } => {
                "run the hook by hand as edgekeep's user; it must end by itself and leave nothing running"
            }
            Self::HookFailed { .. } => "the hook's own message is in the log; run it by hand as edgekeep's user",
            Self::BadOutput { .. } => "the hook must print lower-case hexadecimal digits, one line, and nothing else",
            Self::Ikm { .. } => "the hook must give 32 octets or more; 16 to 31 only with `danger_short_ikm = true`",
            Self::Drifts { .. } => "the hook must give the same octets each time it is run on this device",
            Self::Os { .. } => "see the cause",
        }
    }
}
