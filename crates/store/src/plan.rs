//! From a batch to the rows it changes: pure, so that the rules of conditions, versions and directories are in one
//! place.
//!
//! A batch is planned against the index as the batches before it in the same commit leave it. Its operations see each
//! other in order, and one path is written once: the last operation decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use host::Entropy;
use secret::SecretBytes;

use crate::backend::{Change, Id, NameRow};
use crate::entry;
use crate::index::{IdMap, Index, Leaf};
use crate::keyring::Keys;
use crate::names::{HiddenName, HiddenPath};
use crate::root::Root;
use crate::{Version, entry::Tag};

/// A batch whose names are hidden.
#[derive(Debug)]
pub(crate) struct HiddenBatch {
    pub(crate) absent: Vec<Id>,
    pub(crate) versions: Vec<(Id, Version)>,
    pub(crate) ops: Vec<HiddenOp>,
    /// Bytes of all values, for the bounds of queue and commit.
    pub(crate) value_bytes: usize,
}

impl HiddenBatch {
    /// What its values take in a commit.
    pub(crate) fn bytes(&self) -> usize {
        self.value_bytes + self.ops.len() * entry::OVERHEAD_BYTES
    }

    /// The same batch again, if it only takes away: a secret is not copied.
    pub(crate) fn again_if_removal(&self) -> Option<Self> {
        let ops: Option<Vec<HiddenOp>> = self
            .ops
            .iter()
            .map(|op| op.value.is_none().then(|| HiddenOp { path: Arc::clone(&op.path), value: None }))
            .collect();
        let ops = ops.filter(|ops| !ops.is_empty())?;
        Some(Self { absent: self.absent.clone(), versions: self.versions.clone(), ops, value_bytes: 0 })
    }
}

/// An operation whose path is hidden; a value is put, none deletes.
#[derive(Debug)]
pub(crate) struct HiddenOp {
    pub(crate) path: Arc<HiddenPath>,
    pub(crate) value: Option<SecretBytes>,
}

/// What a commit has changed so far, over an [`Index`].
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(crate) leaves: IdMap<Option<Leaf>>,
    pub(crate) children: IdMap<u32>,
    /// What is to be kept of values after the commit.
    pub(crate) written: Vec<(Id, Tag, Vec<u8>)>,
    pub(crate) root: Root,
    pub(crate) rows: u64,
    pub(crate) sequence: u64,
    next_row: u64,
}

/// Why a batch cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A condition does not hold.
    Conflict,
    /// The index contradicts itself.
    Impossible(&'static str),
    /// There is no index any more.
    Sealed,
}

/// A planned batch.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) changes: Vec<Change>,
    after: Overlay,
}

impl Overlay {
    /// Nothing changed yet.
    pub(crate) fn new(index: &Index, root: Root, rows: u64, sequence: u64) -> Self {
        Self {
            leaves: IdMap::default(),
            children: IdMap::default(),
            written: Vec::new(),
            root,
            rows,
            sequence,
            next_row: index.largest_row().saturating_add(1),
        }
    }

    /// Takes over what a plan would change, once it is staged.
    pub(crate) fn absorb(&mut self, plan: Plan) {
        let Plan { after, .. } = plan;
        self.leaves.extend(after.leaves);
        self.children.extend(after.children);
        self.written.extend(after.written);
        (self.root, self.rows, self.sequence, self.next_row) = (after.root, after.rows, after.sequence, after.next_row);
    }

    /// Makes the index what the commit has made of the store.
    pub(crate) fn publish(&self, index: &mut Index) {
        for (id, leaf) in &self.leaves {
            index.set_leaf(*id, *leaf);
        }
        for (dir, count) in &self.children {
            index.set_children(*dir, *count);
        }
    }
}

/// Plans `batch` on top of `index` and `before`.
pub(crate) fn plan(
    batch: HiddenBatch,
    index: &Index,
    before: &Overlay,
    keys: &Keys,
    entropy: &dyn Entropy,
) -> Result<Plan, Refused> {
    let leaf = |id: &Id| before.leaves.get(id).copied().unwrap_or_else(|| index.leaf(id));
    let holds = batch.absent.iter().all(|id| leaf(id).is_none())
        && batch.versions.iter().all(|(id, version)| leaf(id).is_some_and(|l| l.version == *version));
    if !holds {
        return Err(Refused::Conflict);
    }
    let mut planner = Planner {
        index,
        before,
        keys,
        entropy,
        changes: Vec::new(),
        after: Overlay {
            leaves: IdMap::default(),
            children: IdMap::default(),
            written: Vec::new(),
            root: before.root,
            rows: before.rows,
            sequence: before.sequence.checked_add(1).ok_or(Refused::Impossible("the sequence has run out"))?,
            next_row: before.next_row,
        },
    };
    for op in last_of_each_path(batch.ops) {
        match op.value {
            Some(value) => planner.put(&op.path, &value)?,
            None => planner.delete(&op.path)?,
        }
    }
    Ok(Plan { changes: planner.changes, after: planner.after })
}

