//! The file of `edgekeep ikm`: what a source needs to release a secret that another program asks for by EdgeX's hook.
//!
//! ```text
//! magic "EKHOOK\0\0" 8 | version u16, 1 | salt 32, random | source kind | releases per boot, 0 for no limit
//! length u16, items as a slot has them | verifier 16 | SHA-256 of all before 32
//!
//! digest   = SHA-256 of all before the verifier
//! printed  = HKDF(salt, IKM, "edgekeep/v1/hook-key" ‖ digest), 32 octets
//! verifier = HKDF(salt, IKM, "edgekeep/v1/hook-verify" ‖ digest), 16 octets
//! ```
//! What is printed is no slot's: a store's slot file is not taken, the salt is the file's own, and the key material
//! itself never leaves. Whatever in the file is changed gives another digest, and the verifier does not fit.

use std::num::NonZeroU8;

use host::Entropy;
use secret::{Secret, crypto};
use zeroize::Zeroizing;

use crate::ikm::Ikm;
use crate::labels::{self, Label};
use crate::slot::{SlotPublic, SourceKind};
use crate::source::Provisioned;

/// A source that was provisioned for a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookFile {
    salt: [u8; SALT_BYTES],
    public: SlotPublic,
    verifier: [u8; VERIFIER_BYTES],
}

/// What a hook prints.
pub struct HookKey(Secret<{ labels::HOOK_KEY.bytes }>);

impl HookFile {
    /// Longest file.
    pub const MAX_BYTES: usize = HEAD_BYTES + 4 + SlotPublic::MAX_BYTES + VERIFIER_BYTES + DIGEST_BYTES;

    /// For what a source has just made.
    pub fn create(made: Provisioned, entropy: &dyn Entropy) -> Self {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let mut file = Self { salt, public: made.public, verifier: [0; VERIFIER_BYTES] };
        file.verifier = file.verifier_of(&made.ikm);
        file
    }

    /// What the source needs to release.
    pub fn public(&self) -> &SlotPublic {
        &self.public
    }

    /// What is to be printed.
    ///
    /// # Errors
    /// [`OtherHookKey`] where the file, or the source, is another.
    pub fn key(&self, ikm: &Ikm) -> Result<HookKey, OtherHookKey> {
        if !crypto::ct_eq(&self.verifier_of(ikm), &self.verifier) && host::in_force("hook-key-verified") {
            return Err(OtherHookKey { kind: self.public.kind() });
        }
        Ok(HookKey(Secret::init_with(|key| self.expand(ikm, labels::HOOK_KEY, key))))
    }

    /// As it is kept.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.bound();
        out.extend_from_slice(&self.verifier);
        out.extend_from_slice(&crypto::sha256(&[&out]));
        out
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`NotAHookFile`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAHookFile> {
        if !bytes.starts_with(MAGIC) {
            return Err(NotAHookFile::Magic);
        }
        let (body, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(NotAHookFile::Damaged)?;
        if crypto::sha256(&[body]) != *digest {
            return Err(NotAHookFile::Damaged);
        }
        Self::body(&body[MAGIC.len()..]).ok_or(NotAHookFile::Unknown)
    }

    fn body(rest: &[u8]) -> Option<Self> {
        let (version, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (&[kind, limit], rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (items, verifier) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let kind = SourceKind::from_number(kind).filter(|kind| *kind != SourceKind::Recovery)?;
        let public = SlotPublic::from_item_bytes(kind, NonZeroU8::new(limit), items)?.ok()?;
        let file = Self { salt: *salt, public, verifier: verifier.try_into().ok()? };
        (u16::from_be_bytes(*version) == VERSION).then_some(file)
    }

    /// All before the verifier.
    fn bound(&self) -> Vec<u8> {
        let items = self.public.item_bytes();
        let mut out = Vec::with_capacity(Self::MAX_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&self.salt);
        out.extend([self.public.kind().number(), self.public.release_limit().map_or(0, NonZeroU8::get)]);
        out.extend_from_slice(&u16::try_from(items.len()).expect("SlotPublic holds at most MAX_BYTES").to_be_bytes());
        out.extend_from_slice(&items);
        out
    }

    fn verifier_of(&self, ikm: &Ikm) -> [u8; VERIFIER_BYTES] {
        let mut verifier = [0; VERIFIER_BYTES];
        self.expand(ikm, labels::HOOK_VERIFY, &mut verifier);
        verifier
    }

    fn expand(&self, ikm: &Ikm, label: Label, out: &mut [u8]) {
        let digest = crypto::sha256(&[&self.bound()]);
        crypto::hkdf_sha256(&self.salt, ikm.expose(), &[label.text.as_bytes(), &digest].concat(), out);
    }
}

impl HookKey {
    /// One line of lower-case hexadecimal digits.
    pub fn to_line(&self) -> Zeroizing<Vec<u8>> {
        let mut line = Zeroizing::new(vec![b'\n'; 2 * labels::HOOK_KEY.bytes + 1]);
        let digits = line.split_last_mut().map_or(&mut [][..], |(_, digits)| digits);
        hex::encode_to_slice(self.0.expose(), digits).expect("there are two digits for each octet");
        line
    }
}

/// Why bytes are no hook file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHookFile {
    /// It begins with something else; a store's slots do.
    #[error("it was not made by `edgekeep ikm provision --as-hook`")]
    Magic,
    /// The digest does not fit.
    #[error("it is damaged: its digest does not fit")]
    Damaged,
    /// The digest fits; another version has made it.
    #[error("this version of edgekeep cannot read it")]
    Unknown,
}

/// The source gave key material, and it is not this file's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the source `{kind}` gives other key material than the hook was made with, or the file was changed")]
pub struct OtherHookKey {
    /// The source.
    pub kind: SourceKind,
}

const MAGIC: &[u8; 8] = b"EKHOOK\0\0";
const VERSION: u16 = 1;
const SALT_BYTES: usize = 32;
const VERIFIER_BYTES: usize = labels::HOOK_VERIFY.bytes;
const DIGEST_BYTES: usize = 32;
const HEAD_BYTES: usize = 8 + 2 + SALT_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Counting, golden_set, ikm, other_ikm};

