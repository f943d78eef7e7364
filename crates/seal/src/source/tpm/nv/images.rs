//! An index for the next image, beside that of the present one: each has its own policy, and both have one release.
//!
//! ```text
//! predict   rehearse the policy ─> define, write ─> lock until the next start
//! release   registers as they were ─> lock the other images' indices ─> read, lock
//! ```
//! A sealed object counts by what two slots can share. An index is locked by itself: so of two of them that are for one
//! device the other is locked first. A cut or a crash after that leaves this boot's release where it was, or none.

use ::tpm::{NvState, PcrValues, PinnedKey, Refusal, Tpm, TpmError};

use super::super::making::Making;
use super::super::state::State;
use super::provision::Seen;
use super::slot::{NvSlot, branches, policy};
use super::{Auth, Deadline, Provisioned, SourceError, TpmNvSource};
use crate::slot::SlotPublic;

impl TpmNvSource {
    /// Whether two slots are of one TPM and one policy, for other values of the same registers.
    pub(in crate::source) fn differ_in_values_alone(a: &SlotPublic, b: &SlotPublic) -> bool {
        let (Ok(a), Ok(b)) = (NvSlot::read(a), NvSlot::read(b)) else { return false };
        alike(&a, &b)
    }

    /// Key material in an index that is read as that of `like` is, when registers have `values`.
    pub(super) fn make_for(
        &self,
        like: &NvSlot,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let state = like.state.with_values(values)?;
        let mut making = Making::begin(&self.chip, Some(&like.key.name), deadline)?;
        let pin = making.pin(&state, auth)?;
        self.rehearse(&mut making, &state)?;
        self.kept(making, state, like.once, pin.as_ref(), Seen::Rehearsed)
    }

    /// Sees that the TPM comes to the policy that was computed: the index cannot be read to see it.
    fn rehearse(&self, making: &mut Making<'_>, state: &State) -> Result<(), SourceError> {
        let Making { tpm, key, .. } = making;
        let mut come_to = || {
            let trial = tpm.trial_session(key)?;
            state.try_approval(tpm, &trial)?;
            if !state.registers().is_empty() {
                tpm.policy_pcr(&trial, state.registers(), Some(&state.measured))?;
            }
            state.show_clocks(tpm, &trial)?;
            if state.pin {
                tpm.policy_auth_value(&trial)?;
            }
            tpm.policy_or(&trial, &branches(state))?;
            let digest = tpm.policy_digest(&trial)?;
            tpm.end(trial)?;
            Ok(digest)
        };
        let (digest, faults): (Result<_, TpmError>, _) = (come_to(), self.chip.faults());
        if digest.map_err(|e| faults.tpm(e))? == policy(state) {
            return Ok(());
        }
        Err(SourceError::Protocol { what: faults.what, defect: "it comes to another digest for the policy".into() })
    }

    /// Locks the indices of other images, in the state of this one alone: in another it is not its turn.
    pub(super) fn lock_others(&self, tpm: &mut Tpm, key: &PinnedKey, slot: &NvSlot) -> Result<(), SourceError> {
        let others: Vec<&NvSlot> = self.others.iter().filter(|other| slot.shares_release_with(other)).collect();
        if others.is_empty() || !host::in_force("images-release-once") {
            return Ok(());
        }
        slot.state.holds(&self.chip, tpm)?;
        others.into_iter().try_for_each(|other| self.lock_other(tpm, key, other))
    }

    fn lock_other(&self, tpm: &mut Tpm, key: &PinnedKey, other: &NvSlot) -> Result<(), SourceError> {
        let faults = self.chip.faults();
        let session = tpm.policy_session(key).map_err(|e| faults.tpm(e))?;
        let Err(e) = self.lock(tpm, session, other) else { return Ok(()) };
        if e.refusal().is_none() {
            return Err(faults.tpm(e));
        }
        match tpm.nv_name(other.handle) {
            Ok(name) if name == other.index().name(NvState::READABLE) => Err(faults.tpm(e)),
            // Locked already; or gone, and its octets with it.
            Ok(_) => Ok(()),
            Err(gone) if gone.refusal() == Some(Refusal::Handle) => Ok(()),
            Err(e) => Err(faults.tpm(e)),
        }
    }
}

impl NvSlot {
    /// Whether the limit of a boot is one for both.
    fn shares_release_with(&self, other: &Self) -> bool {
        self.once && self.handle != other.handle && alike(self, other)
    }
}

fn alike(a: &NvSlot, b: &NvSlot) -> bool {
    let apart = |slot: &NvSlot| (slot.key.name, slot.state.without_values(), slot.once);
    apart(a) == apart(b)
}
