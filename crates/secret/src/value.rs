//! The two shapes of secret bytes: of fixed size, and of a size known only at run time.

use std::fmt;

use zeroize::{Zeroize, Zeroizing};

/// `N` secret bytes in a box of their own: moving the value moves a pointer, so no copies are left on stacks.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Makes the secret in place: `fill` writes into the box, and what it writes is never elsewhere.
    pub fn init_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// As [`Secret::init_with`], where filling can fail; a half-filled secret is wiped.
    ///
    /// # Errors
    /// Whatever `fill` returns.
    pub fn try_init_with<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Equality in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        crate::crypto::ct_eq(self.0.as_slice(), other.0.as_slice())
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
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
