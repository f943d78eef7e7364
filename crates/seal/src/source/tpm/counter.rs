//! The counter in the TPM: an index that lets itself be asked N times, and no more until the TPM is started anew.
//!
//! ```text
//! first release of a boot   gate at base:  write {0, N} ─> arm the gate ─┐
//! every release             gate armed:                                  └─> PolicySecret (the TPM counts) ─> unseal
//! ```
//! The object's policy wants both: the armed gate, and the index's consent. So it is the TPM that counts, before it
//! unseals, whoever asks and by whatever tool; two who ask at once have two counted. What the counter is worth hangs on
//! the gate: without it whoever has the owner's authorisation, often nobody's secret, would define the index anew.

use ::tpm::policy::PolicyDigest;
use ::tpm::{NvHandle, NvIndex, NvState, PinCounter, PinnedKey, Refusal, Session, Tpm, TpmError};

use super::chip::Chip;
use super::gate::{Gate, armed_event};
use super::making::Making;
use crate::source::SourceError;

/// Defines a counter for `gate`, and sees that it counts; `None` where this TPM has no such indices; one that has
/// no room for another is an error, for it may have tomorrow what the slot would lack for good. The gate is at its base.
pub(super) fn make(making: &mut Making<'_>, gate: &Gate) -> Result<Option<NvHandle>, TpmError> {
    let index = match making.define(None, |handle| gate.index_at(handle)) {
        Err(e) if cannot(&e) => return Ok(None),
        defined => defined?,
    };
    let Some(index) = index else { return Ok(None) };
    let Making { tpm, key, .. } = making;
    match counts(tpm, key, gate, &index) {
        Ok(true) => return Ok(Some(index.handle())),
        Err(e) if !cannot(&e) => return Err(e),
        _ => {}
    }
    making.undefine()?;
    Ok(None)
}

/// Lets it be asked once, and asks twice.
fn counts(tpm: &mut Tpm, key: &PinnedKey, gate: &Gate, index: &NvIndex) -> Result<bool, TpmError> {
    let mut session = tpm.policy_session(key)?;
    let once = PinCounter { count: 0, limit: 1 };
    let filled =
        at_base(tpm, &session, gate).and_then(|()| tpm.nv_write_counter(&mut session, index, NvState::default(), once));
    // Also where this TPM has refused, and the slot goes on without a counter: its sessions are few.
    let ended = tpm.end(session);
    filled.and(ended)?;
    let trial = tpm.trial_session(key)?;
    let asked = tpm.policy_secret(&trial, index.handle()).and_then(|()| tpm.policy_digest(&trial));
    let twice = tpm.policy_secret(&trial, index.handle());
    let ended = tpm.end(trial);
    let once = asked? == PolicyDigest::default().secret(&index.name(NvState::COUNTING));
    ended?;
    match twice {
        Err(e) if e.refusal() == Some(Refusal::Unavailable) => Ok(once),
        Err(e) => Err(e),
        Ok(()) => Ok(false),
    }
}

/// The TPM answers, and does not know what is asked.
fn cannot(error: &TpmError) -> bool {
    matches!(error.refusal(), Some(Refusal::Unknown | Refusal::Other))
}

/// Sees that the gate is armed, and says how many releases are left after the next one. Whether this is the first
/// release of a boot is not read: the step that the first one takes is refused by the TPM in every other, and that is
/// as good an answer. Whether the gate is armed otherwise, or closed, the policy of the object tells.
pub(super) fn admit(
    chip: &Chip,
    tpm: &mut Tpm,
    session: &mut Session,
    gate: &Gate,
    index: &NvIndex,
) -> Result<u8, SourceError> {
    let left = match at_base(tpm, session, gate) {
        Ok(()) => {
            arm(tpm, session, gate, index).map_err(|e| match e.refusal() {
                Some(Refusal::Handle | Refusal::Auth) => {
                    changed(chip, index, "is not there, or another is in its place")
                }
                _ => chip.faults().tpm(e),
            })?;
            gate.limit
        }
        Err(e) if e.refusal() == Some(Refusal::Policy) => count(chip, tpm, gate, index)?,
        Err(e) => return Err(chip.faults().tpm(e)),
    };
    Ok(left.saturating_sub(1))
}

/// How many releases are left, before the first too.
pub(super) fn foresee(chip: &Chip, tpm: &mut Tpm, gate: &Gate, index: &NvIndex) -> Result<u8, SourceError> {
    if let Some(left) = left(chip, tpm, gate, index)? {
        return Ok(left);
    }
    match tpm.nv_name(index.handle()) {
        Ok(name) if [NvState::default(), NvState::COUNTING].map(|state| index.name(state)).contains(&name) => {
            Ok(gate.limit)
        }
        Err(e) if e.refusal() != Some(Refusal::Handle) => Err(chip.faults().tpm(e)),
        _ => Err(changed(chip, index, "is not there, or another is in its place")),
    }
}

