//! A TPM: random octets sealed to the state of the device, and given a few times in a boot.
//!
//! ```text
//! storage key, by its name ─ salted session ─ [vendor's approval] ─ registers as they were, gate ─ [clocks] ─ [counter] ─ [PIN]
//!                                                                                  └─> unseal ─> [extend the gate] ─> return
//! ```
//! What is on disk is of use to this TPM alone, and to it only while its registers hold what they held, or what a
//! vendor has signed. Who listens on the bus learns nothing, and who answers in the TPM's place is found out: the
//! storage key was named at provisioning. Releases are counted by an index of the TPM where it has such ([`counter`]),
//! else by the gate alone, which stops what comes after it and not what runs before. docs/hardware.md has the limits.

mod approval;
mod chip;
mod counter;
mod faults;
mod gate;
mod items;
mod making;
mod nv;
mod predict;
mod provision;
mod signed;
mod slot;
mod state;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use ::tpm::{AuthValue, Loaded, NvHandle, PcrSet, PcrValues, PinnedKey, Refusal, Session, Tpm, TpmError};
use host::{Clock, Disk, Entropy};
use secret::SecretBytes;

use super::auth::AskedOnce;
use super::evidence::RELEASES_LEFT;
use super::{
    Auth, Board, Capabilities, Closed, Deadline, Evidence, KeySource, Left, PolicyRequest, Provisioned, ReleaseLatch,
    Released, SourceError, Wanted,
};
use crate::slot::{SlotPublic, SourceKind};
use chip::Chip;
use gate::{Gate, MOST_RELEASES, closed_event, released_event};
use slot::{SlotPolicy, TpmSlot};

pub use items::storage_key;
pub(super) use items::{lacking, values_of};
pub use nv::TpmNvSource;
pub use signed::{PcrSignatures, PcrSigning, PcrSigningError, parse_public_key};

/// The source `tpm`.
pub struct TpmSource {
    chip: Chip,
    gate: Option<u8>,
    counting: Counting,
    signing: PcrSigning,
}

/// Who counts the releases of a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// An index where the TPM can, else the gate.
    #[default]
    Best,
    /// An index; a TPM that cannot is refused.
    Index,
    /// The gate alone.
    Gate,
}

impl Counting {
    /// Whether a slot that is counted so is what is wanted.
    fn allows(self, counter: Option<NvHandle>) -> bool {
        match self {
            Self::Best => true,
            _ if !host::in_force("tpm-count-in-held") => true,
            Self::Index => counter.is_some(),
            Self::Gate => counter.is_none(),
        }
    }
}

impl TpmSource {
    /// The TPM behind `device`, `/dev/tpmrm0` or the socket of swtpm. `gate` is the register that says how far this
    /// boot has come with its releases, for slots that are yet to be made. `lock` is a file that whoever releases
    /// holds: without a counter in the TPM, reading the gate, unsealing and extending it are three commands, and two
    /// processes between them would have two releases for one.
    pub fn new(
        device: impl Into<PathBuf>,
        gate: Option<u8>,
        lock: impl Into<PathBuf>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let chip = Chip::new(device.into(), lock.into(), disk, clock, entropy);
        Self { chip, gate, counting: Counting::default(), signing: PcrSigning::default() }
    }

    /// With a latch that it shares with the other sources of the process.
    #[must_use]
    pub fn latched(mut self, latch: ReleaseLatch) -> Self {
        self.chip.latch = latch;
        self
    }

    /// Who counts, in slots that are yet to be made.
    #[must_use]
    pub fn counting(self, counting: Counting) -> Self {
        Self { counting, ..self }
    }

    /// Where a vendor's key and signatures are.
    #[must_use]
    pub fn signing(self, signing: PcrSigning) -> Self {
        Self { signing, ..self }
    }

    fn show_approval(&self, tpm: &mut Tpm, session: &Session, policy: &SlotPolicy) -> Result<(), SourceError> {
        policy.state.show_approval(&self.chip, tpm, session, &self.signing.file())
    }

