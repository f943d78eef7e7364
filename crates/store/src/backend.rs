//! The untrusted bytes below the barrier.
//!
//! A backend keeps rows, two records and values, and makes a set of changes durable together. It is trusted with
//! nothing: what it returns is checked against the head by those above, so all that a bad backend can do is to lose the
//! store.

/// A name's id inside the store: the last 16 bytes of its hidden name.
pub type Id = [u8; 16];

/// One row of `name`: an entry (version at least 1) or a directory (version 0, tag zero, row 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRow {
    /// Directory that the name is in.
    pub dir: Id,
    /// The hidden name.
    pub name: Box<[u8]>,
    /// Sequence number of the commit that wrote the value.
    pub version: u64,
    /// Authentication tag of the value.
    pub tag: [u8; 16],
    /// Where the value is.
    pub row: u64,
}

/// The records of which there is one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Vouches for all rows.
    Head,
    /// The wrapped keys.
    Keyring,
}

/// One change. A change that does not find what it expects is an error: the rows are not those that the head vouches
/// for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A name that is not there.
    AddName(NameRow),
    /// A name that is there: new version, tag and row.
    SetName(NameRow),
    /// A name that is there.
    RemoveName {
        /// Directory.
        dir: Id,
        /// Hidden name.
        name: Box<[u8]>,
    },
    /// A value at a free row.
    AddValue {
        /// Row, at least 1.
        row: u64,
        /// The sealed value.
        bytes: Vec<u8>,
    },
    /// A value that is there.
    SetValue {
        /// Row.
        row: u64,
        /// The sealed value.
        bytes: Vec<u8>,
    },
    /// A value that is there.
    RemoveValue {
        /// Row.
        row: u64,
    },
    /// A record of either kind, there or not.
    SetRecord {
        /// Which.
        record: Record,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// Why the backend did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No space left.
    #[error("the disk is full")]
    Full,
    /// The rows are not as they must be: damaged or changed by others.
    #[error("the database is damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// The disk failed.
    #[error("the disk failed")]
    Disk(#[source] std::io::Error),
}

/// Reads what is committed. One is made for each thread that reads.
pub trait Reader: Send {
    /// The value at `row`; one longer than `max_bytes` is [`BackendError::Damaged`].
    ///
    /// # Errors
    /// [`BackendError`].
    fn value(&mut self, row: u64, max_bytes: usize) -> Result<Option<Vec<u8>>, BackendError>;

    /// The names in a directory, in any order; stops after `max` of them.
    ///
    /// # Errors
    /// [`BackendError`].
    fn names(&mut self, dir: &Id, max: usize) -> Result<Vec<NameRow>, BackendError>;
}

/// Reads and writes. Used by one thread.
pub trait Backend: Reader {
    /// A record; one longer than `max_bytes` is [`BackendError::Damaged`].
    ///
    /// # Errors
    /// [`BackendError`].
    fn record(&mut self, record: Record, max_bytes: usize) -> Result<Option<Vec<u8>>, BackendError>;

    /// Shows each name once, in any order.
    ///
    /// # Errors
    /// [`BackendError`].
    fn scan(&mut self, each: &mut dyn FnMut(NameRow)) -> Result<(), BackendError>;

    /// Opens a transaction that excludes other writers.
    ///
    /// # Errors
    /// [`BackendError`].
    fn begin(&mut self) -> Result<(), BackendError>;

    /// Makes all of `changes` part of the open transaction, or none of them.
    ///
    /// # Errors
    /// [`StageError`], which says whether the transaction is still open.
    fn stage(&mut self, changes: &[Change]) -> Result<(), StageError>;

    /// Makes the open transaction durable.
    ///
    /// # Errors
    /// [`BackendError`]: it may be durable or not, and the backend must be reopened to tell.
    fn commit(&mut self) -> Result<(), BackendError>;

    /// Drops the open transaction, if one is open.
    fn rollback(&mut self);

    /// Starts anew from what is durable, and makes sure that it is: what an earlier failed sync has left in doubt is
    /// written again and synced.
    ///
    /// # Errors
    /// [`BackendError`].
    fn reopen(&mut self) -> Result<(), BackendError>;

    /// Lets the next commit take the space of those before it, as far as no reader needs them.
    ///
    /// # Errors
    /// [`BackendError`]; nothing is lost, and nothing gained.
    fn recycle(&mut self) -> Result<(), BackendError>;

    /// Brings everything into one file.
    ///
    /// # Errors
    /// [`BackendError`].
    fn checkpoint(&mut self) -> Result<(), BackendError>;
}

/// Why changes were not staged.
#[derive(Debug)]
pub struct StageError {
    /// The cause.
    pub cause: BackendError,
    /// Whether what was staged before is still there.
    pub open: bool,
}
