//! What differs between the device as it is and as it was when a slot was made, for people.

use std::fmt;

/// A register whose value is not the one that the slot was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrDiff {
    /// Its number.
    pub pcr: u8,
    /// Its value when the slot was made.
    pub expected: [u8; 32],
    /// Its value now.
    pub found: [u8; 32],
}

impl fmt::Display for PcrDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eight digits tell values apart for a person; the log line stays readable with many registers.
        let short = |value: &[u8; 32]| hex::encode(&value[..4]);
        write!(f, "PCR {} is {}.., was {}..", self.pcr, short(&self.found), short(&self.expected))
    }
}

/// A register and what it holds, whole: for whoever is to sign it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrFound {
    /// Its number.
    pub pcr: u8,
    /// Its value now.
    pub value: [u8; 32],
}

/// As `edgekeep seal slots predict` reads it.
impl fmt::Display for PcrFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}={}", self.pcr, hex::encode(self.value))
    }
}

/// All of them, in one line.
pub(super) fn values(registers: &[PcrFound]) -> String {
    registers.iter().map(PcrFound::to_string).collect::<Vec<_>>().join(", ")
}

/// All of them, in one line.
pub(super) fn list(differs: &[PcrDiff]) -> String {
    let texts: Vec<String> = differs.iter().map(PcrDiff::to_string).collect();
    if texts.is_empty() { "no register differs that can be named".into() } else { texts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::super::{Remedy, SourceError};
    use super::*;

    #[test]
    fn a_mismatch_names_its_registers() {
        let diff = |pcr, expected, found| PcrDiff { pcr, expected: [expected; 32], found: [found; 32] };
        let e = SourceError::PolicyMismatch { differs: vec![diff(7, 1, 2), diff(11, 3, 0xff)] };
        let text = "the device is not in the state that the slot was made in: \
                    PCR 7 is 02020202.., was 01010101..; PCR 11 is ffffffff.., was 03030303..";
        assert_eq!(e.to_string(), text);
        assert_eq!(e.remedy(), Remedy::Operator);
    }

    #[test]
    fn what_nobody_has_signed_is_told_so_that_it_can_be() {
        let found = [(11, 0xab), (12, 0xcd)].map(|(pcr, octet)| PcrFound { pcr, value: [octet; 32] });
        let e = SourceError::NotSigned { file: "/run/signature.json".into(), signatures: 2, found: found.to_vec() };
        let text = format!(
            "the device's state is not approved of: /run/signature.json: none of the key's 2 signatures is for \
             sha256:11={}, sha256:12={}",
            "ab".repeat(32),
            "cd".repeat(32)
        );
        assert_eq!((e.to_string(), e.remedy()), (text, Remedy::Operator));
    }
}
