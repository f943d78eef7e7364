//! Reads by the writer itself, which no commit can overtake.

use std::io;
use std::sync::Arc;

use secret::crypto::sha256;

use super::Writer;
use crate::backend::{BackendError, Id, Record};
use crate::batch::{Entry, ReadError};
use crate::keyring;
use crate::names::HiddenName;
use crate::shared::{entry_in, list_in};
use crate::sqlite::MAX_STORED_BYTES;

impl Writer {
    pub(super) fn read(&mut self, name: &HiddenName) -> Result<Option<Entry>, ReadError> {
        let id = name.id();
        let (keys, leaf) = self.shared.look(|p| (Arc::clone(&p.keys), p.index.leaf(&id))).ok_or(ReadError::Sealed)?;
        let Some(leaf) = leaf else { return Ok(None) };
        let bytes = self.backend.value(leaf.row, MAX_STORED_BYTES).map_err(unreadable)?;
        let entry = entry_in(&keys, name, &leaf, bytes.as_deref())?;
        if let Some(bytes) = bytes {
            self.shared.keep(id, leaf.tag, bytes.into());
        }
        Ok(Some(entry))
    }

    pub(super) fn keyring(&mut self) -> Result<Vec<u8>, ReadError> {
        self.shared.keys().ok_or(ReadError::Sealed)?;
        let record = self.backend.record(Record::Keyring, keyring::MAX_BYTES).map_err(unreadable)?;
        record
            .filter(|record| sha256(&[record]) == self.head.keyring_digest)
            .ok_or(ReadError::Tampered { what: "the keyring is not the one that the head vouches for" })
    }

    pub(super) fn list(&mut self, dir: &Id) -> Result<Vec<String>, ReadError> {
        let expected = self.shared.look(|p| p.index.children(dir)).ok_or(ReadError::Sealed)?;
        let rows = self.backend.names(dir, rows_wanted(expected)).map_err(unreadable)?;
        self.shared.look(|p| list_in(p, dir, &rows)).ok_or(ReadError::Sealed)?.map_err(ReadError::from)
    }
}

/// One more than there should be: enough to see that there are too many.
pub(crate) fn rows_wanted(children: u32) -> usize {
    usize::try_from(children).unwrap_or(usize::MAX).saturating_add(1)
}

/// A read that the backend refused.
pub(crate) fn unreadable(error: BackendError) -> ReadError {
    match error {
        BackendError::Damaged { what } => {
            tracing::error!(what, "the store's file is damaged");
            ReadError::Tampered { what: "the database file is damaged" }
        }
        BackendError::Full => ReadError::Disk(io::ErrorKind::StorageFull.into()),
        BackendError::Disk(error) => ReadError::Disk(error),
    }
}
