//! A TPM that keeps the octets itself, in an index that is locked against reading once it was read: once in a boot by
//! construction.
//!
//! ```text
//! storage key, by its name ─ salted session ─ state of the device ─> NV_Read ─> NV_ReadLock ─> only then return
//! policy of the index = OR( state of the device, only NV_ReadLock )
//! ```
//! Without a limit the index cannot be locked: which of the two it is stands in its name, and so cannot be changed on
//! the disk. Nothing on the disk but where it is. Whoever may read may not read again before the TPM is started anew;
//! whoever may not read may lock. Whoever has the owner's authorisation can destroy the index, and learns nothing by
//! it: another in its place has another name, or other octets.

mod images;
mod provision;
mod slot;

use std::path::PathBuf;
use std::sync::Arc;

use ::tpm::policy::PolicyCommand;
use ::tpm::{AuthValue, Name, NvHandle, NvIndex, NvState, PcrValues, PinnedKey, Refusal, Session, Tpm, TpmError};
use host::{Clock, Disk, Entropy};
use secret::SecretBytes;

use super::super::auth::AskedOnce;
use super::super::evidence::RELEASES_LEFT;
use super::super::{
    Auth, Board, Capabilities, Closed, Deadline, Evidence, KeySource, Left, PolicyRequest, Provisioned, ReleaseLatch,
    Released, SourceError, Wanted,
};
use super::capabilities;
use super::chip::Chip;
use super::signed::PcrSigning;
use crate::slot::{SlotPublic, SourceKind};
use slot::{NvSlot, branches, check};

