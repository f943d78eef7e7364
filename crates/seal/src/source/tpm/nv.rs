//! A TPM that keeps the octets itself, in an index that is locked against reading once it was read: once in a boot by construction.
//!
//! ```text
//! storage key, by its name ─ salted session ─ state of the device ─> NV_Read ─> NV_ReadLock ─> only then return
//! policy of the index = OR( state of the device, only NV_ReadLock )
//! ```
//! Without a limit the index cannot be locked: which of the two it is stands in its name, and so cannot be changed on the disk.
//! Nothing on the disk but where it is. Whoever may read may not read again before the TPM is started anew; whoever may not
//! read may lock. Whoever has the owner's authorisation can destroy the index, and learns nothing by it: another in its place has
//! another name, or other octets.

mod slot;

use std::path::PathBuf;
use std::sync::Arc;

use ::tpm::policy::PolicyCommand;
use ::tpm::{AuthValue, Name, NvHandle, NvIndex, NvState, PcrValues, PinnedKey, Refusal, Session, Tpm, TpmError};
use host::{Clock, Disk, Entropy};
use secret::{Secret, SecretBytes, crypto};

use super::super::{
    Auth, Capabilities, Closed, Deadline, Evidence, KeySource, Left, PolicyRequest, Provisioned, Released, SourceError,
};
use super::chip::Chip;
use super::signed::PcrSigning;
use super::state::State;
use crate::slot::{SlotPublic, SourceKind};
use slot::{NvSlot, branches, check, index};

/// The source `tpm-nv`.
pub struct TpmNvSource {
    chip: Chip,
    signing: PcrSigning,
}

impl TpmNvSource {
    /// The TPM behind `device`; `lock` is a file that whoever releases holds.
    pub fn new(
        device: impl Into<PathBuf>,
        lock: impl Into<PathBuf>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let chip = Chip::new(device.into(), lock.into(), disk, clock, entropy);
        Self { chip, signing: PcrSigning::default() }
    }

    /// Where a vendor's key and signatures are.
    #[must_use]
    pub fn signing(self, signing: PcrSigning) -> Self {
        Self { signing, ..self }
    }

    /// Makes an index under a number that is free.
    fn define(
        &self,
        tpm: &mut Tpm,
        key: &PinnedKey,
        state: &State,
        once: bool,
        pin: Option<&AuthValue>,
    ) -> Result<NvHandle, SourceError> {
        for _ in 0..DRAWS {
            let mut byte = [0];
            self.chip.entropy.fill(&mut byte);
            let handle = NvHandle::drawn(byte[0]);
            match tpm.nv_define(key, &index(state, handle, once), pin) {
                Err(e) if e.refusal() == Some(Refusal::NvDefined) => continue,
                defined => return defined.map(|()| handle).map_err(|e| self.chip.faults().tpm(e)),
            }
        }
        let defect = format!("no free index was found in {DRAWS} tries");
        Err(SourceError::Refused { what: self.chip.faults().what, defect })
    }

    /// Whether the index is the slot's, and open, by what the TPM says of it.
    fn readable(&self, tpm: &mut Tpm, slot: &NvSlot) -> Result<(), SourceError> {
        let (faults, index) = (self.chip.faults(), slot.index());
        match tpm.nv_name(slot.handle) {
            Ok(name) if name == index.name(NvState::READABLE) || !host::in_force("tpm-index-pinned") => Ok(()),
            Ok(name) if name == index.name(LOCKED) => {
                Err(faults.exhausted(format!("NV index {} was read, or closed, in this boot", slot.handle)))
            }
            Ok(_) => Err(changed(&self.chip, slot.handle, "is another one, or was defined anew")),
            Err(e) if e.refusal() == Some(Refusal::Handle) => {
                Err(changed(&self.chip, slot.handle, "is not there any more"))
            }
            Err(e) => Err(faults.tpm(e)),
        }
    }

    /// Reads, under the policy; the session begins anew. Nothing is locked yet.
    fn read(
        &self,
        tpm: &mut Tpm,
        session: &mut Session,
        slot: &NvSlot,
        pin: Option<&AuthValue>,
    ) -> Result<SecretBytes, SourceError> {
        let faults = self.chip.faults();
        let (state, index) = (&slot.state, slot.index());
        // Said beforehand: the session's HMAC will tell another index too, but as a wrong PIN, which is counted.
        self.readable(tpm, slot)?;
        state.show_approval(&self.chip, tpm, session, &self.signing.file())?;
        let mut shown = || {
            if !state.registers().is_empty() {
                tpm.policy_pcr(session, state.registers(), Some(&state.measured))?;
            }
            state.show_clocks(tpm, session)?;
            if state.pin {
                tpm.policy_auth_value(session)?;
            }
            tpm.policy_or(session, &branches(state))
        };
        let shown: Result<(), TpmError> = shown();
        let read = shown.and_then(|()| tpm.nv_read_secret(session, &index, pin));
        let octets = read.map_err(|e| match (e.refusal(), state.window) {
            (Some(Refusal::Policy), _) => state.differs(&self.chip, tpm),
            (Some(Refusal::Condition), Some(window)) => SourceError::WindowClosed { what: faults.what.clone(), window },
            (Some(Refusal::Auth), _) if state.pin => self.chip.wrong_pin(tpm),
            _ => faults.tpm(e),
        })?;
        if check(octets.expose()) == slot.check {
            return Ok(octets);
        }
        Err(changed(&self.chip, slot.handle, "has other octets than were put there"))
    }

