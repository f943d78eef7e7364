//! Registers that a vendor has signed: the key that a slot is bound to, and the file of signatures that comes with each
//! image.
//!
//! ```text
//! {"sha256": [{"pcrs": [11], "pkfp": "SHA-256 of the public key", "pol": "digest of PolicyPCR", "sig": "base64"}]}
//! ```
//! That is what `systemd-measure sign` writes and systemd-stub carries (`.pcrsig`, systemd-measure(1)). The file is no
//! secret and no authority: the TPM checks each signature. Here it is only read, whoever wrote it.

use std::path::PathBuf;

use ::tpm::policy::PolicyDigest;
use ::tpm::{AuthorityKey, PcrSet, PcrValues, Signature, TpmError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use host::Disk;
use secret::crypto::sha256;
use serde::Deserialize;

use crate::source::{PcrFound, SourceError, secret_file};

/// The files that say which state a vendor approves of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrSigning {
    /// The vendor's public key in PEM, for slots that are yet to be made.
    pub public_key: Option<PathBuf>,
    /// The signatures that came with the image that runs.
    pub signature: PathBuf,
}

impl Default for PcrSigning {
    /// No key, and the place where systemd puts signatures.
    fn default() -> Self {
        Self { public_key: None, signature: PathBuf::from("/run/systemd/tpm2-pcr-signature.json") }
    }
}

impl PcrSigning {
    /// The key for a new slot, if one was named: whoever writes this file decides what opens the slot.
    pub(super) fn key(&self, disk: &dyn Disk) -> Result<Option<AuthorityKey>, SourceError> {
        let Some(path) = &self.public_key else { return Ok(None) };
        let pem = secret_file::read_public(disk, path, MAX_PEM_BYTES)?;
        parse_public_key(&pem)
            .map(Some)
            .map_err(|defect| SourceError::NotApproved { file: path.display().to_string(), defect: defect.to_string() })
    }

    pub(super) fn file(&self) -> SignatureFile {
        SignatureFile(self.signature.clone())
    }
}

/// Where the signatures are.
#[derive(Clone, Debug)]
pub(super) struct SignatureFile(PathBuf);

impl SignatureFile {
    pub(super) fn read(&self, disk: &dyn Disk) -> Result<PcrSignatures, SourceError> {
        let json = disk.read(&self.0, MAX_JSON_BYTES).map_err(|e| self.unfit(format!("it cannot be read: {e}")))?;
        PcrSignatures::parse(&json).map_err(|defect| self.unfit(defect.to_string()))
    }

    /// None of so many signatures of the key is for the values that the registers have.
    pub(super) fn none_fits(&self, signatures: usize, values: &PcrValues) -> SourceError {
        if signatures == 0 {
            return self.unfit("it has no signature of the key that the slot is bound to".into());
        }
        let found = values.iter().map(|(pcr, value)| PcrFound { pcr, value: *value }).collect();
        SourceError::NotSigned { file: self.0.display().to_string(), signatures, found }
    }

    pub(super) fn not_the_keys(&self, refused: &TpmError) -> SourceError {
        self.unfit(format!("the TPM does not take its signature: {refused}"))
    }

    fn unfit(&self, defect: String) -> SourceError {
        SourceError::NotApproved { file: self.0.display().to_string(), defect }
    }
}

/// Signatures as they came with an image. Nothing says yet that they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PcrSignatures(Vec<(KeyPrint, Entry)>);

/// As [`fingerprint`] makes it.
type KeyPrint = [u8; 32];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    pcrs: PcrSet,
    policy: PolicyDigest,
    signature: Vec<u8>,
}

/// A state that a key may approve of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Approval {
    pub(super) pcrs: PcrSet,
    pub(super) policy: PolicyDigest,
    pub(super) signature: Signature,
}

impl PcrSignatures {
    /// Reads a file of signatures. Total: any bytes give signatures or an error.
    ///
    /// # Errors
    /// [`PcrSigningError`].
    pub fn parse(json: &[u8]) -> Result<Self, PcrSigningError> {
        if json.len() > MAX_JSON_BYTES {
            return Err(PcrSigningError::TooLarge);
        }
        // Other banks stand beside it; a slot is bound to SHA-256 alone.
        #[derive(Deserialize)]
        struct Banks {
            #[serde(default)]
            sha256: Vec<RawEntry>,
        }
        #[derive(Deserialize)]
        struct RawEntry {
            pcrs: Vec<u8>,
            pkfp: String,
            pol: String,
            sig: String,
        }
        let banks: Banks = serde_json::from_slice(json).map_err(|_| PcrSigningError::NotJson)?;
        if banks.sha256.len() > MAX_ENTRIES {
            return Err(PcrSigningError::TooLarge);
        }
        let entries = banks.sha256.into_iter().zip(1..).map(|(raw, number)| {
            let wrong = |what| PcrSigningError::Entry { number, what };
            let octets = |digits: &str| <[u8; 32]>::try_from(hex::decode(digits).ok()?).ok();
            let pcrs = PcrSet::new(raw.pcrs).ok().filter(|set| !set.is_empty()).ok_or(wrong("pcrs"))?;
            let print = octets(&raw.pkfp).ok_or(wrong("pkfp"))?;
            let policy = PolicyDigest(octets(&raw.pol).ok_or(wrong("pol"))?);
            let signature = STANDARD.decode(&raw.sig).map_err(|_| wrong("sig"))?;
            Ok((print, Entry { pcrs, policy, signature }))
        });
        entries.collect::<Result<_, _>>().map(Self)
    }

