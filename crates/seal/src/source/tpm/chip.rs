//! A TPM by its path, and what every use of it begins with: being alone, and asking for the PIN.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::tpm::{AuthValue, Channel, Name, PinnedKey, Session, Tpm, TpmError};
use host::{Clock, Disk, Entropy};
use secret::SecretBytes;

use super::faults::Faults;
use super::items::SlotKey;
use super::signed::PcrSigning;
use super::state::State;
use crate::ikm::Ikm;
use crate::source::{Auth, AuthRequest, Board, Deadline, ReleaseLatch, SourceError, Wanted};

/// The TPM behind a path.
pub(super) struct Chip {
    device: PathBuf,
    lock: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) latch: ReleaseLatch,
}

impl Chip {
    pub(super) fn new(
        device: PathBuf,
        lock: PathBuf,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self { device, lock, disk, clock, entropy, latch: ReleaseLatch::default() }
    }

    pub(super) fn faults(&self) -> Faults {
        Faults { what: self.device.display().to_string() }
    }

    /// The device node, the vendor's files for a new slot, and the PIN's; the TPM is not asked.
    pub(super) fn look(&self, wish: Wanted, signing: &PcrSigning, auth: &dyn Auth) -> Result<(), SourceError> {
        let faults = self.faults();
        Channel::look(&self.device).map_err(|e| faults.transport(e))?;
        if wish == Wanted::Provision && signing.key(&*self.disk)?.is_some() {
            signing.file().read(&*self.disk)?;
        }
        let asked = auth.look(&AuthRequest { what: &faults.what, tries_left: None });
        asked.map_err(|source| SourceError::NoPin { what: faults.what, source })
    }

    pub(super) fn open(&self, deadline: Deadline) -> Result<Tpm, SourceError> {
        Tpm::open(&self.device, Arc::clone(&self.clock), Arc::clone(&self.entropy), deadline.at())
            .map_err(|e| self.faults().transport(e))
    }

    /// Does `work` with the TPM that has this storage key.
    ///
    /// A key that the TPM keeps is used without a look at it: nothing has to be asked, and a session with another key
    /// in its place loads nothing, reads nothing and counts nothing. When `work` fails and the key turns out not to be
    /// there, as on a TPM that was cleared or another one, it is made and looked at, and `work` is done with it. That
    /// it is not there is said by nobody in particular; so `work` notes when the TPM has shown that it has the key, and
    /// what fails after that is not begun again: a PIN was tried, or a release counted.
    pub(super) fn with_key<T>(
        &self,
        key: &SlotKey,
        deadline: Deadline,
        mut work: impl FnMut(Tpm, PinnedKey, &mut bool) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut shown = false;
        if let Some(kept) = &key.kept {
            let failed = match work(self.open(deadline)?, kept.key(), &mut shown) {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            if shown && host::in_force("tpm-key-shown-once") {
                return Err(failed);
            }
            if !self.open(deadline).is_ok_and(|mut tpm| tpm.keeps(kept).is_ok_and(|kept| !kept)) {
                return Err(failed);
            }
        }
        let mut tpm = self.open(deadline)?;
        let key = tpm.pinned_storage_key(&key.name).map_err(|e| self.faults().tpm(e))?;
        work(tpm, key, &mut shown)
    }

    /// Does `work`, and again where a register was extended in the middle of it, as IMA does all through an early boot:
    /// in new sessions, until the deadline. Where the TPM has counted a release by then, one more is taken to it, and
    /// no third; whether that was needed is told.
    #[expect(clippy::disallowed_methods, reason = "a release has a thread of its own, and a deadline")]
    pub(super) fn undisturbed<T>(
        &self,
        deadline: Deadline,
        mut work: impl FnMut() -> Result<T, SourceError>,
    ) -> Result<(T, bool), SourceError> {
        let mut spent = false;
        loop {
            let begun = self.clock.boottime();
            let worked = work();
            // Another takes as long: cut short by the deadline it would leave behind in a bare TPM what it has loaded.
            let another = self.clock.boottime().since(begun) + ASK_AGAIN;
            match worked {
                Err(SourceError::Disturbed { what, counted })
                    if !(counted && spent) && deadline.left(&*self.clock) > another =>
                {
                    if counted {
                        tracing::warn!("{what}: a release of this boot {IN_VAIN}");
                    }
                    spent |= counted;
                    std::thread::sleep(ASK_AGAIN);
                }
                Err(SourceError::Exhausted { what, defect }) if spent => {
                    let defect = format!("{defect}; one of them {IN_VAIN}");
                    return Err(SourceError::Exhausted { what, defect });
                }
                done => return done.map(|done| (done, spent)),
            }
        }
    }

    /// Which name the storage key of a new slot must have in the place of one that has `name`; `None` where another TPM
    /// answers, and may.
    pub(super) fn bound_to<'a>(
        &self,
        name: &'a Name,
        board: Board,
        deadline: Deadline,
    ) -> Result<Option<&'a Name>, SourceError> {
        if board == Board::Same && host::in_force("tpm-reseal-pinned") {
            return Ok(Some(name));
        }
        let found = self.open(deadline)?.storage_key().map_err(|e| self.faults().tpm(e))?.name();
        Ok((found == *name).then_some(name))
    }

    /// The storage key of a slot that is being made, with a note of where the TPM keeps it.
    pub(super) fn noted(&self, tpm: &mut Tpm, key: &PinnedKey) -> Result<SlotKey, SourceError> {
        let kept = tpm.keep(key).map_err(|e| self.faults().tpm(e))?;
        Ok(SlotKey { name: key.name(), kept })
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

    /// The same deadline, and a few seconds where it has passed: for what must not be left undone.
    pub(super) fn a_moment_after(&self, deadline: Deadline) -> Deadline {
        Deadline::after(&*self.clock, deadline.left(&*self.clock).max(A_MOMENT))
    }

    /// To be called before a command that may give key material, or count that it did.
    pub(super) fn about_to_release(&self) -> Result<(), SourceError> {
        self.latch.pass(&self.faults().what)
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

    /// A session that authorises was refused: for the PIN that is proven in it, or, where there is none, because what
    /// it signed is not what the TPM got.
    pub(super) fn not_authorised(&self, tpm: &mut Tpm, pin: bool, error: &TpmError) -> SourceError {
        if !pin && host::in_force("tpm-bent-command-told") {
            return SourceError::Tampered { what: self.faults().what, defect: error.to_string() };
        }
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

/// What became of a release that was counted and gave nothing.
pub(super) const IN_VAIN: &str = "was spent in vain, since a register was extended meanwhile";
/// Within what the caller leaves to a call that is late.
const A_MOMENT: Duration = Duration::from_secs(3);
/// How long to wait for another process's release, which takes some hundred milliseconds at most; and before a release
/// is begun again.
const ASK_AGAIN: Duration = Duration::from_millis(10);
