//! Key material as text: one line of lower-case hexadecimal digits, as a hook prints it.

use secret::SecretBytes;
use zeroize::Zeroizing;

use super::process::MAX_OUTPUT;

/// Most hexadecimal digits of a hook's output: all but the line feed.
const MAX_DIGITS: usize = MAX_OUTPUT - 1;

/// The octets that `line` spells, with one line feed at its end or none. The digits are looked at in constant time:
/// neither branches nor table look-ups depend on the secret.
///
/// # Errors
/// What is wrong, and nothing of the line.
pub(super) fn octets(line: &[u8]) -> Result<SecretBytes, &'static str> {
    let digits = line.strip_suffix(b"\n").unwrap_or(line);
    if digits.is_empty() {
        return Err("it is empty");
    }
    if digits.len() > MAX_DIGITS {
        return Err("it has more than 8192 digits");
    }
    let mut bad = 0;
    let octets: Zeroizing<Vec<u8>> = Zeroizing::new(
        digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |octet, digit| octet << 4 | nibble(*digit, &mut bad)))
            .collect(),
    );
    if bad != 0 {
        return Err("it has a character that is no lower-case hexadecimal digit");
    }
    if digits.len() % 2 == 1 {
        return Err("it has an odd number of digits");
    }
    Ok(octets.into())
}

/// The value of a digit; `bad` becomes other than 0 for what is none.
fn nibble(digit: u8, bad: &mut u8) -> u8 {
    // All ones where `value < below`, else all zeros.
    let mask = |value: u8, below: u16| (u16::from(value).wrapping_sub(below) >> 8) as u8;
    let (decimal, letter) = (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a'));
    let (is_decimal, is_letter) = (mask(decimal, 10), mask(letter, 6));
    *bad |= !(is_decimal | is_letter);
    decimal & is_decimal | letter.wrapping_add(10) & is_letter
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_line_of_octets() {
        assert_eq!(octets(b"12345678").unwrap().expose(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(octets(b"12345678\n").unwrap().expose(), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(octets(&[b'a'; MAX_DIGITS]).unwrap().len(), MAX_DIGITS / 2);
    }

    #[test]
    fn refusals_by_name() {
        let defect = |line: &[u8]| octets(line).err().unwrap();
        for line in ["", "\n"] {
            assert_eq!(defect(line.as_bytes()), "it is empty");
        }
        assert_eq!(defect(b"abc"), "it has an odd number of digits");
        assert_eq!(defect(&[b'0'; MAX_DIGITS + 1]), "it has more than 8192 digits");
        for line in ["AB", "0x12", "12\r\n", "12\n\n", "12 ", " 12", "12\n34", "1g", "\u{661}\u{662}", "12\0\0"] {
            assert_eq!(
                defect(line.as_bytes()),
                "it has a character that is no lower-case hexadecimal digit",
                "{line:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_ordinary_decoder(bytes: Vec<u8>, junk in proptest::collection::vec(any::<u8>(), 1..40)) {
            if let Ok(read) = octets(hex::encode(&bytes).as_bytes()) {
                prop_assert_eq!(read.expose(), &bytes[..]);
            } else {
                prop_assert!(bytes.is_empty());
            }
            let text = junk.strip_suffix(b"\n").unwrap_or(&junk);
            let ordinary = hex::decode(text).ok().filter(|_| !text.is_empty() && !text.iter().any(u8::is_ascii_uppercase));
            prop_assert_eq!(octets(&junk).ok().map(|o| o.expose().to_vec()), ordinary);
        }
    }
}
