//! From whatever state a store is in to one that serves, with its shares in hand.

use std::path::PathBuf;
use std::time::Duration;

use client::{AskError, CallError, Vault};
use host::Clock;
use seal::edgex::ClearShares;

use crate::custody::{Custody, CustodyError, OnDisk};
use crate::health::{Health, health};
use crate::init::{InitError, Kept, Prepared, ShareCounts};
use crate::patience::Patience;
use crate::reopen::{Permit, ReopenError, Reunseal};
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
    /// How often a sealed store may be unsealed.
    pub reunseal: Reunseal,
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
    /// It was unsealed in this boot already, and that is to be enough.
    #[error(transparent)]
    Spent(ReopenError),
    /// The store died in the middle of its own making.
    #[error("the store was cut short while it was being made, and cannot go on from there: {told}")]
    HalfMade {
        /// What it said.
        told: String,
        /// Whose making that was.
        remains: Remains,
    },
    /// It was to be made by another process.
    #[error("{fact}")]
    Beside {
        /// What that said.
        fact: String,
        /// And what to do about it.
        hint: String,
    },
    /// It cannot be believed.
    #[error("the store cannot be asked")]
    Untrusted(#[source] CallError),
}

/// What this device knows about a store that is half made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// A run of ours had asked for its making, and has no share of it. A store gives out its shares last of all.
    OurNote,
    /// There are shares: it was whole once, and its storage has lost a part.
    Shares {
        /// The file.
        file: PathBuf,
    },
    /// Nothing.
    Nothing,
}

impl Remains {
    fn find(custody: &Custody<'_>) -> Result<Self, CustodyError> {
        Ok(match (custody.has_shares()?, custody.is_noted()?) {
            (true, _) => Self::Shares { file: custody.file().to_owned() },
            (false, true) => Self::OurNote,
            (false, false) => Self::Nothing,
        })
    }

    fn hint(&self) -> String {
        match self {
            Self::OurNote => {
                "no key share of it was ever given to anybody, so that nothing can be in it or be lost with it: \
                delete the store's storage, start the store, and run this again"
                    .into()
            }
            Self::Shares { file } => format!(
                "{} has shares, so that it was a whole store once: put its storage back from a backup, and delete neither",
                file.display()
            ),
            Self::Nothing => {
                "if no store was ever in use in its storage, delete that storage, start the store, and run this again"
                    .into()
            }
        }
    }
}

impl BringUpError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Stopped(_) => "start it again: it goes on where it stopped".into(),
            Self::Late { .. } => "see the store's own log; look whether host, port and protocol are right".into(),
            Self::Custody(e) | Self::Init(InitError::Custody(e)) => e.hint(),
            Self::HalfMade { remains, .. } => remains.hint(),
            Self::Init(_) => "see the store's own log".into(),
            Self::Unseal(e) => e.hint(),
            Self::Spent(e) => e.hint(),
            Self::Beside { hint, .. } => hint.clone(),
            Self::Untrusted(_) => {
                "name the CA of the store in SecretStore.CaFilePath, and its name in ServerName".into()
            }
        }
    }
}

impl From<ReopenError> for BringUpError {
    fn from(error: ReopenError) -> Self {
        match error {
            ReopenError::Custody(e) => Self::Custody(e),
            ReopenError::Unseal(e) => Self::Unseal(e),
            spent @ ReopenError::Spent { .. } => Self::Spent(spent),
        }
    }
}

/// Brings the store up. Waiting ends at the deadline, and at once by `stop`; the making of a store and the saving of
/// its shares do not end in between.
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
    bring_up_by(vault, custody, wish, clock, stop, async || make(vault, custody, wish.counts).await).await
}

/// The same, with a store that is to be made made by another process ([`make_and_keep`](crate::make_and_keep)), which
/// `beside` starts and whose end it waits for. A store gives its shares to its caller alone, a second or more after it
/// was called: the caller is one that goes on when this process is killed.
///
/// # Errors
/// As [`bring_up`], and those of `beside`.
pub async fn bring_up_beside<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    wish: Wish,
    clock: &dyn Clock,
    stop: &Stop,
    beside: impl AsyncFn() -> Result<(), BringUpError>,
) -> Result<Opened, BringUpError> {
    bring_up_by(vault, custody, wish, clock, stop, async || beside().await.map(|()| None)).await
}