    /// Shows that the policy is met, and unseals. A counter counts here; the gate alone does not yet.
    fn unseal(
        &self,
        tpm: &mut Tpm,
        session: Session,
        object: &Loaded,
        policy: &SlotPolicy,
        pin: Option<&AuthValue>,
    ) -> Result<SecretBytes, SourceError> {
        self.show_approval(tpm, &session, policy)?;
        let shown = self.show_registers(tpm, &session, policy);
        shown.map_err(|e| self.refused(tpm, policy, e))?;
        // The state of the device was asked about so far, and no key.
        self.chip.about_to_release()?;
        let index = policy.counter();
        if let Some((gate, index)) = &index {
            counter::ask(&self.chip, tpm, &session, gate, index)?;
        }
        let wanted = policy.state.proves_pin();
        let proven = if wanted { tpm.policy_auth_value(&session) } else { Ok(()) };
        proven.and_then(|()| tpm.unseal(session, object, pin.filter(|_| wanted))).map_err(|e| {
            if e.refusal() == Some(Refusal::PcrChanged) {
                return SourceError::Disturbed { what: self.chip.faults().what, counted: index.is_some() };
            }
            let replaced = index.and_then(|(_, index)| {
                e.refusal().filter(|r| *r == Refusal::Policy).and_then(|_| counter::replaced(&self.chip, tpm, &index))
            });
            replaced.unwrap_or_else(|| self.refused(tpm, policy, e))
        })
    }

    fn show_registers(&self, tpm: &mut Tpm, session: &Session, policy: &SlotPolicy) -> Result<(), TpmError> {
        let (registers, values) = (policy.registers(), policy.values());
        if !registers.is_empty() {
            // Where there is one good state it is said at once, so that nothing is counted in another.
            let only = if let [one] = &values[..] { Some(one) } else { None };
            tpm.policy_pcr(session, registers, only)?;
        }
        if values.len() > 1 {
            tpm.policy_or(session, &policy.branches())?;
        }
        policy.state.show_clocks(tpm, session)
    }

    fn refused(&self, tpm: &mut Tpm, policy: &SlotPolicy, error: TpmError) -> SourceError {
        let faults = self.chip.faults();
        match (error.refusal(), policy.state.window) {
            (Some(Refusal::Policy), _) => {
                if let Some(out) = policy.gate.and_then(|gate| self.is_out(tpm, &gate)) {
                    return out;
                }
                match (policy.state.differs(&self.chip, tpm), policy.gate) {
                    // Registers as agreed, and a gate that was armed, or is said to be.
                    (SourceError::PolicyMismatch { differs }, Some(gate))
                        if differs.is_empty() && gate.counter.is_some() =>
                    {
                        let defect = format!("{} was extended, and has not the value that follows", gate.register);
                        SourceError::Tampered { what: faults.what, defect }
                    }
                    (told, _) => told,
                }
            }
            (Some(Refusal::Condition), Some(window)) => SourceError::WindowClosed { what: faults.what, window },
            (Some(Refusal::Auth), _) => self.chip.not_authorised(tpm, policy.state.pin, &error),
            _ => faults.tpm(error),
        }
    }

    /// How many releases are left after the next one, by what the gate and the counter say. A counter that is empty
    /// since the start is filled. Of a single release nothing is read: the policy has one state for it.
    fn admit(&self, tpm: &mut Tpm, session: &mut Session, gate: &Gate) -> Result<u8, SourceError> {
        match gate.index() {
            Some(index) => counter::admit(&self.chip, tpm, session, gate, &index),
            None if gate.limit == 1 => Ok(0),
            None => self.left_by_gate(tpm, gate),
        }
    }

    /// Whether it is the gate that has refused, by what the register is said to hold.
    fn is_out(&self, tpm: &mut Tpm, gate: &Gate) -> Option<SourceError> {
        if gate.counter.is_none() {
            return self.left_by_gate(tpm, gate).err();
        }
        let value = gate.register.read(tpm).ok()?;
        (value != gate.base && value != gate.armed()).then(|| gate.is_closed(&self.chip))
    }

