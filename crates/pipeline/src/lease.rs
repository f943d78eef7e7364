//! Something handed out that must be taken back.

use serde::{Deserialize, Serialize};
use store::StoreTime;

/// What an engine handed out under a token, other than the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Request path and 24 random digits.
    pub id: String,
    /// When it ends, in milliseconds of the store's time.
    pub expires_ms: u64,
    /// What the engine needs to take it back; never a secret.
    pub detail: serde_json::Value,
}

impl Lease {
    /// When it ends.
    pub fn expires(&self) -> StoreTime {
        StoreTime(self.expires_ms)
    }
}
