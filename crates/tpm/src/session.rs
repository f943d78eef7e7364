//! Sessions (part 1, 19 to 21): salted, so that their key is known to the TPM and to us alone; with it every answer is
//! authenticated, and the first parameter of a command or an answer encrypted.
//!
//! ```text
//! salt         = KDFe(ECDH(ours, storage key), "SECRET", ours.x, storage key.x)
//! session key  = KDFa(salt, "ATH", nonce TPM, nonce caller)
//! HMAC key     = session key ‖ authorisation value
//! cipher key and vector = KDFa(HMAC key, "CFB", newer nonce, older nonce)
//! ```

use std::fmt;

use secret::Secret;
use secret::crypto::{self, Hmac, P256Exchange};
use zeroize::Zeroizing;

use crate::public::{AES, CFB, PinnedKey, SHA256};
use crate::wire::{Malformed, Reader, Writer};

/// A session that the TPM has open for us.
pub struct Session {
    handle: u32,
    key: Secret<32>,
    nonce_tpm: Vec<u8>,
}

impl Session {
    pub(crate) fn handle(&self) -> u32 {
        self.handle
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:#x})", self.handle)
    }
}

/// What a session is for (part 2, 6.11, TPM_SE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Authorising by a value.
    Hmac = 0,
    /// Authorising by a policy.
    Policy = 1,
    /// Computing a policy.
    Trial = 3,
}

/// A session that is being started: our half.
pub(crate) struct Starting {
    salt: Secret<32>,
    encrypted_salt: Zeroizing<Vec<u8>>,
    nonce_caller: [u8; NONCE_BYTES],
}

impl Starting {
    /// Makes a salt that only the holder of `key` can read.
    pub(crate) fn salted(key: &PinnedKey, nonce_caller: [u8; NONCE_BYTES]) -> Result<Self, Malformed> {
        let exchange =
            P256Exchange::with(key.point()).map_err(|_| Malformed("the storage key is no point of P-256"))?;
        let (x, y) = exchange.ours[1..].split_at(32);
        // Part 1, 11.4.10.3, and C.6.3.
        let salt = Secret::init_with(|out| {
            let z = exchange.shared.expose();
            *out = crypto::sha256(&[&1u32.to_be_bytes(), z, b"SECRET\0", x, &key.point()[1..33]]);
        });
        let encrypted_salt = Writer::new().sized(x).sized(y).done();
        Ok(Self { salt, encrypted_salt, nonce_caller })
    }

    /// The parameters of StartAuthSession.
    pub(crate) fn parameters(&self, purpose: Purpose) -> Zeroizing<Vec<u8>> {
        Writer::new()
            .sized(&self.nonce_caller)
            .sized(&self.encrypted_salt)
            .u8(purpose as u8)
            .u16(AES)
            .u16(128)
            .u16(CFB)
            .u16(SHA256)
            .done()
    }

    /// The session, from the TPM's answer.
    pub(crate) fn started(self, handle: u32, parameters: &[u8]) -> Result<Session, Malformed> {
        let mut r = Reader::new(parameters);
        let nonce_tpm = nonce(&mut r)?;
        r.end()?;
        let key = kdfa(self.salt.expose(), "ATH", &nonce_tpm, &self.nonce_caller);
        Ok(Session { handle, key, nonce_tpm })
    }
}

/// What one command asks of its session (part 2, 8.4, TPMA_SESSION).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Use {
    /// The session stays open; a policy session starts over.
    pub(crate) keep: bool,
    /// The first parameter of the command is encrypted.
    pub(crate) encrypt_command: bool,
    /// The first parameter of the answer is encrypted.
    pub(crate) encrypt_answer: bool,
    /// It authorises nothing, and proves what was asked and answered (part 1, 19.2).
    pub(crate) audit: bool,
}

impl Use {
    fn attributes(self) -> u8 {
        let hide = host::in_force("tpm-parameters-encrypted");
        u8::from(self.keep)
            | u8::from(self.encrypt_command && hide) << 5
            | u8::from(self.encrypt_answer && hide) << 6
            | u8::from(self.audit) << 7
    }
}

/// A command that a session has authorised, and whose answer it will check.
pub(crate) struct Authorised<'a> {
    session: &'a mut Session,
    hmac_key: Zeroizing<Vec<u8>>,
    nonce_caller: [u8; NONCE_BYTES],
    code: u32,
    attributes: u8,
    /// For the command.
    pub(crate) area: Zeroizing<Vec<u8>>,
}