    /// For people.
    fn facts(&self, slot: &NvSlot) -> Vec<(&'static str, String)> {
        let mut facts = self.chip.shown(&slot.key, &slot.state);
        facts.push(("index", slot.handle.to_string()));
        facts
    }

    /// Locks it against being read until the TPM is started anew; the TPM proves that it did.
    fn lock(&self, tpm: &mut Tpm, session: Session, slot: &NvSlot) -> Result<(), TpmError> {
        tpm.policy_command(&session, PolicyCommand::NvReadLock)?;
        tpm.policy_or(&session, &branches(&slot.state))?;
        tpm.nv_read_lock(session, &slot.index())
    }

    fn made(
        &self,
        tpm: &mut Tpm,
        key: &PinnedKey,
        slot: NvSlot,
        octets: &Secret<32>,
        pin: Option<&AuthValue>,
    ) -> Result<Provisioned, SourceError> {
        let faults = self.chip.faults();
        let new = slot.index();
        tpm.nv_write_once(key, &new, pin, octets.expose()).map_err(|e| faults.tpm(e))?;
        let mut session = tpm.policy_session(key).map_err(|e| faults.tpm(e))?;
        let back = self.read(tpm, &mut session, &slot, pin)?;
        if !crypto::ct_eq(back.expose(), octets.expose()) {
            return Err(SourceError::Drifts { what: faults.what });
        }
        Ok(Provisioned { public: slot.write(&faults.what)?, ikm: self.chip.ikm(back)? })
    }
}

impl std::fmt::Debug for TpmNvSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TpmNvSource({})", self.chip.faults().what)
    }
}

