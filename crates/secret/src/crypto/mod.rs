//! The one module that calls the cryptographic library (aws-lc-rs). No primitive is written here.

mod aead;
mod agree;
mod cfb;
mod kdf;
mod mac;
mod pbkdf2;
mod sign;

use aws_lc_rs::{constant_time, digest};

pub use aead::{Gcm, NONCE_BYTES, Siv, TAG_BYTES};
pub use agree::{P256_POINT_BYTES, P256Exchange};
pub use cfb::{aes128_cfb_decrypt, aes128_cfb_encrypt};
pub use kdf::hkdf_sha256;
pub use mac::Hmac;
pub use pbkdf2::{pbkdf2_sha256, pbkdf2_sha512};
pub use sign::{Curve, SignError, SigningKey, verify};

/// The text was changed, belongs elsewhere (associated data), or was sealed under another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed: other key, other place, or changed bytes")]
pub struct NotAuthentic;

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
    fn sha256_of_parts_is_that_of_the_whole() {
        // FIPS 180-4's example "abc".
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(sha256(&[b"a", b"", b"bc"])), expected);
    }

    #[test]
    fn equality_needs_equal_lengths() {
        assert!(ct_eq(b"", b"") && ct_eq(b"ab", b"ab"));
        assert!(!ct_eq(b"ab", b"ac") && !ct_eq(b"ab", b"abc"));
    }
}
