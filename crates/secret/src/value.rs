//! The two shapes of secret bytes: of fixed size, and of a size known only at run time.

use std::fmt;

use memory::LockedBytes;
use zeroize::Zeroizing;

/// `N` secret bytes in locked pages: moving the value moves a pointer, so no copies are left on stacks.
pub struct Secret<const N: usize>(LockedBytes);

impl<const N: usize> Secret<N> {
    /// Makes the secret in place: `fill` writes into its pages, and what it writes is never elsewhere.
    pub fn init_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(LockedBytes::zeroed(N));
        fill(secret.bytes_mut());
        secret
    }

    /// As [`Secret::init_with`], where filling can fail; a half-filled secret is wiped.
    ///
    /// # Errors
    /// Whatever `fill` returns.
    pub fn try_init_with<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(LockedBytes::zeroed(N));
        fill(secret.bytes_mut())?;
        Ok(secret)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8; N] {
        self.0.expose().try_into().expect("made with N bytes")
    }

    /// Equality in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        crate::crypto::ct_eq(self.expose(), other.expose())
    }

    fn bytes_mut(&mut self) -> &mut [u8; N] {
        self.0.expose_mut().try_into().expect("made with N bytes")
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

/// Secret bytes of a length known at run time. Never grows: growth would leave copies behind.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over `bytes`; the caller has kept no copy.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes in locked pages, for a secret that stays or opens others; those here are wiped.
    pub fn locked(self) -> LockedBytes {
        let mut locked = LockedBytes::zeroed(self.len());
        locked.expose_mut().copy_from_slice(&self.0);
        locked
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Zeroizing<Vec<u8>>> for SecretBytes {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let s = Secret::<4>::init_with(|b| b.copy_from_slice(b"hush"));
        assert_eq!(format!("{s:?} {:?}", SecretBytes::new(b"hush".to_vec())), "Secret<4>(..) SecretBytes(..)");
    }

    #[test]
    fn equality_is_of_the_bytes() {
        let make = |v: u8| Secret::<32>::init_with(|b| b.fill(v));
        assert!(make(1).ct_eq(&make(1)));
        assert!(!make(1).ct_eq(&make(2)));
    }
}
