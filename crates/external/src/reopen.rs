//! Unsealing a store that was open before: after its crash, its restart, or after somebody sealed it.
//!
//! ```text
//! claim (flock)  ->  is it still sealed?  ->  may it be, in this boot?  ->  noted, synced  ->  shares
//! ```
//! The claim is held by one process at a time, and what was seen before it counts for nothing: of two that find the
//! store sealed, one unseals it and the other finds it open. The note is durable before the first share is given: a cut
//! between the two leaves a store that stays sealed until the next boot of the kernel where that was the choice, never
//! one that is unsealed twice.

use std::path::PathBuf;

use client::{AskError, Calls, Vault};
use host::BootId;
use serde::Deserialize;

use crate::custody::{Custody, CustodyError};
use crate::unseal::{UnsealError, unseal_held};

/// How often a store may be unsealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reunseal {
    /// Whenever it is found sealed.
    #[default]
    Always,
    /// Once in a boot of the kernel; after that only a restart of the device opens it. Whoever makes the store crash to
    /// have it unsealed before his eyes gains nothing by it. Root can remove the note; a limit that root cannot lift is
    /// the key source's.
    OncePerBoot,
}

/// What it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopened {
    /// It was unsealed by this call.
    Unsealed,
    /// Somebody else was quicker.
    WasOpen,
}

/// Why a sealed store stays sealed.
#[derive(Debug, thiserror::Error)]
pub enum ReopenError {
    /// It was unsealed in this boot already.
    #[error("the store was unsealed once in this boot, and is sealed again: it stays so until the device is restarted ({} says so)", note.display())]
    Spent {
        /// The note.
        note: PathBuf,
    },
    /// Its shares, or the note.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// It did not open.
    #[error(transparent)]
    Unseal(#[from] UnsealError),
}

impl ReopenError {
    /// Whether it may go better the next time, without anybody doing anything.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Custody(CustodyError::Busy { .. }) | Self::Unseal(UnsealError::Ask(_)))
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Spent { .. } => {
                "find out who sealed it, or why it crashed; then restart the device, or set reunseal = \"always\" \
                (for EdgeX's set-up: EDGEKEEP_REUNSEAL=always)"
                    .into()
            }
            Self::Custody(e) => e.hint(),
            Self::Unseal(e) => e.hint(),
        }
    }
}

/// Unseals the store if it is sealed, by the shares in custody, as `rule` allows in this boot.
///
/// # Errors
/// [`ReopenError`]; the store has been given no share, or has refused them.
pub async fn reopen<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    rule: Reunseal,
    boot: BootId,
) -> Result<Reopened, ReopenError> {
    let _claim = custody.claim()?;
    // Whoever had the claim until now may have unsealed it.
    if !is_sealed(vault).await.map_err(UnsealError::Ask)? && host::in_force("one-unsealer") {
        return Ok(Reopened::WasOpen);
    }
    let permit = Permit::ask(custody, rule, boot)?;
    unseal_held(vault, custody, &permit).await?;
    Ok(Reopened::Unsealed)
}

/// Unseals a store that was made just now, by the shares in custody: whatever was unsealed from here before was
/// another.
///
/// # Errors
/// As [`reopen`], but for [`ReopenError::Spent`].
pub async fn open_new<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    rule: Reunseal,
    boot: BootId,
) -> Result<(), ReopenError> {
    let _claim = custody.claim()?;
    let permit = Permit::of_new_store(custody, rule, boot)?;
    Ok(unseal_held(vault, custody, &permit).await?)
}

/// The store may be unsealed from here now, and the disk says that it was.
pub(crate) struct Permit(());

impl Permit {
    /// For shares that are on the disk. Asked under the claim.
    ///
    /// # Errors
    /// [`ReopenError::Spent`], or that the shares do not open, or that it cannot be noted.
    pub(crate) fn ask(custody: &Custody<'_>, rule: Reunseal, boot: BootId) -> Result<Self, ReopenError> {
        let noted = custody.unsealed_in()?;
        if rule == Reunseal::OncePerBoot
            && noted.as_deref() == Some(&boot.to_string())
            && host::in_force("unsealed-once-a-boot")
        {
            return Err(ReopenError::Spent { note: custody.unsealed_note() });
        }
        // Opened before it is noted: shares that do not open must not use the one time up.
        custody.load()?;
        Ok(Self::of_new_store(custody, rule, boot)?)
    }

    /// For a store that was made just now: it was never unsealed before.
    ///
    /// # Errors
    /// [`CustodyError::Disk`], where it counts.
    pub(crate) fn of_new_store(custody: &Custody<'_>, rule: Reunseal, boot: BootId) -> Result<Self, CustodyError> {
        match custody.note_unseal(boot) {
            Ok(()) => Ok(Self(())),
            // A full disk keeps no store shut that may be opened at any time.
            Err(e) if rule == Reunseal::Always => {
                tracing::warn!(error = %host::with_causes(&e), "the store is unsealed, and that is not noted");
                Ok(Self(()))
            }
            Err(e) => Err(e),
        }
    }
}

