//! A private key on P-256, kept as PKCS #8 that is wiped when it is dropped.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::PrivatePkcs8KeyDer;
use secret::SecretBytes;
use zeroize::Zeroize;

/// An ECDSA key on P-256. Cannot be printed or cloned; leaves this type through [`Key::expose_pkcs8`] alone.
#[derive(Debug)]
pub struct Key {
    pkcs8: SecretBytes,
    public: PublicKey,
}

/// The point, uncompressed (SEC 1, 2.3.3): 65 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the cryptographic library cannot make one.
    pub(crate) fn generate() -> Result<Self, KeyError> {
        let pair = Pair(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| KeyError::Generate)?);
        Ok(Self {
            pkcs8: SecretBytes::new(pair.0.serialized_der().to_vec()),
            public: PublicKey(pair.0.der_bytes().to_vec()),
        })
    }

    /// A stored key.
    ///
    /// # Errors
    /// [`KeyError::Parse`] if the bytes are no PKCS #8 of a P-256 key.
    pub(crate) fn from_pkcs8(pkcs8: SecretBytes) -> Result<Self, KeyError> {
        let public = PublicKey(pair(&pkcs8)?.0.der_bytes().to_vec());
        Ok(Self { pkcs8, public })
    }

    /// The key as PKCS #8 DER (RFC 5958), for the barrier that stores it or the TLS stack that signs with it.
    pub fn expose_pkcs8(&self) -> &[u8] {
        self.pkcs8.expose()
    }

    pub(crate) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Lends the signing key to `sign`; the expanded copy is wiped on return.
    pub(crate) fn with_pair<T>(&self, sign: impl FnOnce(&KeyPair) -> T) -> Result<T, KeyError> {
        Ok(sign(&pair(&self.pkcs8)?.0))
    }
}

/// rcgen's key pair keeps a copy of the PKCS #8 text that it does not wipe by itself.
struct Pair(KeyPair);

impl Drop for Pair {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn pair(pkcs8: &SecretBytes) -> Result<Pair, KeyError> {
    let der = PrivatePkcs8KeyDer::from(pkcs8.expose());
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map(Pair).map_err(|_| KeyError::Parse)
}

/// A key cannot be made or read. Says nothing of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The library's generator failed.
    #[error("the cryptographic library made no key")]
    Generate,
    /// Not PKCS #8 of a P-256 key.
    #[error("not a PKCS #8 private key on P-256")]
    Parse,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_what_it_writes_and_prints_nothing() {
        let key = Key::generate().unwrap();
        let again = Key::from_pkcs8(SecretBytes::new(key.expose_pkcs8().to_vec())).unwrap();
        assert_eq!(key.public(), again.public());
        assert_ne!(key.public(), Key::generate().unwrap().public());
        assert!(format!("{key:?}").starts_with("Key { pkcs8: SecretBytes(..)"));
    }

    #[test]
    fn bytes_that_are_no_key_are_refused() {
        let mut cut = Key::generate().unwrap().expose_pkcs8().to_vec();
        cut.truncate(40);
        for bytes in [vec![], vec![0x30; 200], cut] {
            assert_eq!(Key::from_pkcs8(SecretBytes::new(bytes)).unwrap_err(), KeyError::Parse);
        }
    }
}
