//! New key shares for a store whose old ones were seen by whoever has read a disk on which they lay in clear.
//!
//! ```text
//! begun      the store is asked for shares that count only once they were shown back to it
//! made       it takes the old shares and answers with the new ones       they are in memory, and in force are the old ones
//! kept       the new ones are beside the old ones: synced, read back, opened; their login is in the store
//! shown      it is shown the new ones                                    <- its own commit: from here on they are in force
//! settled    they have the place of the old ones, whose login goes
//! ```
//! A cut before `shown` leaves new shares that open nothing, one after it leaves old ones; the next run asks the store
//! which it takes ([`RootToken::for_custody`](crate::RootToken::for_custody)), and none is lost in between
//! (`a_power_cut_at_any_moment_of_a_rekey_leaves_the_shares_that_are_in_force`).

use client::{AskError, Bearer, Calls, Vault, text_of};
use seal::edgex::{ClearShares, Shares, SharesError};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::custody::{Custody, CustodyError};
use crate::door::{add_login, keep_login};

/// Why the shares are still the old ones, or may be.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// The store makes new shares for nobody.
    #[error("the store makes no new key shares: {told}")]
    NoDoor {
        /// Its words.
        told: String,
    },
    /// It would put new shares into force before anybody has them.
    #[error("the store does not wait until its new key shares were shown to it")]
    Unverified,
    /// The old shares are not those in force.
    #[error("the store does not take these key shares: {told}")]
    NotItsShares {
        /// Its words.
        told: String,
    },
    /// Its new shares cannot be read.
    #[error("the store's new key shares cannot be used")]
    NoShares(#[source] SharesError),
    /// They are not on the disk.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// It was not to be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
}

impl RekeyError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NoDoor { .. } => "OpenBao from 2.4 on has sys/rotate/root; of older ones, and of Vault, a listener must let sys/rekey in. \
                The shares that lay in clear stay good until then"
                .into(),
            Self::Unverified | Self::NoShares(_) => "see the store's own log; the old key shares stay in force".into(),
            Self::NotItsShares { .. } => {
                "resp-init.json is older than the store's key shares, or another store's: put the right one back".into()
            }
            Self::Custody(e) => e.hint(),
            Self::Ask(_) => "run it again: it asks the store which key shares are in force, and goes on".into(),
        }
    }
}

/// Replaces the store's shares, as many and of the same threshold, and has it encrypt what comes from now on under a
/// new key. Whoever calls holds a root token.
///
/// # Errors
/// [`RekeyError`]; on the disk are the shares that are in force, alone or beside others.
pub async fn rekey<V: Vault>(
    root: &Bearer<'_, V>,
    custody: &Custody<'_>,
    shares: &ClearShares,
) -> Result<ClearShares, RekeyError> {
    let calls = Calls::over(root);
    let rotation = Rotation { calls: &calls, door: door(&calls).await? };
    let (new, nonce) = match rotation.make(shares).await {
        Ok(made) => made,
        Err(e) => {
            rotation.cancel().await;
            return Err(e);
        }
    };
    // Both before the store may take them: whoever finds only the new ones in force must have them, and get in with
    // them.
    let kept = custody.keep_next(&new).map_err(RekeyError::from);
    let ready = match kept {
        Ok(()) => add_login(root, &new).await.map(drop).map_err(RekeyError::from),
        Err(e) => Err(e),
    };
    if let Err(e) = ready {
        rotation.cancel().await;
        custody.drop_next()?;
        return Err(e);
    }
    if let Err(e) = rotation.show(&new, &nonce).await {
        // It said that they are not the ones: the old ones stay in force. After any other end nobody knows, and both
        // sets stay.
        if matches!(e, RekeyError::NotItsShares { .. }) {
            rotation.cancel().await;
            custody.drop_next()?;
        }
        return Err(e);
    }
    custody.take_next()?;
    keep_login(root, &new).await?;
    // Old shares open an old copy of the storage for ever; what is written from now on is not under a key that lies in
    // it.
    if let Err(e) = calls.write("sys/rotate", &json!({})).await {
        tracing::warn!(error = %host::with_causes(&e), "the shares are new, and the data key is not: rotate it by hand (sys/rotate)");
    }
    Ok(new)
}

struct Rotation<'r, 'v, V> {
    calls: &'r Calls<'v, V>,
    door: &'static str,
}

