//! ECDSA (FIPS 186-5) on P-256 with SHA-256, P-384 with SHA-384 and P-521 with SHA-512, in the fixed form `r || s` that
//! JWS takes (RFC 7518, 3.4).
//!
//! The library draws keys and nonces from its own generator, which the kernel seeds.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
};

use super::NotAuthentic;
use crate::SecretBytes;

/// A curve with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// P-256 with SHA-256: ES256.
    P256,
    /// P-384 with SHA-384: ES384.
    P384,
    /// P-521 with SHA-512: ES512, which Tang's servers sign with.
    P521,
}

impl Curve {
    /// Bytes of a coordinate, and of each half of a signature.
    pub fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

/// A private key for signatures.
pub struct SigningKey {
    curve: Curve,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`SignError`] when the library's generator fails.
    pub fn generate(curve: Curve) -> Result<Self, SignError> {
        let pair = EcdsaKeyPair::generate(curve.signing()).map_err(|_| SignError)?;
        Ok(Self { curve, pair })
    }

    /// Reads what [`SigningKey::to_pkcs8`] wrote.
    ///
    /// # Errors
    /// [`SignError`] if it is no private key of that curve.
    pub fn from_pkcs8(curve: Curve, pkcs8: &[u8]) -> Result<Self, SignError> {
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing(), pkcs8).map_err(|_| SignError)?;
        Ok(Self { curve, pair })
    }

    /// The private key as PKCS #8 (RFC 5208), for the barrier.
    ///
    /// # Errors
    /// [`SignError`] when the library cannot encode it.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, SignError> {
        // The library wipes its own copy (`pkcs8::Document`).
        let der = self.pair.to_pkcs8v1().map_err(|_| SignError)?;
        Ok(SecretBytes::new(der.as_ref().to_vec()))
    }

    /// The public key as an uncompressed point: 4, x, y (SEC 1, 2.3.3).
    pub fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// Signs `message`: r and s, each as long as [`Curve::bytes`].
    ///
    /// # Errors
    /// [`SignError`] when the library's generator fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| SignError)?;
        Ok(signature.as_ref().to_vec())
    }

    /// The key's curve.
    pub fn curve(&self) -> Curve {
        self.curve
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.curve)
    }
}

/// Checks a signature of [`SigningKey::sign`] under an uncompressed public point.
///
/// # Errors
/// [`NotAuthentic`], for a bad point too.
pub fn verify(curve: Curve, public: &[u8], message: &[u8], signature: &[u8]) -> Result<(), NotAuthentic> {
    UnparsedPublicKey::new(curve.verification(), public).verify(message, signature).map_err(|_| NotAuthentic)
}

/// The key is none, or the generator failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a private key of this curve, or the random generator failed")]
pub struct SignError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_and_message_alone() {
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            let key = SigningKey::generate(curve).unwrap();
            let signature = key.sign(b"message").unwrap();
            assert_eq!((signature.len(), key.public().len()), (2 * curve.bytes(), 2 * curve.bytes() + 1));
            let again = SigningKey::from_pkcs8(curve, key.to_pkcs8().unwrap().expose()).unwrap();
            assert_eq!(again.public(), key.public());
            verify(curve, again.public(), b"message", &signature).unwrap();
            assert_eq!(verify(curve, key.public(), b"other", &signature), Err(NotAuthentic));
            let other = SigningKey::generate(curve).unwrap();
            assert_eq!(verify(curve, other.public(), b"message", &signature), Err(NotAuthentic));
            assert_eq!(verify(curve, b"\x04no point", b"message", &signature), Err(NotAuthentic));
        }
    }

    #[test]
    fn a_key_of_another_curve_is_refused() {
        let key = SigningKey::generate(Curve::P256).unwrap();
        assert!(SigningKey::from_pkcs8(Curve::P384, key.to_pkcs8().unwrap().expose()).is_err());
        assert!(SigningKey::from_pkcs8(Curve::P256, b"").is_err());
    }

    /// RFC 6979, A.2.6 (P-384, SHA-384, "sample"): a signature made elsewhere verifies.
    #[test]
    fn rfc_6979_a_2_6() {
        let point = hex::decode(concat!(
            "04ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64",
            "def8f0ea9055866064a254515480bc138015d9b72d7d57244ea8ef9ac0c6218967",
            "08a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720"
        ));
        let signature = hex::decode(concat!(
            "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46",
            "99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8"
        ));
        verify(Curve::P384, &point.unwrap(), b"sample", &signature.unwrap()).unwrap();
    }
}
