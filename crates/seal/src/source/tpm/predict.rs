//! A slot for a state that the device is not in yet: that of the next image, or, of a device that has begun its
//! releases, the one after its next start.
//!
//! A policy is a digest of values, and so can be computed for values that were never seen. Whether the TPM comes to the
//! same digest is tried in a trial session, in which assertions need not be true. Gate and counter are those of the
//! slot beside it: their value at a start cannot be read off a device that has started, and both slots together release
//! as often as one.

use std::num::NonZeroU8;

use ::tpm::{PcrSet, PcrValues, PinnedKey, Tpm, TpmError};

use super::chip::Chip;
use super::making::Making;
use super::slot::{SlotPolicy, TpmSlot};
use super::state::State;
use super::{Deadline, KeySource as _, TpmSource};
use crate::slot::{SlotPublic, SourceKind};
use crate::source::{Auth, Board, PolicyRequest, Provisioned, SourceError};

impl TpmSource {
    /// Whether two slots are of one TPM and one policy, for other values of the same registers.
    pub fn differ_in_values_alone(a: &SlotPublic, b: &SlotPublic) -> bool {
        let (Ok(a), Ok(b)) = (TpmSlot::read(a), TpmSlot::read(b)) else { return false };
        let apart = |slot: TpmSlot| (slot.key.name, slot.policy.state.without_values(), slot.policy.gate);
        apart(a) == apart(b)
    }
}

/// As [`super::KeySource::predict`]: nothing is counted. The gate register's value, should there be one, is passed over.
pub(super) fn predict(
    source: &TpmSource,
    slot: &SlotPublic,
    values: &PcrValues,
    auth: &dyn Auth,
    deadline: Deadline,
) -> Result<Provisioned, SourceError> {
    let like = TpmSlot::read(slot)?;
    let state = like.policy.state.with_values(values)?;
    seal_to(source, &like, state, auth, deadline)
}

/// As [`predict`], for what the registers hold now.
pub(super) fn provision_beside(
    source: &TpmSource,
    slot: &SlotPublic,
    board: Board,
    request: &PolicyRequest,
    auth: &dyn Auth,
    deadline: Deadline,
) -> Result<Provisioned, SourceError> {
    request.enforceable(SourceKind::Tpm, &source.capabilities())?;
    let like = TpmSlot::read(slot)?;
    let gate = like.policy.gate;
    let known = source.chip.bound_to(&like.key.name, board, deadline)?;
    if known.is_none() {
        // Another TPM than before: nothing is shared with it.
        return source.make(None, request, auth, deadline);
    }
    let same_gate = gate.map(|gate| gate.limit) == request.releases_per_boot.map(NonZeroU8::get)
        && gate.is_none_or(|gate| source.gate == Some(gate.register.number()) && source.counting.allows(gate.counter));
    if !same_gate {
        // Another limit, and another who counts, has a gate of its own; it must be made before the first release of a boot.
        return source.make(known, request, auth, deadline);
    }
    let (state, _) =
        Making::begin(&source.chip, known, deadline)?.state(request, PcrSet::default(), &source.signing)?;
    seal_to(source, &like, state, auth, deadline)
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
    let mut making = Making::begin(chip, Some(&like.key.name), deadline)?;
    let pin = making.pin(&policy.state, auth)?;
    let Making { tpm, key, .. } = &mut making;
    rehearse(chip, tpm, key, &policy)?;
    let secret = secret::Secret::<32>::init_with(|octets| chip.entropy.fill(octets));
    let object = tpm.seal(key, &policy.digest(), pin.as_ref(), secret.expose()).map_err(|e| chip.faults().tpm(e))?;
    // That the TPM has made it from these octets is proven by its answer; that it takes it back is tried.
    tpm.try_load(key, &object).map_err(|e| chip.faults().tpm(e))?;
    let ikm = chip.ikm(secret::SecretBytes::new(secret.expose().to_vec()))?;
    Ok(Provisioned { public: TpmSlot { key: chip.noted(tpm, key)?, object, policy }.write(&chip.faults().what)?, ikm })
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
