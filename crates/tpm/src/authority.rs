//! A key whose holder approves of policies (part 3, 23.16, PolicyAuthorize): a vendor signs the digest of the policy
//! that the next image will meet, and what is bound to the key opens under it too.
//!
//! ```text
//! LoadExternal(public key) ─> VerifySignature(SHA-256 of the digest, signature) ─> ticket ─> PolicyAuthorize
//! ```
//! The TPM itself checks the signature and proves that to itself by a ticket; nothing here is believed in its place.

use secret::crypto::sha256;
use zeroize::Zeroizing;

use crate::assertions::POLICY_AUTHORIZE;
use crate::error::TpmError;
use crate::frame::{CommandCode, Shape};
use crate::policy::PolicyDigest;
use crate::public::{ECC, NIST_P256, NULL, Name, RSA, SHA256, SIGN, USER_WITH_AUTH};
use crate::session::Session;
use crate::tpm::{RH_NULL, RH_OWNER, Tpm, code};
use crate::wire::{Malformed, Reader, Writer};

/// A public key that approves of policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityKey {
    /// RSA of 2048 bits, exponent 65537; signatures by PKCS #1 v1.5 with SHA-256.
    Rsa2048(Box<[u8; 256]>),
    /// P-256, uncompressed coordinates x and y; ECDSA with SHA-256.
    P256(Box<[u8; 64]>),
}

/// A signature over a policy's digest, as its key makes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// PKCS #1 v1.5.
    Rsa2048(Box<[u8; 256]>),
    /// r and s, 32 bytes each.
    P256(Box<[u8; 64]>),
}

impl AuthorityKey {
    /// Its name in every TPM.
    pub fn name(&self) -> Name {
        Name::of(&self.public())
    }

    /// TPMT_PUBLIC (part 2, 12.2.4). The scheme is fixed, so that the key means one kind of signature alone.
    fn public(&self) -> Zeroizing<Vec<u8>> {
        let head = |kind| Writer::new().u16(kind).u16(SHA256).u32(SIGN | USER_WITH_AUTH).sized(&[]).u16(NULL);
        match self {
            // An exponent of 0 is 65537.
            Self::Rsa2048(n) => head(RSA).u16(RSASSA).u16(SHA256).u16(2048).u32(0).sized(&**n).done(),
            Self::P256(point) => {
                let (x, y) = point.split_at(32);
                head(ECC).u16(ECDSA).u16(SHA256).u16(NIST_P256).u16(NULL).sized(x).sized(y).done()
            }
        }
    }
}

impl Signature {
    /// TPMT_SIGNATURE (part 2, 11.3.4).
    fn marshalled(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Rsa2048(bytes) => Writer::new().u16(RSASSA).u16(SHA256).sized(&**bytes).done(),
            Self::P256(bytes) => {
                let (r, s) = bytes.split_at(32);
                Writer::new().u16(ECDSA).u16(SHA256).sized(r).sized(s).done()
            }
        }
    }
}

impl Tpm {
    /// Asserts that the holder of `key` approves of what the session has asserted so far, which must come to
    /// `approved`.
    ///
    /// # Errors
    /// [`crate::Refusal::Signature`] if it is not the key's signature; [`crate::Refusal::Policy`] if the session has
    /// come to another digest.
    pub fn policy_authorize(
        &mut self,
        session: &Session,
        approved: &PolicyDigest,
        key: &AuthorityKey,
        signature: &Signature,
    ) -> Result<(), TpmError> {
        // No private half, and under the owner: of a key under no hierarchy the TPM makes no tickets.
        let parameters = Writer::new().sized(&[]).sized(&key.public()).u32(RH_OWNER).done();
        let shape = Shape { handle: true, authorised: false };
        let done = self.exchange(LOAD_EXTERNAL, &[], None, &parameters, shape)?;
        let handle = self.hold(LOAD_EXTERNAL, done.handle)?;
        let name = key.name();
        // policyRef is empty, so that what is signed is the digest alone (part 3, 23.16.1).
        let signed = sha256(&[&approved.0]);
        let parameters = Writer::new().sized(&signed).bytes(&signature.marshalled()).done();
        let verified = self.plain(VERIFY_SIGNATURE, &[handle], &parameters);
        // Verified or not: a TPM may have room for three objects.
        self.release(handle)?;
        let ticket = verified?.parameters;
        let ticket = ticket_of(&ticket).map_err(VERIFY_SIGNATURE.malformed())?;
        let parameters = Writer::new().sized(&approved.0).sized(&[]).sized(name.as_bytes()).bytes(ticket).done();
        self.plain(POLICY_AUTHORIZE, &[session.handle()], &parameters).map(|_| ())
    }
}

