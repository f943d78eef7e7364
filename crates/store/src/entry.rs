//! One stored value.
//!
//! ```text
//! format u8 = 1 | term u32 | nonce 12 | AES-256-GCM ciphertext | tag 16          (numbers big-endian)
//! associated data = format | store id 16 | directory id 16 | version u64 | hidden name
//! ```
//! The associated data ties the value to its place and version: it opens nowhere else. The tag stands in the name's row
//! too, and through it under the root of the head.

use host::Entropy;
use secret::SecretBytes;
use secret::crypto::{NONCE_BYTES, TAG_BYTES};

use crate::Version;
use crate::keyring::Keys;
use crate::names::HiddenName;

/// Longest value in clear.
pub(crate) const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// What sealing adds.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// A GCM tag as it stands in the name's row.
pub(crate) type Tag = [u8; TAG_BYTES];

/// Encrypts `value` for one place and version, under the newest term.
pub(crate) fn seal(keys: &Keys, entropy: &dyn Entropy, name: &HiddenName, version: Version, value: &[u8]) -> Vec<u8> {
    let (term, key) = keys.newest_term();
    let mut nonce = [0; NONCE_BYTES];
    entropy.fill(&mut nonce);
    // One allocation, encrypted in place: no copy of the clear value is left behind.
    let mut text = Vec::with_capacity(value.len() + TAG_BYTES);
    text.extend_from_slice(value);
    if host::in_force("values-encrypted") {
        key.seal(nonce, &associated(keys.store_id(), name, version), &mut text);
    }
    text.resize(value.len() + TAG_BYTES, 0);
    let mut out = Vec::with_capacity(HEADER_BYTES + text.len());
    out.push(FORMAT);
    out.extend_from_slice(&term.to_be_bytes());
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&text);
    out
}

/// Decrypts what was read for one place and version.
///
/// # Errors
/// [`Rejected`]: nothing of the value is released.
pub(crate) fn open(keys: &Keys, name: &HiddenName, version: Version, bytes: &[u8]) -> Result<SecretBytes, Rejected> {
    let sealed = Sealed::parse(bytes)?;
    let key = keys.term(sealed.term).ok_or(Rejected("an entry names a term that the keyring does not hold"))?;
    let clear = key
        .open(sealed.nonce, &associated(keys.store_id(), name, version), sealed.text)
        .map_err(|_| Rejected("an entry fails its authentication"))?;
    Ok(clear.into())
}

/// The tag at the end of a sealed entry.
pub(crate) fn tag_of(bytes: &[u8]) -> Option<Tag> {
    if bytes.len() < OVERHEAD_BYTES { None } else { bytes.last_chunk().copied() }
}

/// Why bytes are not the entry that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rejected(pub(crate) &'static str);

/// The fields of an entry from disk; the text is not yet authenticated.
#[derive(Debug)]
pub(crate) struct Sealed<'a> {
    term: u32,
    nonce: [u8; NONCE_BYTES],
    text: &'a [u8],
}

impl<'a> Sealed<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Rejected> {
        let (format, rest) = bytes.split_first().ok_or(Rejected("an entry is empty"))?;
        if *format != FORMAT {
            return Err(Rejected("an entry has an unknown format"));
        }
        let (term, rest) = rest.split_first_chunk().ok_or(Rejected("an entry is cut short"))?;
        let (nonce, text) = rest.split_first_chunk().ok_or(Rejected("an entry is cut short"))?;
        if text.len() < TAG_BYTES {
            return Err(Rejected("an entry is cut short"));
        }
        if text.len() > MAX_VALUE_BYTES + TAG_BYTES {
            return Err(Rejected("an entry is larger than any that is written"));
        }
        Ok(Self { term: u32::from_be_bytes(*term), nonce: *nonce, text })
    }
}

fn associated(store_id: &[u8; 16], name: &HiddenName, version: Version) -> Vec<u8> {
    let mut out = Vec::with_capacity(41 + name.bytes.len());
    if !host::in_force("reads-proven") {
        return out;
    }
    out.push(FORMAT);
    out.extend_from_slice(store_id);
    out.extend_from_slice(&name.dir);
    out.extend_from_slice(&version.0.to_be_bytes());
    out.extend_from_slice(&name.bytes);
    out
}

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 + NONCE_BYTES;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorePath;
    use crate::keyring::Keyring;
    use host::OsEntropy;

    fn keys() -> Keys {
        Keyring::generate(&OsEntropy).keys([7; 16])
    }

    fn hidden(keys: &Keys, component: &str) -> HiddenName {
        keys.names().hide(&StorePath::new([component]).unwrap()).unwrap().entry
    }

    #[test]
    fn opens_only_in_its_place_and_version() {
        let keys = keys();
        let (a, b) = (hidden(&keys, "a"), hidden(&keys, "b"));
        let sealed = seal(&keys, &OsEntropy, &a, Version(3), b"value");
        assert_eq!(sealed.len(), 5 + OVERHEAD_BYTES);
        assert_eq!(open(&keys, &a, Version(3), &sealed).unwrap().expose(), b"value");
        assert!(open(&keys, &b, Version(3), &sealed).is_err(), "another place");
        assert!(open(&keys, &a, Version(4), &sealed).is_err(), "another version");
        assert!(open(&Keyring::generate(&OsEntropy).keys([7; 16]), &a, Version(3), &sealed).is_err(), "another key");
    }

    #[test]
    fn each_byte_counts() {
        let keys = keys();
        let name = hidden(&keys, "a");
        let sealed = seal(&keys, &OsEntropy, &name, Version(1), b"value");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 0x80;
            assert!(open(&keys, &name, Version(1), &changed).is_err(), "byte {at}");
            assert!(open(&keys, &name, Version(1), &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_same_value_never_looks_the_same_twice() {
        let keys = keys();
        let name = hidden(&keys, "a");
        let one = seal(&keys, &OsEntropy, &name, Version(1), b"value");
        assert_ne!(one, seal(&keys, &OsEntropy, &name, Version(1), b"value"));
    }
}
