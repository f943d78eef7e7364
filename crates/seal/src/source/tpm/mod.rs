//! A TPM: random octets sealed to the state of the device, and given a few times in a boot.
//!
//! ```text
//! storage key, by its name ─ salted session ─ registers as they were ─ [a state of the gate] ─ [clocks] ─ [PIN] ─> unseal
//!                                                                      unseal ─> extend the gate ─> only then return
//! ```
//! What is on disk is of use to this TPM alone, and to it only while its registers hold what they held. Who listens on the bus
//! learns nothing, and who answers in the TPM's place is found out: the storage key was named at provisioning.
//! The count is cooperative: it stops what comes after the gate, not code that runs before it. docs/hardware.md has the limits.

mod faults;
mod gate;
mod slot;
#[cfg(test)]
mod tests;

use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::tpm::{AuthValue, PcrSet, PcrValues, PinnedKey, Refusal, Tpm, TpmError};
use host::{Clock, Disk, Entropy};
use secret::{Secret, SecretBytes, crypto};

use super::{
    Auth, AuthRequest, Capabilities, Closed, Deadline, Evidence, KeySource, PcrDiff, PolicyRequest, Provisioned,
    Released, SourceError,
};
use crate::ikm::Ikm;
use crate::slot::{SlotPublic, SourceKind};
use faults::Faults;
use gate::{Gate, GateRegister, MOST_RELEASES, begun, closed_event, released_event};
use slot::{SlotPolicy, TpmSlot};