/// One operation a path, in the order in which each was last named.
fn last_of_each_path(ops: Vec<HiddenOp>) -> Vec<HiddenOp> {
    let mut last = BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        last.insert(op.path.entry.id(), at);
    }
    let mut at = 0..;
    ops.into_iter().filter(|op| last.get(&op.path.entry.id()) == at.next().as_ref()).collect()
}

struct Planner<'a> {
    index: &'a Index,
    before: &'a Overlay,
    keys: &'a Keys,
    entropy: &'a dyn Entropy,
    changes: Vec<Change>,
    after: Overlay,
}

impl Planner<'_> {
    fn put(&mut self, path: &HiddenPath, value: &SecretBytes) -> Result<(), Refused> {
        let id = path.entry.id();
        let version = Version(self.after.sequence);
        let bytes = entry::seal(self.keys, self.entropy, &path.entry, version, value.expose());
        let tag = entry::tag_of(&bytes).ok_or(Refused::Impossible("a sealed value has no tag"))?;
        let old = self.leaf(&id);
        let row = match old {
            Some(old) => old.row,
            None => self.free_row()?,
        };
        let leaf = Leaf { version, tag, row };
        let name = name_row(&path.entry, &leaf);
        match old {
            Some(old) => {
                self.after.root.subtract(self.keys.root(), &name_row(&path.entry, &old));
                self.changes.push(Change::SetValue { row, bytes: bytes.clone() });
                self.changes.push(Change::SetName(name.clone()));
            }
            None => {
                self.after.rows += 1;
                self.changes.push(Change::AddValue { row, bytes: bytes.clone() });
                self.changes.push(Change::AddName(name.clone()));
                self.grow(&path.dirs, path.entry.dir)?;
            }
        }
        self.after.root.add(self.keys.root(), &name);
        self.after.leaves.insert(id, Some(leaf));
        self.after.written.push((id, tag, bytes));
        Ok(())
    }

    fn delete(&mut self, path: &HiddenPath) -> Result<(), Refused> {
        let id = path.entry.id();
        let Some(old) = self.leaf(&id) else { return Ok(()) };
        self.after.root.subtract(self.keys.root(), &name_row(&path.entry, &old));
        self.after.rows -= 1;
        self.changes.push(Change::RemoveName { dir: path.entry.dir, name: path.entry.bytes.clone() });
        self.changes.push(Change::RemoveValue { row: old.row });
        self.after.leaves.insert(id, None);
        self.shrink(&path.dirs, path.entry.dir)
    }

    /// Counts one more name in `dir`, and makes its row and those above it where it is the first.
    fn grow(&mut self, dirs: &[HiddenName], dir: Id) -> Result<(), Refused> {
        let count = self.children(&dir);
        let more = count.checked_add(1).ok_or(Refused::Impossible("a directory is full"))?;
        self.after.children.insert(dir, more);
        if count > 0 {
            return Ok(());
        }
        let Some((own, above)) = dirs.split_last() else { return Ok(()) }; // the root has no row
        let row = dir_row(own);
        self.after.root.add(self.keys.root(), &row);
        self.after.rows += 1;
        self.changes.push(Change::AddName(row));
        self.grow(above, own.dir)
    }

    /// Counts one name less in `dir`, and removes its row and those above it where it was the last.
    fn shrink(&mut self, dirs: &[HiddenName], dir: Id) -> Result<(), Refused> {
        let count = self.children(&dir);
        let less = count.checked_sub(1).ok_or(Refused::Impossible("a directory holds less than nothing"))?;
        self.after.children.insert(dir, less);
        if less > 0 {
            return Ok(());
        }
        let Some((own, above)) = dirs.split_last() else { return Ok(()) };
        self.after.root.subtract(self.keys.root(), &dir_row(own));
        self.after.rows -= 1;
        self.changes.push(Change::RemoveName { dir: own.dir, name: own.bytes.clone() });
        self.shrink(above, own.dir)
    }

    fn leaf(&self, id: &Id) -> Option<Leaf> {
        let changed = self.after.leaves.get(id).or_else(|| self.before.leaves.get(id));
        changed.copied().unwrap_or_else(|| self.index.leaf(id))
    }

    fn children(&self, dir: &Id) -> u32 {
        let changed = self.after.children.get(dir).or_else(|| self.before.children.get(dir));
        changed.copied().unwrap_or_else(|| self.index.children(dir))
    }

    fn free_row(&mut self) -> Result<u64, Refused> {
        let row = self.after.next_row;
        self.after.next_row = row
            .checked_add(1)
            .filter(|next| i64::try_from(*next).is_ok())
            .ok_or(Refused::Impossible("the rows have run out"))?;
        Ok(row)
    }
}

fn name_row(name: &HiddenName, leaf: &Leaf) -> NameRow {
    NameRow { dir: name.dir, name: name.bytes.clone(), version: leaf.version.0, tag: leaf.tag, row: leaf.row }
}

fn dir_row(name: &HiddenName) -> NameRow {
    NameRow { dir: name.dir, name: name.bytes.clone(), version: 0, tag: [0; 16], row: 0 }
}