/// How many releases are left, at least one; `None` where the counter is yet to be filled in this boot.
fn left(chip: &Chip, tpm: &mut Tpm, gate: &Gate, index: &NvIndex) -> Result<Option<u8>, SourceError> {
    let faults = chip.faults();
    let value = gate.register.read(tpm).map_err(|e| faults.tpm(e))?;
    if value == gate.base {
        return Ok(None);
    }
    if value != gate.armed() {
        return Err(gate.is_closed(chip));
    }
    count(chip, tpm, gate, index).map(Some)
}

/// What the counter says is left, at least one. It was filled in this boot, unless the gate was closed before.
fn count(chip: &Chip, tpm: &mut Tpm, gate: &Gate, index: &NvIndex) -> Result<u8, SourceError> {
    let faults = chip.faults();
    let counter = match (tpm.nv_read_counter(index.handle()), gate.register) {
        (Ok(counter), _) => counter,
        (Err(e), register) => {
            return Err(match e.refusal() {
                Some(Refusal::Handle) => changed(chip, index, "is not there any more"),
                Some(Refusal::NvUnwritten) => match register.read(tpm) {
                    Ok(value) if value == gate.armed() => changed(chip, index, "was defined anew in this boot"),
                    Ok(_) => gate.is_closed(chip),
                    Err(e) => faults.tpm(e),
                },
                _ => faults.tpm(e),
            });
        }
    };
    let left = counter.limit.min(u32::from(gate.limit)).checked_sub(counter.count).filter(|left| *left > 0);
    let left = left.ok_or_else(|| used_up(chip, gate))?;
    Ok(u8::try_from(left).unwrap_or(gate.limit))
}

/// Fills the counter for this boot, the register having been shown to be at its base, and only then leaves the state in
/// which it can be filled. After a power cut between the two the gate begins at its base again; after a crash it is
/// still there, and the counter is filled once more.
fn arm(tpm: &mut Tpm, session: &mut Session, gate: &Gate, index: &NvIndex) -> Result<(), TpmError> {
    let fill = PinCounter { count: 0, limit: u32::from(gate.limit) };
    match tpm.nv_write_counter(session, index, NvState::default(), fill) {
        // Its name says that it was filled in this boot already. What a command refuses leaves the session as it was.
        Err(e) if e.refusal() == Some(Refusal::Auth) => {
            tpm.nv_write_counter(session, index, NvState::COUNTING, fill)?;
        }
        filled => filled?,
    }
    // Need not be proven: unless it was done the object does not unseal.
    tpm.extend_pcr_unproven(gate.register.number(), &armed_event(gate.limit))?;
    Ok(())
}

/// What the counter may be written under.
fn at_base(tpm: &mut Tpm, session: &Session, gate: &Gate) -> Result<(), TpmError> {
    if host::in_force("tpm-counter-joined") {
        tpm.policy_pcr(session, gate.register.set(), Some(&gate.at_base()))?;
    }
    Ok(())
}

/// The index's consent: the TPM counts here.
pub(super) fn ask(
    chip: &Chip,
    tpm: &mut Tpm,
    session: &Session,
    gate: &Gate,
    index: &NvIndex,
) -> Result<(), SourceError> {
    tpm.policy_secret(session, index.handle()).map_err(|e| match e.refusal() {
        Some(Refusal::Unavailable) => used_up(chip, gate),
        Some(Refusal::Handle) => changed(chip, index, "is not there any more"),
        _ => chip.faults().tpm(e),
    })
}

/// Whether another index stands in the place of ours, after it was no good.
pub(super) fn replaced(chip: &Chip, tpm: &mut Tpm, index: &NvIndex) -> Option<SourceError> {
    match tpm.nv_name(index.handle()) {
        Ok(name) if name == index.name(NvState::COUNTING) => None,
        Ok(_) => Some(changed(chip, index, "is another one, or was defined anew")),
        Err(e) if e.refusal() == Some(Refusal::Handle) => Some(changed(chip, index, "is not there any more")),
        Err(_) => None,
    }
}

fn used_up(chip: &Chip, gate: &Gate) -> SourceError {
    chip.faults().exhausted(format!("the TPM has counted {} releases in this boot", gate.limit))
}

fn changed(chip: &Chip, index: &NvIndex, how: &str) -> SourceError {
    SourceError::IndexChanged { what: chip.faults().what, defect: format!("NV index {} {how}", index.handle()) }
}