/// The source `tpm-nv`.
pub struct TpmNvSource {
    chip: Chip,
    signing: PcrSigning,
    /// The slots of other images, which release once in a boot with this one's, and not once each.
    others: Vec<NvSlot>,
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
        Self { chip, signing: PcrSigning::default(), others: Vec::new() }
    }

    /// With a latch that it shares with the other sources of the process.
    #[must_use]
    pub fn latched(mut self, latch: ReleaseLatch) -> Self {
        self.chip.latch = latch;
        self
    }

    /// Where a vendor's key and signatures are.
    #[must_use]
    pub fn signing(self, signing: PcrSigning) -> Self {
        Self { signing, ..self }
    }

    /// Among these slots of the store, whatever they are: those of other images release nothing any more in a boot in
    /// which this source has released.
    #[must_use]
    pub fn among(mut self, slots: &[SlotPublic]) -> Self {
        self.others = slots.iter().filter_map(|slot| NvSlot::read(slot).ok()).collect();
        self
    }

    /// Sees that the index is the slot's, and open, and that it is the slot's TPM which says so. What it is instead,
    /// for people, is asked only then.
    fn readable(&self, tpm: &mut Tpm, session: &mut Session, slot: &NvSlot) -> Result<(), SourceError> {
        let (faults, index) = (self.chip.faults(), slot.index());
        let Err(refused) = tpm.nv_shown(session, &index, NvState::READABLE) else { return Ok(()) };
        if refused.refusal().is_none() {
            return Err(faults.tpm(refused));
        }
        match tpm.nv_name(slot.handle) {
            Ok(name) if name == index.name(NvState::READABLE) => Err(faults.tpm(refused)),
            Ok(_) if !host::in_force("tpm-index-pinned") => Ok(()),
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
        if shown.is_ok() {
            self.chip.about_to_release()?;
        }
        let read = shown.and_then(|()| tpm.nv_read_secret(session, &index, pin));
        let octets = read.map_err(|e| match (e.refusal(), state.window) {
            (Some(Refusal::Policy), _) => state.differs(&self.chip, tpm),
            (Some(Refusal::Condition), Some(window)) => SourceError::WindowClosed { what: faults.what.clone(), window },
            (Some(Refusal::Auth), _) => self.chip.not_authorised(tpm, state.pin, &e),
            _ => faults.tpm(e),
        })?;
        if check(octets.expose()) == slot.check {
            return Ok(octets);
        }
        Err(changed(&self.chip, slot.handle, "has other octets than were put there"))
    }

    fn released(
        &self,
        mut tpm: Tpm,
        key: PinnedKey,
        shown: &mut bool,
        slot: &NvSlot,
        auth: &dyn Auth,
    ) -> Result<Released, SourceError> {
        let faults = self.chip.faults();
        self.lock_others(&mut tpm, &key, slot)?;
        let mut session = tpm.policy_session(&key).map_err(|e| faults.tpm(e))?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        // Before anybody is asked for a PIN; and reading would tell another index as a wrong PIN, which is counted.
        self.readable(&mut tpm, &mut session, slot)?;
        *shown = true;
        let pin = self.chip.pin(slot.state.pin, auth, &mut tpm)?;
        let octets = self.read(&mut tpm, &mut session, slot, pin.as_ref())?;
        if slot.once && host::in_force("tpm-index-locked") {
            // Before anybody has the octets: if this fails they are wiped.
            self.lock(&mut tpm, session, slot).map_err(|e| faults.tpm(e))?;
        }
        let (left, evidence) = (slot.once.then_some(0), Evidence(self.facts(slot)));
        Ok(Released { ikm: self.chip.ikm(octets)?, evidence, remaining_this_boot: left })
    }

    fn locked(&self, mut tpm: Tpm, key: &PinnedKey, slot: &NvSlot) -> Result<Closed, SourceError> {
        let faults = self.chip.faults();
        let session = tpm.policy_session(key).map_err(|e| faults.tpm(e))?;
        match self.lock(&mut tpm, session, slot) {
            Ok(()) => Ok(Closed::until_reboot()),
            // By its name it is no longer what can be read: locked, replaced or gone. Only the first is as it should
            // be.
            Err(e) => match tpm.nv_name(slot.handle) {
                Ok(name) if name == slot.index().name(LOCKED) => Ok(Closed::until_reboot()),
                Ok(_) if e.refusal() == Some(Refusal::Auth) => {
                    Err(changed(&self.chip, slot.handle, "is another one, or was defined anew"))
                }
                _ => Err(faults.tpm(e)),
            },
        }
    }

    /// For people.
    fn facts(&self, slot: &NvSlot) -> Vec<(&'static str, String)> {
        let mut facts = self.chip.shown(&slot.key.name, &slot.state);
        facts.push(("index", slot.handle.to_string()));
        facts
    }

    /// Locks it against being read until the TPM is started anew; the TPM proves that it did.
    fn lock(&self, tpm: &mut Tpm, session: Session, slot: &NvSlot) -> Result<(), TpmError> {
        tpm.policy_command(&session, PolicyCommand::NvReadLock)?;
        tpm.policy_or(&session, &branches(&slot.state))?;
        tpm.nv_read_lock(session, &slot.index())
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
        capabilities(1)
    }

    fn tries_pin(&self, slot: &SlotPublic) -> bool {
        NvSlot::read(slot).is_ok_and(|slot| slot.state.pin)
    }

    fn look(&self, wish: Wanted, auth: &dyn Auth) -> Result<(), SourceError> {
        self.chip.look(wish, &self.signing, auth)
    }

    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError> {
        let mut tpm = self.chip.open(deadline)?;
        self.chip.facts(&mut tpm).map(Evidence).map_err(|e| self.chip.faults().tpm(e))
    }

    /// Storage key, registers, index and signatures are looked at; whether the PIN is right is not.
    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        let slot = NvSlot::read(slot)?;
        let faults = self.chip.faults();
        let (mut tpm, key, mut session) = self.chip.policy_session(&slot.key.name, deadline)?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        slot.state.holds(&self.chip, &mut tpm)?;
        self.readable(&mut tpm, &mut session, &slot)?;
        slot.state.show_approval(&self.chip, &mut tpm, &session, &self.signing.file())?;
        let mut facts = self.facts(&slot);
        facts.extend(slot.once.then(|| (RELEASES_LEFT, "1".to_owned())));
        Ok(Evidence(facts))
    }

    /// Writes, locks against writing, and reads once to see that it comes back: that locks nothing, and so uses no
    /// release up.
    fn provision(
        &mut self,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let auth = AskedOnce::new(auth);
        self.chip.undisturbed(deadline, || self.make(None, request, &auth, deadline)).map(|(made, _)| made)
    }

    fn provision_beside(
        &mut self,
        slot: &SlotPublic,
        board: Board,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let like = NvSlot::read(slot)?;
        let known = self.chip.bound_to(&like.key.name, board, deadline)?;
        let auth = AskedOnce::new(auth);
        self.chip.undisturbed(deadline, || self.make(known, request, &auth, deadline)).map(|(made, _)| made)
    }

    /// Nothing of it can be read in this boot, whose release the present index has.
    fn predict(
        &mut self,
        slot: &SlotPublic,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        self.make_for(&NvSlot::read(slot)?, values, auth, deadline)
    }

    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let slot = NvSlot::read(slot)?;
        let _alone = self.chip.alone(deadline)?;
        let auth = AskedOnce::new(auth);
        let released = self.chip.undisturbed(deadline, || {
            self.chip.with_key(&slot.key, deadline, |tpm, key, shown| self.released(tpm, key, shown, &slot, &auth))
        });
        released.map(|(released, _)| released)
    }

    /// Locks the index, if it can be, in whatever state the device is.
    fn close(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Closed, SourceError> {
        let slot = NvSlot::read(slot)?;
        if !slot.once {
            return Ok(Closed::releases_on());
        }
        let _alone = self.chip.alone(deadline)?;
        self.chip.with_key(&slot.key, deadline, |tpm, key, _| self.locked(tpm, &key, &slot))
    }

    /// Removes the index, and with it the octets.
    fn discard(
        &mut self,
        slot: &SlotPublic,
        kept: &[&SlotPublic],
        _auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let slot = NvSlot::read(slot)?;
        if kept.iter().any(|other| NvSlot::read(other).is_ok_and(|other| other.handle == slot.handle)) {
            return Ok(());
        }
        remove(&self.chip, &slot.key.name, &slot.index(), deadline)
    }

    fn left_of(&mut self, slot: &SlotPublic, _auth: &dyn Auth, deadline: Deadline) -> Result<Left, SourceError> {
        let slot = NvSlot::read(slot)?;
        left_of(&self.chip, &slot.key.name, slot.handle, deadline)
    }
}

