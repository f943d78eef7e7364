//! How a password is kept: bcrypt for those that people chose; a keyed code for those that edgekeep drew at random.
//!
//! A slow hash protects passwords that can be guessed. One of 128 random bits cannot, so for it a code under a key of
//! the barrier is as good, and twenty services can log in at boot without a second of hashing. Only the unattended
//! start may say that a password was drawn: anyone else's word for it would be a way to store a guessable one badly.

use pipeline::{Authorized, EngineError, Txn};
use secret::crypto::ct_eq;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Userpass;
use super::pool::on_pool;
use crate::input::Input;

/// What is kept instead of a password.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kept {
    /// A bcrypt hash in its usual text form.
    Bcrypt(String),
    /// HMAC under a key of the barrier, in hexadecimal digits.
    Generated(String),
}

impl Userpass {
    /// What to keep of a new password.
    pub(super) async fn hash(
        &self,
        name: &str,
        password: &Zeroizing<String>,
        input: &Input<'_>,
        request: &Authorized<'_>,
        txn: &Txn,
    ) -> Result<Kept, EngineError> {
        if password.is_empty() {
            return Err(EngineError::bad_request("the password is empty"));
        }
        let drawn = request.actor().is_boot() && input.flag(GENERATED_FIELD)? == Some(true);
        if drawn && password.len() >= GENERATED_BYTES {
            return Ok(Kept::Generated(hex::encode(code(request, name, password, txn))));
        }
        if password.len() > MAX_BCRYPT_BYTES {
            return Err(EngineError::bad_request("a password has at most 72 bytes, for bcrypt looks at no more"));
        }
        let password = password.clone();
        let hashed = on_pool(&*self.pool, move || bcrypt::non_truncating_hash(password.as_bytes(), COST)).await?;
        // The one error left is a library fault; its text has no password in it.
        hashed.map(Kept::Bcrypt).map_err(EngineError::internal)
    }

    /// The slow check. A "no" costs one bcrypt whoever is asked for and however that password is kept, so that the time
    /// tells nothing of who exists.
    pub(super) async fn is_chosen(
        &self,
        kept: Option<Kept>,
        password: &Zeroizing<String>,
    ) -> Result<bool, EngineError> {
        let hash = match kept {
            Some(Kept::Bcrypt(hash)) => Some(hash),
            Some(Kept::Generated(_)) | None => None,
        };
        let password = password.clone();
        on_pool(&*self.pool, move || {
            let wanted = hash.as_deref().unwrap_or(NOBODYS);
            // Longer ones cannot have been stored; hashing their beginning keeps the time.
            let within = &password.as_bytes()[..password.len().min(MAX_BCRYPT_BYTES)];
            let same = bcrypt::verify(within, wanted).unwrap_or(false);
            same && hash.is_some() && within.len() == password.len()
        })
        .await
    }
}

/// Whether `password` is the drawn one that is kept; false for any other kind.
pub(super) fn is_generated(
    kept: Option<&Kept>,
    name: &str,
    password: &str,
    request: &Authorized<'_>,
    txn: &Txn,
) -> bool {
    match kept {
        Some(Kept::Generated(hex)) => ct_eq(hex::encode(code(request, name, password, txn)).as_bytes(), hex.as_bytes()),
        Some(Kept::Bcrypt(_)) | None => false,
    }
}

/// Bound to the mount and the user, so that no code can be moved to another.
fn code(request: &Authorized<'_>, name: &str, password: &str, txn: &Txn) -> [u8; 32] {
    let mount = &request.mount().uuid;
    let lengths = [mount.len() as u32, name.len() as u32].map(u32::to_be_bytes).concat();
    txn.mac("userpass-generated", &[&lengths, mount.as_bytes(), name.as_bytes(), password.as_bytes()])
}

/// A field that boot adds to a user's body; from others it means nothing.
pub(super) const GENERATED_FIELD: &str = "edgekeep_generated";
/// 128 bits in base64, the densest that a drawn password comes in.
const GENERATED_BYTES: usize = 22;
/// 2^10 rounds: what OpenBao uses, some 50 ms on a small core.
pub(super) const COST: u32 = 10;
/// bcrypt reads 72 bytes and no more.
const MAX_BCRYPT_BYTES: usize = 72;
/// A hash of the same cost that no password is known for.
const NOBODYS: &str = "$2b$10$yYQ7Z1iYwq0r3rPDeqBzXeQGkBDPGhEWlGjfPTqqfZz0vQX1y8cEK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobodys_hash_costs_what_a_users_does() {
        let parts: bcrypt::HashParts = NOBODYS.parse().unwrap();
        assert_eq!(parts.get_cost(), COST);
        assert!(!bcrypt::verify("password", NOBODYS).unwrap(), "it is a sound hash, of nothing that anyone types");
    }
}
