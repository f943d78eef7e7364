//! Authenticated encryption: AES-256-GCM for values, AES-256-GCM-SIV for names.

use std::fmt;

use aws_lc_rs::aead;
use zeroize::{Zeroize, Zeroizing};

use super::NotAuthentic;

/// Bytes that AES-256-GCM and AES-256-GCM-SIV add to a text.
pub const TAG_BYTES: usize = 16;
/// Bytes of a nonce (NIST SP 800-38D, RFC 8452).
pub const NONCE_BYTES: usize = 12;

/// AES-256-GCM (NIST SP 800-38D) under one key.
pub struct Gcm(aead::LessSafeKey);

impl Gcm {
    /// Expands the key once; a `Gcm` is kept for as long as its key is in use.
    pub fn new(key: &[u8; 32]) -> Self {
        Self(aead_key(&aead::AES_256_GCM, key))
    }

    /// Encrypts `text` in place and appends the tag; should the tag not fit, the clear text that is left behind is
    /// wiped. `nonce` must never be used twice under this key: random, and at most 2^32 times (SP 800-38D, 8.3).
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

/// AES-256-GCM-SIV (RFC 8452) with a fixed nonce: the same text under the same associated data gives the same bytes,
/// and that equality is all that they tell (deterministic encryption, RFC 8452 section 9, RFC 5297's use).
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
    if text.capacity() - text.len() < TAG_BYTES {
        // Growing would free the clear text as it stands; so it is moved by hand, and wiped where it was.
        let mut roomy = Vec::with_capacity(text.len() + TAG_BYTES);
        roomy.extend_from_slice(text);
        std::mem::replace(text, roomy).zeroize();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_text_without_room_for_the_tag_is_sealed_all_the_same() {
        let gcm = Gcm::new(&[7; 32]);
        for room in [0, 1, TAG_BYTES - 1, TAG_BYTES, 100] {
            let mut text = Vec::with_capacity(5 + room);
            text.extend_from_slice(b"clear");
            gcm.seal([1; 12], b"", &mut text);
            assert_eq!(&gcm.open([1; 12], b"", &text).unwrap()[..], b"clear", "{room}");
        }
    }

    /// McGrew and Viega, "The Galois/Counter Mode of Operation", test case 16.
    #[test]
    fn gcm_case_16() {
        let hex = |t: &str| hex::decode(t).unwrap();
        let key: [u8; 32] = hex("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").try_into().unwrap();
        let nonce: [u8; 12] = hex("cafebabefacedbaddecaf888").try_into().unwrap();
        let mut text = hex(concat!(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
            "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
        ));
        Gcm::new(&key).seal(nonce, &hex("feedfacedeadbeeffeedfacedeadbeefabaddad2"), &mut text);
        assert_eq!(
            hex::encode(text),
            concat!(
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
                "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
                "76fc6ece0f4e1768cddf8853bb2d551b"
            )
        );
    }
}