/// Removes an index of ours from the TPM that has this storage key. Another TPM keeps nothing for us, and another index
/// in the place of ours is not ours to remove.
pub(super) fn remove(chip: &Chip, key: &Name, index: &NvIndex, deadline: Deadline) -> Result<(), SourceError> {
    let _alone = chip.alone(deadline)?;
    remove_alone(chip, key, index, deadline)
}

/// As [`remove`], for whoever has the TPM alone already.
pub(super) fn remove_alone(chip: &Chip, key: &Name, index: &NvIndex, deadline: Deadline) -> Result<(), SourceError> {
    let mut tpm = chip.open(deadline)?;
    let ours = |name: Name| ANY.iter().any(|state| index.name(*state) == name);
    let mut remove = || {
        if tpm.storage_key()?.name() == *key && ours(tpm.nv_name(index.handle())?) {
            tpm.nv_undefine(index.handle())?;
        }
        Ok(())
    };
    gone(remove()).map_err(|e| chip.faults().tpm(e))
}

/// What is not there is gone too.
pub(super) fn gone(removed: Result<(), TpmError>) -> Result<(), TpmError> {
    removed.or_else(|e| if e.refusal() == Some(Refusal::Handle) { Ok(()) } else { Err(e) })
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

/// What its policy has to choose from, for whoever would read it by another tool.
#[cfg(test)]
pub(super) fn branches_of(slot: &SlotPublic) -> Option<[::tpm::PolicyDigest; 2]> {
    NvSlot::read(slot).ok().map(|slot| branches(&slot.state))
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
