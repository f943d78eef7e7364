//! The keyring: the store's own keys and its data keys by term, wrapped by the root key as one record.
//!
//! ```text
//! format u8 = 1 | store id 16 | nonce 12 | AES-256-GCM ciphertext | tag 16       (numbers big-endian)
//! clear: names 32 | head 32 | audit 32 | snapshots 32 | macs 32 | count u16 | count x (term u32 | data key 32), terms rising
//! key = HKDF-SHA-256(salt = store id, ikm = root key, info = "edgekeep/v1/keyring"); associated data = format | store id
//! ```
//! A new term leaves old entries readable. A new root key comes with new keys for head, snapshots and values, and every
//! value is written under them: whoever has the old keyring has the keys of names and MACs, and no other. The audit's is
//! new as well; what is under the one before it needs that to be proven, so whoever changes the root key keeps it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, RwLock};

use host::Entropy;
use secret::crypto::{Gcm, Hmac, NONCE_BYTES, TAG_BYTES, hkdf_sha256};
use secret::{RootKey, Secret};
use zeroize::Zeroizing;

use crate::StorePath;
use crate::labels;
use crate::lock::Locked;
use crate::memo::Memo;
use crate::names::{HiddenPath, Names};

/// More terms than a device makes in its life; a longer record is refused before it is looked at.
pub(crate) const MAX_TERMS: usize = 1024;
/// Largest record.
pub(crate) const MAX_BYTES: usize = HEADER_BYTES + FIXED_BYTES + MAX_TERMS * TERM_BYTES + TAG_BYTES;

/// The keys in clear, as raw bytes: only on the way in and out of the record.
pub(crate) struct Keyring {
    names: Secret<32>,
    head: Secret<32>,
    audit: Secret<32>,
    /// For snapshots that are yet to come; the record has its place.
    snapshots: Secret<32>,
    macs: Secret<32>,
    terms: BTreeMap<u32, Secret<32>>,
}

impl Keyring {
    /// New keys, with term 1 as the only term.
    pub(crate) fn generate(entropy: &dyn Entropy) -> Self {
        let fresh = || Secret::<32>::init_with(|out| entropy.fill(out));
        Self {
            names: fresh(),
            head: fresh(),
            audit: fresh(),
            snapshots: fresh(),
            macs: fresh(),
            terms: BTreeMap::from([(1, fresh())]),
        }
    }

    /// Adds the next term; what is written from now on is under it. `None` when [`MAX_TERMS`] are there.
    pub(crate) fn add_term(&mut self, entropy: &dyn Entropy) -> Option<u32> {
        let next = self.terms.last_key_value().map_or(1, |(t, _)| t.saturating_add(1));
        if self.terms.len() >= MAX_TERMS || self.terms.contains_key(&next) {
            return None;
        }
        self.terms.insert(next, Secret::init_with(|out| entropy.fill(out)));
        Some(next)
    }

    /// The keyring for another root key: its own keys are new, and one data key alone is left, of the next term. Names
    /// keep their key, for every one would have to change its place; so do the codes of tokens and passwords, which
    /// would end with theirs: a code is a one-way function of something long and random, and counts only where an entry
    /// under the head says so. `None` when the terms have run out.
    pub(crate) fn anew(self, entropy: &dyn Entropy) -> Option<Self> {
        let fresh = || Secret::<32>::init_with(|out| entropy.fill(out));
        let next = self.terms.last_key_value()?.0.checked_add(1)?;
        let Self { names, audit, macs, .. } = self;
        let audit = if host::in_force("audit-key-anew") { fresh() } else { audit };
        Some(Self { names, head: fresh(), audit, snapshots: fresh(), macs, terms: BTreeMap::from([(next, fresh())]) })
    }