#[derive(Deserialize)]
struct Progress {
    #[serde(default)]
    nonce: String,
    #[serde(default)]
    complete: bool,
    #[serde(default)]
    verification_required: bool,
    #[serde(default)]
    verification_nonce: String,
}

impl<V: Vault> Rotation<'_, '_, V> {
    async fn make(&self, shares: &ClearShares) -> Result<(ClearShares, String), RekeyError> {
        let Self { calls, door } = self;
        let (count, threshold) = counts(calls).await?;
        let init = format!("{door}/init");
        // There is one at a time; what a run that died left behind would be in the way.
        calls.delete(&init).await?;
        let body = json!({ "secret_shares": count, "secret_threshold": threshold, "require_verification": true });
        let begun: Progress = calls.exchange(&init, body.to_string().into_bytes().into()).await?;
        if !begun.verification_required && host::in_force("rekey-verified") {
            return Err(RekeyError::Unverified);
        }
        let update = format!("{door}/update");
        let (last, progress) = self.hand_in(&update, shares, &begun.nonce).await?;
        let text = text_of(&last).ok_or_else(|| AskError::answer(&update, "it is empty"))?;
        match Shares::parse(text).map_err(RekeyError::NoShares)? {
            Shares::Clear(new) if new.len() == count => Ok((new, progress.verification_nonce)),
            Shares::Clear(_) => Err(AskError::answer(&update, "it holds another number of shares").into()),
            Shares::Wrapped(_) => Err(AskError::answer(&update, "its shares are wrapped").into()),
        }
    }

    async fn show(&self, new: &ClearShares, nonce: &str) -> Result<(), RekeyError> {
        self.hand_in(&format!("{}/verify", self.door), new, nonce).await.map(drop)
    }

    /// Gives shares until the store has enough.
    async fn hand_in(
        &self,
        path: &str,
        shares: &ClearShares,
        nonce: &str,
    ) -> Result<(api::Reply, Progress), RekeyError> {
        // It goes into a body between quotes.
        if nonce.is_empty() || !nonce.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(AskError::answer(path, "its nonce is no nonce").into());
        }
        for share in shares.hex() {
            let body = Zeroizing::new(format!(r#"{{"key":"{}","nonce":"{nonce}"}}"#, *share).into_bytes());
            let reply = match self.calls.write_secret(path, body).await {
                Ok(reply) => reply,
                Err(AskError::Refused { status: 400, told, .. }) => return Err(RekeyError::NotItsShares { told }),
                Err(e) => return Err(e.into()),
            };
            let text = text_of(&reply).ok_or_else(|| AskError::answer(path, "it is empty"))?;
            let progress: Progress =
                serde_json::from_slice(text).map_err(|_| AskError::answer(path, "its data is of another shape"))?;
            if progress.complete {
                return Ok((reply, progress));
            }
        }
        Err(RekeyError::NotItsShares { told: format!("it wants more than the {} there are", shares.len()) })
    }

    async fn cancel(&self) {
        if let Err(e) = self.calls.delete(&format!("{}/init", self.door)).await {
            tracing::debug!(error = %host::with_causes(&e), "the rekey was not cancelled; the next one does it");
        }
    }
}

/// How many there are, and how many it takes.
async fn counts<V: Vault>(calls: &Calls<'_, V>) -> Result<(usize, u64), AskError> {
    #[derive(Deserialize)]
    struct Status {
        n: usize,
        t: u64,
    }
    let path = "sys/seal-status";
    let status: Option<Status> = calls.read(path).await?;
    status.map(|s| (s.n, s.t)).ok_or_else(|| AskError::answer(path, "it is not there"))
}

/// OpenBao takes shares for new ones from whoever is logged in and may; Vault, and OpenBao before that, from anybody,
/// or from nobody.
async fn door<V: Vault>(calls: &Calls<'_, V>) -> Result<&'static str, RekeyError> {
    let mut told = String::new();
    for door in [AUTHENTICATED, OPEN] {
        match calls.read::<Value>(&format!("{door}/init")).await {
            Ok(Some(_)) => return Ok(door),
            Ok(None) => told = format!("404 at {door}/init"),
            Err(AskError::Refused { status: status @ 400..=499, path, told: words, .. }) => {
                told = format!("{status} at {path}, {words}");
            }
            Err(e) => return Err(e.into()),
        }
    }
    Err(RekeyError::NoDoor { told })
}

const AUTHENTICATED: &str = "sys/rotate/root";
const OPEN: &str = "sys/rekey";

#[cfg(test)]
mod tests;
