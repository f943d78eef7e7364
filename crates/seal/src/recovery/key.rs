//! A recovery key and the text that people keep of it: see docs/formats.md, Recovery.

use std::fmt;

use host::Entropy;
use secret::{Secret, SecretBytes, crypto};
use zeroize::Zeroizing;

use crate::ikm::{Ikm, IkmError};
use crate::labels::{self, Label};
use crate::slot::{SlotPublic, SourceKind};
use crate::slot_set::NewSlot;

/// 256 bits that open the store by themselves.
pub struct RecoveryKey(Secret<32>);

impl RecoveryKey {
    /// A new one.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        Self(Secret::init_with(|key| entropy.fill(key)))
    }

    /// Reads the text of [`RecoveryKey::format`], as people may type it: case, dashes and spaces do not matter, `o` is
    /// read as 0, `i` and `l` as 1.
    ///
    /// # Errors
    /// [`RecoveryKeyError`], which holds nothing of the text.
    pub fn parse(text: &str) -> Result<Self, RecoveryKeyError> {
        let text = text.trim_ascii();
        let rest = match text.split_at_checked(PREFIX.len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
            _ => return Err(RecoveryKeyError::Prefix),
        };
        if rest.len() > MAX_TYPED_BYTES {
            return Err(RecoveryKeyError::Length { digits: rest.len() });
        }
        let mut bytes = Zeroizing::new([0u8; BYTES]);
        let mut digits = 0;
        for typed in rest.chars().filter(|c| *c != '-' && !c.is_ascii_whitespace()) {
            let value = digit_value(typed).ok_or(RecoveryKeyError::Character { position: digits + 1 })?;
            // Past the end only counted, for the message.
            for bit in 0..5 {
                if let Some(byte) = bytes.get_mut((digits * 5 + bit) / 8) {
                    *byte |= (value >> (4 - bit) & 1) << (7 - (digits * 5 + bit) % 8);
                }
            }
            digits += 1;
        }
        if digits != DIGITS {
            return Err(RecoveryKeyError::Length { digits });
        }
        let key = Self(Secret::init_with(|key| key.copy_from_slice(&bytes[..32])));
        let check = key.expand::<CHECK_BYTES>(labels::RECOVERY_CHECK);
        if crypto::ct_eq(&check, &bytes[32..]) { Ok(key) } else { Err(RecoveryKeyError::Check) }
    }

    /// The text for people: `ekr1-` and 14 groups of 4 digits.
    pub fn format(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0u8; BYTES]);
        bytes[..32].copy_from_slice(self.0.expose());
        bytes[32..].copy_from_slice(&self.expand::<CHECK_BYTES>(labels::RECOVERY_CHECK));
        // The whole capacity at once, with room for a line feed: growth would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + DIGITS + DIGITS / GROUP + 1));
        text.push_str(PREFIX);
        for digit in 0..DIGITS {
            if digit > 0 && digit % GROUP == 0 {
                text.push('-');
            }
            let value = (0..5).fold(0, |value, bit| {
                let at = digit * 5 + bit;
                value << 1 | bytes[at / 8] >> (7 - at % 8) & 1
            });
            text.push(char::from(ALPHABET[usize::from(value)]));
        }
        text
    }

    /// The key's public name, 16 hexadecimal digits: for labels on envelopes and for the log.
    pub fn name(&self) -> String {
        hex::encode(self.expand::<NAME_BYTES>(labels::RECOVERY_NAME))
    }

    /// The slot that this key opens.
    ///
    /// # Errors
    /// [`IkmError::Constant`] if the entropy that made the key is broken.
    pub fn new_slot(&self) -> Result<NewSlot, IkmError> {
        let name = self.expand::<NAME_BYTES>(labels::RECOVERY_NAME).to_vec();
        let public =
            SlotPublic::new(SourceKind::Recovery, None, vec![(TAG_NAME, name)]).expect("one item of 8 bytes fits");
        Ok(NewSlot { public, ikm: self.ikm()? })
    }

    /// The key material that opens the recovery slot.
    ///
    /// # Errors
    /// [`IkmError::Constant`] for a key that nobody made.
    pub fn ikm(&self) -> Result<Ikm, IkmError> {
        Ikm::new(SecretBytes::new(self.0.expose().to_vec()), None)
    }

    fn expand<const N: usize>(&self, label: Label) -> [u8; N] {
        let mut out = [0; N];
        crypto::hkdf_sha256(&[], self.0.expose(), label.text.as_bytes(), &mut out);
        out
    }
}

impl SlotPublic {
    /// The public name of the recovery key that opens this slot, as [`RecoveryKey::name`]; `None` for slots of other
    /// kinds.
    pub fn recovery_name(&self) -> Option<String> {
        let name = self.item(TAG_NAME).filter(|_| self.kind() == SourceKind::Recovery)?;
        Some(hex::encode(name))
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(..)")
    }
}

/// Text that is no recovery key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// It begins with something else.
    #[error("not a recovery key: it begins with `{PREFIX}`")]
    Prefix,
    /// Digits are missing, or there are too many.
    #[error("the recovery key has {digits} digits after `{PREFIX}` instead of {DIGITS}")]
    Length {
        /// How many there are.
        digits: usize,
    },
    /// A character that is no digit of the alphabet.
    #[error("digit {position} of the recovery key is none of `0-9 a-z` without `u`")]
    Character {
        /// Counted from 1, dashes and spaces left out.
        position: usize,
    },
    /// The check digits do not fit: something was mistyped.
    #[error("the recovery key was mistyped: its check digits do not fit")]
    Check,
}