    /// The record to be stored.
    pub(crate) fn wrap(&self, root: &RootKey, store_id: &[u8; 16], entropy: &dyn Entropy) -> Vec<u8> {
        let clear_bytes = FIXED_BYTES + self.terms.len() * TERM_BYTES;
        let mut text = Zeroizing::new(Vec::with_capacity(clear_bytes + TAG_BYTES));
        for key in [&self.names, &self.head, &self.audit, &self.snapshots, &self.macs] {
            text.extend_from_slice(key.expose());
        }
        let count = u16::try_from(self.terms.len()).expect("there are at most MAX_TERMS");
        text.extend_from_slice(&count.to_be_bytes());
        for (term, key) in &self.terms {
            text.extend_from_slice(&term.to_be_bytes());
            text.extend_from_slice(key.expose());
        }
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        let header = header(store_id);
        wrapping_key(root, store_id).seal(nonce, &header, &mut text);
        [header.as_slice(), &nonce, &text].concat()
    }

    /// Opens a record from disk.
    pub(crate) fn unwrap(record: &[u8], root: &RootKey, expected: &[u8; 16]) -> Result<Self, KeyringError> {
        let (head, rest) = record.split_first_chunk::<17>().ok_or(KeyringError::Malformed)?;
        if head[0] != FORMAT || record.len() > MAX_BYTES {
            return Err(KeyringError::Malformed);
        }
        let mut found = [0; 16];
        found.copy_from_slice(&head[1..]);
        if found != *expected {
            return Err(KeyringError::Foreign { found });
        }
        let (nonce, text) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(KeyringError::Malformed)?;
        let clear = wrapping_key(root, expected).open(*nonce, head, text).map_err(|_| KeyringError::WrongRoot)?;
        Self::parse(&clear).ok_or(KeyringError::Malformed)
    }

    pub(crate) fn parse(clear: &[u8]) -> Option<Self> {
        let mut rest = clear;
        let names = take_key(&mut rest)?;
        let head = take_key(&mut rest)?;
        let audit = take_key(&mut rest)?;
        let snapshots = take_key(&mut rest)?;
        let macs = take_key(&mut rest)?;
        let (count, mut rest) = rest.split_first_chunk::<2>()?;
        let mut terms = BTreeMap::new();
        for _ in 0..u16::from_be_bytes(*count) {
            let (term, after) = rest.split_first_chunk::<4>()?;
            rest = after;
            let term = u32::from_be_bytes(*term);
            if terms.last_key_value().is_some_and(|(last, _)| *last >= term) {
                return None;
            }
            terms.insert(term, take_key(&mut rest)?);
        }
        let sound = rest.is_empty() && !terms.is_empty();
        sound.then_some(Self { names, head, audit, snapshots, macs, terms })
    }

    /// The keys ready for use; the raw ones are wiped.
    pub(crate) fn keys(self, store_id: [u8; 16]) -> Keys {
        let from_head = |label: &str| {
            Secret::<32>::init_with(|out| hkdf_sha256(&store_id, self.head.expose(), label.as_bytes(), out))
        };
        Keys {
            store_id,
            names: Names::new(store_id, self.names.expose()),
            head: Gcm::new(from_head(labels::HEAD_SEAL).expose()),
            root: Hmac::new(from_head(labels::HEAD_ROOT).expose()),
            terms: self.terms.iter().map(|(term, key)| (*term, Gcm::new(key.expose()))).collect(),
            audit: self.audit,
            macs: self.macs,
            purposes: RwLock::default(),
            memo: Memo::default(),
        }
    }
}

/// Why a record opens no store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyringError {
    /// It is another store's.
    Foreign { found: [u8; 16] },
    /// It is this store's by its header, but this root key does not open it, or it was changed.
    WrongRoot,
    /// Not a keyring.
    Malformed,
}

/// The keys of an open store, expanded once.
pub(crate) struct Keys {
    store_id: [u8; 16],
    names: Names,
    head: Gcm,
    root: Hmac,
    terms: BTreeMap<u32, Gcm>,
    audit: Secret<32>,
    macs: Secret<32>,
    purposes: RwLock<HashMap<&'static str, Arc<Hmac>>>,
    memo: Memo,
}

