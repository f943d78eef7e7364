//! Passwords of databases, brokers and users: made here, or taken from a store that somebody else filled.

use std::fmt;

use zeroize::Zeroizing;

/// Random bytes of a generated password: 264 bits, as EdgeX makes them, and no padding in base 64.
const RANDOM_BYTES: usize = 33;
const TEXT_BYTES: usize = RANDOM_BYTES / 3 * 4;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A password. A generated one is 33 random bytes in base 64 (RFC 4648, section 4), 44 characters.
pub struct Password(Zeroizing<String>);

impl Password {
    /// A new password from random bytes.
    pub fn generate(fill: &mut dyn FnMut(&mut [u8])) -> Self {
        let mut bytes = Zeroizing::new([0; RANDOM_BYTES]);
        fill(&mut bytes[..]);
        // The whole capacity at once: growth would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
        for three in bytes.chunks_exact(3) {
            let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            for digit in [18, 12, 6, 0] {
                text.push(char::from(BASE64[(bits >> digit & 63) as usize]));
            }
        }
        Self(text)
    }

    /// A password that was made elsewhere: 1 to 1024 bytes without NUL, which would end it early in every C program.
    ///
    /// # Errors
    /// [`PasswordError`], without the text.
    pub fn received(text: Zeroizing<String>) -> Result<Self, PasswordError> {
        let sound = !text.is_empty() && text.len() <= MAX_BYTES && !text.contains('\0');
        if sound { Ok(Self(text)) } else { Err(PasswordError) }
    }

    /// The password's text, for the place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Not a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a password: expected 1 to 1024 bytes of UTF-8 without NUL")]
pub struct PasswordError;

/// Longer than any that people or programs make; redis, the shortest of the peers, takes as much.
const MAX_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_three_bytes_in_base_64_and_not_printed() {
        // Vector A of EdgeX's share 0 has the same length.
        let password = Password::generate(&mut |out| (0x40..).zip(out).for_each(|(i, b)| *b = i));
        assert_eq!(password.expose(), "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl9g");
        assert_eq!(format!("{password:?}"), "Password(..)");
    }

    #[test]
    fn what_is_no_password_is_refused() {
        for bad in ["", "a\0b", &"x".repeat(MAX_BYTES + 1)] {
            assert_eq!(Password::received(Zeroizing::new(bad.into())).err(), Some(PasswordError));
        }
        assert!(Password::received(Zeroizing::new("x".repeat(MAX_BYTES))).is_ok());
    }

    #[test]
    fn every_digit_of_the_alphabet_is_reached() {
        let all = Password::generate(&mut |out| out.fill(0xff));
        assert_eq!(all.expose(), "/".repeat(44));
    }
}