fn digit_value(typed: char) -> Option<u8> {
    let plain = match typed.to_ascii_lowercase() {
        'o' => '0',
        'i' | 'l' => '1',
        other => other,
    };
    // The whole alphabet is gone through each time; u8 positions, for it has 32 letters.
    (0u8..)
        .zip(ALPHABET)
        .fold(None, |found, (value, letter)| if char::from(*letter) == plain { Some(value) } else { found })
}

const PREFIX: &str = "ekr1-";
/// Crockford's base 32: without i, l, o and u.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const CHECK_BYTES: usize = labels::RECOVERY_CHECK.bytes;
const NAME_BYTES: usize = labels::RECOVERY_NAME.bytes;
const BYTES: usize = 32 + CHECK_BYTES;
/// 35 bytes are exactly 56 digits of 5 bits.
const DIGITS: usize = BYTES * 8 / 5;
const GROUP: usize = 4;
/// Room for a space after each digit; more is not looked at.
const MAX_TYPED_BYTES: usize = 256;
/// The recovery key's name, in the slot's public part.
const TAG_NAME: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::TestRunner;

    fn key(bytes: [u8; 32]) -> RecoveryKey {
        RecoveryKey(Secret::init_with(|k| k.copy_from_slice(&bytes)))
    }

    fn counting() -> RecoveryKey {
        key(std::array::from_fn(|i| i as u8))
    }

    const GOLDEN: &str = include_str!("../../../../tests/golden/keys/recovery.txt");

    #[test]
    fn the_text_is_the_golden_one() {
        assert_eq!(format!("{}\n{}\n", &*counting().format(), counting().name()), GOLDEN);
    }

    #[test]
    fn typed_by_people() {
        let text = counting().format();
        let digits = text[PREFIX.len()..].replace('-', "");
        let spaced: String = digits.chars().flat_map(|c| [c, ' ']).collect();
        for typed in [
            text.to_uppercase(),
            format!("  {}\n", &*text),
            format!("{PREFIX}{digits}"),
            format!("EKR1-{spaced}"),
            text.replace('1', "l").replacen("ekrl", "ekr1", 1),
            text.replace('0', "O"),
        ] {
            let read = RecoveryKey::parse(&typed).unwrap_or_else(|e| panic!("{typed}: {e}"));
            assert!(read.0.ct_eq(&counting().0), "{typed}");
        }
    }

    #[test]
    fn refusals_by_name() {
        let text = counting().format();
        let refused = |typed: &str| RecoveryKey::parse(typed).unwrap_err();
        assert_eq!(refused(""), RecoveryKeyError::Prefix);
        assert_eq!(refused("ekr2-0000"), RecoveryKeyError::Prefix);
        assert_eq!(refused("AGE-SECRET-KEY-1"), RecoveryKeyError::Prefix);
        assert_eq!(refused("\u{20ac}\u{20ac}"), RecoveryKeyError::Prefix);
        assert_eq!(refused(&text[..text.len() - 1]), RecoveryKeyError::Length { digits: DIGITS - 1 });
        assert_eq!(refused(&format!("{}0", &*text)), RecoveryKeyError::Length { digits: DIGITS + 1 });
        assert_eq!(refused(&text.replacen("-0", "-u", 1)), RecoveryKeyError::Character { position: 1 });
        assert_eq!(
            refused(&format!("{PREFIX}{}", "0".repeat(MAX_TYPED_BYTES + 1))),
            RecoveryKeyError::Length { digits: MAX_TYPED_BYTES + 1 }
        );
        let (mut last, other) = (text.to_string(), if text.ends_with('0') { '2' } else { '0' });
        last.pop();
        last.push(other);
        assert_eq!(refused(&last), RecoveryKeyError::Check);
    }

    #[test]
    fn a_slot_tells_whose_it_is() {
        assert_eq!(counting().new_slot().unwrap().public.recovery_name(), Some(counting().name()));
        assert_eq!(SlotPublic::new(SourceKind::Exec, None, vec![(TAG_NAME, vec![1])]).unwrap().recovery_name(), None);
    }

    /// The same cases in each run: the check has 24 bits and cannot notice one slip in sixteen million, which a run
    /// with cases of its own would hit now and then.
    #[test]
    fn two_digits_exchanged_or_one_mistyped_are_noticed() {
        let cases = (any::<[u8; 32]>(), 0usize..DIGITS - 1, 0usize..32);
        let noticed = |(bytes, at, to): ([u8; 32], usize, usize)| {
            let text = key(bytes).format();
            let digits: Vec<u8> = text.as_bytes()[PREFIX.len()..].iter().copied().filter(|b| *b != b'-').collect();
            let mut swapped = digits.clone();
            swapped.swap(at, at + 1);
            let mut mistyped = digits.clone();
            mistyped[at] = ALPHABET[to];
            for wrong in [swapped, mistyped].into_iter().filter(|w| *w != digits) {
                let typed = format!("{PREFIX}{}", String::from_utf8(wrong).unwrap());
                prop_assert_eq!(RecoveryKey::parse(&typed).err(), Some(RecoveryKeyError::Check));
            }
            Ok(())
        };
        TestRunner::deterministic().run(&cases, noticed).unwrap();
    }

    proptest! {
        #[test]
        fn reads_what_it_prints(bytes: [u8; 32]) {
            let read = RecoveryKey::parse(&key(bytes).format()).unwrap();
            prop_assert_eq!(read.0.expose(), &bytes);
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = RecoveryKey::parse(&text);
            let _ = RecoveryKey::parse(&format!("{PREFIX}{text}"));
        }
    }
}
