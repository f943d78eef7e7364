//! Passwords that edgekeep makes for databases, brokers and its own users.

use std::fmt;

use zeroize::Zeroizing;

/// Random bytes of a generated password: 264 bits, as EdgeX makes them, and no padding in base 64.
const RANDOM_BYTES: usize = 33;
const TEXT_BYTES: usize = RANDOM_BYTES / 3 * 4;
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A generated password: 33 random bytes in base 64 (RFC 4648, section 4), 44 characters.
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
    fn every_digit_of_the_alphabet_is_reached() {
        let all = Password::generate(&mut |out| out.fill(0xff));
        assert_eq!(all.expose(), "/".repeat(44));
    }
}
