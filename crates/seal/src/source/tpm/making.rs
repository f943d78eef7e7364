//! What the making of every slot begins with, sealed object and index alike: alone with the TPM, its storage key, the
//! state of the device, the PIN. In this order, so that nobody is asked for a PIN, and no register is believed, before
//! the key is known. And the index that a slot may have: how it comes, and how it goes where the slot does not come
//! about.

use ::tpm::{AuthValue, Name, NvHandle, NvIndex, PcrSet, PcrValues, PinnedKey, Refusal, StorageKey, Tpm, TpmError};

use super::chip::Chip;
use super::nv;
use super::signed::PcrSigning;
use super::state::State;
use crate::source::{Auth, Deadline, PolicyRequest, SourceError};

/// A TPM in which a slot is being made.
pub(super) struct Making<'a> {
    chip: &'a Chip,
    pub(super) tpm: Tpm,
    pub(super) key: PinnedKey,
    /// The slot's, from before the TPM is asked for it: of an answer that is lost nobody knows what it was.
    index: Option<NvIndex>,
    deadline: Deadline,
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
        Ok(Self { chip, tpm, key, index: None, deadline, _alone: alone })
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

    /// Defines an index under a number that is free; `None` if none was found in a few draws.
    pub(super) fn define(
        &mut self,
        pin: Option<&AuthValue>,
        index: impl Fn(NvHandle) -> NvIndex,
    ) -> Result<Option<NvIndex>, TpmError> {
        for _ in 0..DRAWS {
            let mut byte = [0];
            self.chip.entropy.fill(&mut byte);
            let index = index(NvHandle::drawn(byte[0]));
            // What is there already is another slot's, and looks like ours while nothing is in it: it must not be taken
            // back with ours.
            match self.tpm.nv_name(index.handle()) {
                Ok(_) => continue,
                Err(e) if e.refusal() == Some(Refusal::Handle) => {}
                Err(e) => return Err(e),
            }
            self.index = Some(index);
            let defined = self.tpm.nv_define(&self.key, &index, pin);
            let refusal = defined.as_ref().err().and_then(TpmError::refusal);
            if refusal.is_some() {
                self.index = None;
            }
            if refusal != Some(Refusal::NvDefined) {
                return defined.map(|()| Some(index));
            }
        }
        Ok(None)
    }

    /// Removes the index, if there is one.
    pub(super) fn undefine(&mut self) -> Result<(), TpmError> {
        if let Some(index) = &self.index {
            nv::gone(self.tpm.nv_undefine(index.handle()))?;
            self.index = None;
        }
        Ok(())
    }

    /// Removes the index of a slot that did not come about: memory of the TPM is scarce. Where the way to the TPM is
    /// what failed, another is taken, once. What stays harms nobody, and is told.
    pub(super) fn take_back(mut self) {
        let done = self.undefine();
        let Self { chip, tpm, key, index: Some(index), deadline, _alone } = self else { return };
        // Before another is opened: a TPM without a resource manager serves one at a time.
        drop(tpm);
        let anew = || nv::remove_alone(chip, &key.name(), &index, chip.a_moment_after(deadline));
        let done = done.map_err(|e| chip.faults().tpm(e));
        let done = done.or_else(|e| if host::in_force("making-taken-back-anew") { anew() } else { Err(e) });
        if let Err(e) = done {
            let (handle, why) = (index.handle(), host::with_causes(&e));
            tracing::warn!("NV index {handle} of a slot that did not come about stays in the TPM: {why}");
        }
    }
}

/// How many numbers are tried for a new index: of 256 most are free.
const DRAWS: usize = 8;