    fn file(salt: u8) -> HookFile {
        let public = SlotPublic::new(SourceKind::Tpm, NonZeroU8::new(2), vec![(1, vec![7; 40])]).unwrap();
        HookFile::create(Provisioned { public, ikm: ikm() }, &Counting::from(salt))
    }

    fn line(file: &HookFile, ikm: &Ikm) -> Result<String, OtherHookKey> {
        Ok(String::from_utf8(file.key(ikm)?.to_line().to_vec()).unwrap())
    }

    /// The octets were computed by an independent program (Python's `hmac`) from this layout.
    #[test]
    fn the_line_is_known_and_each_file_has_its_own() {
        let golden = line(&file(0), &ikm()).unwrap();
        assert_eq!(golden, GOLDEN);
        assert_ne!(line(&file(1), &ikm()).unwrap(), golden, "another salt");
        assert_eq!(golden.len(), 65);
        assert!(!golden.contains(crate::testing::DOCUMENTED_IKM), "and none is the key material itself");
    }

    const GOLDEN: &str = "0ee2e422f60e140bec391643be304784fee3fa1ab0a63962f4c7492754b28663\n";

    #[test]
    fn what_is_written_is_read_again() {
        let file = file(0);
        assert_eq!(HookFile::parse(&file.encode()), Ok(file));
    }

    #[test]
    fn another_key_and_a_changed_file_print_nothing() {
        assert!(line(&file(0), &other_ikm()).is_err());
        let bytes = file(0).encode();
        // Every byte before the verifier, with a digest that fits again.
        for at in MAGIC.len()..bytes.len() - DIGEST_BYTES {
            let mut changed = bytes[..bytes.len() - DIGEST_BYTES].to_vec();
            changed[at] ^= 1;
            changed.extend(crypto::sha256(&[&changed]));
            if let Ok(read) = HookFile::parse(&changed) {
                assert!(line(&read, &ikm()).is_err(), "byte {at}");
            }
        }
    }

    #[test]
    fn files_that_are_none() {
        let bytes = file(0).encode();
        assert_eq!(HookFile::parse(&golden_set().0.encode()), Err(NotAHookFile::Magic), "a store's slots");
        assert_eq!(HookFile::parse(b""), Err(NotAHookFile::Magic));
        assert_eq!(HookFile::parse(&bytes[..bytes.len() - 1]), Err(NotAHookFile::Damaged));
        let mut version = bytes[..bytes.len() - DIGEST_BYTES].to_vec();
        version[9] = 2;
        version.extend(crypto::sha256(&[&version]));
        assert_eq!(HookFile::parse(&version), Err(NotAHookFile::Unknown));
    }
}
