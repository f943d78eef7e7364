//! From whatever state a store is in to one that serves, with its shares in hand.

use std::time::Duration;

use client::{AskError, CallError, Vault};
use host::Clock;
use seal::edgex::ClearShares;

use crate::custody::{Custody, CustodyError, OnDisk};
use crate::health::{Health, health};
use crate::init::{InitError, Prepared, ShareCounts};
use crate::patience::Patience;
use crate::root::RootToken;
use crate::stop::{Stop, Stopped};
use crate::unseal::{UnsealError, unseal, unseal_held};

/// How to go about it.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// For a store that is not made yet.
    pub counts: ShareCounts,
    /// How long to wait for the store, in all.
    pub limit: Duration,
    /// The longest pause between two looks.
    pub longest_pause: Duration,
}

/// A store that serves.
pub struct Opened {
    /// Its shares.
    pub shares: ClearShares,
    /// The initial root token, if the store was made just now.
    pub initial_root: Option<RootToken>,
    /// How the file has the shares; `None` if it was written just now.
    pub on_disk: Option<OnDisk>,
    /// What was done, for the log.
    pub done: Done,
    _claim: Box<dyn Send>,
}

/// What it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The store was made and unsealed.
    Made,
    /// It was unsealed.
    Unsealed,
    /// It was open.
    Nothing,
}

/// Why a store does not serve.
#[derive(Debug, thiserror::Error)]
pub enum BringUpError {
    /// By a signal.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// It did not serve in time.
    #[error("the store does not serve after {seconds} s: {last}")]
    Late {
        /// How long it was waited for.
        seconds: u64,
        /// How it stood at the last look.
        last: String,
    },
    /// Its shares.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// It was not made.
    #[error(transparent)]
    Init(InitError),
    /// It did not open.
    #[error(transparent)]
    Unseal(UnsealError),
    /// It cannot be believed.
    #[error("the store cannot be asked")]
    Untrusted(#[source] CallError),
}

impl BringUpError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Stopped(_) => "start it again: it goes on where it stopped".into(),
            Self::Late { .. } => "see the store's own log; look whether host, port and protocol are right".into(),
            Self::Custody(e) | Self::Init(InitError::Custody(e)) => e.hint(),
            Self::Init(InitError::Ask(AskError::Refused { told, .. })) if told.contains(HALF_MADE) => {
                "its own making of a store was cut short, and OpenBao cannot go on from there: if no store was ever in use \
                in its storage, delete that storage and start again"
                    .into()
            }
            Self::Init(_) => "see the store's own log".into(),
            Self::Unseal(e) => e.hint(),
            Self::Untrusted(_) => {
                "name the CA of the store in SecretStore.CaFilePath, and its name in ServerName".into()
            }
        }
    }
}

/// Brings the store up. Waiting ends at the deadline, and at once by `stop`; the making of a store and the saving of its
/// shares do not end in between.
///
/// # Errors
/// [`BringUpError`]; what can pass is waited for, what cannot is said at once.
pub async fn bring_up<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    wish: Wish,
    clock: &dyn Clock,
    stop: &Stop,
) -> Result<Opened, BringUpError> {
    let claim = custody.claim()?;
    let mut patience = Patience::new(clock, wish.limit, wish.longest_pause);
    let mut made = None;
    let mut done = Done::Nothing;
    loop {
        let last = match stop.or(async { Ok::<_, Stopped>(health(vault).await) }).await? {
            Ok(Health::Serving) => {
                let (shares, initial_root, on_disk) = match made {
                    Some(kept) => {
                        let crate::Kept { shares, root } = kept;
                        (shares, Some(root), None)
                    }
                    None => {
                        let held = custody.load()?;
                        (held.shares, None, Some(held.on_disk))
                    }
                };
                return Ok(Opened { shares, initial_root, on_disk, done, _claim: claim });
            }
            Ok(Health::NotInitialised) if made.is_none() => {
                stop.check()?;
                let kept = make(vault, custody, wish.counts).await?;
                done = Done::Made;
                match kept {
                    Some(kept) => {
                        made = Some(kept);
                        continue;
                    }
                    None => "it did not answer to sys/init".to_owned(),
                }
            }
            Ok(Health::Sealed) => {
                let outcome = match &made {
                    Some(kept) => unseal(vault, &kept.shares).await,
                    None => unseal_held(vault, custody).await,
                };
                match outcome {
                    Ok(()) => {
                        done = if done == Done::Made { done } else { Done::Unsealed };
                        // It answers 500 for some moments.
                        "it was unsealed".to_owned()
                    }
                    Err(UnsealError::Ask(e)) => passing(e)?,
                    Err(UnsealError::Custody(e)) => return Err(e.into()),
                    Err(e) => return Err(BringUpError::Unseal(e)),
                }
            }
            Ok(other) => other.to_string(),
            Err(e) => passing(e)?,
        };
        if patience.pause(stop).await?.is_err() {
            return Err(BringUpError::Late { seconds: wish.limit.as_secs(), last });
        }
    }
}

/// `None`: there was no answer, and the store's health tells whether it was made.
async fn make<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    counts: ShareCounts,
) -> Result<Option<crate::Kept>, BringUpError> {
    let prepared = Prepared::new(custody)?;
    match prepared.init(vault, counts).await {
        Ok(fresh) => Ok(Some(fresh.keep().await?)),
        Err(InitError::Ask(AskError::Call(e))) if !matches!(e, CallError::Untrusted { .. }) => {
            tracing::warn!(error = %host::with_causes(&e), "no answer to init");
            Ok(None)
        }
        // The store was being made already, for a run before this one that was killed meanwhile.
        Err(InitError::Ask(AskError::Refused { .. })) if !matches!(health(vault).await, Ok(Health::NotInitialised)) => {
            Ok(None)
        }
        Err(e) => Err(BringUpError::Init(e)),
    }
}

/// What may pass is told; what never passes is an error.
fn passing(error: AskError) -> Result<String, BringUpError> {
    match error {
        // To go on asking somebody who is not the store would be to wait for the attacker to do better.
        AskError::Call(e @ CallError::Untrusted { .. }) => Err(BringUpError::Untrusted(e)),
        other => Ok(host::with_causes(&other)),
    }
}

/// How OpenBao's raft storage says that an earlier `sys/init` ended half-way: its caller hung up, or it was killed.
const HALF_MADE: &str = "cluster already has state";

#[cfg(test)]
mod tests;
