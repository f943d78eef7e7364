//! Where key material comes from: probe, provision under a policy, release while the policy holds, close.
//!
//! ```text
//! probe      what is true now: nothing is asked for, nothing is counted
//! provision  policy -> SlotPublic (to be remembered) and Ikm; fails where the policy cannot be enforced
//! release    SlotPublic -> Ikm, by a deadline; a PIN is asked for by callback, once
//! close      SlotPublic -> Closed: no further release in this boot, where the source can say so
//! ```
//! It is not encryption: a source may hold a secret, derive it, or fetch it, and gives it only in the state that was
//! agreed. Every source passes the same suite (`contract.rs`). All calls may block until their deadline.

mod auth;
mod combined;
#[cfg(any(test, feature = "testing"))]
mod contract;
mod credential;
mod error;
mod escrow;
mod evidence;
mod exec;
mod handed_pin;
mod hex_line;
mod images;
mod latch;
mod pcr_diff;
mod pkcs11;
mod policy;
mod process;
mod remedy;
mod secret_file;
mod software;
mod tang;
mod tpm;
mod unkept;

use std::time::Duration;

use ::tpm::PcrValues;
use host::{BootTime, Clock};

use crate::slot::{SlotPublic, SourceKind};

pub use self::combined::{CombinedSetupError, CombinedSource, MAX_PARTS, Part, check_parts, may_count, slot_and_parts};
#[cfg(any(test, feature = "testing"))]
pub use self::contract::key_source_contract;
pub use self::tang::{TangServer, TangServers, TangSetupError, TangSource};
pub use self::tpm::{
    Counting, PcrSignatures, PcrSigning, PcrSigningError, TpmNvSource, TpmSource, counted_by_gate_alone,
    parse_public_key, storage_key,
};
pub use auth::{Auth, AuthError, AuthRequest, NoAuth, PinFile};
pub use credential::{CredentialForm, CredentialName, CredentialNameError, CredentialSource};
pub use error::SourceError;
pub use escrow::{Escrow, EscrowName, EscrowNameError, EscrowSource, Hold, Identity, Login};
pub use evidence::{Closed, Evidence, Left, Provisioned, Released};
pub use exec::conformance::{Check, Conformance, Runs, Verdict, conformance};
pub use exec::status::{HOOK_QUESTION, HookStatus};
pub use exec::{ExecSource, HOOK_LIMIT};
pub use handed_pin::HandedPin;
pub use images::{differ_in_values_alone, measures_registers};
pub use latch::ReleaseLatch;
pub use pcr_diff::{PcrDiff, PcrFound};
pub use pkcs11::{Pkcs11Setup, Pkcs11Source};
pub use policy::{Capabilities, PolicyRequest};
pub use remedy::Remedy;
pub use software::SoftwareSource;
pub use unkept::{Unkept, left_behind};

/// A source of key material: hardware, another machine, a hook, or a file.
pub trait KeySource: Send {
    /// What kind it is; a slot opens only with the kind that it names.
    fn kind(&self) -> SourceKind;

    /// What it can hold to, as it is set up.
    fn capabilities(&self) -> Capabilities;

    /// Whether this source, as it is set up, has made the slot: by what the slot says of itself, without asking the
    /// hardware.
    fn fits(&self, slot: &SlotPublic) -> Fit {
        if slot.kind() == self.kind() { Fit::Maybe } else { Fit::No }
    }

    /// Whether a release of `slot` tries a PIN.
    fn tries_pin(&self, slot: &SlotPublic) -> bool {
        let _ = slot;
        false
    }

    /// Looks at the files of this machine that it needs for `wish`: nobody is asked, nothing is run and nothing is
    /// written.
    ///
    /// # Errors
    /// [`SourceError`], the one that the call itself would give. That there is none promises nothing: hardware was not
    /// asked.
    fn look(&self, wish: Wanted, auth: &dyn Auth) -> Result<(), SourceError> {
        let _ = (wish, auth);
        Ok(())
    }

    /// What can be said now without asking for key material; no release is counted.
    ///
    /// # Errors
    /// [`SourceError`] where the source is not there or not fit to be trusted.
    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError>;

