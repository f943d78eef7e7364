//! What a commit is made of, and how it can fail.

use secret::SecretBytes;

use crate::StorePath;

/// The sequence number of the commit that wrote an entry. It rises with each write, and no version comes twice, not
/// even when an entry is deleted and made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// A value and its version.
#[derive(Debug)]
pub struct Entry {
    /// The value in clear.
    pub value: SecretBytes,
    /// Its version, for [`Cond::VersionIs`].
    pub version: Version,
}

/// What must hold when the commit is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cond {
    /// Nothing is at the path.
    Absent(StorePath),
    /// The entry has this version.
    VersionIs(StorePath, Version),
}

/// One change.
#[derive(Debug)]
pub enum Op {
    /// Writes a value, whether one was there or not.
    Put(StorePath, SecretBytes),
    /// Removes the entry; nothing happens where none is.
    Delete(StorePath),
}

/// Changes that happen together or not at all, if all conditions hold.
#[derive(Debug, Default)]
pub struct Batch {
    /// All must hold.
    pub conds: Vec<Cond>,
    /// Carried out in order.
    pub ops: Vec<Op>,
}

/// A batch is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The store's sequence number after it.
    pub sequence: u64,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The entry on disk is not the one that the head vouches for: changed, moved, rolled back, removed or put there.
    #[error("the store was changed from outside: {what}")]
    Tampered {
        /// Which rule is broken.
        what: &'static str,
    },
    /// The disk failed.
    #[error("the store cannot be read")]
    Disk(#[source] std::io::Error),
    /// The store was closed meanwhile.
    #[error("the store is sealed")]
    Sealed,
    /// Too many reads wait already.
    #[error("too many reads wait")]
    Busy,
}

/// Why a batch is not durable.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A condition does not hold: somebody else was first. Read again and try again.
    #[error("another change was first")]
    Conflict,
    /// A value over 1 MiB, a batch over 4 MiB or over 1024 conditions and operations, or a value for the root
    /// directory.
    #[error("the change is too large")]
    TooLarge,
    /// The disk is full; nothing was changed.
    #[error("the disk is full")]
    DiskFull,
    /// COMMIT or fsync failed: the change may be there or not. The store is reopened; read before trying again.
    #[error("the disk failed; whether the change was made is not known")]
    OutcomeUnknown(#[source] std::io::Error),
    /// What is on disk is not what the head vouches for; nothing is written on top of it.
    #[error("the store was changed from outside: {what}")]
    Tampered {
        /// Which rule is broken.
        what: &'static str,
    },
    /// The data key has encrypted as much as it may; nothing was changed. A start replaces it.
    #[error("the data key is worn out: restart edgekeep, which replaces it")]
    KeyWornOut,
    /// The store was closed meanwhile.
    #[error("the store is sealed")]
    Sealed,
    /// Too many writes wait already.
    #[error("too many writes wait")]
    Busy,
}
