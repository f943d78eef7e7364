//! What the head has proven, in memory: each entry's version, tag and row, and how many names each directory holds.
//!
//! Built once, from a scan whose sum equals the head's root; from then on changed only by commits. So a presence, an
//! absence and the completeness of a list are answered, or checked, without trusting what the disk says today. 50 to
//! 110 bytes an entry.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use secret::crypto::Hmac;

use crate::Version;
use crate::backend::{Id, NameRow};
use crate::entry::Tag;
use crate::head::HeadRecord;
use crate::names::{MAX_HIDDEN_BYTES, ROOT, id_of};
use crate::root::Root;

/// What is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) version: Version,
    pub(crate) tag: Tag,
    pub(crate) row: u64,
}

/// All entries and directories of a store.
#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: IdMap<Leaf>,
    children: IdMap<u32>,
    largest_row: u64,
}

impl Index {
    /// The index of a scan, if the head vouches for it.
    ///
    /// # Errors
    /// Which rule is broken.
    pub(crate) fn prove(scan: Scan, head: &HeadRecord) -> Result<Self, &'static str> {
        if let Some(defect) = scan.defect {
            return Err(defect);
        }
        // The count would follow from the root; it is looked at first for the sake of the message.
        if scan.rows != head.rows && host::in_force("root-proven") {
            return Err("the number of names is not the head's");
        }
        if scan.root != head.root && host::in_force("root-proven") {
            return Err("the names do not sum to the head's root");
        }
        Ok(scan.index)
    }

    pub(crate) fn leaf(&self, id: &Id) -> Option<Leaf> {
        self.entries.get(id).copied()
    }

    /// How many names a directory holds; none when it does not exist.
    pub(crate) fn children(&self, dir: &Id) -> u32 {
        self.children.get(dir).copied().unwrap_or(0)
    }

    pub(crate) fn largest_row(&self) -> u64 {
        self.largest_row
    }

    pub(crate) fn set_leaf(&mut self, id: Id, leaf: Option<Leaf>) {
        match leaf {
            Some(leaf) => {
                self.largest_row = self.largest_row.max(leaf.row);
                self.entries.insert(id, leaf);
            }
            None => {
                self.entries.remove(&id);
            }
        }
    }

    pub(crate) fn set_children(&mut self, dir: Id, count: u32) {
        if count == 0 {
            self.children.remove(&dir)
        } else {
            self.children.insert(dir, count)
        };
    }

    /// Whether `row` is one that the head vouches for; `true` in its answer for a directory.
    pub(crate) fn vouches(&self, row: &NameRow) -> Option<bool> {
        let id = id_of(&row.name)?;
        if row.version == 0 {
            (self.children(&id) > 0).then_some(true)
        } else {
            let leaf = self.leaf(&id)?;
            (leaf == Leaf { version: Version(row.version), tag: row.tag, row: row.row }).then_some(false)
        }
    }
}

/// Rows on their way to becoming an [`Index`].
#[derive(Debug, Default)]
pub(crate) struct Scan {
    index: Index,
    rows: u64,
    root: Root,
    defect: Option<&'static str>,
}

impl Scan {
    /// Takes one row. A row that no commit can have written is kept as a defect; the sum would tell as well, but later.
    pub(crate) fn take(&mut self, root_key: &Hmac, row: &NameRow) {
        self.rows += 1;
        self.root.add(root_key, row);
        let Some(id) = id_of(&row.name).filter(|_| row.name.len() <= MAX_HIDDEN_BYTES) else {
            self.defect = Some("a name has an impossible length");
            return;
        };
        let siblings = self.index.children.entry(row.dir).or_insert(0);
        *siblings = siblings.saturating_add(1);
        if row.version > 0 {
            let leaf = Leaf { version: Version(row.version), tag: row.tag, row: row.row };
            self.index.largest_row = self.index.largest_row.max(row.row);
            if self.index.entries.insert(id, leaf).is_some() {
                self.defect = Some("two names are one");
            }
        } else if id == ROOT {
            self.defect = Some("a directory stands in for the root");
        }
    }
}

/// A map keyed by ids. They are outputs of a pseudo-random function, so their first bytes are as good as any hash.
pub(crate) type IdMap<T> = HashMap<Id, T, BuildHasherDefault<FirstBytes>>;

/// Takes the first eight bytes as they are.
#[derive(Default)]
pub(crate) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    // The length that `Hash for [u8; 16]` writes first is the same for all.
    fn write_usize(&mut self, _: usize) {}
}
