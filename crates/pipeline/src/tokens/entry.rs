//! A token as it is kept: everything but the token.

use std::collections::BTreeMap;

use api::Ttl;
use serde::{Deserialize, Serialize};
use store::{StorePath, StoreTime};

use super::renew::TtlRules;
use crate::error::EngineError;

/// A token's place in the store: its code under the store's key for tokens. Whoever reads it cannot make the token of
/// it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub(crate) [u8; 32]);

impl TokenId {
    pub(crate) fn path(self) -> StorePath {
        path([TOKENS, &hex::encode(self.0)])
    }

    pub(crate) fn children(self) -> StorePath {
        path([CHILDREN, &hex::encode(self.0)])
    }

    pub(crate) fn child(self, child: Self) -> StorePath {
        path([CHILDREN, &hex::encode(self.0), &hex::encode(child.0)])
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 32];
        hex::decode_to_slice(text, &mut id).ok().map(|()| Self(id))
    }
}

impl std::fmt::Debug for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenId({}..)", hex::encode(&self.0[..4]))
    }
}

impl Serialize for TokenId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for TokenId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(d)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("a token id has 64 hexadecimal digits"))
    }
}

/// What is kept of a token. Times are milliseconds of the store's time; seconds since 1970 are for display alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenEntry {
    /// Names the token without giving its power.
    pub accessor: String,
    /// The token that made it; `None` for an orphan. It lives only while its parent does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<TokenId>,
    /// Its own policies, sorted.
    pub policies: Vec<String>,
    /// The request path that made it.
    pub path: String,
    /// `token`, `token-me`, `userpass-alice`.
    pub display_name: String,
    /// Metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<BTreeMap<String, String>>,
    /// The entity behind it, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub entity_id: String,
    /// Accessor of the auth mount where its bearer logged in; the token ends with the mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// The role that it was made by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Uses left; `None` is no limit. At zero it is refused, and only waits to be removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u64>,
    /// Whether it may be renewed.
    pub renewable: bool,
    /// Seconds that it was made for; zero for ever.
    pub creation_ttl: u64,
    /// Seconds of each renewal of a periodic token; zero for others.
    #[serde(default)]
    pub period: u64,
    /// Seconds after which even a periodic token ends; zero for no limit.
    #[serde(default)]
    pub explicit_max_ttl: u64,
    /// Seconds after which a token that is not periodic ends, as its mount and user had it when this was written; zero
    /// for no limit.
    #[serde(default)]
    pub max_ttl: u64,
    /// When it was made.
    pub issued_ms: u64,
    /// The same by the wall clock, nanoseconds since 1970.
    pub issued_wall: i128,
    /// When it ends, as last promised before this entry was written; `None` for never.
    pub expires_ms: Option<u64>,
    /// The latest end that may be promised without writing this entry again (see [`crate::tokens`]).
    pub keep_until_ms: Option<u64>,
    /// When this entry was written.
    pub written_ms: u64,
    /// The number of the renewal that it holds, the first being 1. A noted renewal counts if its number is higher:
    /// times would not tell two renewals of one millisecond apart.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub renewals: u64,
    /// In which life of the process.
    pub life: u64,
    /// The last renewal by the wall clock, nanoseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_wall: Option<i128>,
    /// The kernel boot that it is good for; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

impl TokenEntry {
    /// Whether it stands by itself.
    pub fn is_orphan(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether it may do everything.
    pub fn is_root(&self) -> bool {
        self.policies.iter().any(|p| p == policy::ROOT_NAME)
    }

    /// When it was made.
    pub fn issued(&self) -> StoreTime {
        StoreTime(self.issued_ms)
    }

    /// The moment that no renewal can pass; `None` where there is no such limit.
    pub(crate) fn hard_end_ms(&self) -> Option<u64> {
        let after = |seconds: u64| (seconds > 0).then(|| self.issued_ms.saturating_add(seconds.saturating_mul(1000)));
        let max = if self.period > 0 { None } else { after(self.max_ttl) };
        match (after(self.explicit_max_ttl), max) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Takes over the rules of today; whether they are those that were written.
    pub(super) fn take(&mut self, rules: &TtlRules) -> bool {
        let TtlRules { period, explicit_max_ttl, max_ttl, .. } = *rules;
        let today = [period, explicit_max_ttl, max_ttl].map(Ttl::as_seconds);
        let written = [self.period, self.explicit_max_ttl, self.max_ttl];
        [self.period, self.explicit_max_ttl, self.max_ttl] = today;
        today == written
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        // What the barrier has opened was written by us; if it cannot be read it is another version's, and no token.
        serde_json::from_slice(bytes).map_err(|e| EngineError::internal(format!("a token entry cannot be read: {e}")))
    }

    pub(crate) fn encode(&self) -> secret::SecretBytes {
        secret::SecretBytes::new(serde_json::to_vec(self).expect("an entry of strings and numbers is JSON"))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over by reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

pub(crate) fn accessor_path(accessor: &str) -> StorePath {
    path([ACCESSORS, accessor])
}

pub(crate) fn tokens_dir() -> StorePath {
    StorePath::new([SYS, TOKENS]).expect("a constant path is sound")
}

pub(crate) fn accessors_dir() -> StorePath {
    StorePath::new([SYS, ACCESSORS]).expect("a constant path is sound")
}

/// Whether a touched path is a token's entry.
pub(crate) fn token_of(path: &StorePath) -> Option<TokenId> {
    match path.components() {
        [sys, tokens, id] if sys == SYS && tokens == TOKENS => TokenId::parse(id),
        _ => None,
    }
}

fn path<const N: usize>(rest: [&str; N]) -> StorePath {
    // Constants, hexadecimal codes and parsed accessors (at most 128 bytes): none is empty or over-long.
    StorePath::new(std::iter::once(SYS).chain(rest)).expect("codes and accessors are sound components")
}

const SYS: &str = "sys";
const TOKENS: &str = "token";
const ACCESSORS: &str = "accessor";
const CHILDREN: &str = "child";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_from_before_renewals_were_numbered_reads_and_stays_as_it_is() {
        let kept = r#"{"accessor":"a","policies":["default"],"path":"auth/token/create","display_name":"token","renewable":true,"creation_ttl":3600,"period":0,"explicit_max_ttl":0,"max_ttl":2764800,"issued_ms":1,"issued_wall":2,"expires_ms":3600001,"keep_until_ms":7200001,"written_ms":1,"life":4}"#;
        let entry = TokenEntry::decode(kept.as_bytes()).unwrap();
        assert_eq!(entry.renewals, 0);
        assert_eq!(entry.encode().expose(), kept.as_bytes());
        let renewed = TokenEntry { renewals: 7, ..entry };
        assert_eq!(TokenEntry::decode(renewed.encode().expose()).unwrap(), renewed);
    }
}
