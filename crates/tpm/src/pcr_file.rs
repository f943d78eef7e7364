//! Register values from a file: those that a next image will have, written down by whoever has measured it.
//!
//! ```text
//! sha256:7=65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e234eb3068      one a line, or
//!   sha256:                                                                      as tpm2_pcrread prints them
//!     7 : 0x65CAF8DD1E0EA7A6347B635D2B379C93B9A1351EDC2AFC3ECDA700E234EB3068
//! ```
//! Other banks than SHA-256 are passed over: a policy looks at that one alone.

use std::str::FromStr;

use crate::pcr::{PCRS, PcrValues};

impl FromStr for PcrValues {
    type Err = PcrFileError;

    fn from_str(text: &str) -> Result<Self, PcrFileError> {
        if text.len() > MAX_BYTES {
            return Err(PcrFileError::TooLarge { bytes: text.len() });
        }
        let mut values = Self::default();
        // The bank of the lines that name none.
        let mut bank = None;
        for (line, number) in text.lines().zip(1..) {
            let wrong = |defect| PcrFileError::Line { number, defect };
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if let Some(name) = line.strip_suffix(':') {
                bank = Some(name.trim());
                continue;
            }
            let (of, entry) = match line.split_once('=') {
                Some((register, value)) => {
                    let (of, pcr) = register.split_once(':').ok_or(wrong("a line is sha256:N=VALUE"))?;
                    (of.trim(), (pcr, value))
                }
                None => {
                    let entry = line.split_once(':').ok_or(wrong("neither a bank nor a register and its value"))?;
                    (bank.ok_or(wrong("a value before the name of its bank"))?, entry)
                }
            };
            if of != "sha256" {
                continue;
            }
            let (pcr, value) = (entry.0.trim(), entry.1.trim());
            let pcr: u8 = pcr.parse().ok().filter(|n| *n < PCRS).ok_or(wrong("there is no such register"))?;
            let digits = value.strip_prefix("0x").unwrap_or(value);
            let value = octets(digits).ok_or(wrong("a value is 64 hexadecimal digits"))?;
            if values.value(pcr).is_some() {
                return Err(wrong("the register was named before"));
            }
            values = values.with(pcr, value);
        }
        if values.iter().next().is_none() { Err(PcrFileError::Empty) } else { Ok(values) }
    }
}

fn octets(digits: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = digits.as_bytes().try_into().ok()?;
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut value = [0; 32];
    for (octet, pair) in value.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(value)
}

/// Why a text has no register values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcrFileError {
    /// More than all banks of a TPM.
    #[error("{bytes} bytes are more than all registers of a TPM; at most {MAX_BYTES} are read")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// A line that is none.
    #[error("line {number}: {defect}")]
    Line {
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        defect: &'static str,
    },
    /// No value of the SHA-256 bank.
    #[error("it has no value of the SHA-256 bank")]
    Empty,
}

const MAX_BYTES: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(of: &[(&str, &str)]) -> String {
        of.iter().map(|(head, byte)| format!("{head}{}\n", byte.repeat(32))).collect()
    }

    #[test]
    fn both_ways_of_writing() {
        let expected = PcrValues::new([(7, [0xa7; 32]), (11, [0x11; 32])]);
        let short = lines(&[("sha256:7=", "a7"), ("# the kernel\nsha256:11=0x", "11")]);
        assert_eq!(short.parse(), Ok(expected.clone()));
        let printed = format!(
            "  sha1:\n    0 : 0x{}\n  sha256:\n{}  sha384:\n    7 : 0x{}\n",
            "00".repeat(20),
            lines(&[("    7 : 0x", "A7"), ("    11: 0x", "11")]),
            "00".repeat(48),
        );
        assert_eq!(printed.parse(), Ok(expected));
    }

    #[test]
    fn texts_that_are_none() {
        let wrong = |text: &str| text.parse::<PcrValues>().unwrap_err();
        let at = |number, defect| PcrFileError::Line { number, defect };
        let value = "ab".repeat(32);
        assert_eq!(wrong(""), PcrFileError::Empty);
        assert_eq!(wrong("sha1:7=00\n"), PcrFileError::Empty);
        assert_eq!(wrong(&format!("7 : 0x{value}")), at(1, "a value before the name of its bank"));
        assert_eq!(wrong(&format!("\nsha256:24={value}")), at(2, "there is no such register"));
        assert_eq!(wrong(&format!("sha256:-1={value}")), at(1, "there is no such register"));
        assert_eq!(wrong(&format!("sha256:7={}", &value[1..])), at(1, "a value is 64 hexadecimal digits"));
        assert_eq!(wrong(&format!("sha256:7=g{}", &value[1..])), at(1, "a value is 64 hexadecimal digits"));
        assert_eq!(wrong(&format!("7={value}")), at(1, "a line is sha256:N=VALUE"));
        assert_eq!(wrong("sha256"), at(1, "neither a bank nor a register and its value"));
        let twice = format!("sha256:7={value}\nsha256:7={value}");
        assert_eq!(wrong(&twice), at(2, "the register was named before"));
        assert_eq!(wrong(&" ".repeat(MAX_BYTES + 1)), PcrFileError::TooLarge { bytes: MAX_BYTES + 1 });
    }

    proptest! {
        #[test]
        fn any_text_is_values_or_an_error(text: String) {
            if let Ok(values) = text.parse::<PcrValues>() {
                prop_assert!(values.iter().count() <= usize::from(PCRS));
            }
        }
    }
}
