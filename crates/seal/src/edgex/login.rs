//! A login that whoever holds all shares can compute, and nobody else: HKDF-SHA-256 over the shares.
//!
//! OpenBao takes shares for a new root token only from somebody who is logged in (2.6 and later). This is that login;
//! it needs no file of its own, and dies with the shares when they are replaced.

use host::Entropy;
use secret::crypto::{Gcm, NONCE_BYTES, TAG_BYTES, hkdf_sha256};
use secret::{Secret, Token};
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
        let expand = |label: Label| Zeroizing::new(hex::encode(&*self.expand(label)));
        SharesLogin { user: format!("shares-{}", *expand(labels::SHARES_NAME)), password: expand(labels::SHARES_LOGIN) }
    }
}

/// A token that whoever holds all shares can open: it gives no more than they do.
impl ClearShares {
    /// Wraps it.
    pub fn wrap_token(&self, token: &Token, entropy: &dyn Entropy) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let mut text = Vec::with_capacity(token.expose().len() + TAG_BYTES);
        text.extend_from_slice(token.expose().as_bytes());
        self.token_key().seal(nonce, b"", &mut text);
        [&nonce[..], &text].concat()
    }

    /// Opens it; `None` for other shares, and for changed bytes.
    pub fn open_token(&self, wrapped: &[u8]) -> Option<Token> {
        let (nonce, sealed) = wrapped.split_first_chunk::<NONCE_BYTES>()?;
        let text = self.token_key().open(*nonce, b"", sealed).ok()?;
        Token::parse(std::str::from_utf8(&text).ok()?).ok()
    }

    fn token_key(&self) -> Gcm {
        let key = Secret::<32>::init_with(|key| key.copy_from_slice(&self.expand(labels::SHARES_ROOT)));
        Gcm::new(key.expose())
    }

    fn expand(&self, label: Label) -> Zeroizing<Vec<u8>> {
        let mut all = Zeroizing::new(Vec::with_capacity(self.shares.iter().map(secret::SecretBytes::len).sum()));
        self.shares.iter().for_each(|s| all.extend_from_slice(s.expose()));
        let mut out = Zeroizing::new(vec![0; label.bytes]);
        hkdf_sha256(&[], &all, label.text.as_bytes(), &mut out);
        out
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

    #[test]
    fn a_wrapped_token_opens_for_all_the_shares_alone() {
        let clear = |keys: &str| match Shares::parse(format!("{{\"keys\":[{keys}]}}").as_bytes()).unwrap() {
            Shares::Clear(c) => c,
            other => panic!("{other:?}"),
        };
        let shares = clear("\"aabb\",\"ccdd\"");
        let wrapped = shares.wrap_token(&Token::parse("s.root").unwrap(), &crate::testing::Counting::default());
        assert_eq!(shares.open_token(&wrapped).unwrap().expose(), "s.root");
        assert!(!wrapped.windows(6).any(|w| w == b"s.root"));
        assert!(clear("\"aabb\"").open_token(&wrapped).is_none(), "other shares");
        let mut changed = wrapped.clone();
        changed[20] ^= 1;
        assert!(shares.open_token(&changed).is_none() && shares.open_token(&wrapped[..5]).is_none());
    }
}
