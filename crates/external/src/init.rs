//! Making a store, in an order that loses no share: each stage is spent for the next.
//!
//! ```text
//! Prepared  the place holds salt, intent and room, all synced
//!    | sys/init                 a cut here loses the shares: they were nowhere but on the wire. The intent then says so,
//!    v                          and that the store holds nothing (`a_reply_of_init_that_is_lost_is_told_as_that`)
//! Fresh     shares in memory alone: no wait, no signal, nothing else before they are on the disk
//!    | save, read back, open
//!    v
//! Kept      the only thing from which a new store is unsealed
//! ```

use client::{AskError, Calls, Vault, text_of};
use seal::edgex::{ClearShares, Shares, SharesError};
use zeroize::Zeroizing;

use crate::custody::{Custody, CustodyError};
use crate::root::RootToken;

/// A place that can take shares.
#[derive(Debug)]
pub struct Prepared<'c, 'a> {
    custody: &'c Custody<'a>,
    /// An earlier run stood here, and was cut short.
    noted_before: bool,
}

/// Shares that exist in this process alone.
pub struct Fresh<'c, 'a> {
    custody: &'c Custody<'a>,
    shares: ClearShares,
    root: RootToken,
}

/// Shares that are on the disk and open again.
#[derive(Debug)]
pub struct Kept {
    /// The shares.
    pub shares: ClearShares,
    /// The initial root token; on the disk only wrapped under the shares.
    pub root: RootToken,
}

/// How a store is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareCounts {
    /// Shares in all.
    pub shares: u8,
    /// How many open the store.
    pub threshold: u8,
}

/// Why a store was not made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The place is not fit.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// An init before this one ended half-way.
    #[error("the store was cut short while it was being made, and cannot go on from there: {told}")]
    HalfMade {
        /// What the store said.
        told: String,
    },
    /// It said no, or nothing.
    #[error("the store was not initialised")]
    Ask(#[from] AskError),
    /// What it answered holds no shares.
    #[error("the store's answer to sys/init holds no key shares")]
    NoShares(#[source] SharesError),
    /// Nor a root token.
    #[error("the store's answer to sys/init holds no root token")]
    NoRootToken,
}

impl<'c, 'a> Prepared<'c, 'a> {
    /// Makes the place ready.
    ///
    /// # Errors
    /// [`CustodyError`]; nobody was asked for anything yet.
    pub fn new(custody: &'c Custody<'a>) -> Result<Self, CustodyError> {
        let noted_before = custody.prepare()?;
        Ok(Self { custody, noted_before })
    }

    /// Has the store made.
    ///
    /// # Errors
    /// [`InitError`]. Without an answer it may have been made all the same: its health tells.
    pub async fn init<V: Vault>(self, vault: &V, counts: ShareCounts) -> Result<Fresh<'c, 'a>, InitError> {
        let ShareCounts { shares, threshold } = counts;
        let body = format!(r#"{{"secret_shares":{shares},"secret_threshold":{threshold}}}"#);
        let calls = Calls::over(vault);
        let reply = match calls.write_secret(PATH, Zeroizing::new(body.into_bytes())).await {
            Ok(reply) => reply,
            Err(e) => {
                // Refused: nothing was begun, by us. What an earlier run noted stays noted.
                if e.status().is_some() && !self.noted_before {
                    self.custody.withdraw_intent()?;
                }
                return Err(match e {
                    AskError::Refused { told, .. } if told.contains(HALF_MADE) => InitError::HalfMade { told },
                    e => e.into(),
                });
            }
        };
        let text = text_of(&reply).ok_or_else(|| AskError::answer(PATH, "it is empty"))?;
        // The reply has the fields of the file.
        let mut shares = match Shares::parse(text).map_err(InitError::NoShares)? {
            Shares::Clear(shares) => shares,
            Shares::Wrapped(_) => return Err(AskError::answer(PATH, "its shares are wrapped").into()),
        };
        let root = RootToken::of_init(shares.root_token.take().ok_or(InitError::NoRootToken)?);
        Ok(Fresh { custody: self.custody, shares, root })
    }
}

impl Fresh<'_, '_> {
    /// Puts the shares on the disk. It is tried again while there is any hope: there is no other copy.
    ///
    /// # Errors
    /// The last [`CustodyError`]; the shares are lost then, and the store with them, which holds nothing yet.
    pub async fn keep(self) -> Result<Kept, CustodyError> {
        // Before the shares: with them on the disk and the login not yet in the store, it is the only way in
        // (`a_run_that_ends_before_the_login_is_there_is_gone_on_with`). Without them nobody opens it.
        if let Err(e) = self.root.keep_first(self.custody, &self.shares) {
            tracing::error!(error = %host::with_causes(&e), "the first root token is not kept; the shares go first");
        }
        let mut pause = FIRST_PAUSE;
        for _ in 1..SAVES {
            match self.custody.save(&self.shares) {
                Ok(()) => return Ok(self.kept()),
                Err(e) => {
                    tracing::error!(error = %host::with_causes(&e), "the key shares are not on the disk yet; trying again")
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.custody.save(&self.shares).map(|()| self.kept())
    }

    fn kept(self) -> Kept {
        Kept { shares: self.shares, root: self.root }
    }
}

impl std::fmt::Debug for Fresh<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fresh(..)")
    }
}

const PATH: &str = "sys/init";
/// How OpenBao's raft storage says that an earlier `sys/init` ended before there was a barrier.
const HALF_MADE: &str = "cluster already has state";
/// With pauses of 0.1 to 12.8 s in between: somebody who watches the log can make room in 25 s.
const SAVES: u32 = 9;
const FIRST_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);
