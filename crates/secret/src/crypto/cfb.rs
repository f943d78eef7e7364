//! AES-128 in CFB mode (SP 800-38A, 6.3, whole blocks fed back): what a TPM encrypts parameters with. It hides and does
//! not authenticate; the session's HMAC does that.

use aws_lc_rs::cipher::{
    AES_128, DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;

/// Encrypts `text` in place.
pub fn aes128_cfb_encrypt(key: &[u8; 16], iv: &[u8; 16], text: &mut [u8]) {
    let context = EncryptionContext::Iv128(FixedLength::from(iv));
    EncryptingKey::cfb128(unbound(key))
        .and_then(|cipher| cipher.less_safe_encrypt(text, context))
        .expect("CFB takes a text of any length"); // SP 800-38A, 5.2, with the last block cut short
}

/// Decrypts `text` in place.
pub fn aes128_cfb_decrypt(key: &[u8; 16], iv: &[u8; 16], text: &mut [u8]) {
    let context = DecryptionContext::Iv128(FixedLength::from(iv));
    DecryptingKey::cfb128(unbound(key))
        .and_then(|cipher| cipher.decrypt(text, context).map(|_| ()))
        .expect("CFB takes a text of any length");
}

fn unbound(key: &[u8; 16]) -> UnboundCipherKey {
    UnboundCipherKey::new(&AES_128, key).expect("16 bytes are a key of AES-128")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SP 800-38A, F.3.13 and F.3.14.
    #[test]
    fn the_vectors_of_sp_800_38a() {
        let hex = |t: &str| hex::decode(t).unwrap();
        let key: [u8; 16] = hex("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        let iv: [u8; 16] = hex("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let clear = hex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51");
        let mut text = clear.clone();
        aes128_cfb_encrypt(&key, &iv, &mut text);
        assert_eq!(hex::encode(&text), "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b");
        aes128_cfb_decrypt(&key, &iv, &mut text);
        assert_eq!(text, clear);
    }

    #[test]
    fn any_length_is_taken() {
        for n in 0..40 {
            let clear: Vec<u8> = (0..n).collect();
            let mut text = clear.clone();
            aes128_cfb_encrypt(&[1; 16], &[2; 16], &mut text);
            assert_eq!(text.len(), clear.len());
            aes128_cfb_decrypt(&[1; 16], &[2; 16], &mut text);
            assert_eq!(text, clear);
        }
    }
}
