//! Making an index: under a number that is free, written once, and read back under the policy.

use ::tpm::{AuthValue, Name, NvHandle, PcrSet};
use secret::{Secret, SecretBytes, crypto};

use super::super::making::Making;
use super::super::state::State;
use super::slot::{NvSlot, check, index};
use super::{Auth, Deadline, KeySource as _, PolicyRequest, Provisioned, SourceError, TpmNvSource};
use crate::slot::SourceKind;

impl TpmNvSource {
    /// Key material in an index of the TPM that has the storage key of that name; of whichever TPM there is where none
    /// was known before.
    pub(super) fn make(
        &self,
        known: Option<&Name>,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        request.enforceable(SourceKind::TpmNv, &self.capabilities())?;
        let mut making = Making::begin(&self.chip, known, deadline)?;
        let (state, _) = making.state(request, PcrSet::default(), &self.signing)?;
        let pin = making.pin(&state, auth)?;
        self.kept(making, state, request.releases_per_boot.is_some(), pin.as_ref(), Seen::Read)
    }

    /// New octets in an index of that state.
    pub(super) fn kept(
        &self,
        mut making: Making<'_>,
        state: State,
        once: bool,
        pin: Option<&AuthValue>,
        seen: Seen,
    ) -> Result<Provisioned, SourceError> {
        let octets = Secret::<32>::init_with(|octets| self.chip.entropy.fill(octets));
        // Whatever may fail without the index comes before it, so that none is left behind.
        let key = self.chip.noted(&mut making.tpm, &making.key)?;
        let made = self.defined(&mut making, &state, once, pin).and_then(|handle| {
            let slot = NvSlot { key, handle, state, check: check(octets.expose()), once };
            self.made(&mut making, slot, &octets, pin, seen)
        });
        if made.is_err() {
            making.take_back();
        }
        made
    }

    fn defined(
        &self,
        making: &mut Making<'_>,
        state: &State,
        once: bool,
        pin: Option<&AuthValue>,
    ) -> Result<NvHandle, SourceError> {
        let (faults, defined) = (self.chip.faults(), making.define(pin, |handle| index(state, handle, once)));
        let Some(index) = defined.map_err(|e| faults.tpm(e))? else {
            return Err(SourceError::Refused { what: faults.what, defect: "no number for an index was free".into() });
        };
        Ok(index.handle())
    }

    /// Writes, and reads once to see that it comes back; what cannot be read yet is locked.
    fn made(
        &self,
        making: &mut Making<'_>,
        slot: NvSlot,
        octets: &Secret<32>,
        pin: Option<&AuthValue>,
        seen: Seen,
    ) -> Result<Provisioned, SourceError> {
        let faults = self.chip.faults();
        let Making { tpm, key, .. } = making;
        tpm.nv_write_once(key, &slot.index(), pin, octets.expose()).map_err(|e| faults.tpm(e))?;
        if seen == Seen::Rehearsed {
            if slot.once && host::in_force("images-release-once") {
                // This boot has its release already, by the index of the present image.
                let session = tpm.policy_session(key).map_err(|e| faults.tpm(e))?;
                self.lock(tpm, session, &slot).map_err(|e| faults.tpm(e))?;
            }
            let ikm = self.chip.ikm(SecretBytes::new(octets.expose().to_vec()))?;
            return Ok(Provisioned { public: slot.write(&faults.what)?, ikm });
        }
        let mut session = tpm.policy_session(key).map_err(|e| faults.tpm(e))?;
        let back = self.read(tpm, &mut session, &slot, pin)?;
        if !crypto::ct_eq(back.expose(), octets.expose()) {
            return Err(SourceError::Drifts { what: faults.what });
        }
        Ok(Provisioned { public: slot.write(&faults.what)?, ikm: self.chip.ikm(back)? })
    }
}

/// How it is seen that the octets come back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// They are read.
    Read,
    /// Its policy was rehearsed: the state in which they can be read is yet to come.
    Rehearsed,
}
