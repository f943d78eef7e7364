//! A TPM: random octets sealed to the state of the device, and given a few times in a boot.
//!
//! ```text
//! storage key, by its name ─ salted session ─ [vendor's approval] ─ registers as they were, gate ─ [clocks] ─ [counter] ─ [PIN]
//!                                                                                  └─> unseal ─> [extend the gate] ─> return
//! ```
//! What is on disk is of use to this TPM alone, and to it only while its registers hold what they held, or what a vendor has
//! signed. Who listens on the bus learns nothing, and who answers in the TPM's place is found out: the storage key was named
//! at provisioning. Releases are counted by an index of the TPM where it has such ([`counter`]), else by the gate alone, which
//! stops what comes after it and not what runs before. docs/hardware.md has the limits.

mod chip;
mod counter;
mod faults;
mod gate;
mod items;
mod nv;
mod predict;
mod signed;
mod slot;
mod state;
#[cfg(test)]
mod tests;

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;

use ::tpm::{AuthValue, Loaded, PcrSet, PcrValues, PinnedKey, Refusal, SealedObject, Session, Tpm, TpmError};
use host::{Clock, Disk, Entropy};
use secret::{Secret, SecretBytes, crypto};

use super::{
    Auth, Capabilities, Closed, Deadline, Evidence, KeySource, Left, PolicyRequest, Provisioned, Released, SourceError,
};
use crate::slot::{SlotPublic, SourceKind};
use chip::Chip;
use gate::{Gate, GateRegister, MOST_RELEASES, begun, closed_event, released_event};
use slot::{SlotPolicy, TpmSlot};
use state::State;

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

impl TpmSource {
    /// The TPM behind `device`, `/dev/tpmrm0` or the socket of swtpm. `gate` is the register that says how far this boot has come
    /// with its releases, for slots that are yet to be made. `lock` is a file that whoever releases holds: without a counter in
    /// the TPM, reading the gate, unsealing and extending it are three commands, and two processes between them would have two
    /// releases for one.
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

    /// The policy that a request comes to, on this device as it is now, but for the counter.
    fn policy(&self, request: &PolicyRequest, tpm: &mut Tpm) -> Result<SlotPolicy, SourceError> {
        let register = self.gate.filter(|_| request.releases_per_boot.is_some()).map(GateRegister::new).transpose()?;
        if let Some(register) = register.filter(|r| request.pcrs.contains(r.number())) {
            return Err(SourceError::PolicyEmpty {
                defect: format!("{register} is the gate, and cannot be measured too"),
            });
        }
        let all = register.map_or(request.pcrs, |r| request.pcrs.union(r.set()));
        let values = if all.is_empty() { Ok(PcrValues::default()) } else { tpm.read_pcrs(all) };
        let values = values.map_err(|e| self.chip.faults().tpm(e))?;
        let state = State::now(request, self.signing.key(&*self.chip.disk)?, &values)?;
        let gate = match (register, request.releases_per_boot.map(NonZeroU8::get)) {
            (Some(register), Some(limit)) => {
                let base = values.value(register.number()).copied().unwrap_or_default();
                if begun(&base) {
                    let defect = format!("{register} shows releases; a store is made before the first");
                    return Err(self.chip.faults().exhausted(defect));
                }
                Some(Gate { register, base, limit, counter: None })
            }
            _ => None,
        };
        Ok(SlotPolicy { state, gate })
    }

    /// The same policy with a counter, where that is wanted and the TPM has one.
    fn counted(&self, tpm: &mut Tpm, key: &PinnedKey, mut policy: SlotPolicy) -> Result<SlotPolicy, SourceError> {
        if let (Some(gate), Counting::Best | Counting::Index) = (&mut policy.gate, self.counting) {
            gate.counter = counter::make(tpm, key, gate, &*self.chip.entropy).map_err(|e| self.chip.faults().tpm(e))?;
            if gate.counter.is_none() && self.counting == Counting::Index {
                return Err(SourceError::PolicyUnenforceable { kind: SourceKind::Tpm, what: "count_in = \"index\"" });
            }
        }
        Ok(policy)
    }