    /// What a release of `slot` would say now, as far as it can be told without one: nothing is counted, nothing
    /// changed.
    ///
    /// # Errors
    /// [`SourceError`], the one that a release would give.
    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        if slot.kind() == self.kind() {
            self.probe(deadline)
        } else {
            Err(SourceError::OtherSlot { kind: self.kind() })
        }
    }

    /// Makes or chooses the key material under `policy`, and sees that it comes back; no release is counted.
    ///
    /// # Errors
    /// [`SourceError::PolicyUnenforceable`] where the source cannot hold to the policy: it is never silently weakened.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError>;

    /// As [`KeySource::provision`], on a device where `slot`, of the same source, is in use: what the two share, such
    /// as the count of releases, is taken from it, so that this is possible when releases have begun.
    ///
    /// # Errors
    /// [`SourceError`]; [`SourceError::WrongDevice`] where a source that knows its device by name finds another, which
    /// may not be.
    fn provision_beside(
        &mut self,
        slot: &SlotPublic,
        board: Board,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let _ = (slot, board);
        self.provision(policy, auth, deadline)
    }

    /// Key material that is released as that of `slot` is, of the same source and the same device, but when registers
    /// have `values`: what they hold now does not matter. No release is counted where there is another way.
    ///
    /// # Errors
    /// [`SourceError::PolicyEmpty`] where a register that the slot measures has no value, or one that says nothing;
    /// [`SourceError::PolicyUnenforceable`] by a source that measures none.
    fn predict(
        &mut self,
        slot: &SlotPublic,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let _ = (slot, values, auth, deadline);
        Err(SourceError::PolicyUnenforceable { kind: self.kind(), what: "register values" })
    }

    /// Whether making `slot` has taken a release of this boot, against the rule, for want of another way to the key
    /// material: then what was given opens the store in this boot, and no second release is asked for.
    fn released_when_made(&self, slot: &SlotPublic) -> bool {
        let _ = slot;
        false
    }

    /// Gives the key material, by `deadline`. What was let go is counted before it is returned.
    ///
    /// # Errors
    /// [`SourceError`]; its remedy says whether to ask again.
    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError>;

    /// Ends the releases of this boot, where the source can; may be called again, and before any release.
    ///
    /// # Errors
    /// [`SourceError`]: it must be taken for open then.
    fn close(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Closed, SourceError>;

    /// Destroys what the source keeps for a slot that is no more, unless one of those that are `kept` needs it. What is
    /// gone already is as good.
    ///
    /// # Errors
    /// [`SourceError`]: it must be taken for there then.
    fn discard(
        &mut self,
        slot: &SlotPublic,
        kept: &[&SlotPublic],
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let _ = (slot, kept, auth, deadline);
        Ok(())
    }

    /// Asks, after [`KeySource::discard`], what is left of the slot: whether a copy of it, kept elsewhere, is of use to
    /// anybody. Nothing is counted. A source that keeps nothing for one slot alone has nothing to destroy.
    ///
    /// # Errors
    /// [`SourceError`]: it must be taken for there then.
    fn left_of(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Left, SourceError> {
        let _ = (slot, auth, deadline);
        Ok(Left::Copies(format!(
            "a source of kind `{}` keeps nothing for one slot alone, and gives its key on",
            self.kind()
        )))
    }
}

/// What a source is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Key material for a new slot.
    Provision,
    /// That of a slot.
    Release,
}

/// Which board key material may hang on that takes the place of a slot's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// The slot's own; another is told nothing.
    Same,
    /// Whichever answers: whoever holds the recovery key has said that it is another board.
    Any,
}

/// Whether a slot is a source's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// Of another kind, or of another device of the kind.
    No,
    /// Only a release would tell.
    Maybe,
    /// It names this very device.
    Yes,
}

impl Fit {
    /// For sources whose slots name their device.
    fn by_name(names_it: bool) -> Self {
        if names_it { Self::Yes } else { Self::No }
    }
}

/// The latest moment at which a call may end, and the limit that it comes of. The earlier one is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline {
    at: BootTime,
    limit: Duration,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(clock: &dyn Clock, limit: Duration) -> Self {
        Self::after_each(clock, limit, 1)
    }

    /// For a call that asks `times` times: `limit` from now for each.
    pub fn after_each(clock: &dyn Clock, limit: Duration, times: u32) -> Self {
        Self { at: clock.boottime().plus(limit.saturating_mul(times)), limit }
    }

    /// Half of the time that is left.
    #[must_use]
    pub fn half(self, clock: &dyn Clock) -> Self {
        Self { at: clock.boottime().plus(self.left(clock) / 2), ..self }
    }

    /// The moment itself.
    pub fn at(self) -> BootTime {
        self.at
    }

    /// The limit as it was written, which is what a person is told; not what was left of it.
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// The time left; zero when it has passed.
    pub fn left(self, clock: &dyn Clock) -> Duration {
        self.at.since(clock.boottime())
    }
}

/// For fuzzers.
pub(crate) mod fuzzing {
    use crate::slot::SlotPublic;

    /// What is read of a slot is written as the same slot.
    pub(crate) fn slot_of(slot: &SlotPublic) {
        super::combined::fuzz(slot);
        super::escrow::fuzz(slot);
    }

    /// What a hook prints when it is asked what it has left.
    pub(crate) fn hook_status(data: &[u8]) {
        if let Some(status) = super::HookStatus::parse(data) {
            assert_eq!(status.to_line().as_bytes(), data);
        }
    }

    /// The answers of a holder of keys.
    pub fn escrow_reply(data: &[u8]) {
        super::escrow::fuzz_reply(data);
    }
}
