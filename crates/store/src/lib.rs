//! The encrypted, authenticated, transactional store.
//!
//! ```text
//! get, list, commit  ->  barrier (names hidden, values sealed, all of it under one root)  ->  Backend (untrusted bytes)
//! ```
//! A [`Store`] exists only with its keys: sealed means that there is no `Store`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod path;
mod time;

pub use batch::{Batch, CommitError, Committed, Cond, Entry, Op, ReadError, Version};
pub use path::{MAX_COMPONENT_BYTES, StorePath, StorePathError};
pub use time::StoreTime;

/// An unsealed store. Cheap to clone; all clones are one store.
#[derive(Clone, Debug)]
pub struct Store {}

impl Store {
    /// The entry at `path`, proven fresh (or proven absent) against the authenticated root before it is returned.
    ///
    /// # Errors
    /// [`ReadError`]; a tampered entry is an error, never an absence.
    pub async fn get(&self, _path: &StorePath) -> Result<Option<Entry>, ReadError> {
        unimplemented!()
    }

    /// Names directly below `dir`, sorted; a name that has names below it ends in `/` (and may stand there twice, as `b` and
    /// `b/`). Proven complete.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn list(&self, _dir: &StorePath) -> Result<Vec<String>, ReadError> {
        unimplemented!()
    }

    /// Makes all operations of `batch` durable, or none of them. On `Ok` they survive a power cut.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when a condition does not hold; [`CommitError::OutcomeUnknown`] when the disk failed.
    pub async fn commit(&self, _batch: Batch) -> Result<Committed, CommitError> {
        unimplemented!()
    }

    /// The store's own time now: monotone, unaffected by steps of the wall clock (docs/formats.md, Time).
    pub fn now(&self) -> StoreTime {
        unimplemented!()
    }

    /// HMAC-SHA-256 under a key of the keyring that is made for `purpose`, for values that are kept only as codes
    /// (tokens, generated passwords).
    pub fn mac(&self, _purpose: &'static str, _parts: &[&[u8]]) -> [u8; 32] {
        unimplemented!()
    }
}