impl<'a> Authorised<'a> {
    /// Encrypts the first parameter if that is wanted, and signs the command. `value` is the authorisation value of the
    /// entity that the session authorises.
    pub(crate) fn new(
        session: &'a mut Session,
        nonce_caller: [u8; NONCE_BYTES],
        value: &[u8],
        wanted: Use,
        code: u32,
        names: &[&[u8]],
        parameters: &mut [u8],
    ) -> Result<Self, Malformed> {
        let mut hmac_key = Zeroizing::new(Vec::with_capacity(32 + value.len()));
        hmac_key.extend_from_slice(session.key.expose());
        hmac_key.extend_from_slice(value);
        let attributes = wanted.attributes();
        if attributes & DECRYPT != 0 {
            let (key, iv) = cfb_key(&hmac_key, &nonce_caller, &session.nonce_tpm);
            crypto::aes128_cfb_encrypt(&key, &iv, first(parameters)?);
        }
        // Part 1, 16.7 (cpHash) and 17.6.
        let code_bytes = code.to_be_bytes();
        let parts: Vec<&[u8]> =
            [&code_bytes[..]].into_iter().chain(names.iter().copied()).chain([&*parameters]).collect();
        let hash = crypto::sha256(&parts);
        let code_of = Hmac::new(&hmac_key).sign(&[&hash, &nonce_caller, &session.nonce_tpm, &[attributes]]);
        let area = Writer::new().u32(session.handle).sized(&nonce_caller).u8(attributes).sized(&code_of).done();
        Ok(Self { session, hmac_key, nonce_caller, code, attributes, area })
    }

    /// Checks the answer, and decrypts its first parameter if that was wanted.
    pub(crate) fn check(self, parameters: &mut [u8], authorisations: &[u8]) -> Result<(), CheckError> {
        let mut r = Reader::new(authorisations);
        let nonce_tpm = nonce(&mut r)?;
        let attributes = r.u8()?;
        let claimed = r.sized()?;
        r.end()?;
        let hash = crypto::sha256(&[&0u32.to_be_bytes(), &self.code.to_be_bytes(), parameters]);
        let expected = Hmac::new(&self.hmac_key).sign(&[&hash, &nonce_tpm, &self.nonce_caller, &[attributes]]);
        if !crypto::ct_eq(&expected, claimed) && host::in_force("tpm-answer-authentic") {
            return Err(CheckError::NotAuthentic);
        }
        if self.attributes & ENCRYPT != 0 {
            let (key, iv) = cfb_key(&self.hmac_key, &nonce_tpm, &self.nonce_caller);
            crypto::aes128_cfb_decrypt(&key, &iv, first(parameters)?);
        }
        self.session.nonce_tpm = nonce_tpm;
        Ok(())
    }
}

/// Why an answer is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckError {
    NotAuthentic,
    Malformed(Malformed),
}

impl From<Malformed> for CheckError {
    fn from(e: Malformed) -> Self {
        Self::Malformed(e)
    }
}

/// An empty password (part 1, 19.4): for hierarchies and keys that have none.
pub(crate) fn no_password() -> Zeroizing<Vec<u8>> {
    Writer::new().u32(RS_PW).sized(&[]).u8(0).sized(&[]).done()
}

fn nonce(r: &mut Reader<'_>) -> Result<Vec<u8>, Malformed> {
    let nonce = r.sized()?;
    // Part 1, 19.6.5: at least half of the hash, at most all of it.
    if (16..=32).contains(&nonce.len()) { Ok(nonce.to_vec()) } else { Err(Malformed("a nonce of the wrong length")) }
}

/// The content of the first parameter, which must be a TPM2B.
fn first(parameters: &mut [u8]) -> Result<&mut [u8], Malformed> {
    let size = Reader::new(parameters).u16()?;
    parameters.get_mut(2..2 + usize::from(size)).ok_or(Malformed("it ends too early"))
}

/// KDFa with HMAC-SHA-256 for 256 bits, one block (part 1, 11.4.10.2; SP 800-108 in counter mode).
fn kdfa(key: &[u8], label: &str, u: &[u8], v: &[u8]) -> Secret<32> {
    let (counter, bits) = (1u32.to_be_bytes(), 256u32.to_be_bytes());
    Secret::init_with(|out| *out = Hmac::new(key).sign(&[&counter, label.as_bytes(), &[0], u, v, &bits]))
}