impl Keys {
    pub(crate) fn store_id(&self) -> &[u8; 16] {
        &self.store_id
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The hidden form of a path, from memory if it was worked out lately; `None` for the root, which holds no entry.
    pub(crate) fn hidden(&self, path: &StorePath) -> Option<Arc<HiddenPath>> {
        self.memo.hidden(path, || self.names.hide(path))
    }

    /// Encrypts the head.
    pub(crate) fn head(&self) -> &Gcm {
        &self.head
    }

    /// Hashes a name's row into the root.
    pub(crate) fn root(&self) -> &Hmac {
        &self.root
    }

    pub(crate) fn audit(&self) -> &Secret<32> {
        &self.audit
    }

    /// The term that new values are written under.
    pub(crate) fn newest_term(&self) -> (u32, &Gcm) {
        let (term, key) = self.terms.last_key_value().expect("a keyring has at least one term");
        (*term, key)
    }

    pub(crate) fn term(&self, term: u32) -> Option<&Gcm> {
        self.terms.get(&term)
    }

    /// HMAC key for one purpose, derived on first use.
    pub(crate) fn mac(&self, purpose: &'static str) -> Arc<Hmac> {
        if let Some(known) = self.purposes.reading().get(purpose) {
            return Arc::clone(known);
        }
        let info = [labels::MAC, purpose].concat();
        let key = Secret::<32>::init_with(|out| {
            hkdf_sha256(&self.store_id, self.macs.expose(), info.as_bytes(), out);
        });
        let made = Arc::new(Hmac::new(key.expose()));
        Arc::clone(self.purposes.writing().entry(purpose).or_insert(made))
    }
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

fn header(store_id: &[u8; 16]) -> [u8; 17] {
    let mut out = [FORMAT; 17];
    out[1..].copy_from_slice(store_id);
    out
}

fn wrapping_key(root: &RootKey, store_id: &[u8; 16]) -> Gcm {
    let key = Secret::<32>::init_with(|out| hkdf_sha256(store_id, root.expose(), labels::KEYRING.as_bytes(), out));
    Gcm::new(key.expose())
}

fn take_key(rest: &mut &[u8]) -> Option<Secret<32>> {
    let (key, after) = rest.split_first_chunk::<32>()?;
    *rest = after;
    Some(Secret::init_with(|out| out.copy_from_slice(key)))
}

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 17 + NONCE_BYTES;
const FIXED_BYTES: usize = 5 * 32 + 2;
const TERM_BYTES: usize = 4 + 32;

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsEntropy;

    fn root(fill: u8) -> RootKey {
        RootKey::new(Secret::init_with(|b| b.fill(fill)))
    }

    #[test]
    fn opens_under_its_root_key_and_store_alone() {
        let record = Keyring::generate(&OsEntropy).wrap(&root(1), &[7; 16], &OsEntropy);
        assert!(Keyring::unwrap(&record, &root(1), &[7; 16]).is_ok());
        assert_eq!(Keyring::unwrap(&record, &root(2), &[7; 16]).err(), Some(KeyringError::WrongRoot));
        assert_eq!(Keyring::unwrap(&record, &root(1), &[8; 16]).err(), Some(KeyringError::Foreign { found: [7; 16] }));
    }

    #[test]
    fn each_byte_counts() {
        let record = Keyring::generate(&OsEntropy).wrap(&root(1), &[7; 16], &OsEntropy);
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert!(Keyring::unwrap(&changed, &root(1), &[7; 16]).is_err(), "byte {at}");
            assert!(Keyring::unwrap(&record[..at], &root(1), &[7; 16]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_new_term_keeps_the_old() {
        let mut ring = Keyring::generate(&OsEntropy);
        assert_eq!(ring.add_term(&OsEntropy), Some(2));
        let record = ring.wrap(&root(1), &[7; 16], &OsEntropy);
        let keys = Keyring::unwrap(&record, &root(1), &[7; 16]).unwrap().keys([7; 16]);
        assert_eq!(keys.newest_term().0, 2);
        assert!(keys.term(1).is_some() && keys.term(3).is_none());
    }

    #[test]
    fn each_purpose_has_its_own_mac_key() {
        let keys = Keyring::generate(&OsEntropy).keys([7; 16]);
        assert_eq!(keys.mac("token").sign(&[b"x"]), keys.mac("token").sign(&[b"x"]));
        assert_ne!(keys.mac("token").sign(&[b"x"]), keys.mac("password").sign(&[b"x"]));
    }
}