    fn left_by_gate(&self, tpm: &mut Tpm, gate: &Gate) -> Result<u8, SourceError> {
        let faults = self.chip.faults();
        let value = gate.register.read(tpm).map_err(|e| faults.tpm(e))?;
        gate.left_after_next(&value).ok_or_else(|| {
            let (register, limit) = (gate.register, gate.limit);
            faults.exhausted(format!("{register} allows {limit} releases in a boot, and they are used up or closed"))
        })
    }

    fn released(
        &self,
        mut tpm: Tpm,
        key: PinnedKey,
        shown: &mut bool,
        sealed: &TpmSlot,
        auth: &dyn Auth,
    ) -> Result<Released, SourceError> {
        let faults = self.chip.faults();
        let mut session = tpm.policy_session(&key).map_err(|e| faults.tpm(e))?;
        let left = sealed.policy.gate.map(|gate| self.admit(&mut tpm, &mut session, &gate)).transpose()?;
        // With another key than is thought the session is refused here, before anybody is asked for a PIN: whoever
        // holds that key could try PINs on what a session with it shows.
        let object = if host::in_force("tpm-proven-before-pin") {
            tpm.load(&key, &sealed.object, &mut session)
        } else {
            tpm.try_load(&key, &sealed.object)
        };
        let object = object.map_err(|e| faults.tpm(e))?;
        *shown = true;
        let pin = self.chip.pin(sealed.policy.state.pin, auth, &mut tpm)?;
        // The gate alone counts afterwards, and then wants it proven.
        let alone = sealed.policy.gate.filter(|gate| gate.counter.is_none());
        let proof = alone.map(|gate| tpm.hmac_session(&key).map(|s| (gate, s))).transpose();
        let proof = proof.map_err(|e| faults.tpm(e))?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        let octets = self.unseal(&mut tpm, session, &object, &sealed.policy, pin.as_ref())?;
        if let Some((gate, session)) = proof
            && host::in_force("tpm-release-counted")
        {
            // Before anybody has the octets: if this fails they are wiped, and a release is lost rather than gained.
            tpm.extend_pcr(session, gate.register.number(), &released_event()).map_err(|e| faults.tpm(e))?;
        }
        let mut facts = self.chip.shown(&sealed.key.name, &sealed.policy.state);
        facts.extend(sealed.policy.gate.map(|gate| ("releases counted by", gate.to_string())));
        facts.extend(left.map(|n| (RELEASES_LEFT, n.to_string())));
        Ok(Released { ikm: self.chip.ikm(octets)?, evidence: Evidence(facts), remaining_this_boot: left })
    }
}

/// Whether a register alone counts the releases of a slot, and no index.
pub fn counted_by_gate_alone(slot: &SlotPublic) -> bool {
    TpmSlot::read(slot).is_ok_and(|sealed| sealed.policy.gate.is_some_and(|gate| gate.counter.is_none()))
}

impl std::fmt::Debug for TpmSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TpmSource({})", self.chip.faults().what)
    }
}