    /// Those that name `key`, and have its form. systemd lists one for each phase of a boot.
    pub(super) fn of(&self, key: &AuthorityKey) -> Vec<Approval> {
        let wanted = fingerprint(key);
        let own = self.0.iter().filter(|(print, _)| *print == wanted);
        own.filter_map(|(_, entry)| {
            let signature = match key {
                AuthorityKey::Rsa2048(_) => Signature::Rsa2048(entry.signature.clone().try_into().ok()?),
                AuthorityKey::P256(_) => Signature::P256(ecdsa_from_der(&entry.signature)?),
            };
            Some(Approval { pcrs: entry.pcrs, policy: entry.policy, signature })
        })
        .collect()
    }
}

/// Reads a public key in PEM (RFC 7468, 13): RSA of 2048 bits with exponent 65537, or P-256.
///
/// # Errors
/// [`PcrSigningError::NoKey`].
pub fn parse_public_key(pem: &[u8]) -> Result<AuthorityKey, PcrSigningError> {
    let text = std::str::from_utf8(pem).map_err(|_| PcrSigningError::NoKey)?;
    let body =
        text.trim().strip_prefix(PEM_BEGIN).and_then(|t| t.strip_suffix(PEM_END)).ok_or(PcrSigningError::NoKey)?;
    let digits: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(digits).map_err(|_| PcrSigningError::NoKey)?;
    // Of these two kinds every key has the same bytes around its numbers (RFC 8017, A.1.1; RFC 5480, 2.1.1).
    if let Some(n) = der.strip_prefix(RSA_HEAD).and_then(|rest| rest.strip_suffix(RSA_TAIL)) {
        let n: Box<[u8; 256]> = n.to_vec().try_into().map_err(|_| PcrSigningError::NoKey)?;
        // 2048 bits, and odd, as a product of primes is.
        return if n[0] & 0x80 != 0 && n[255] & 1 == 1 {
            Ok(AuthorityKey::Rsa2048(n))
        } else {
            Err(PcrSigningError::NoKey)
        };
    }
    let point = der.strip_prefix(P256_HEAD).ok_or(PcrSigningError::NoKey)?;
    Ok(AuthorityKey::P256(point.to_vec().try_into().map_err(|_| PcrSigningError::NoKey)?))
}

/// The `pkfp` of its signatures: SHA-256 over the key alone, without the algorithm that SubjectPublicKeyInfo puts
/// before it. That is what systemd does (RSAPublicKey of RFC 8017, A.1.1; the uncompressed point of SEC 1, 2.3.3).
fn fingerprint(key: &AuthorityKey) -> KeyPrint {
    match key {
        AuthorityKey::Rsa2048(n) => sha256(&[&RSA_HEAD[RSA_ALGORITHM_BYTES..], &**n, RSA_TAIL]),
        AuthorityKey::P256(point) => sha256(&[&[4], &**point]),
    }
}

/// Sixteen bytes of its fingerprint tell keys apart.
pub(super) fn shown(key: &AuthorityKey) -> String {
    hex::encode(&fingerprint(key)[..16])
}

/// r and s of an ECDSA signature in DER (RFC 3279, 2.2.3).
fn ecdsa_from_der(der: &[u8]) -> Option<Box<[u8; 64]>> {
    let (length, body) = der.strip_prefix(&[0x30])?.split_first()?;
    if usize::from(*length) != body.len() || *length > 127 {
        return None;
    }
    let mut both = Box::new([0; 64]);
    let mut rest = body;
    for half in both.chunks_exact_mut(32) {
        let (length, tail) = rest.strip_prefix(&[0x02])?.split_first()?;
        let (number, tail) = tail.split_at_checked(usize::from(*length))?;
        rest = tail;
        // A zero before it keeps a number positive; there are no others.
        let number = match number {
            [0, high, ..] if high & 0x80 != 0 => &number[1..],
            [0, ..] | [] => return None,
            [high, ..] if high & 0x80 != 0 => return None,
            number => number,
        };
        half[32usize.checked_sub(number.len())?..].copy_from_slice(number);
    }
    rest.is_empty().then_some(both)
}

/// Why bytes are no signatures or no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcrSigningError {
    /// More than any image has.
    #[error("it is larger than {MAX_JSON_BYTES} bytes or {MAX_ENTRIES} entries")]
    TooLarge,
    /// Not JSON, or of another form.
    #[error("it is not JSON of the form that systemd-measure writes")]
    NotJson,
    /// A field that is none.
    #[error("entry {number} has no usable `{what}`")]
    Entry {
        /// Counted from 1.
        number: usize,
        /// The field.
        what: &'static str,
    },
    /// No key of a kind that TPMs know everywhere.
    #[error("it is not a public key in PEM, RSA of 2048 bits or P-256")]
    NoKey,
}

const MAX_JSON_BYTES: usize = 64 * 1024;
const MAX_PEM_BYTES: usize = 4096;
/// One for each phase of a boot, key and bank: systemd has five phases.
const MAX_ENTRIES: usize = 128;

const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";
/// SubjectPublicKeyInfo of rsaEncryption up to the modulus of 2048 bits, and the exponent behind it.
const RSA_HEAD: &[u8] = &[
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
];
/// What of it is not RSAPublicKey.
const RSA_ALGORITHM_BYTES: usize = 24;
const RSA_TAIL: &[u8] = &[0x02, 0x03, 0x01, 0x00, 0x01];
/// SubjectPublicKeyInfo of id-ecPublicKey on prime256v1 up to the coordinates of an uncompressed point.
const P256_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

#[cfg(test)]
mod tests;
