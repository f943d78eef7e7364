//! The one module that calls the cryptographic library (aws-lc-rs). No primitive is written here.

mod sign;

use std::fmt;

use aws_lc_rs::{aead, constant_time, digest, hkdf, hmac};
use zeroize::Zeroizing;

pub use sign::{Curve, SignError, SigningKey, verify};

/// Bytes that AES-256-GCM and AES-256-GCM-SIV add to a text.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce (NIST SP 800-38D, RFC 8452).
pub const NONCE_BYTES: usize = 12;

/// The text was changed, belongs elsewhere (associated data), or was sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed: other key, other place, or changed bytes")]
pub struct NotAuthentic;

/// AES-256-GCM (NIST SP 800-38D) under one key.
pub struct Gcm(aead::LessSafeKey);

impl Gcm {
    /// Expands the key once; a `Gcm` is kept for as long as its key is in use.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(aead_key(&aead::AES_256_GCM, key))
    }

    /// Encrypts `text` in place and appends the tag. `nonce` must never be used twice under this key: random, and at most
    /// 2^32 times (SP 800-38D, 8.3).
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], associated: &[u8], text: &mut Vec<u8>) {
        seal(&self.0, nonce, associated, text);
    }

    /// Decrypts `text || tag`.
    ///
    /// # Errors
    /// [`NotAuthentic`]; nothing of the text is released.
    pub fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        associated: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        open(&self.0, nonce, associated, sealed)
    }
}

impl fmt::Debug for Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gcm(..)")
    }
}

/// AES-256-GCM-SIV (RFC 8452) with a fixed nonce: the same text under the same associated data gives the same bytes, and
/// that equality is all that they tell (deterministic encryption, RFC 8452 section 9, RFC 5297's use).
pub struct Siv(aead::LessSafeKey);

impl Siv {
    /// Expands the key once.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(aead_key(&aead::AES_256_GCM_SIV, key))
    }

    /// Encrypts `text` in place and appends the tag.
    pub fn seal(&self, associated: &[u8], text: &mut Vec<u8>) {
        seal(&self.0, [0; NONCE_BYTES], associated, text);
    }

    /// Decrypts `text || tag`.
    ///
    /// # Errors
    /// [`NotAuthentic`].
    pub fn open(&self, associated: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        open(&self.0, [0; NONCE_BYTES], associated, sealed)
    }
}

impl fmt::Debug for Siv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Siv(..)")
    }
}

fn aead_key(algorithm: &'static aead::Algorithm, key: &[u8; 32]) -> aead::LessSafeKey {
    // 32 bytes is the key length of both algorithms.
    aead::LessSafeKey::new(aead::UnboundKey::new(algorithm, key).expect("a key of 32 bytes fits AES-256"))
}

fn seal(key: &aead::LessSafeKey, nonce: [u8; NONCE_BYTES], associated: &[u8], text: &mut Vec<u8>) {
    text.reserve_exact(TAG_BYTES);
    key.seal_in_place_append_tag(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(associated), text)
        .expect("a text below 2^36 bytes can be sealed"); // SP 800-38D, 5.2.1.1; our limits are far lower
}

fn open(
    key: &aead::LessSafeKey,
    nonce: [u8; NONCE_BYTES],
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
    let mut buffer = Zeroizing::new(sealed.to_vec());
    let length = key
        .open_in_place(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(associated), &mut buffer)
        .map_err(|_| NotAuthentic)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

/// HKDF-SHA-256 (RFC 5869): extract with `salt`, expand with `info`, into `out` (at most 255 x 32 bytes).
pub fn hkdf_sha256(salt: &[u8], ikm: &[u8], info: &[u8], out: &mut [u8]) {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(&[info], Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("fewer than 8161 bytes of key are asked for"); // RFC 5869, 2.3: L <= 255 * HashLen
}

/// HMAC-SHA-256 (RFC 2104, FIPS 198-1) under one key.
pub struct Hmac(hmac::Key);

impl Hmac {
    /// A key of any length; 32 bytes are meant.
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The 32-byte code of the parts, one after the other. The caller makes the parts unambiguous.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part);
        }
        let mut code = [0; 32];
        code.copy_from_slice(context.sign().as_ref());
        code
    }
}

impl fmt::Debug for Hmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hmac(..)")
    }
}

/// SHA-256 (FIPS 180-4) of the parts, one after the other.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// Equality in time that depends on the lengths alone.
pub fn ct_eq(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_5869_a1() {
        let mut okm = [0; 42];
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        hkdf_sha256(&salt, &[0x0b; 22], &info, &mut okm);
        assert_eq!(
            hex::encode(okm),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
        );
    }

    #[test]
    fn gcm_binds_its_associated_data_and_nonce() {
        let gcm = Gcm::new(&[7; 32]);
        let mut text = b"text".to_vec();
        gcm.seal([1; 12], b"place", &mut text);
        assert_eq!(text.len(), 4 + TAG_BYTES);
        assert_eq!(&gcm.open([1; 12], b"place", &text).unwrap()[..], b"text");
        assert_eq!(gcm.open([1; 12], b"other place", &text), Err(NotAuthentic));
        assert_eq!(gcm.open([2; 12], b"place", &text), Err(NotAuthentic));
        assert_eq!(Gcm::new(&[8; 32]).open([1; 12], b"place", &text), Err(NotAuthentic));
    }

    #[test]
    fn siv_is_deterministic() {
        let siv = Siv::new(&[7; 32]);
        let sealed = |parent: &[u8]| {
            let mut t = b"name".to_vec();
            siv.seal(parent, &mut t);
            t
        };
        assert_eq!(sealed(b"a"), sealed(b"a"));
        assert_ne!(sealed(b"a"), sealed(b"b"));
        assert!(siv.open(b"b", &sealed(b"a")).is_err());
    }

    #[test]
    fn hmac_rfc_4231_case_2() {
        let code = Hmac::new(b"Jefe").sign(&[b"what do ya want ", b"for nothing?"]);
        assert_eq!(hex::encode(code), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