fn cfb_key(hmac_key: &[u8], newer: &[u8], older: &[u8]) -> (Zeroizing<[u8; 16]>, [u8; 16]) {
    let both = kdfa(hmac_key, "CFB", newer, older);
    let (mut key, mut iv) = (Zeroizing::new([0; 16]), [0; 16]);
    key.copy_from_slice(&both.expose()[..16]);
    iv.copy_from_slice(&both.expose()[16..]);
    (key, iv)
}

/// Bytes of our nonces: the hash's.
pub(crate) const NONCE_BYTES: usize = 32;
const RS_PW: u32 = 0x4000_0009;
const DECRYPT: u8 = 1 << 5;
const ENCRYPT: u8 = 1 << 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn session(key: u8) -> Session {
        Session { handle: 0x0300_0000, key: Secret::init_with(|k| k.fill(key)), nonce_tpm: vec![3; 32] }
    }

    /// The other side: answers with the session's key as a TPM does.
    fn answer(key: u8, nonce_caller: &[u8], attributes: u8, parameters: &mut [u8]) -> Vec<u8> {
        let (key, nonce_tpm) = ([key; 32], [4; 32]);
        if attributes & ENCRYPT != 0 {
            let (k, iv) = cfb_key(&key, &nonce_tpm, nonce_caller);
            crypto::aes128_cfb_encrypt(&k, &iv, first(parameters).unwrap());
        }
        let hash = crypto::sha256(&[&0u32.to_be_bytes(), &7u32.to_be_bytes(), parameters]);
        let hmac = Hmac::new(&key).sign(&[&hash, &nonce_tpm, nonce_caller, &[attributes]]);
        Writer::new().sized(&nonce_tpm).u8(attributes).sized(&hmac).done().to_vec()
    }

    const SECRET: Use = Use { keep: true, encrypt_command: true, encrypt_answer: true, audit: false };

    #[test]
    fn parameters_are_hidden_and_answers_checked() {
        let clear = [0, 4, b'h', b'u', b's', b'h', 1];
        let mut sent = clear;
        let mut mine = session(1);
        let authorised = Authorised::new(&mut mine, [2; 32], &[], SECRET, 7, &[], &mut sent).unwrap();
        assert_eq!((sent[..2].to_vec(), sent[6]), (vec![0, 4], 1), "size and what follows stay as they are");
        assert_ne!(sent[2..6], clear[2..6]);
        assert_eq!(authorised.area[..8], [3, 0, 0, 0, 0, 32, 2, 2]);

        let mut back = clear;
        let area = answer(1, &[2; 32], authorised.attributes, &mut back);
        assert_ne!(back, clear);
        authorised.check(&mut back, &area).unwrap();
        assert_eq!(back, clear);
        assert_eq!(mine.nonce_tpm, [4; 32], "the next command uses the new nonce");
    }

    #[test]
    fn every_bit_of_an_answer_is_covered() {
        let good = || {
            let mut parameters = vec![0, 4, 1, 2, 3, 4];
            let attributes = SECRET.attributes();
            let area = answer(1, &[2; 32], attributes, &mut parameters);
            (parameters, area)
        };
        let check = |mut parameters: Vec<u8>, area: Vec<u8>| {
            let mut mine = session(1);
            let authorised = Authorised::new(&mut mine, [2; 32], &[], SECRET, 7, &[], &mut [0, 0]).unwrap();
            authorised.check(&mut parameters, &area)
        };
        let (parameters, area) = good();
        assert!(check(parameters.clone(), area.clone()).is_ok());
        for bit in 0..parameters.len() * 8 {
            let mut wrong = parameters.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(check(wrong, area.clone()).is_err(), "bit {bit} of the parameters");
        }
        for bit in 0..area.len() * 8 {
            let mut wrong = area.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(check(parameters.clone(), wrong).is_err(), "bit {bit} of the authorisation");
        }
        let (mut parameters, _) = good();
        let area = answer(9, &[2; 32], 1, &mut parameters);
        assert_eq!(check(parameters, area), Err(CheckError::NotAuthentic), "another key");
        assert!(check(vec![], vec![]).is_err());
    }

    #[test]
    fn first_parameters_that_are_none() {
        for mut bytes in [vec![], vec![0], vec![0, 3, 1, 2]] {
            assert!(first(&mut bytes).is_err());
        }
    }
}
