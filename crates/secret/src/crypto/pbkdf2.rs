//! Slow derivation from passwords, for servers that keep a verifier of this kind (PostgreSQL's SCRAM, Mosquitto).

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;

/// PBKDF2-HMAC-SHA-256 (RFC 8018, 5.2) of 32 bytes.
pub fn pbkdf2_sha256(password: &[u8], salt: &[u8], rounds: NonZeroU32, out: &mut [u8; 32]) {
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password, out);
}

/// PBKDF2-HMAC-SHA-512 (RFC 8018, 5.2) of 64 bytes.
pub fn pbkdf2_sha512(password: &[u8], salt: &[u8], rounds: NonZeroU32, out: &mut [u8; 64]) {
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, rounds, salt, password, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_7914_section_11_its_first_half() {
        let mut out = [0; 32];
        pbkdf2_sha256(b"passwd", b"salt", NonZeroU32::MIN, &mut out);
        assert_eq!(hex::encode(out), "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc");
    }

    /// By Python's hashlib: no RFC has vectors for SHA-512.
    #[test]
    fn sha512_as_another_library_has_it() {
        let mut out = [0; 64];
        pbkdf2_sha512(b"password", b"salt", NonZeroU32::new(4096).unwrap(), &mut out);
        assert_eq!(
            hex::encode(out),
            "d197b1b33db0143e018b12f3d1d1479e6cdebdcc97c5c0f87f6902e072f457b5\
             143f30602641b3d55cd335988cb36b84376060ecd532e039b742a239434af2d5"
        );
    }
}
