//! Reading the two copies: the newest whole one, and what is wrong with the other.

use std::io;
use std::path::{Path, PathBuf};

use super::{SlotCopy, SlotFiles};
use crate::slot_set::{MAX_SLOT_SET_BYTES, ParseError, SlotSet};

/// The newest whole copy. Not authentic before it is unlocked.
#[derive(Debug)]
pub struct FoundSlots {
    /// The set.
    pub set: SlotSet,
    /// The copy that must be written anew once the set is unlocked, and why.
    pub heal: Option<(SlotCopy, CopyFault)>,
    /// What the other copy holds, where that is whole and of an earlier generation.
    pub older: Option<SlotSet>,
}

impl FoundSlots {
    /// The earlier set in the place of the newer one: the store has never taken the newer.
    pub fn step_back(self) -> Option<Self> {
        let (Some(older), Some((copy, CopyFault::Older { .. }))) = (self.older, self.heal) else { return None };
        let fault = CopyFault::Ahead { generation: self.set.generation() };
        Some(Self { set: older, heal: Some((copy.other(), fault)), older: None })
    }
}

impl SlotFiles<'_> {
    /// Reads both copies and takes the newest whole one. Writes nothing.
    ///
    /// # Errors
    /// [`ReadSlotsError`].
    pub fn read(&self) -> Result<FoundSlots, ReadSlotsError> {
        match (self.copy(SlotCopy::A), self.copy(SlotCopy::B)) {
            (Ok(a), Ok(b)) if a == b => Ok(FoundSlots { set: a, heal: None, older: None }),
            (Ok(a), Ok(b)) if a.generation() == b.generation() => {
                Err(ReadSlotsError::Disagree { generation: a.generation() })
            }
            (Ok(a), Ok(b)) => {
                let (set, older, copy) =
                    if a.generation() > b.generation() { (a, b, SlotCopy::B) } else { (b, a, SlotCopy::A) };
                let fault = CopyFault::Older { generation: older.generation() };
                Ok(FoundSlots { set, heal: Some((copy, fault)), older: Some(older) })
            }
            (Ok(set), Err(fault)) => Ok(FoundSlots { set, heal: Some((SlotCopy::B, fault)), older: None }),
            (Err(fault), Ok(set)) => Ok(FoundSlots { set, heal: Some((SlotCopy::A, fault)), older: None }),
            (Err(CopyFault::Missing), Err(CopyFault::Missing)) => Err(ReadSlotsError::Absent { dir: self.dir.clone() }),
            (Err(a), Err(b)) => Err(ReadSlotsError::Corrupt { a, b }),
        }
    }

    /// What one of them holds.
    pub(super) fn copy(&self, copy: SlotCopy) -> Result<SlotSet, CopyFault> {
        let path: &Path = &self.path(copy);
        if self.disk.meta(path)?.is_none() {
            return Err(CopyFault::Missing);
        }
        match self.disk.read(path, MAX_SLOT_SET_BYTES) {
            Ok(bytes) => Ok(SlotSet::parse(&bytes)?),
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => Err(CopyFault::TooLong),
            Err(e) => Err(e.into()),
        }
    }
}

/// What is wrong with one copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    /// Not there.
    #[error("is missing")]
    Missing,
    /// There, and no slot set.
    #[error("{0}")]
    Unreadable(#[from] ParseError),
    /// Longer than any slot set.
    #[error("is longer than any slot file")]
    TooLong,
    /// Whole, but of an earlier generation: a change was cut short between the copies.
    #[error("has generation {generation}, the other copy a newer one")]
    Older {
        /// Its generation.
        generation: u64,
    },
    /// Whole, but of a generation that the store has never taken: a change of the root key was cut short before its
    /// commit.
    #[error("has generation {generation}, which the store has never taken")]
    Ahead {
        /// Its generation.
        generation: u64,
    },
    /// The disk failed.
    #[error("cannot be read: {0}")]
    Disk(#[from] io::Error),
}

/// Why there is no slot set to try.
#[derive(Debug, thiserror::Error)]
pub enum ReadSlotsError {
    /// Neither copy is there.
    #[error("there are no slot files in {dir}")]
    Absent {
        /// Where they should be.
        dir: PathBuf,
    },
    /// Neither copy is whole.
    #[error("both slot files are unusable: slots.a: {a}; slots.b: {b}")]
    Corrupt {
        /// What is wrong with the first.
        a: CopyFault,
        /// What is wrong with the second.
        b: CopyFault,
    },
    /// Both are whole, claim the same generation, and differ: no crash does that.
    #[error("slots.a and slots.b both claim generation {generation}, and differ")]
    Disagree {
        /// The generation they claim.
        generation: u64,
    },
}

impl ReadSlotsError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Absent { .. } => {
                "without slots.a and slots.b the store cannot be opened: put them back from a backup of this data directory"
            }
            Self::Corrupt { .. } => {
                "put back slots.a and slots.b from a backup of this data directory; then check the disk"
            }
            Self::Disagree { .. } => {
                "someone wrote to the slot files: keep a copy for investigation, then put back both from a backup"
            }
        }
    }
}