/// The source `tpm`.
pub struct TpmSource {
    device: PathBuf,
    gate: Option<u8>,
    lock: PathBuf,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl TpmSource {
    /// The TPM behind `device`, `/dev/tpmrm0` or the socket of swtpm. `gate` is the register that counts releases, for slots
    /// that are yet to be made. `lock` is a file that whoever releases holds: reading the gate, unsealing and extending it are
    /// three commands, and two processes between them would have two releases for one.
    pub fn new(
        device: impl Into<PathBuf>,
        gate: Option<u8>,
        lock: impl Into<PathBuf>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { device: device.into(), gate, lock: lock.into(), disk, clock, entropy }
    }

    fn faults(&self) -> Faults {
        Faults { what: self.device.display().to_string() }
    }

    fn open(&self, deadline: Deadline) -> Result<Tpm, SourceError> {
        Tpm::open(&self.device, Arc::clone(&self.clock), Arc::clone(&self.entropy), deadline.0)
            .map_err(|e| self.faults().transport(e))
    }

    /// Waits until nobody else releases.
    #[expect(
        clippy::disallowed_methods,
        reason = "flock(2) cannot wait until a deadline; a release has a thread of its own"
    )]
    fn alone(&self, deadline: Deadline) -> Result<Option<Box<dyn Send>>, SourceError> {
        if !host::in_force("tpm-releases-alone") {
            return Ok(None);
        }
        let what = || self.lock.display().to_string();
        loop {
            match self.disk.lock(&self.lock) {
                Ok(Some(held)) => return Ok(Some(held)),
                Ok(None) if deadline.left(&*self.clock).is_zero() => {
                    return Err(SourceError::Unreachable { what: what(), defect: "another process holds it".into() });
                }
                Ok(None) => std::thread::sleep(ASK_AGAIN),
                Err(source) => return Err(SourceError::Os { what: what(), source }),
            }
        }
    }

    /// The policy that a request comes to, on this device as it is now.
    fn policy(&self, request: &PolicyRequest, tpm: &mut Tpm) -> Result<SlotPolicy, SourceError> {
        let faults = self.faults();
        let register = self.gate.filter(|_| request.releases_per_boot.is_some()).map(GateRegister::new).transpose()?;
        let empty = |pcr: u8, why: &str| Err(SourceError::PolicyEmpty { defect: format!("PCR {pcr} {why}") });
        for pcr in request.pcrs.iter() {
            match pcr {
                16 | 23 => return empty(pcr, "can be reset by software, to any state"),
                _ if register.is_some_and(|r| r.number() == pcr) => {
                    return empty(pcr, "is the gate, and cannot be measured too");
                }
                _ => {}
            }
        }
        let all = register.map_or(request.pcrs, |r| request.pcrs.union(r.set()));
        let values =
            if all.is_empty() { PcrValues::default() } else { tpm.read_pcrs(all).map_err(|e| faults.tpm(e))? };
        let mut measured = PcrValues::default();
        for (pcr, value) in values.iter().filter(|(pcr, _)| request.pcrs.contains(*pcr)) {
            if (*value == [0; 32] || *value == [0xff; 32]) && host::in_force("tpm-state-not-empty") {
                return empty(pcr, "was never extended: nothing is measured into it on this device");
            }
            measured = measured.with(pcr, *value);
        }
        let gate = match (register, request.releases_per_boot.map(NonZeroU8::get)) {
            (Some(register), Some(limit)) => {
                let base = values.value(register.number()).copied().unwrap_or_default();
                if begun(&base) {
                    let defect = format!("PCR {} shows releases; a store is made before the first", register.number());
                    return Err(faults.exhausted(defect));
                }
                Some(Gate { register, base, limit })
            }
            _ => None,
        };
        Ok(SlotPolicy { measured, gate, window: request.window, pin: request.pin })
    }

    /// Asks for the PIN, once, and only while a wrong one would not lock the TPM.
    fn pin(&self, wanted: bool, auth: &dyn Auth, tpm: &mut Tpm) -> Result<Option<AuthValue>, SourceError> {
        if !wanted {
            return Ok(None);
        }
        let faults = self.faults();
        let lockout = tpm.read_lockout().map_err(|e| faults.tpm(e))?;
        let tries_left = lockout.limit.saturating_sub(lockout.failed);
        if tries_left <= 1 && host::in_force("pin-last-try-kept") {
            return Err(SourceError::LockedOut { what: faults.what });
        }
        let request = AuthRequest { what: &faults.what, tries_left: Some(tries_left) };
        match auth.pin(&request) {
            Ok(pin) => Ok(Some(AuthValue::from_pin(pin.expose()))),
            Err(source) => Err(SourceError::NoPin { what: faults.what, source }),
        }
    }

    /// Everything from loading to unsealing. Nothing is counted yet.
    fn unseal(
        &self,
        tpm: &mut Tpm,
        key: PinnedKey,
        sealed: &TpmSlot,
        pin: Option<&AuthValue>,
    ) -> Result<SecretBytes, SourceError> {
        let faults = self.faults();
        let object = tpm.load(&key, &sealed.object).map_err(|e| faults.tpm(e))?;
        let session = tpm.policy_session(&key).map_err(|e| faults.tpm(e))?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        let policy = &sealed.policy;
        let registers = policy.registers();
        let mut ask = || {
            if !registers.is_empty() {
                tpm.policy_pcr(&session, registers)?;
            }
            let branches = policy.branches();
            if branches.len() > 1 {
                tpm.policy_or(&session, &branches)?;
            }
            for condition in policy.conditions() {
                tpm.policy_clock(&session, condition)?;
            }
            if policy.pin {
                tpm.policy_auth_value(&session)?;
            }
            Ok(())
        };
        let asked: Result<(), TpmError> = ask();
        let unsealed = match asked {
            Ok(()) => tpm.unseal(session, &object, pin),
            Err(e) => Err(e),
        };
        unsealed.map_err(|e| match (e.refusal(), policy.window) {
            (Some(Refusal::Policy), _) => self.differs(tpm, policy),
            (Some(Refusal::Condition), Some(window)) => SourceError::WindowClosed { what: faults.what.clone(), window },
            (Some(Refusal::Auth), _) => {
                let tries_left = tpm.read_lockout().ok().map(|l| l.limit.saturating_sub(l.failed));
                SourceError::AuthFailed { what: faults.what.clone(), tries_left }
            }
            _ => faults.tpm(e),
        })
    }

    /// Which registers are not as they were.
    fn differs(&self, tpm: &mut Tpm, policy: &SlotPolicy) -> SourceError {
        let measured = policy.measured_set();
        let now = if measured.is_empty() { Ok(PcrValues::default()) } else { tpm.read_pcrs(measured) };
        let now = match now {
            Ok(now) => now,
            Err(e) => return self.faults().tpm(e),
        };
        let differs = policy.measured.iter().filter_map(|(pcr, expected)| {
            let (expected, found) = (*expected, *now.value(pcr)?);
            (expected != found).then_some(PcrDiff { pcr, expected, found })
        });
        SourceError::PolicyMismatch { differs: differs.collect() }
    }

    /// How many releases are left after the next one.
    fn left(&self, tpm: &mut Tpm, gate: &Gate) -> Result<u8, SourceError> {
        let faults = self.faults();
        let value = self.gate_value(tpm, gate)?;
        gate.left_after_next(&value).ok_or_else(|| {
            let number = gate.register.number();
            faults.exhausted(format!(
                "PCR {number} allows {} releases in a boot, and they are used up or closed",
                gate.limit
            ))
        })
    }

    fn gate_value(&self, tpm: &mut Tpm, gate: &Gate) -> Result<[u8; 32], SourceError> {
        let values = tpm.read_pcrs(gate.register.set()).map_err(|e| self.faults().tpm(e))?;
        Ok(values.value(gate.register.number()).copied().unwrap_or_default())
    }

    fn ikm(&self, octets: SecretBytes) -> Result<Ikm, SourceError> {
        Ikm::new(octets, None).map_err(|source| SourceError::Ikm { what: self.device.display().to_string(), source })
    }
}

