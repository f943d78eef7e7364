//! Hidden names: a path on disk tells how deep it is and roughly how long its components are, and nothing else.
//!
//! ```text
//! component  ->  u16 length | bytes | zeros to a multiple of 32  ->  AES-256-GCM-SIV  ->  hidden name = ciphertext | tag
//! associated data = store id | id of the parent directory | 0 for an entry, 1 for a directory
//! id = the tag: 16 bytes, by which an entry or directory is known inside the store; the root directory is 16 zeros
//! ```
//! The tag of GCM-SIV is a pseudo-random function of the key, the associated data and the name (RFC 8452, section 4),
//! so two places share an id with probability 2^-128 a pair, and no one without the key can aim for it.

use secret::crypto::{Siv, TAG_BYTES};
use zeroize::Zeroizing;

use crate::backend::Id;
use crate::{MAX_COMPONENT_BYTES, StorePath};

/// The root directory.
pub(crate) const ROOT: Id = [0; 16];

/// Longest hidden name: length, component and padding, then the tag.
pub(crate) const MAX_HIDDEN_BYTES: usize = (MAX_COMPONENT_BYTES + 2).next_multiple_of(PAD) + TAG_BYTES;

/// Whether a name stands for an entry or for a directory: `b` and `b/` are different names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Has a value.
    Entry = 0,
    /// Has names below it.
    Dir = 1,
}

/// A component after hiding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HiddenName {
    /// Directory it is in.
    pub(crate) dir: Id,
    /// Ciphertext and tag.
    pub(crate) bytes: Box<[u8]>,
}

impl HiddenName {
    /// The tag.
    pub(crate) fn id(&self) -> Id {
        id_of(&self.bytes).expect("a sealed name ends in its tag")
    }
}

/// A path of at least one component after hiding: its directories from the top, then the entry.
#[derive(Clone, Debug)]
pub(crate) struct HiddenPath {
    /// Directories on the way, outermost first; the root is not among them.
    pub(crate) dirs: Vec<HiddenName>,
    /// The entry itself.
    pub(crate) entry: HiddenName,
}

/// Hides and shows names under the name key of one store.
#[derive(Debug)]
pub(crate) struct Names {
    store_id: [u8; 16],
    siv: Siv,
}

impl Names {
    pub(crate) fn new(store_id: [u8; 16], key: &[u8; 32]) -> Self {
        Self { store_id, siv: Siv::new(key) }
    }

    /// Hides a path; `None` for the root, which holds no entry.
    pub(crate) fn hide(&self, path: &StorePath) -> Option<HiddenPath> {
        let (last, above) = path.components().split_last()?;
        let (dirs, parent) = self.walk(above);
        Some(HiddenPath { dirs, entry: self.hide_one(parent, last, Kind::Entry) })
    }

    /// The id of the directory at `path`.
    pub(crate) fn dir_id(&self, path: &StorePath) -> Id {
        self.walk(path.components()).1
    }

    /// The component behind a hidden name that was read from disk.
    pub(crate) fn show(&self, dir: &Id, hidden: &[u8], kind: Kind) -> Option<String> {
        let padded = self.siv.open(&self.associated(dir, kind), hidden).ok()?;
        let (length, rest) = padded.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (name, padding) = rest.split_at_checked(length)?;
        // Canonical: one component has one hidden form.
        let canonical = length > 0
            && length <= MAX_COMPONENT_BYTES
            && padded.len() == padded_length(length)
            && padding.iter().all(|b| *b == 0);
        if !canonical {
            return None;
        }
        String::from_utf8(name.to_vec()).ok()
    }

    fn walk(&self, components: &[String]) -> (Vec<HiddenName>, Id) {
        let mut parent = ROOT;
        let mut dirs = Vec::with_capacity(components.len());
        for component in components {
            let hidden = self.hide_one(parent, component, Kind::Dir);
            parent = hidden.id();
            dirs.push(hidden);
        }
        (dirs, parent)
    }

    fn hide_one(&self, dir: Id, component: &str, kind: Kind) -> HiddenName {
        let length = component.len();
        let mut padded = Zeroizing::new(Vec::with_capacity(padded_length(length) + TAG_BYTES));
        padded.extend_from_slice(&u16::try_from(length).expect("a component has at most 1024 bytes").to_be_bytes());
        padded.extend_from_slice(component.as_bytes());
        padded.resize(padded_length(length), 0);
        let clear = (!host::in_force("names-hidden")).then(|| padded.clone());
        self.siv.seal(&self.associated(&dir, kind), &mut padded);
        if let Some(clear) = clear {
            padded[..clear.len()].copy_from_slice(&clear);
        }
        HiddenName { dir, bytes: padded.as_slice().into() }
    }

    fn associated(&self, dir: &Id, kind: Kind) -> [u8; 33] {
        let mut out = [0; 33];
        out[..16].copy_from_slice(&self.store_id);
        out[16..32].copy_from_slice(dir);
        out[32] = kind as u8;
        out
    }
}

/// The id in a hidden name from disk: its last 16 bytes.
pub(crate) fn id_of(hidden: &[u8]) -> Option<Id> {
    hidden.last_chunk::<16>().copied()
}

fn padded_length(component: usize) -> usize {
    (component + 2).next_multiple_of(PAD)
}

const PAD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new([1; 16], &[2; 32])
    }

    fn path(components: &[&str]) -> StorePath {
        StorePath::new(components.iter().copied()).unwrap()
    }

    #[test]
    fn a_name_is_shown_only_in_its_place() {
        let hidden = names().hide(&path(&["secret", "edgex", "redisdb"])).unwrap();
        let entry = &hidden.entry;
        assert_eq!(entry.dir, hidden.dirs[1].id());
        assert_eq!(names().show(&entry.dir, &entry.bytes, Kind::Entry).unwrap(), "redisdb");
        assert_eq!(names().show(&entry.dir, &entry.bytes, Kind::Dir), None);
        assert_eq!(names().show(&ROOT, &entry.bytes, Kind::Entry), None);
        assert_eq!(Names::new([9; 16], &[2; 32]).show(&entry.dir, &entry.bytes, Kind::Entry), None);
    }

    #[test]
    fn lengths_are_told_in_steps_of_32() {
        let length = |n: usize| names().hide(&path(&[&"x".repeat(n)])).unwrap().entry.bytes.len();
        assert_eq!(length(1), length(30));
        assert_eq!(length(31), length(30) + 32);
        assert_eq!(length(MAX_COMPONENT_BYTES), MAX_HIDDEN_BYTES);
    }

    #[test]
    fn the_same_name_elsewhere_looks_different() {
        let (a, b) = (names().hide(&path(&["a", "x"])).unwrap(), names().hide(&path(&["b", "x"])).unwrap());
        assert_ne!(a.entry.bytes, b.entry.bytes);
        assert_eq!(names().hide(&path(&["a", "x"])).unwrap().entry, a.entry);
    }

    #[test]
    fn a_separator_inside_a_component_moves_nothing() {
        assert_ne!(
            names().hide(&path(&["a/b"])).unwrap().entry.id(),
            names().hide(&path(&["a", "b"])).unwrap().entry.id()
        );
    }
}