impl KeySource for TpmNvSource {
    fn kind(&self) -> SourceKind {
        SourceKind::TpmNv
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            device_bound: true,
            measured: true,
            most_releases_per_boot: 1,
            time_window: true,
            pin: true,
            revocable_remotely: false,
            needs_network: false,
            bus_encrypted: true,
        }
    }

    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError> {
        let mut tpm = self.chip.open(deadline)?;
        self.chip.facts(&mut tpm).map(Evidence).map_err(|e| self.chip.faults().tpm(e))
    }

    /// Storage key, index, registers and signatures are looked at; whether the PIN is right is not.
    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        let slot = NvSlot::read(slot)?;
        let faults = self.chip.faults();
        let (mut tpm, key, session) = self.chip.policy_session(&slot.key, deadline)?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        self.readable(&mut tpm, &slot)?;
        slot.state.holds(&self.chip, &mut tpm)?;
        slot.state.show_approval(&self.chip, &mut tpm, &session, &self.signing.file())?;
        let mut facts = self.facts(&slot);
        facts.extend(slot.once.then(|| ("releases left in this boot", "1".to_owned())));
        Ok(Evidence(facts))
    }

    /// Writes, locks against writing, and reads once to see that it comes back: that locks nothing, and so uses no release up.
    fn provision(
        &mut self,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        request.enforceable(SourceKind::TpmNv, &self.capabilities())?;
        let faults = self.chip.faults();
        let _alone = self.chip.alone(deadline)?;
        let mut tpm = self.chip.open(deadline)?;
        let values = if request.pcrs.is_empty() { Ok(PcrValues::default()) } else { tpm.read_pcrs(request.pcrs) };
        let values = values.map_err(|e| faults.tpm(e))?;
        let state = State::now(request, self.signing.key(&*self.chip.disk)?, &values)?;
        let pin = self.chip.pin(state.pin, auth, &mut tpm)?;
        let key = tpm.storage_key().map_err(|e| faults.tpm(e))?.pin();
        let octets = Secret::<32>::init_with(|octets| self.chip.entropy.fill(octets));
        let once = request.releases_per_boot.is_some();
        let handle = self.define(&mut tpm, &key, &state, once, pin.as_ref())?;
        let check = check(octets.expose());
        let slot = NvSlot { key: key.name(), handle, state, check, once };
        let made = self.made(&mut tpm, &key, slot, &octets, pin.as_ref());
        if made.is_err() {
            // Memory of the TPM is scarce. What failed is told; an index left behind harms nobody.
            let _ = tpm.nv_undefine(handle);
        }
        made
    }

    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let slot = NvSlot::read(slot)?;
        let faults = self.chip.faults();
        let _alone = self.chip.alone(deadline)?;
        let (mut tpm, key, mut session) = self.chip.policy_session(&slot.key, deadline)?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        let pin = self.chip.pin(slot.state.pin, auth, &mut tpm)?;
        let octets = self.read(&mut tpm, &mut session, &slot, pin.as_ref())?;
        if slot.once && host::in_force("tpm-index-locked") {
            // Before anybody has the octets: if this fails they are wiped.
            self.lock(&mut tpm, session, &slot).map_err(|e| faults.tpm(e))?;
        }
        let (left, evidence) = (slot.once.then_some(0), Evidence(self.facts(&slot)));
        Ok(Released { ikm: self.chip.ikm(octets)?, evidence, remaining_this_boot: left })
    }

    /// Locks the index, if it can be, in whatever state the device is.
    fn close(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Closed, SourceError> {
        let slot = NvSlot::read(slot)?;
        if !slot.once {
            return Ok(Closed::releases_on());
        }
        let faults = self.chip.faults();
        let _alone = self.chip.alone(deadline)?;
        let mut tpm = self.chip.open(deadline)?;
        let index = slot.index();
        let key = tpm.pinned_storage_key(&slot.key).map_err(|e| faults.tpm(e))?;
        let session = tpm.policy_session(&key).map_err(|e| faults.tpm(e))?;
        match self.lock(&mut tpm, session, &slot) {
            Ok(()) => Ok(Closed::until_reboot()),
            // By its name it is no longer what can be read: locked, replaced or gone. Only the first is as it should be.
            Err(e) => match tpm.nv_name(slot.handle) {
                Ok(name) if name == index.name(LOCKED) => Ok(Closed::until_reboot()),
                Ok(_) if e.refusal() == Some(Refusal::Auth) => {
                    Err(changed(&self.chip, slot.handle, "is another one, or was defined anew"))
                }
                _ => Err(faults.tpm(e)),
            },
        }
    }

    /// Removes the index, and with it the octets.
    fn discard(&mut self, slot: &SlotPublic, kept: &[&SlotPublic], deadline: Deadline) -> Result<(), SourceError> {
        let slot = NvSlot::read(slot)?;
        if kept.iter().any(|other| NvSlot::read(other).is_ok_and(|other| other.handle == slot.handle)) {
            return Ok(());
        }
        remove(&self.chip, &slot.key, &slot.index(), deadline)
    }

    fn left_of(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Left, SourceError> {
        let slot = NvSlot::read(slot)?;
        left_of(&self.chip, &slot.key, slot.handle, deadline)
    }
}

/// Removes an index of ours from the TPM that has this storage key. Another TPM keeps nothing for us, and another index in the place
/// of ours is not ours to remove.
pub(super) fn remove(chip: &Chip, key: &Name, index: &NvIndex, deadline: Deadline) -> Result<(), SourceError> {
    let _alone = chip.alone(deadline)?;
    let mut tpm = chip.open(deadline)?;
    let ours = |name: Name| ANY.iter().any(|state| index.name(*state) == name);
    let mut remove = || {
        if tpm.storage_key()?.name() == *key && ours(tpm.nv_name(index.handle())?) {
            tpm.nv_undefine(index.handle())?;
        }
        Ok(())
    };
    match remove() {
        Err(TpmError::Refused { code, .. }) if code.refusal() == Refusal::Handle => Ok(()),
        done => done.map_err(|e: TpmError| chip.faults().tpm(e)),
    }
}

/// Whether an index is there, by what the TPM of this storage key says.
pub(super) fn left_of(chip: &Chip, key: &Name, handle: NvHandle, deadline: Deadline) -> Result<Left, SourceError> {
    let faults = chip.faults();
    let mut tpm = chip.open(deadline)?;
    if tpm.storage_key().map_err(|e| faults.tpm(e))?.name() != *key {
        return Ok(Left::Copies(format!("{} is not the TPM of the slot, which was not asked", faults.what)));
    }
    match tpm.nv_name(handle) {
        Ok(_) => Ok(Left::Copies(format!("{} has the NV index {handle}", faults.what))),
        Err(e) if e.refusal() == Some(Refusal::Handle) => {
            Ok(Left::Nothing(format!("{} has no NV index {handle} any more", faults.what)))
        }
        Err(e) => Err(faults.tpm(e)),
    }
}

/// The index of a slot, for whoever would put another in its place.
#[cfg(test)]
pub(super) fn index_of(slot: &SlotPublic) -> Option<NvIndex> {
    NvSlot::read(slot).ok().map(|slot| slot.index())
}

fn changed(chip: &Chip, handle: NvHandle, how: &str) -> SourceError {
    SourceError::IndexChanged { what: chip.faults().what, defect: format!("NV index {handle} {how}") }
}

/// Every state that an index of ours may be in.
const ANY: [NvState; 5] = [
    NvState { written: false, write_locked: false, read_locked: false },
    NvState::COUNTING,
    NvState::READABLE,
    LOCKED,
    NvState { written: false, write_locked: false, read_locked: true },
];
const LOCKED: NvState = NvState { written: true, write_locked: true, read_locked: true };
const DRAWS: usize = 8;
