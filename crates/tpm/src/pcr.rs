//! Platform configuration registers: which of them, and what is in them.

use std::collections::BTreeMap;
use std::fmt;

use secret::crypto::sha256;

/// How many there are on a PC client (TCG PC Client Platform TPM Profile, 4.6.1).
pub const PCRS: u8 = 24;

/// A set of registers.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PcrSet(u32);

impl PcrSet {
    /// These registers, in any order; one named twice is there once.
    ///
    /// # Errors
    /// [`PcrSetError`] for a number that no register has.
    pub fn new(numbers: impl IntoIterator<Item = u8>) -> Result<Self, PcrSetError> {
        numbers.into_iter().try_fold(Self::default(), |set, pcr| match pcr {
            0..PCRS => Ok(Self(set.0 | 1 << pcr)),
            _ => Err(PcrSetError { pcr }),
        })
    }

    /// The registers whose bits are set; bit 0 is register 0.
    ///
    /// # Errors
    /// [`PcrSetError`] for a bit that no register has.
    pub fn from_bits(bits: u32) -> Result<Self, PcrSetError> {
        match bits >> PCRS {
            0 => Ok(Self(bits)),
            beyond => Err(PcrSetError { pcr: PCRS.saturating_add(beyond.trailing_zeros() as u8) }),
        }
    }

    /// Bit 0 is register 0.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The numbers, rising.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..PCRS).filter(move |pcr| self.contains(*pcr))
    }

    /// Whether the register is in the set.
    pub fn contains(self, pcr: u8) -> bool {
        pcr < PCRS && self.0 >> pcr & 1 == 1
    }

    /// Both sets together.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the registers of the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// As people write it: `7+11`.
impl fmt::Display for PcrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, pcr) in self.iter().enumerate() {
            write!(f, "{}{pcr}", if i == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for PcrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcrSet({self})")
    }
}

/// What registers hold, of the SHA-256 bank.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcrValues(BTreeMap<u8, [u8; 32]>);

impl PcrValues {
    /// These values.
    pub fn new(values: impl IntoIterator<Item = (u8, [u8; 32])>) -> Self {
        Self(values.into_iter().collect())
    }

    /// What is known of a register.
    pub fn value(&self, pcr: u8) -> Option<&[u8; 32]> {
        self.0.get(&pcr)
    }

    /// (register, value), registers rising.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8; 32])> {
        self.0.iter().map(|(pcr, value)| (*pcr, value))
    }

    /// The same, but for one register.
    #[must_use]
    pub fn with(mut self, pcr: u8, value: [u8; 32]) -> Self {
        self.0.insert(pcr, value);
        self
    }

    /// The digest over a set's values, registers rising (part 3, 23.7); `None` if one is not known.
    pub(crate) fn digest(&self, set: PcrSet) -> Option<[u8; 32]> {
        let values: Option<Vec<&[u8]>> = set.iter().map(|pcr| self.value(pcr).map(|v| v.as_slice())).collect();
        Some(sha256(&values?))
    }
}

/// The value that a register has after `digest` was extended into it (part 1, 11.4.7).
pub fn extended(value: &[u8; 32], digest: &[u8; 32]) -> [u8; 32] {
    sha256(&[value, digest])
}

/// No register has this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no PCR {pcr}; they are numbered 0 to {}", PCRS - 1)]
pub struct PcrSetError {
    /// The number.
    pub pcr: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_registers() {
        let set = PcrSet::new([11, 7, 7]).unwrap();
        assert_eq!((set.to_string().as_str(), set.len(), set.bits()), ("7+11", 2, 1 << 7 | 1 << 11));
        assert_eq!(set.iter().collect::<Vec<_>>(), [7, 11]);
        assert!(set.contains(7) && !set.contains(8) && !set.contains(255) && !set.is_empty());
        assert_eq!(PcrSet::from_bits(set.bits()), Ok(set));
        assert_eq!(set.union(PcrSet::new([0]).unwrap()).to_string(), "0+7+11");
    }

    #[test]
    fn numbers_that_no_register_has() {
        for pcr in [24, 31, 32, 255] {
            assert_eq!(PcrSet::new([pcr]), Err(PcrSetError { pcr }));
        }
        assert_eq!(PcrSet::from_bits(1 << 24), Err(PcrSetError { pcr: 24 }));
        assert_eq!(PcrSet::from_bits(u32::MAX), Err(PcrSetError { pcr: 24 }));
        assert!(PcrSet::new(0..24).is_ok());
    }
}
