//! A TPM by its path, and what every use of it begins with: being alone, and asking for the PIN.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::tpm::{AuthValue, Name, PinnedKey, Session, Tpm, TpmError};
use host::{Clock, Disk, Entropy};
use secret::SecretBytes;

use super::faults::Faults;
use super::state::State;
use crate::ikm::Ikm;
use crate::source::{Auth, AuthRequest, Deadline, SourceError};

/// The TPM behind a path.
pub(super) struct Chip {
    device: PathBuf,
    lock: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
}

impl Chip {
    pub(super) fn new(
        device: PathBuf,
        lock: PathBuf,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { device, lock, disk, clock, entropy }
    }

    pub(super) fn faults(&self) -> Faults {
        Faults { what: self.device.display().to_string() }
    }

    pub(super) fn open(&self, deadline: Deadline) -> Result<Tpm, SourceError> {
        Tpm::open(&self.device, Arc::clone(&self.clock), Arc::clone(&self.entropy), deadline.0)
            .map_err(|e| self.faults().transport(e))
    }

    /// The TPM that has this storage key, and a policy session with it.
    pub(super) fn policy_session(
        &self,
        key: &Name,
        deadline: Deadline,
    ) -> Result<(Tpm, PinnedKey, Session), SourceError> {
        let faults = self.faults();
        let mut tpm = self.open(deadline)?;
        let key = tpm.pinned_storage_key(key).map_err(|e| faults.tpm(e))?;
        let session = tpm.policy_session(&key).map_err(|e| faults.tpm(e))?;
        Ok((tpm, key, session))
    }

    /// For people: which TPM a slot hangs on, and what is asked of the device.
    pub(super) fn shown(&self, key: &Name, state: &State) -> Vec<(&'static str, String)> {
        let mut facts = vec![("tpm", self.faults().what), ("storage key", key.to_string())];
        facts.extend(state.facts());
        facts
    }

    /// Waits until nobody else releases.
    #[expect(
        clippy::disallowed_methods,
        reason = "flock(2) cannot wait until a deadline; a release has a thread of its own"
    )]
    pub(super) fn alone(&self, deadline: Deadline) -> Result<Option<Box<dyn Send>>, SourceError> {
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

    /// Asks for the PIN, once, and only while a wrong one would not lock the TPM.
    pub(super) fn pin(&self, wanted: bool, auth: &dyn Auth, tpm: &mut Tpm) -> Result<Option<AuthValue>, SourceError> {
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

    /// A PIN was refused.
    pub(super) fn wrong_pin(&self, tpm: &mut Tpm) -> SourceError {
        let tries_left = tpm.read_lockout().ok().map(|l| l.limit.saturating_sub(l.failed));
        SourceError::AuthFailed { what: self.faults().what, tries_left }
    }

    pub(super) fn ikm(&self, octets: SecretBytes) -> Result<Ikm, SourceError> {
        Ikm::new(octets, None).map_err(|source| SourceError::Ikm { what: self.faults().what, source })
    }

    /// What the TPM says of itself.
    pub(super) fn facts(&self, tpm: &mut Tpm) -> Result<Vec<(&'static str, String)>, TpmError> {
        let clocks = tpm.read_clock()?;
        let key = tpm.storage_key()?.name();
        Ok(vec![
            ("tpm", self.device.display().to_string()),
            ("storage key", key.to_string()),
            ("time since start", format!("{} s", clocks.since_start.as_secs())),
            ("resets, resumes", format!("{}, {}", clocks.resets, clocks.resumes)),
        ])
    }
}

/// How long to wait for another process's release, which takes some hundred milliseconds at most.
const ASK_AGAIN: Duration = Duration::from_millis(10);
