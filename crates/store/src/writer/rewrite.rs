//! A new root key: every value goes over to the new keyring, and the head sums the rows under a key of its own.
//!
//! Whoever had the old root key has the old keyring, and may write to the disk. So the head gets another key; and the
//! values too, for a tag that the head vouches for proves nothing to him: GHASH is linear, and with the key another
//! text is found for any tag (SP 800-38D promises no commitment to the key or the text).

use std::sync::Arc;

use super::{Commit, Unstaged, Writer, refusal};
use crate::Version;
use crate::backend::{Change, NameRow};
use crate::batch::CommitError;
use crate::entry;
use crate::index::Leaf;
use crate::keyring::Keys;
use crate::names::{HiddenName, id_of};
use crate::root::Root;
use crate::shared::entry_in;
use crate::sqlite::MAX_STORED_BYTES;

impl Writer {
    /// Stages all values under `keys` in place of the store's, and sums all rows under them. Versions stay. It must be
    /// the first of its commit, and nothing of that commit is left when it fails.
    pub(super) fn rewrite(&mut self, commit: &mut Commit, keys: &Keys) -> Result<(), Unstaged> {
        let old = self.shared.keys().ok_or(Unstaged { error: CommitError::Sealed, open: false })?;
        let (mut rows, mut sum) = (Vec::new(), Root::default());
        let scanned = self.backend.scan(&mut |row| {
            sum.add(old.root(), &row);
            rows.push(row);
        });
        scanned.map_err(|error| Unstaged { error: refusal(error), open: false })?;
        // What is summed under the new key is vouched for by it: nothing that the old head does not vouch for.
        if sum != commit.overlay.root && host::in_force("root-proven") {
            let what = "the names do not sum to the head's root";
            return Err(Unstaged { error: CommitError::Tampered { what }, open: false });
        }
        let mut root = Root::default();
        let (mut changes, mut waiting, mut lost) = (Vec::new(), 0, 0u64);
        for mut row in rows {
            if row.version > 0 {
                match self.under(&mut row, &old, keys)? {
                    Some(bytes) => {
                        let id = id_of(&row.name).ok_or(impossible("a name has an impossible length"))?;
                        let leaf = Leaf { version: Version(row.version), tag: row.tag, row: row.row };
                        commit.overlay.leaves.insert(id, Some(leaf));
                        waiting += bytes.len();
                        changes.push(Change::SetValue { row: row.row, bytes });
                        changes.push(Change::SetName(row.clone()));
                    }
                    None => lost += 1,
                }
            }
            root.add(keys.root(), &row);
            if waiting >= STAGED_BYTES || changes.len() >= STAGED_CHANGES {
                self.stage_all(&mut changes)?;
                waiting = 0;
            }
        }
        self.stage_all(&mut changes)?;
        commit.overlay.root = root;
        if lost > 0 {
            tracing::error!(lost, "values were changed from outside, and open under no key any more");
        }
        Ok(())
    }

    /// The value of `row` under `keys`, with its tag in the row. `None` where it is not the one that the head vouches
    /// for: it keeps its row, its old term is gone, and so it stays what it was, refused whenever it is asked for. One
    /// bad page must not keep a thief's key in force.
    fn under(&mut self, row: &mut NameRow, old: &Keys, keys: &Keys) -> Result<Option<Vec<u8>>, Unstaged> {
        let name = HiddenName { dir: row.dir, bytes: row.name.clone() };
        let leaf = Leaf { version: Version(row.version), tag: row.tag, row: row.row };
        let stored = self.backend.value(row.row, MAX_STORED_BYTES);
        let stored = stored.map_err(|error| Unstaged { error: refusal(error), open: false })?;
        let Ok(entry) = entry_in(old, &name, &leaf, stored.as_deref()) else { return Ok(None) };
        self.sealed += 1;
        let bytes = entry::seal(keys, &*Arc::clone(&self.shared.entropy), &name, leaf.version, entry.value.expose());
        row.tag = entry::tag_of(&bytes).ok_or(impossible("a sealed value has no tag"))?;
        Ok(Some(bytes))
    }

    fn stage_all(&mut self, changes: &mut Vec<Change>) -> Result<(), Unstaged> {
        let staged = self.backend.stage(changes);
        changes.clear();
        // What was staged before stays staged: the commit cannot go on without the rest.
        staged.map_err(|failed| Unstaged { error: refusal(failed.cause), open: false })
    }
}

fn impossible(what: &'static str) -> Unstaged {
    Unstaged { error: CommitError::Tampered { what }, open: false }
}

/// Sealed values in memory at once, give or take one.
const STAGED_BYTES: usize = 1 << 20;
/// Changes in memory at once: two a value.
const STAGED_CHANGES: usize = 512;
