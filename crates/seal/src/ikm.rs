//! Input keying material: what a source releases, and the one thing that the whole store hangs on.

use std::{fmt, io};

use secret::{LockedBytes, SecretBytes};

/// Fewest octets of IKM, whatever the configuration says: 128 bits.
pub const MIN_IKM_BYTES: usize = 16;
/// Fewest octets without [`ShortIkmAllowed`]: the strength of AES-256.
pub const FULL_IKM_BYTES: usize = 32;
/// Most octets: what a hook may print (8192 hexadecimal digits).
pub const MAX_IKM_BYTES: usize = 4096;

/// Secret octets fit to derive keys from: long enough, and not what dead hardware gives. In locked pages.
pub struct Ikm(LockedBytes);

impl Ikm {
    /// Takes over what a source gave. HKDF takes any length (RFC 5869, 2.2), but no more strength comes out than went
    /// in.
    ///
    /// # Errors
    /// [`IkmError`]; the octets are wiped.
    pub fn new(octets: SecretBytes, short: Option<ShortIkmAllowed>) -> Result<Self, IkmError> {
        Self::fit(octets.locked(), short)
    }

    fn fit(octets: LockedBytes, short: Option<ShortIkmAllowed>) -> Result<Self, IkmError> {
        let length = octets.expose().len();
        let least = if short.is_some() { MIN_IKM_BYTES } else { FULL_IKM_BYTES };
        if length < least && host::in_force("ikm-floor") {
            return Err(IkmError::TooShort { octets: length, least });
        }
        if length > MAX_IKM_BYTES {
            return Err(IkmError::TooLong { octets: length });
        }
        // All octets are looked at, whatever they are: the time tells nothing about where the first difference is.
        let first = octets.expose()[0];
        if octets.expose().iter().fold(0, |seen, b| seen | (b ^ first)) == 0 && host::in_force("ikm-not-constant") {
            return Err(IkmError::Constant);
        }
        Ok(Self(octets))
    }

    /// Hands it to another process of ours, through a pipe that nobody else has: how long it is (two octets, big
    /// endian), and itself, so that a pipe that breaks on the way gives no key material.
    ///
    /// # Errors
    /// What the pipe says.
    pub fn hand_over(&self, pipe: &mut dyn io::Write) -> io::Result<()> {
        let octets = self.expose();
        let length = u16::try_from(octets.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        pipe.write_all(&length.to_be_bytes())?;
        pipe.write_all(octets)
    }

    /// What [`Ikm::hand_over`] gives.
    ///
    /// # Errors
    /// What the pipe says; `UnexpectedEof` if it broke; `InvalidData` if it is too short to be key material.
    pub fn take_over(pipe: &mut dyn io::Read, short: Option<ShortIkmAllowed>) -> io::Result<Self> {
        let mut length = [0; 2];
        pipe.read_exact(&mut length)?;
        let mut octets = LockedBytes::zeroed(u16::from_be_bytes(length).into());
        pipe.read_exact(octets.expose_mut())?;
        Self::fit(octets, short).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    /// The octets, for the derivation.
    pub(crate) fn expose(&self) -> &[u8] {
        self.0.expose()
    }

    /// Equality in constant time, for the drift check of a source.
    pub fn ct_eq(&self, other: &Self) -> bool {
        secret::crypto::ct_eq(self.expose(), other.expose())
    }
}

impl fmt::Debug for Ikm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ikm(..)")
    }
}

/// Says that somebody asked for IKM of 16 to 31 octets to be accepted, by the configuration key `danger_short_ikm`.
#[derive(Clone, Copy, Debug)]
pub struct ShortIkmAllowed(());

impl ShortIkmAllowed {
    /// For the configuration alone: an operator wrote `danger_short_ikm = true`.
    pub fn danger_short_ikm() -> Self {
        Self(())
    }
}

/// Octets that no key may be derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IkmError {
    /// Fewer than 32 octets, or fewer than 16 with `danger_short_ikm`.
    #[error("the source gave {octets} octets of key material; {least} are needed")]
    TooShort {
        /// How many came.
        octets: usize,
        /// How many are needed as configured.
        least: usize,
    },
    /// More than 4096 octets.
    #[error("the source gave {octets} octets of key material; at most {MAX_IKM_BYTES} are taken")]
    TooLong {
        /// How many came.
        octets: usize,
    },
    /// One octet repeated: zeros from a dead device, 0xff from an unprogrammed one.
    #[error("the source gave the same octet again and again: that is no key material")]
    Constant,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(n: usize) -> SecretBytes {
        SecretBytes::new((0..n).map(|i| (i % 251) as u8).collect())
    }

    #[test]
    fn what_is_handed_over_is_taken_over_whole_or_not_at_all() {
        let ikm = Ikm::new(octets(64), None).unwrap();
        let mut pipe = Vec::new();
        ikm.hand_over(&mut pipe).unwrap();
        assert!(Ikm::take_over(&mut &pipe[..], None).unwrap().ct_eq(&ikm));
        for cut in 0..pipe.len() {
            assert_eq!(
                Ikm::take_over(&mut &pipe[..cut], None).unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof,
                "{cut}"
            );
        }
        let short = [&[0, 4][..], &[1, 2, 3, 4]].concat();
        assert_eq!(Ikm::take_over(&mut &short[..], None).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn thirty_two_octets_or_a_word_for_it() {
        let short = Some(ShortIkmAllowed::danger_short_ikm());
        for n in [32, 33, 64, 1000, MAX_IKM_BYTES] {
            assert!(Ikm::new(octets(n), None).is_ok(), "{n}");
        }
        for n in [0, 1, 15, 16, 31] {
            assert_eq!(Ikm::new(octets(n), None).err(), Some(IkmError::TooShort { octets: n, least: 32 }));
        }
        assert!(Ikm::new(octets(16), short).is_ok());
        for n in [0, 1, 15] {
            assert_eq!(Ikm::new(octets(n), short).err(), Some(IkmError::TooShort { octets: n, least: 16 }));
        }
        let n = MAX_IKM_BYTES + 1;
        assert_eq!(Ikm::new(octets(n), short).err(), Some(IkmError::TooLong { octets: n }));
    }

    #[test]
    fn dead_hardware_is_refused_at_any_length() {
        for octet in [0x00, 0xff, 0x5a] {
            for n in [32, 512] {
                assert_eq!(Ikm::new(SecretBytes::new(vec![octet; n]), None).err(), Some(IkmError::Constant));
            }
        }
        let mut nearly = vec![0; 512];
        nearly[511] = 1;
        assert!(Ikm::new(SecretBytes::new(nearly), None).is_ok());
    }

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", Ikm::new(octets(32), None).unwrap()), "Ikm(..)");
    }
}