async fn bring_up_by<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    wish: Wish,
    clock: &dyn Clock,
    stop: &Stop,
    maker: impl AsyncFn() -> Result<Option<Kept>, BringUpError>,
) -> Result<Opened, BringUpError> {
    let claim = custody.claim()?;
    let mut patience = Patience::new(clock, wish.limit, wish.longest_pause);
    let mut made = None;
    // Asked for once: what is tried again within this run is one unsealing.
    let mut permit = None;
    let mut done = Done::Nothing;
    loop {
        // Of a run that was killed; its shares come.
        if made.is_none() && custody.claim_making()?.is_none() {
            if patience.pause(stop).await?.is_err() {
                let last = "it is being made, for a run before this one".to_owned();
                return Err(BringUpError::Late { seconds: wish.limit.as_secs(), last });
            }
            continue;
        }
        let last = match stop.or(async { Ok::<_, Stopped>(health(vault).await) }).await? {
            Ok(Health::Serving) => {
                let (shares, initial_root, on_disk) = match made {
                    Some(kept) => {
                        let Kept { shares, root } = kept;
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
                made = maker().await?;
                done = Done::Made;
                if made.is_some() || custody.has_shares()? {
                    continue;
                }
                "it did not answer to sys/init".to_owned()
            }
            Ok(Health::Sealed) => {
                let permit = match &permit {
                    Some(permit) => permit,
                    None if done == Done::Made => {
                        permit.insert(Permit::of_new_store(custody, wish.reunseal, clock.boot_id())?)
                    }
                    None => permit.insert(Permit::ask(custody, wish.reunseal, clock.boot_id())?),
                };
                let outcome = match &made {
                    Some(kept) => unseal(vault, &kept.shares).await,
                    None => unseal_held(vault, custody, permit).await,
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
            Ok(Health::HalfMade) if stays_half_made(vault, stop).await? => {
                let remains = Remains::find(custody)?;
                return Err(BringUpError::HalfMade {
                    told: "it has a barrier and no seal configuration".into(),
                    remains,
                });
            }
            Ok(other) => other.to_string(),
            Err(e) => passing(e)?,
        };
        if patience.pause(stop).await?.is_err() {
            return Err(BringUpError::Late { seconds: wish.limit.as_secs(), last });
        }
    }
}

/// `None`: there was no answer, or somebody else is or was at it; the store's health tells whether it was made.
pub(crate) async fn make<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    counts: ShareCounts,
) -> Result<Option<Kept>, BringUpError> {
    let Some(_making) = custody.claim_making()? else { return Ok(None) };
    // Whoever was at it until now may have made it.
    if !matches!(health(vault).await, Ok(Health::NotInitialised)) {
        return Ok(None);
    }
    let prepared = Prepared::new(custody)?;
    match prepared.init(vault, counts).await {
        Ok(fresh) => Ok(Some(fresh.keep().await?)),
        Err(InitError::Ask(AskError::Call(e))) if !matches!(e, CallError::Untrusted { .. }) => {
            tracing::warn!(error = %host::with_causes(&e), "no answer to init");
            Ok(None)
        }
        Err(InitError::HalfMade { told }) => Err(BringUpError::HalfMade { told, remains: Remains::find(custody)? }),
        // The store was being made already, for a run before this one that was killed meanwhile.
        Err(InitError::Ask(AskError::Refused { .. })) if !matches!(health(vault).await, Ok(Health::NotInitialised)) => {
            Ok(None)
        }
        Err(e) => Err(BringUpError::Init(e)),
    }
}

/// Somebody's init that is at work looks the same for some milliseconds.
async fn stays_half_made<V: Vault>(vault: &V, stop: &Stop) -> Result<bool, BringUpError> {
    for _ in 0..HALF_MADE_LOOKS {
        let again = async {
            tokio::time::sleep(HALF_MADE_PAUSE).await;
            Ok::<_, Stopped>(health(vault).await)
        };
        if !matches!(stop.or(again).await?, Ok(Health::HalfMade)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What may pass is told; what never passes is an error.
fn passing(error: AskError) -> Result<String, BringUpError> {
    match error {
        // To go on asking somebody who is not the store would be to wait for the attacker to do better.
        AskError::Call(e @ CallError::Untrusted { .. }) => Err(BringUpError::Untrusted(e)),
        other => Ok(host::with_causes(&other)),
    }
}

/// Two seconds in all.
const HALF_MADE_LOOKS: u32 = 10;
const HALF_MADE_PAUSE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