impl KeySource for TpmSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Tpm
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.gate.map_or(0, |_| MOST_RELEASES))
    }

    fn tries_pin(&self, slot: &SlotPublic) -> bool {
        TpmSlot::read(slot).is_ok_and(|sealed| sealed.policy.state.pin)
    }

    fn look(&self, wish: Wanted, auth: &dyn Auth) -> Result<(), SourceError> {
        self.chip.look(wish, &self.signing, auth)
    }

    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError> {
        let faults = self.chip.faults();
        let mut tpm = self.chip.open(deadline)?;
        let mut facts = self.chip.facts(&mut tpm).map_err(|e| faults.tpm(e))?;
        if let Some(gate) = self.gate {
            let set = PcrSet::new([gate]).map_err(|e| SourceError::PolicyEmpty { defect: e.to_string() })?;
            let values = tpm.read_pcrs(set).map_err(|e| faults.tpm(e))?;
            let value = values.value(gate).map_or_else(String::new, hex::encode);
            facts.push(("gate", format!("PCR {gate}: {value}")));
        }
        Ok(Evidence(facts))
    }

    /// Storage key, registers, signatures, gate and counter are looked at; whether the PIN is right is not.
    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let faults = self.chip.faults();
        let (mut tpm, key, session) = self.chip.policy_session(&sealed.key.name, deadline)?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        let SlotPolicy { state, gate } = &sealed.policy;
        state.holds(&self.chip, &mut tpm)?;
        self.show_approval(&mut tpm, &session, &sealed.policy)?;
        let mut facts = self.chip.shown(&sealed.key.name, state);
        if let Some(gate) = gate {
            let left = match gate.index() {
                Some(index) => counter::foresee(&self.chip, &mut tpm, gate, &index)?,
                None => self.left_by_gate(&mut tpm, gate)?.saturating_add(1),
            };
            facts.push(("releases counted by", gate.to_string()));
            facts.push((RELEASES_LEFT, left.to_string()));
        }
        Ok(Evidence(facts))
    }

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
        let auth = AskedOnce::new(auth);
        let make = || predict::provision_beside(self, slot, board, request, &auth, deadline);
        self.chip.undisturbed(deadline, make).map(|(made, _)| made)
    }

    fn predict(
        &mut self,
        slot: &SlotPublic,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        predict::predict(self, slot, values, auth, deadline)
    }

    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let _alone = self.chip.alone(deadline)?;
        let auth = AskedOnce::new(auth);
        let (mut released, again) = self.chip.undisturbed(deadline, || {
            self.chip.with_key(&sealed.key, deadline, |tpm, key, shown| self.released(tpm, key, shown, &sealed, &auth))
        })?;
        if again {
            released.evidence.0.push(("of the releases of this boot", format!("one {}", chip::IN_VAIN)));
        }
        Ok(released)
    }

    /// Extends the gate out of every state that allows a release; the TPM proves that it did.
    fn close(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Closed, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let Some(gate) = sealed.policy.gate else { return Ok(Closed::releases_on()) };
        let _alone = self.chip.alone(deadline)?;
        self.chip.with_key(&sealed.key, deadline, |mut tpm, key, _| {
            let session = tpm.hmac_session(&key).map_err(|e| self.chip.faults().tpm(e))?;
            if host::in_force("tpm-gate-closed") {
                // Whatever the register is said to hold: from no value does this lead to one that allows a release.
                let closed = tpm.extend_pcr(session, gate.register.number(), &closed_event());
                closed.map_err(|e| self.chip.faults().tpm(e))?;
            }
            Ok(Closed::until_reboot())
        })
    }

    /// Removes the counter, if no other slot asks it.
    fn discard(
        &mut self,
        slot: &SlotPublic,
        kept: &[&SlotPublic],
        _auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let Some(index) = sealed.policy.gate.and_then(|gate| gate.index()) else { return Ok(()) };
        let asks = |other: &&SlotPublic| {
            let gate = TpmSlot::read(other).ok().and_then(|other| other.policy.gate);
            gate.and_then(|gate| gate.counter) == Some(index.handle())
        };
        if kept.iter().any(asks) { Ok(()) } else { nv::remove(&self.chip, &sealed.key.name, &index, deadline) }
    }

    /// Without its counter the policy of the sealed object is never met again.
    fn left_of(&mut self, slot: &SlotPublic, _auth: &dyn Auth, deadline: Deadline) -> Result<Left, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        match sealed.policy.gate.and_then(|gate| gate.index()) {
            Some(index) => nv::left_of(&self.chip, &sealed.key.name, index.handle(), deadline),
            None => Ok(Left::Copies(format!("{} unseals a copy of the slot as before", self.chip.faults().what))),
        }
    }
}

/// What a TPM can hold to, by either kind of slot.
fn capabilities(most_releases_per_boot: u8) -> Capabilities {
    Capabilities {
        device_bound: true,
        measured: true,
        most_releases_per_boot,
        time_window: true,
        pin: true,
        revocable_remotely: false,
        needs_network: false,
        bus_encrypted: true,
    }
}
