//! Derivation of keys.

use aws_lc_rs::hkdf;

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

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5869, appendix A, the cases for SHA-256 (A.4 to A.7 are for SHA-1, which is not used here).
    #[test]
    fn rfc_5869_a1_to_a3() {
        let long = |first: u8| (first..=first.wrapping_add(0x4f)).collect::<Vec<u8>>();
        let hex = |t: &str| hex::decode(t).unwrap();
        let cases = [
            (
                vec![0x0b; 22],
                hex("000102030405060708090a0b0c"),
                hex("f0f1f2f3f4f5f6f7f8f9"),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                long(0x00),
                long(0x60),
                long(0xb0),
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
                 da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            ),
            (
                vec![0x0b; 22],
                vec![],
                vec![],
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ];
        for (ikm, salt, info, expected) in cases {
            let mut okm = vec![0; expected.len() / 2];
            hkdf_sha256(&salt, &ikm, &info, &mut okm);
            assert_eq!(hex::encode(okm), expected);
        }
    }
}