impl Tpm {
    /// As [`Tpm::policy_authorize`], in a trial session, where nobody need have signed anything.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn trial_authorize(&mut self, session: &Session, key: &AuthorityKey) -> Result<(), TpmError> {
        let ticket = Writer::new().u16(VERIFIED).u32(RH_NULL).sized(&[]).done();
        let name = key.name();
        let parameters = Writer::new().sized(&[]).sized(&[]).sized(name.as_bytes()).bytes(&ticket).done();
        self.plain(POLICY_AUTHORIZE, &[session.handle()], &parameters).map(|_| ())
    }
}

/// A ticket as it came (TPMT_TK_VERIFIED, part 2, 10.7.4), if it is one: it is the TPM that will check it.
fn ticket_of(parameters: &[u8]) -> Result<&[u8], Malformed> {
    let mut r = Reader::new(parameters);
    let (tag, _hierarchy, digest) = (r.u16()?, r.u32()?, r.sized()?);
    r.end()?;
    if tag == VERIFIED && digest.len() <= MAX_DIGEST_BYTES { Ok(parameters) } else { Err(Malformed("no such ticket")) }
}

const RSASSA: u16 = 0x0014;
const ECDSA: u16 = 0x0018;
/// TPM_ST_VERIFIED.
const VERIFIED: u16 = 0x8022;
/// SHA-512, which a TPM may use for itself.
const MAX_DIGEST_BYTES: usize = 64;

const LOAD_EXTERNAL: CommandCode = code("LoadExternal", 0x167);
const VERIFY_SIGNATURE: CommandCode = code("VerifySignature", 0x177);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_signatures_by_the_byte() {
        let rsa = AuthorityKey::Rsa2048(Box::new([0xaa; 256]));
        let n = "aa".repeat(256);
        let expected = "0001000b0004004000000010";
        assert_eq!(hex::encode(&*rsa.public()), format!("{expected}0014000b0800000000000100{n}"));
        let ecc = AuthorityKey::P256(Box::new(std::array::from_fn(|i| if i < 32 { 1 } else { 2 })));
        let (x, y) = ("01".repeat(32), "02".repeat(32));
        assert_eq!(hex::encode(&*ecc.public()), format!("0023000b00040040000000100018000b000300100020{x}0020{y}"));
        let signature = Signature::P256(Box::new([3; 64]));
        let half = "03".repeat(32);
        assert_eq!(hex::encode(&*signature.marshalled()), format!("0018000b0020{half}0020{half}"));
        let signature = Signature::Rsa2048(Box::new([4; 256]));
        assert_eq!(hex::encode(&*signature.marshalled()), format!("0014000b0100{}", "04".repeat(256)));
        assert_ne!(rsa.name(), ecc.name());
    }

    #[test]
    fn tickets_that_are_none() {
        let good = [&[0x80, 0x22, 0x40, 0, 0, 1, 0, 2][..], &[7; 2]].concat();
        assert_eq!(ticket_of(&good), Ok(&good[..]));
        for bad in [vec![], good[..9].to_vec(), [&good[..], &[0]].concat(), [&[0x80, 0x21][..], &good[2..]].concat()] {
            assert!(ticket_of(&bad).is_err(), "{bad:x?}");
        }
        let long = [&[0x80, 0x22, 0x40, 0, 0, 1, 0, 65][..], &[7; 65]].concat();
        assert!(ticket_of(&long).is_err());
    }
}
