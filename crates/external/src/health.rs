//! How a store stands.

use api::{Body, Operation};
use client::{AskError, Calls, Vault};
use serde::Deserialize;

/// What `sys/health` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// 501: nobody has made it yet.
    NotInitialised,
    /// 503: made, and closed.
    Sealed,
    /// 200, or 429 with a leader to whom requests are passed on.
    Serving,
    /// 429, and nobody leads.
    Leaderless,
    /// 500, and its seal status says why: a barrier without a seal configuration. It died, or was killed, in the middle
    /// of its own making.
    HalfMade,
    /// Something else: 500 in the moments after an unseal, 472 and 473 of replicas.
    Unknown {
        /// The status.
        status: u16,
    },
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotInitialised => f.write_str("it is not initialised"),
            Self::Sealed => f.write_str("it is sealed"),
            Self::Serving => f.write_str("it serves"),
            Self::Leaderless => f.write_str("it is a standby, and nobody leads"),
            Self::HalfMade => f.write_str(
                "it was cut short while it was being made, and cannot go on from there: if no store was ever in use in its \
                storage, delete that storage, and start it",
            ),
            Self::Unknown { status } => write!(f, "its health is {status}, which says nothing"),
        }
    }
}

/// Asks once.
///
/// # Errors
/// [`AskError`] when there is no answer.
pub async fn health<V: Vault>(vault: &V) -> Result<Health, AskError> {
    let calls = Calls::over(vault);
    // Without `standbyok`: a standby must be told from a store that serves by itself.
    let status = calls.ask(Operation::Read, "sys/health", Body::empty()).await?.status.0;
    Ok(match status {
        200 => Health::Serving,
        429 if has_leader(&calls).await? => Health::Serving,
        429 => Health::Leaderless,
        500 if is_half_made(&calls).await? => Health::HalfMade,
        501 => Health::NotInitialised,
        503 => Health::Sealed,
        status => Health::Unknown { status },
    })
}

/// The barrier and the seal configuration are written one after the other, and the shares are given out after both.
async fn is_half_made<V: Vault>(calls: &Calls<'_, V>) -> Result<bool, AskError> {
    match calls.read::<serde_json::Value>("sys/seal-status").await {
        Err(AskError::Refused { told, .. }) => Ok(told.contains(NO_SEAL_CONFIGURATION)),
        Err(e @ AskError::Call(_)) => Err(e),
        Ok(_) | Err(AskError::Answer { .. }) => Ok(false),
    }
}

async fn has_leader<V: Vault>(calls: &Calls<'_, V>) -> Result<bool, AskError> {
    #[derive(Deserialize)]
    struct Leader {
        #[serde(default)]
        leader_address: String,
    }
    let leader: Option<Leader> = calls.read("sys/leader").await?;
    Ok(leader.is_some_and(|l| !l.leader_address.is_empty()))
}

/// "core: barrier reports initialized but no seal configuration found": Vault's and OpenBao's words.
const NO_SEAL_CONFIGURATION: &str = "no seal configuration found";