    /// Seals, and sees that it comes back; nothing is counted. With a counter it cannot be asked for without that, so that what
    /// the policy comes to is tried instead.
    fn sealed(
        &self,
        tpm: &mut Tpm,
        key: PinnedKey,
        policy: SlotPolicy,
        pin: Option<&AuthValue>,
    ) -> Result<Provisioned, SourceError> {
        let faults = self.chip.faults();
        let secret = Secret::<32>::init_with(|octets| self.chip.entropy.fill(octets));
        let object = tpm.seal(&key, &policy.digest(), pin, secret.expose()).map_err(|e| faults.tpm(e))?;
        let counted = policy.gate.is_some_and(|gate| gate.counter.is_some());
        let sealed = TpmSlot { key: key.name(), object, policy };
        let octets = if counted {
            let session = tpm.policy_session(&key).map_err(|e| faults.tpm(e))?;
            self.show_approval(tpm, &session, &sealed.policy)?;
            predict::rehearse(&self.chip, tpm, &key, &sealed.policy)?;
            tpm.load(&key, &sealed.object).map_err(|e| faults.tpm(e))?;
            SecretBytes::new(secret.expose().to_vec())
        } else {
            let session = tpm.policy_session(&key).map_err(|e| faults.tpm(e))?;
            let object = tpm.load(&key, &sealed.object).map_err(|e| faults.tpm(e))?;
            self.unseal(tpm, session, &object, &sealed.policy, pin)?
        };
        if !crypto::ct_eq(octets.expose(), secret.expose()) {
            return Err(SourceError::Drifts { what: faults.what });
        }
        Ok(Provisioned { public: sealed.write(&faults.what)?, ikm: self.chip.ikm(octets)? })
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
        let index = policy.counter();
        if let Some((gate, index)) = &index {
            counter::ask(&self.chip, tpm, &session, gate, index)?;
        }
        let proven = if policy.state.pin { tpm.policy_auth_value(&session) } else { Ok(()) };
        proven.and_then(|()| tpm.unseal(session, object, pin)).map_err(|e| {
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
            (Some(Refusal::Auth), _) => self.chip.wrong_pin(tpm),
            _ => faults.tpm(error),
        }
    }

    /// How many releases are left after the next one, by what the gate and the counter say. A counter that is empty since the
    /// start is filled. Of a single release nothing is read: the policy has one state for it.
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

    fn load(&self, tpm: &mut Tpm, key: &PinnedKey, object: &SealedObject) -> Result<Loaded, SourceError> {
        tpm.load(key, object).map_err(|e| self.chip.faults().tpm(e))
    }
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
        Capabilities {
            device_bound: true,
            measured: true,
            most_releases_per_boot: self.gate.map_or(0, |_| MOST_RELEASES),
            time_window: true,
            pin: true,
            revocable_remotely: false,
            needs_network: false,
            bus_encrypted: true,
        }
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
        let (mut tpm, key, session) = self.chip.policy_session(&sealed.key, deadline)?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        let SlotPolicy { state, gate } = &sealed.policy;
        state.holds(&self.chip, &mut tpm)?;
        self.show_approval(&mut tpm, &session, &sealed.policy)?;
        let mut facts = self.chip.shown(&sealed.key, state);
        if let Some(gate) = gate {
            let left = match gate.index() {
                Some(index) => counter::foresee(&self.chip, &mut tpm, gate, &index)?,
                None => self.left_by_gate(&mut tpm, gate)?.saturating_add(1),
            };
            facts.push(("releases counted by", gate.to_string()));
            facts.push(("releases left in this boot", left.to_string()));
        }
        Ok(Evidence(facts))
    }

    fn provision(
        &mut self,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        request.enforceable(SourceKind::Tpm, &self.capabilities())?;
        let _alone = self.chip.alone(deadline)?;
        let mut tpm = self.chip.open(deadline)?;
        let policy = self.policy(request, &mut tpm)?;
        let pin = self.chip.pin(policy.state.pin, auth, &mut tpm)?;
        let key = tpm.storage_key().map_err(|e| self.chip.faults().tpm(e))?.pin();
        let policy = self.counted(&mut tpm, &key, policy)?;
        let counter = policy.gate.and_then(|gate| gate.counter);
        let made = self.sealed(&mut tpm, key, policy, pin.as_ref());
        if let (Err(_), Some(handle)) = (&made, counter) {
            // Memory of the TPM is scarce. What failed is told; an index left behind harms nobody.
            let _ = tpm.nv_undefine(handle);
        }
        made
    }

    fn provision_beside(
        &mut self,
        slot: &SlotPublic,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        predict::provision_beside(self, slot, request, auth, deadline)
    }

    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let faults = self.chip.faults();
        let _alone = self.chip.alone(deadline)?;
        let (mut tpm, key, mut session) = self.chip.policy_session(&sealed.key, deadline)?;
        let left = sealed.policy.gate.map(|gate| self.admit(&mut tpm, &mut session, &gate)).transpose()?;
        let pin = self.chip.pin(sealed.policy.state.pin, auth, &mut tpm)?;
        let object = self.load(&mut tpm, &key, &sealed.object)?;
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
        let mut facts = self.chip.shown(&sealed.key, &sealed.policy.state);
        facts.extend(sealed.policy.gate.map(|gate| ("releases counted by", gate.to_string())));
        facts.extend(left.map(|n| ("releases left in this boot", n.to_string())));
        Ok(Released { ikm: self.chip.ikm(octets)?, evidence: Evidence(facts), remaining_this_boot: left })
    }

    /// Extends the gate out of every state that allows a release; the TPM proves that it did.
    fn close(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Closed, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let Some(gate) = sealed.policy.gate else { return Ok(Closed::releases_on()) };
        let faults = self.chip.faults();
        let _alone = self.chip.alone(deadline)?;
        let mut tpm = self.chip.open(deadline)?;
        let key = tpm.pinned_storage_key(&sealed.key).map_err(|e| faults.tpm(e))?;
        let session = tpm.hmac_session(&key).map_err(|e| faults.tpm(e))?;
        if host::in_force("tpm-gate-closed") {
            // Whatever the register is said to hold: from no value does this lead to one that allows a release.
            tpm.extend_pcr(session, gate.register.number(), &closed_event()).map_err(|e| faults.tpm(e))?;
        }
        Ok(Closed::until_reboot())
    }

    /// Removes the counter, if no other slot asks it.
    fn discard(&mut self, slot: &SlotPublic, kept: &[&SlotPublic], deadline: Deadline) -> Result<(), SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let Some(index) = sealed.policy.gate.and_then(|gate| gate.index()) else { return Ok(()) };
        let asks = |other: &&SlotPublic| {
            let gate = TpmSlot::read(other).ok().and_then(|other| other.policy.gate);
            gate.and_then(|gate| gate.counter) == Some(index.handle())
        };
        if kept.iter().any(asks) { Ok(()) } else { nv::remove(&self.chip, &sealed.key, &index, deadline) }
    }

    /// Without its counter the policy of the sealed object is never met again.
    fn left_of(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Left, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        match sealed.policy.gate.and_then(|gate| gate.index()) {
            Some(index) => nv::left_of(&self.chip, &sealed.key, index.handle(), deadline),
            None => Ok(Left::Copies(format!("{} unseals a copy of the slot as before", self.chip.faults().what))),
        }
    }
}
