//! A slot for a state that the device is not in yet: that of the next image, or, of a device that has begun its releases, the one
//! after its next start.
//!
//! A policy is a digest of values, and so can be computed for values that were never seen. Whether the TPM comes to the same
//! digest is tried in a trial session, in which assertions need not be true. Gate and counter are those of the slot beside it:
//! their value at a start cannot be read off a device that has started, and both slots together release as often as one.

use std::num::NonZeroU8;

use ::tpm::{PcrValues, PinnedKey, Tpm, TpmError};

use super::chip::Chip;
use super::slot::{SlotPolicy, TpmSlot};
use super::state::State;
use super::{Deadline, TpmSource};
use crate::slot::{SlotPublic, SourceKind};
use crate::source::{Auth, PolicyRequest, Provisioned, SourceError};

impl TpmSource {
    /// Whether two slots are of one TPM and one policy, for other values of the same registers.
    pub fn differ_in_values_alone(a: &SlotPublic, b: &SlotPublic) -> bool {
        let (Ok(a), Ok(b)) = (TpmSlot::read(a), TpmSlot::read(b)) else { return false };
        let values = |slot: TpmSlot| {
            let set = slot.policy.state.measured_set();
            (slot.key, set, State { measured: PcrValues::default(), ..slot.policy.state }, slot.policy.gate)
        };
        values(a) == values(b)
    }

    /// Key material that is released as that of `slot` is, but when its registers have `values`. What the registers hold
    /// now does not matter, and nothing is counted. The gate register's value, should there be one, is passed over.
    ///
    /// # Errors
    /// [`SourceError::PolicyEmpty`] where a register that the slot measures has no value, or one that says nothing;
    /// [`SourceError::WrongDevice`] on another TPM than the slot's.
    pub fn predict(
        &mut self,
        slot: &SlotPublic,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let like = TpmSlot::read(slot)?;
        let request = PolicyRequest {
            pcrs: like.policy.state.measured_set(),
            releases_per_boot: slot.release_limit(),
            window: like.policy.state.window,
            pin: like.policy.state.pin,
        };
        let state = State::now(&request, like.policy.state.authority.clone(), values)?;
        seal_to(self, &like, state, auth, deadline)
    }
}

/// As [`TpmSource::predict`], for what the registers hold now.
pub(super) fn provision_beside(
    source: &mut TpmSource,
    slot: &SlotPublic,
    request: &PolicyRequest,
    auth: &dyn Auth,
    deadline: Deadline,
) -> Result<Provisioned, SourceError> {
    use super::KeySource as _;
    request.enforceable(SourceKind::Tpm, &source.capabilities())?;
    let like = TpmSlot::read(slot)?;
    let gate = like.policy.gate;
    if !source.is_key(&like, deadline)? {
        // Another TPM than before: nothing is shared with it.
        return source.provision(request, auth, deadline);
    }
    let same_gate = gate.map(|gate| gate.limit) == request.releases_per_boot.map(NonZeroU8::get)
        && gate.is_none_or(|gate| source.gate == Some(gate.register.number()));
    if !same_gate {
        // Another limit has a gate of its own; it must be made before the first release of a boot.
        return source.provision(request, auth, deadline);
    }
    let values = {
        let _alone = source.chip.alone(deadline)?;
        let mut tpm = source.chip.open(deadline)?;
        let none = request.pcrs.is_empty();
        let read = if none { Ok(PcrValues::default()) } else { tpm.read_pcrs(request.pcrs) };
        read.map_err(|e| source.chip.faults().tpm(e))?
    };
    let state = State::now(request, source.signing.key(&*source.chip.disk)?, &values)?;
    seal_to(source, &like, state, auth, deadline)
}

impl TpmSource {
    /// Whether the TPM is the one that made a slot.
    fn is_key(&self, like: &TpmSlot, deadline: Deadline) -> Result<bool, SourceError> {
        let mut tpm = self.chip.open(deadline)?;
        tpm.storage_key().map(|key| key.name() == like.key).map_err(|e| self.chip.faults().tpm(e))
    }
}

fn seal_to(
    source: &TpmSource,
    like: &TpmSlot,
    state: State,
    auth: &dyn Auth,
    deadline: Deadline,
) -> Result<Provisioned, SourceError> {
    let chip = &source.chip;
    let policy = SlotPolicy { state, gate: like.policy.gate };
    if let Some(gate) = policy.gate.filter(|gate| policy.state.measured_set().contains(gate.register.number())) {
        let defect = format!("{} is the gate, and cannot be measured too", gate.register);
        return Err(SourceError::PolicyEmpty { defect });
    }
    let _alone = chip.alone(deadline)?;
    let mut tpm = chip.open(deadline)?;
    let key = tpm.pinned_storage_key(&like.key).map_err(|e| chip.faults().tpm(e))?;
    let pin = chip.pin(policy.state.pin, auth, &mut tpm)?;
    rehearse(chip, &mut tpm, &key, &policy)?;
    let secret = secret::Secret::<32>::init_with(|octets| chip.entropy.fill(octets));
    let object = tpm.seal(&key, &policy.digest(), pin.as_ref(), secret.expose()).map_err(|e| chip.faults().tpm(e))?;
    // That the TPM has made it from these octets is proven by its answer; that it takes it back is tried.
    tpm.load(&key, &object).map_err(|e| chip.faults().tpm(e))?;
    let ikm = chip.ikm(secret::SecretBytes::new(secret.expose().to_vec()))?;
    Ok(Provisioned { public: TpmSlot { key: key.name(), object, policy }.write(&chip.faults().what)?, ikm })
}

/// Sees that the TPM comes to the digest that was computed, up to where it would begin to count.
pub(super) fn rehearse(chip: &Chip, tpm: &mut Tpm, key: &PinnedKey, policy: &SlotPolicy) -> Result<(), SourceError> {
    let mut come_to = || {
        let trial = tpm.trial_session(key)?;
        policy.state.try_approval(tpm, &trial)?;
        let (registers, values) = (policy.registers(), policy.values());
        if let (false, Some(first)) = (registers.is_empty(), values.first()) {
            tpm.policy_pcr(&trial, registers, Some(first))?;
        }
        if values.len() > 1 {
            tpm.policy_or(&trial, &policy.branches())?;
        }
        policy.state.show_clocks(tpm, &trial)?;
        let digest = tpm.policy_digest(&trial)?;
        tpm.end(trial)?;
        Ok(digest)
    };
    let digest: Result<_, TpmError> = come_to();
    if digest.map_err(|e| chip.faults().tpm(e))? == policy.digest_before_asking() {
        return Ok(());
    }
    Err(SourceError::Protocol { what: chip.faults().what, defect: "it comes to another digest for the policy".into() })
}
