//! Opening a sealed store with its shares.

use client::{AskError, Calls, Vault};
use seal::edgex::ClearShares;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::custody::{Custody, CustodyError};
use crate::reopen::Permit;

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// The shares belong to another store.
    #[error("the key shares are not those of this store: {told}")]
    NotItsShares {
        /// What the store said.
        told: String,
    },
    /// All shares were given, and more are wanted.
    #[error("the store is still sealed after all {given} key shares; it wants {wanted}")]
    TooFew {
        /// How many were given.
        given: usize,
        /// Its threshold.
        wanted: u64,
    },
    /// It has a key of its own.
    #[error("the store unseals itself (seal `{kind}`) and takes no key shares")]
    UnsealsItself {
        /// Its kind of seal.
        kind: String,
    },
    /// They are not to be had.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// It was not to be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
}

impl UnsealError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotItsShares { .. } => {
                "resp-init.json belongs to another store, or the store's storage was replaced: bring the two together again".into()
            }
            Self::TooFew { .. } => "resp-init.json has lost shares: put it back from a backup".into(),
            Self::UnsealsItself { .. } => "see its own log for why it does not".into(),
            Self::Custody(e) => e.hint(),
            Self::Ask(_) => "see the cause".into(),
        }
    }
}

#[derive(Deserialize)]
struct Status {
    sealed: bool,
    #[serde(default)]
    t: u64,
    #[serde(default)]
    progress: u64,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    recovery_seal: bool,
}

/// Opens the store with the shares on the disk: those in the file, or, where a rekey was cut short after the store had
/// taken them, those beside it, which then get their place.
///
/// # Errors
/// [`UnsealError`].
pub(crate) async fn unseal_held<V: Vault>(vault: &V, custody: &Custody<'_>, _: &Permit) -> Result<(), UnsealError> {
    match unseal(vault, &custody.load()?.shares).await {
        Err(refused @ UnsealError::NotItsShares { .. }) => {
            let next = custody.next()?.ok_or(refused)?;
            unseal(vault, &next).await?;
            tracing::info!("the store takes the key shares of a rekey that was cut short");
            Ok(custody.take_next()?)
        }
        outcome => outcome,
    }
}

/// Gives shares until the store is open.
///
/// # Errors
/// [`UnsealError`]; a store that refuses the shares keeps none of them.
pub async fn unseal<V: Vault>(vault: &V, shares: &ClearShares) -> Result<(), UnsealError> {
    let calls = Calls::over(vault);
    let path = "sys/seal-status";
    let status: Status = calls.read(path).await?.ok_or_else(|| AskError::answer(path, "it is not there"))?;
    if !status.sealed {
        return Ok(());
    }
    if status.recovery_seal {
        return Err(UnsealError::UnsealsItself { kind: status.kind });
    }
    if status.progress > 0 {
        // Somebody began and did not end, and a share of theirs among ours would spoil the whole.
        calls.exchange::<Status>("sys/unseal", Zeroizing::new(br#"{"reset":true}"#.to_vec())).await?;
    }
    for share in shares.base64() {
        let body = Zeroizing::new(format!(r#"{{"key":"{}","reset":false}}"#, *share).into_bytes());
        match calls.exchange::<Status>("sys/unseal", body).await {
            Ok(status) if !status.sealed => return Ok(()),
            // Enough, and taken: a node that joins a cluster first shows its leader that it has the key.
            Ok(status) if status.t > 0 && status.progress == 0 => {
                return until_open(&calls, shares.len(), status.t).await;
            }
            Ok(_) => {}
            Err(AskError::Refused { status: 400, told, .. }) => return Err(UnsealError::NotItsShares { told }),
            Err(e) => return Err(e.into()),
        }
    }
    Err(UnsealError::TooFew { given: shares.len(), wanted: status.t })
}

/// Waits for what the store does by itself now.
async fn until_open<V: Vault>(calls: &Calls<'_, V>, given: usize, wanted: u64) -> Result<(), UnsealError> {
    for _ in 0..LOOKS {
        tokio::time::sleep(PAUSE).await;
        let status: Option<Status> = calls.read("sys/seal-status").await?;
        if status.is_some_and(|s| !s.sealed) {
            return Ok(());
        }
    }
    Err(UnsealError::TooFew { given, wanted })
}

/// A leader that is elected at that very moment answers within 15 s.
const LOOKS: u32 = 150;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
