//! Bearer tokens and their accessors.

use std::fmt;

use zeroize::Zeroizing;

/// Longest token that is looked at; OpenBao's batch tokens stay well below.
pub(crate) const MAX_TOKEN_BYTES: usize = 4096;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a client presents to be let in: whoever has it, is it. Ours are `s.` and 24 base62 digits (142 bits).
pub struct Token(Zeroizing<String>);

impl Token {
    /// A presented token, in whatever form: visible ASCII, at most 4096 bytes.
    ///
    /// # Errors
    /// [`TokenError`], without the text: it may have been somebody's real token with a slip in it.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let sound = !text.is_empty() && text.len() <= MAX_TOKEN_BYTES && text.bytes().all(|b| b.is_ascii_graphic());
        if sound { Ok(Self(Zeroizing::new(text.to_owned()))) } else { Err(TokenError) }
    }

    /// A new service token from random bytes.
    pub fn generate(fill: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(26));
        text.push_str("s.");
        base62(24, fill, &mut text);
        Self(text)
    }

    /// Stands where a reply has no token to give, as in the renewal by accessor: empty, and good for nothing.
    pub fn withheld() -> Self {
        Self(Zeroizing::new(String::new()))
    }

    /// The token's text, for the file, header or reply that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Not a token.
#[derive(Debug, thiserror::Error)]
#[error("not a token: expected 1 to 4096 visible ASCII characters")]
pub struct TokenError;

/// Names a token without giving its power: for logs, revocation and lookup. 24 base62 digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Accessor(String);

impl Accessor {
    /// A presented accessor.
    ///
    /// # Errors
    /// If it is empty, over 128 bytes or not visible ASCII.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let sound = !text.is_empty() && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic());
        if sound { Ok(Self(text.to_owned())) } else { Err(TokenError) }
    }

    /// A new accessor from random bytes.
    pub fn generate(fill: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut text = String::with_capacity(24);
        base62(24, fill, &mut text);
        Self(text)
    }

    /// Its text: an accessor is no secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Accessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Appends `count` uniform base62 digits; bytes of 248 and more are thrown away, for 248 = 4 x 62.
fn base62(count: usize, fill: &mut dyn FnMut(&mut [u8]), out: &mut String) {
    let mut pool = Zeroizing::new([0u8; 32]);
    let mut left = count;
    while left > 0 {
        fill(&mut pool[..]);
        for b in pool.iter().filter(|b| **b < 248).take(left) {
            out.push(char::from(BASE62[usize::from(b % 62)]));
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_openbaos_form_and_is_not_printed() {
        let mut next = 0u8;
        let token = Token::generate(&mut |out| {
            out.iter_mut().for_each(|b| {
                *b = next;
                next = next.wrapping_add(41);
            })
        });
        assert_eq!(token.expose().len(), 26);
        assert!(token.expose().starts_with("s."));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn what_no_header_may_carry_is_no_token() {
        for bad in ["", "a b", "a\n", "caf\u{e9}", &"x".repeat(MAX_TOKEN_BYTES + 1)] {
            assert!(Token::parse(bad).is_err(), "{bad:?}");
        }
    }
}
