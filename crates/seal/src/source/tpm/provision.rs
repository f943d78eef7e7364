//! Making a sealed object: its policy, the counter where one is wanted, and that the octets come back.

use std::num::NonZeroU8;

use ::tpm::{AuthValue, Name};
use secret::{Secret, SecretBytes, crypto};

use super::gate::{Gate, GateRegister, begun};
use super::making::Making;
use super::slot::{SlotPolicy, TpmSlot};
use super::{Auth, Counting, Deadline, KeySource as _, PolicyRequest, Provisioned, SourceError, TpmSource};
use super::{counter, predict};
use crate::slot::SourceKind;

impl TpmSource {
    /// Key material under the storage key of that name, and under whichever there is where none was known before.
    pub(super) fn make(
        &self,
        known: Option<&Name>,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        request.enforceable(SourceKind::Tpm, &self.capabilities())?;
        let mut making = Making::begin(&self.chip, known, deadline)?;
        let policy = self.policy(request, &mut making)?;
        let pin = making.pin(&policy.state, auth)?;
        let counted = self.counted(&mut making, policy);
        let made = counted.and_then(|policy| self.sealed(&mut making, policy, pin.as_ref()));
        if made.is_err() {
            making.take_back();
        }
        made
    }

    /// The policy that a request comes to, on this device as it is now, but for the counter.
    fn policy(&self, request: &PolicyRequest, making: &mut Making<'_>) -> Result<SlotPolicy, SourceError> {
        let register = self.gate.filter(|_| request.releases_per_boot.is_some()).map(GateRegister::new).transpose()?;
        if let Some(register) = register.filter(|r| request.pcrs.contains(r.number())) {
            return Err(SourceError::PolicyEmpty {
                defect: format!("{register} is the gate, and cannot be measured too"),
            });
        }
        let of_gate = register.map(GateRegister::set).unwrap_or_default();
        let (state, values) = making.state(request, of_gate, &self.signing)?;
        let gate = match (register, request.releases_per_boot.map(NonZeroU8::get)) {
            (Some(register), Some(limit)) => {
                let base = values.value(register.number()).copied().unwrap_or_default();
                if begun(&base) {
                    let defect = format!(
                        "{register} was moved in this boot, by a release or by an unseal that was refused after it, and a slot is made before \
                         that: stop the unit of edgekeep, restart the device, then recover"
                    );
                    return Err(self.chip.faults().exhausted(defect));
                }
                Some(Gate { register, base, limit, counter: None })
            }
            _ => None,
        };
        Ok(SlotPolicy { state, gate })
    }

    /// The same policy with a counter, where that is wanted and the TPM has one.
    fn counted(&self, making: &mut Making<'_>, mut policy: SlotPolicy) -> Result<SlotPolicy, SourceError> {
        if let (Some(gate), Counting::Best | Counting::Index) = (&mut policy.gate, self.counting) {
            gate.counter = counter::make(making, gate).map_err(|e| self.chip.faults().tpm(e))?;
            if gate.counter.is_none() && self.counting == Counting::Index {
                return Err(SourceError::PolicyUnenforceable { kind: SourceKind::Tpm, what: "count_in = \"index\"" });
            }
        }
        Ok(policy)
    }

    /// Seals, and sees that it comes back; nothing is counted. With a counter it cannot be asked for without that, so
    /// that what the policy comes to is tried instead.
    fn sealed(
        &self,
        making: &mut Making<'_>,
        policy: SlotPolicy,
        pin: Option<&AuthValue>,
    ) -> Result<Provisioned, SourceError> {
        let faults = self.chip.faults();
        let Making { tpm, key, .. } = making;
        let secret = Secret::<32>::init_with(|octets| self.chip.entropy.fill(octets));
        let object = tpm.seal(key, &policy.digest(), pin, secret.expose()).map_err(|e| faults.tpm(e))?;
        let counted = policy.gate.is_some_and(|gate| gate.counter.is_some());
        let sealed = TpmSlot { key: self.chip.noted(tpm, key)?, object, policy };
        let octets = if counted {
            predict::rehearse(&self.chip, tpm, key, &sealed.policy)?;
            tpm.try_load(key, &sealed.object).map_err(|e| faults.tpm(e))?;
            SecretBytes::new(secret.expose().to_vec())
        } else {
            let mut session = tpm.policy_session(key).map_err(|e| faults.tpm(e))?;
            let object = tpm.load(key, &sealed.object, &mut session).map_err(|e| faults.tpm(e))?;
            self.unseal(tpm, session, &object, &sealed.policy, pin)?
        };
        if !crypto::ct_eq(octets.expose(), secret.expose()) {
            return Err(SourceError::Drifts { what: faults.what });
        }
        Ok(Provisioned { public: sealed.write(&faults.what)?, ikm: self.chip.ikm(octets)? })
    }
}