#[derive(Deserialize)]
struct Status {
    sealed: bool,
}

async fn is_sealed<V: Vault>(vault: &V) -> Result<bool, AskError> {
    let path = "sys/seal-status";
    let status: Option<Status> = Calls::over(vault).read(path).await?;
    Ok(status.ok_or_else(|| AskError::answer(path, "it is not there"))?.sealed)
}

impl Custody<'_> {
    /// In which boot the store was last unsealed from here.
    fn unsealed_in(&self) -> Result<Option<String>, CustodyError> {
        let note = self.unsealed_note();
        if self.meta(&note)?.is_none() {
            return Ok(None);
        }
        let bytes = self.disk().read(&note, MAX_NOTE_BYTES).map_err(|source| self.failed("read", &note, source))?;
        Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned()))
    }

    /// Notes that the store is about to be unsealed from here in this boot; durable on return.
    ///
    /// # Errors
    /// [`CustodyError::Disk`]: then it is not to be unsealed.
    pub fn note_unseal(&self, boot: BootId) -> Result<(), CustodyError> {
        let note = self.unsealed_note();
        let text = format!("{boot}\n");
        self.disk().replace(&note, text.as_bytes(), 0o600, None).map_err(|source| self.failed("write", &note, source))
    }

    fn unsealed_note(&self) -> PathBuf {
        self.dir().join(NOTE)
    }
}

/// The boot id of the kernel, as text, and a line feed.
const NOTE: &str = ".edgekeep-unsealed";
const MAX_NOTE_BYTES: usize = 128;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use host::Clock as _;
    use testkit::FakeClock;

    use super::*;
    use crate::fake::FakeStore;
    use crate::place::{Place, SHARES, plain};

    struct Bench {
        place: Place,
        clock: FakeClock,
        store: FakeStore,
    }

    impl Bench {
        fn new() -> Self {
            let (clock, store) = (FakeClock::at(0), FakeStore::made(&SHARES, true));
            Self { place: Place::keeping(plain()), clock, store }
        }

        fn custody(&self) -> Custody<'_> {
            self.place.custody(plain())
        }

        async fn reopen(&self, rule: Reunseal) -> Result<Reopened, ReopenError> {
            reopen(&self.store, &self.custody(), rule, self.clock.boot_id()).await
        }

        fn crash(&self) {
            self.store.state().sealed = true;
        }
    }

    #[tokio::test]
    async fn a_store_that_crashed_is_unsealed_each_time() {
        let bench = Bench::new();
        for _ in 0..3 {
            bench.crash();
            assert_eq!(bench.reopen(Reunseal::Always).await.unwrap(), Reopened::Unsealed);
            assert!(!bench.store.state().sealed);
        }
        assert_eq!(bench.reopen(Reunseal::Always).await.unwrap(), Reopened::WasOpen);
    }

    #[tokio::test]
    async fn once_a_boot_means_once_until_the_next_boot() {
        let bench = Bench::new();
        assert_eq!(bench.reopen(Reunseal::OncePerBoot).await.unwrap(), Reopened::Unsealed);
        bench.crash();
        let refused = bench.reopen(Reunseal::OncePerBoot).await.unwrap_err();
        assert!(matches!(refused, ReopenError::Spent { .. }), "{refused}");
        assert!(!refused.may_pass());
        assert!(bench.store.state().sealed);
        bench.clock.reboot();
        assert_eq!(bench.reopen(Reunseal::OncePerBoot).await.unwrap(), Reopened::Unsealed);
    }

    /// The note is there before the first share: a process that is killed at the first share has used its one time up.
    #[tokio::test]
    async fn a_cut_between_the_note_and_the_shares_leaves_it_sealed() {
        let bench = Bench::new();
        bench.store.state().refuse = Some(("sys/unseal", 502));
        bench.reopen(Reunseal::OncePerBoot).await.unwrap_err();
        bench.store.state().refuse = None;
        assert!(matches!(bench.reopen(Reunseal::OncePerBoot).await, Err(ReopenError::Spent { .. })));
        assert!(bench.store.state().sealed);
    }

    /// Two processes find the store sealed. While one is at it the other is turned away; after it, the other finds it
    /// open and gives no share.
    #[tokio::test]
    async fn of_two_unsealers_one_gives_shares() {
        let bench = Arc::new(Bench::new());
        let other = Arc::clone(&bench);
        let turned_away = Arc::new(std::sync::Mutex::new(0));
        let count = Arc::clone(&turned_away);
        bench.store.state().at_unseal = Some(Box::new(move || {
            let refused = other.custody().claim().err();
            assert!(matches!(refused, Some(CustodyError::Busy { .. })), "{refused:?}");
            *count.lock().unwrap() += 1;
        }));
        assert_eq!(bench.reopen(Reunseal::Always).await.unwrap(), Reopened::Unsealed);
        let given = *turned_away.lock().unwrap();
        assert!(given > 0);
        assert_eq!(bench.reopen(Reunseal::Always).await.unwrap(), Reopened::WasOpen);
        assert_eq!(*turned_away.lock().unwrap(), given, "no share more");
    }
}
