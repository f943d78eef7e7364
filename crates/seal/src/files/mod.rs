//! The slot set on disk: two copies, written one after the other, so that one whole copy is there at any moment.

mod found;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;

use host::Disk;

use crate::slot_set::{SlotSet, Unlocked};

pub use found::{CopyFault, FoundSlots, ReadSlotsError};

/// Where the copies are.
pub struct SlotFiles<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
}

/// One of the two copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotCopy {
    /// `slots.a`, written first.
    A,
    /// `slots.b`, written when the first is durable.
    B,
}

impl SlotCopy {
    /// Its file name.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::A => "slots.a",
            Self::B => "slots.b",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl<'a> SlotFiles<'a> {
    /// The slot files of the data directory `dir`.
    pub fn new(disk: &'a dyn Disk, dir: impl Into<PathBuf>) -> Self {
        Self { disk, dir: dir.into() }
    }

    /// Writes a new generation; durable on return.
    ///
    /// A power cut between the two leaves the first copy new and the second old (or, in a new directory, missing):
    /// `read` takes the new one and asks for healing. The head of the store is committed after this, never before: see
    /// [`Unlocked::check_head`].
    ///
    /// # Errors
    /// If the disk fails. Then at least one copy, old or new, is whole.
    pub fn write(&self, set: &SlotSet) -> io::Result<()> {
        let bytes = set.encode();
        let copies: &[SlotCopy] =
            if host::in_force("second-slot-copy") { &[SlotCopy::A, SlotCopy::B] } else { &[SlotCopy::A] };
        for &copy in copies {
            self.disk.replace(&self.path(copy), &bytes, 0o600, None)?;
        }
        Ok(())
    }

    /// Writes the first copy of a set with a new root key, for [`Store::change_root`] to be told of; durable on return.
    /// The other copy keeps the set of before until [`SlotFiles::write_second`]: a power cut before the store's commit
    /// steps back to it.
    ///
    /// # Errors
    /// If the disk fails, or the copies do not both hold `before`: then the one that the store knows might be the one
    /// displaced.
    ///
    /// [`Store::change_root`]: ../store/struct.Store.html#method.change_root
    pub fn write_first(&self, before: &SlotSet, set: &SlotSet) -> io::Result<()> {
        let whole = |copy| self.copy(copy).is_ok_and(|found| found == *before);
        if host::in_force("both-copies-before-a-new-root") && !(whole(SlotCopy::A) && whole(SlotCopy::B)) {
            return Err(io::Error::other("slots.a and slots.b are not both as the store knows them; restart edgekeep"));
        }
        self.disk.replace(&self.path(SlotCopy::A), &set.encode(), 0o600, None)?;
        match self.copy(SlotCopy::A) {
            Ok(back) if back == *set => Ok(()),
            Ok(_) => Err(io::Error::other("slots.a does not read back as it was written")),
            Err(fault) => Err(io::Error::other(format!("slots.a {fault}"))),
        }
    }

    /// Writes the other copy, once the store has taken the set.
    ///
    /// # Errors
    /// If the disk fails; the next start heals it.
    pub fn write_second(&self, set: &SlotSet) -> io::Result<()> {
        self.disk.replace(&self.path(SlotCopy::B), &set.encode(), 0o600, None)
    }

    /// Puts back what [`SlotFiles::write_first`] displaced, where the store did not take the new set.
    ///
    /// # Errors
    /// If the disk fails; the next start steps back.
    pub fn take_back(&self, before: &SlotSet) -> io::Result<()> {
        self.disk.replace(&self.path(SlotCopy::A), &before.encode(), 0o600, None)
    }

    /// Writes the copy that [`SlotFiles::read`] found wanting. It takes the opened set: a set that does not open must
    /// never displace one that may.
    ///
    /// # Errors
    /// If the disk fails, or `proof` is of another set.
    pub fn heal(&self, found: &FoundSlots, proof: &Unlocked) -> io::Result<()> {
        if proof.digest() != found.set.digest() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the opened slot set is not the one that was read",
            ));
        }
        match &found.heal {
            Some((copy, _)) => self.disk.replace(&self.path(*copy), &found.set.encode(), 0o600, None),
            None => Ok(()),
        }
    }

    fn path(&self, copy: SlotCopy) -> PathBuf {
        self.dir.join(copy.file_name())
    }
}

impl fmt::Debug for SlotFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotFiles({})", self.dir.display())
    }
}