impl std::fmt::Debug for TpmSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TpmSource({})", self.device.display())
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
        let faults = self.faults();
        let mut tpm = self.open(deadline)?;
        let clocks = tpm.read_clock().map_err(|e| faults.tpm(e))?;
        let key = tpm.storage_key().map_err(|e| faults.tpm(e))?.name();
        let mut facts = vec![
            ("tpm", faults.what.clone()),
            ("storage key", key.to_string()),
            ("time since start", format!("{} s", clocks.since_start.as_secs())),
            ("resets, resumes", format!("{}, {}", clocks.resets, clocks.resumes)),
        ];
        if let Some(gate) = self.gate {
            let set = PcrSet::new([gate]).map_err(|e| SourceError::PolicyEmpty { defect: e.to_string() })?;
            let values = tpm.read_pcrs(set).map_err(|e| faults.tpm(e))?;
            facts.push((
                "gate",
                values.value(gate).map_or_else(String::new, |v| format!("PCR {gate}: {}", hex::encode(v))),
            ));
        }
        Ok(Evidence(facts))
    }

    /// The storage key, the gate and the registers are looked at; whether the PIN is right is not.
    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let faults = self.faults();
        let mut tpm = self.open(deadline)?;
        let key = tpm.pinned_storage_key(&sealed.key).map_err(|e| faults.tpm(e))?;
        tpm.let_go(key).map_err(|e| faults.tpm(e))?;
        let mut facts = vec![("tpm", faults.what.clone()), ("storage key", sealed.key.to_string())];
        match self.differs(&mut tpm, &sealed.policy) {
            SourceError::PolicyMismatch { differs } if differs.is_empty() => {}
            other => return Err(other),
        }
        let measured = sealed.policy.measured_set();
        facts.push(("registers", if measured.is_empty() { "none".into() } else { measured.to_string() }));
        if let Some(gate) = &sealed.policy.gate {
            let left = self.left(&mut tpm, gate)?;
            facts.push(("releases left in this boot", (u16::from(left) + 1).to_string()));
        }
        Ok(Evidence(facts))
    }

    /// Seals, and unseals once to see that it can: that extends nothing, and so uses no release up.
    fn provision(
        &mut self,
        request: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        request.enforceable(SourceKind::Tpm, &self.capabilities())?;
        let faults = self.faults();
        let _alone = self.alone(deadline)?;
        let mut tpm = self.open(deadline)?;
        let policy = self.policy(request, &mut tpm)?;
        let pin = self.pin(policy.pin, auth, &mut tpm)?;
        let key = tpm.storage_key().map_err(|e| faults.tpm(e))?.pin();
        let secret = Secret::<32>::init_with(|octets| self.entropy.fill(octets));
        let object = tpm.seal(&key, &policy.digest(), pin.as_ref(), secret.expose()).map_err(|e| faults.tpm(e))?;
        let sealed = TpmSlot { key: key.name(), object, policy };
        let back = self.unseal(&mut tpm, key, &sealed, pin.as_ref())?;
        if !crypto::ct_eq(back.expose(), secret.expose()) {
            return Err(SourceError::Drifts { what: faults.what });
        }
        Ok(Provisioned { public: sealed.write(&faults.what)?, ikm: self.ikm(back)? })
    }

    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let sealed = TpmSlot::read(slot)?;
        let faults = self.faults();
        let _alone = self.alone(deadline)?;
        let mut tpm = self.open(deadline)?;
        let key = tpm.pinned_storage_key(&sealed.key).map_err(|e| faults.tpm(e))?;
        let left = sealed.policy.gate.map(|gate| self.left(&mut tpm, &gate)).transpose()?;
        let pin = self.pin(sealed.policy.pin, auth, &mut tpm)?;
        let octets = self.unseal(&mut tpm, key, &sealed, pin.as_ref())?;
        if let Some(gate) = &sealed.policy.gate
            && host::in_force("tpm-release-counted")
        {
            // Before anybody has the octets: if this fails they are wiped, and a release is lost rather than gained.
            tpm.extend_pcr(gate.register.number(), &released_event()).map_err(|e| faults.tpm(e))?;
        }
        let mut facts = vec![("tpm", faults.what.clone()), ("storage key", sealed.key.to_string())];
        let measured = sealed.policy.measured_set();
        facts.push(("registers", if measured.is_empty() { "none".into() } else { measured.to_string() }));
        facts.extend(left.map(|n| ("releases left in this boot", n.to_string())));
        Ok(Released { ikm: self.ikm(octets)?, evidence: Evidence(facts), remaining_this_boot: left })
    }

    /// Extends the gate out of every state that allows a release.
    fn close(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Closed, SourceError> {
        let Some(gate) = TpmSlot::read(slot)?.policy.gate else { return Ok(Closed::releases_on()) };
        let _alone = self.alone(deadline)?;
        let mut tpm = self.open(deadline)?;
        let value = self.gate_value(&mut tpm, &gate)?;
        if gate.left_after_next(&value).is_some() && host::in_force("tpm-gate-closed") {
            let number = gate.register.number();
            tpm.extend_pcr(number, &closed_event()).map_err(|e| self.faults().tpm(e))?;
            if self.gate_value(&mut tpm, &gate)? == value {
                let defect = format!("PCR {number} was extended and has not changed");
                return Err(SourceError::Tampered { what: self.faults().what, defect });
            }
        }
        Ok(Closed::until_reboot())
    }
}

/// How long to wait for another process's release, which takes some hundred milliseconds at most.
const ASK_AGAIN: Duration = Duration::from_millis(10);
