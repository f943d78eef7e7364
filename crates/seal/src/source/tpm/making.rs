//! What the making of every slot begins with, sealed object and index alike: alone with the TPM, its storage key, the
//! state of the device, the PIN. In this order, so that nobody is asked for a PIN, and no register is believed, before
//! the key is known.

use ::tpm::{AuthValue, Name, NvHandle, PcrSet, PcrValues, PinnedKey, StorageKey, Tpm};

use super::chip::Chip;
use super::signed::PcrSigning;
use super::state::State;
use crate::source::{Auth, Deadline, PolicyRequest, SourceError};

/// A TPM in which a slot is being made.
pub(super) struct Making<'a> {
    chip: &'a Chip,
    pub(super) tpm: Tpm,
    pub(super) key: PinnedKey,
    /// Last, so that the TPM is let go of before somebody else may have it.
    _alone: Option<Box<dyn Send>>,
}

impl<'a> Making<'a> {
    /// Under the storage key that has this name; under whichever there is, where none was known before.
    pub(super) fn begin(chip: &'a Chip, known: Option<&Name>, deadline: Deadline) -> Result<Self, SourceError> {
        let alone = chip.alone(deadline)?;
        let mut tpm = chip.open(deadline)?;
        let key = match known {
            Some(name) => tpm.pinned_storage_key(name),
            None => tpm.storage_key().map(StorageKey::pin),
        };
        let key = key.map_err(|e| chip.faults().tpm(e))?;
        Ok(Self { chip, tpm, key, _alone: alone })
    }

    /// The state that a request comes to on this device as it is now, approved of where a vendor must do that; and the
    /// values of its registers and of `others`.
    pub(super) fn state(
        &mut self,
        request: &PolicyRequest,
        others: PcrSet,
        signing: &PcrSigning,
    ) -> Result<(State, PcrValues), SourceError> {
        let values = self.tpm.read_pcrs_proven(&self.key, request.pcrs.union(others));
        let values = values.map_err(|e| self.chip.faults().tpm(e))?;
        let state = State::now(request, signing.key(&*self.chip.disk)?, &values)?;
        state.try_approved(self.chip, &mut self.tpm, &self.key, &signing.file())?;
        Ok((state, values))
    }

    /// The PIN, where the state asks for one.
    pub(super) fn pin(&mut self, state: &State, auth: &dyn Auth) -> Result<Option<AuthValue>, SourceError> {
        self.chip.pin(state.pin, auth, &mut self.tpm)
    }

    /// Removes the index of a slot that did not come about: memory of the TPM is scarce. What failed is told; an index
    /// left behind harms nobody.
    pub(super) fn take_back(&mut self, index: NvHandle) {
        let _ = self.tpm.nv_undefine(index);
    }
}
