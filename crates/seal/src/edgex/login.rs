//! A login that whoever holds all shares can compute, and nobody else: HKDF-SHA-256 over the shares.
//!
//! OpenBao takes shares for a new root token only from somebody who is logged in (2.6 and later). This is that login; it
//! needs no file of its own, and dies with the shares when they are replaced.

use secret::crypto::hkdf_sha256;
use zeroize::Zeroizing;

use super::share::ClearShares;
use crate::labels::{self, Label};

/// Name and password, both made of the shares.
pub struct SharesLogin {
    /// `shares-` and 16 hexadecimal digits: other shares, another user. Says nothing of the shares.
    pub user: String,
    /// 64 hexadecimal digits.
    pub password: Zeroizing<String>,
}

impl std::fmt::Debug for SharesLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharesLogin({})", self.user)
    }
}

impl ClearShares {
    /// The login of these shares. Their order counts; it is that of the file.
    pub fn login(&self) -> SharesLogin {
        let mut all = Zeroizing::new(Vec::with_capacity(self.shares.iter().map(secret::SecretBytes::len).sum()));
        self.shares.iter().for_each(|s| all.extend_from_slice(s.expose()));
        let expand = |label: Label| {
            let mut out = Zeroizing::new(vec![0; label.bytes]);
            hkdf_sha256(&[], &all, label.text.as_bytes(), &mut out);
            Zeroizing::new(hex::encode(&*out))
        };
        SharesLogin { user: format!("shares-{}", *expand(labels::SHARES_NAME)), password: expand(labels::SHARES_LOGIN) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edgex::Shares;

    fn login(keys: &str) -> SharesLogin {
        match Shares::parse(format!("{{\"keys\":[{keys}]}}").as_bytes()).unwrap() {
            Shares::Clear(c) => c.login(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_share_and_their_order_count() {
        let base = login("\"aabb\",\"ccdd\"");
        assert_eq!(base.user, login("\"aabb\",\"ccdd\"").user);
        for other in ["\"aabb\",\"ccde\"", "\"ccdd\",\"aabb\"", "\"aabb\""] {
            let other = login(other);
            assert_ne!(base.user, other.user);
            assert_ne!(*base.password, *other.password);
        }
        assert_eq!((base.user.len(), base.password.len()), (23, 64));
        assert!(!base.password.contains(base.user.trim_start_matches("shares-")));
        assert_eq!(format!("{base:?}"), format!("SharesLogin({})", base.user));
    }
}
