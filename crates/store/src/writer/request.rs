//! What the writer is asked to do, and by whom it is waited for.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::backend::Id;
use crate::batch::{CommitError, Committed, Entry, ReadError};
use crate::head::SlotSet;
use crate::keyring::Keys;
use crate::names::HiddenName;
use crate::plan::HiddenBatch;

/// What the writer is asked to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// A batch, or a change of the head alone.
    Write(Write, oneshot::Sender<Result<Committed, CommitError>>),
    /// A read that needs an answer which no commit can overtake.
    Read(HiddenName, oneshot::Sender<Result<Option<Entry>, ReadError>>),
    /// As `Read`.
    List(Id, oneshot::Sender<Result<Vec<String>, ReadError>>),
    /// The keyring's record.
    Keyring(oneshot::Sender<Result<Vec<u8>, ReadError>>),
    /// Ends the thread when all that was asked before is done.
    Close,
}

/// What a commit is asked to carry.
#[derive(Debug)]
pub(crate) enum Write {
    /// Entries.
    Batch(HiddenBatch),
    /// The slot set that the store is bound to from now on.
    Slots(SlotSet),
    /// A keyring with one more term, or for another root key.
    Keyring(Box<KeyringChange>),
}

/// A keyring in place of the one with the digest that it replaces: with one more term, or, for another root key, anew.
#[derive(Debug)]
pub(crate) struct KeyringChange {
    pub(crate) replaces: [u8; 32],
    pub(crate) record: Vec<u8>,
    pub(crate) keys: Arc<Keys>,
    /// Where its root key is new: the slot set that has it.
    pub(crate) slots: Option<SlotSet>,
    /// What comes with it, under the new term.
    pub(crate) with: HiddenBatch,
}

impl Write {
    /// Whether it must be the first of a commit: a new root key sums what is committed.
    pub(super) fn begins_a_commit(&self) -> bool {
        matches!(self, Self::Keyring(change) if change.slots.is_some())
    }

    /// The same again, where it only takes away.
    pub(super) fn again_if_removal(&self) -> Option<HiddenBatch> {
        match self {
            Self::Batch(batch) => batch.again_if_removal(),
            Self::Slots(_) | Self::Keyring(_) => None,
        }
    }

    /// What it adds to a commit.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.bytes(),
            Self::Slots(_) => 0,
            Self::Keyring(change) => change.record.len() + change.with.bytes(),
        }
    }
}
