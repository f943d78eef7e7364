//! A full disk: what puts is refused, and what takes away finds room all the same.

use super::{Commit, Staged, Write, Writer, again, answer};
use crate::backend::Record;
use crate::batch::CommitError;
use crate::head::HEAD_BYTES;
use crate::reserve::Reserve;

/// Where a commit finds room, in the order in which removals look for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// On the disk.
    Free,
    /// That of commits that are in the database by now.
    Recycled,
    /// That which is kept for it.
    Reserve,
}

impl Space {
    fn next(self) -> Option<Self> {
        match self {
            Self::Free => Some(Self::Recycled),
            Self::Recycled => Some(Self::Reserve),
            Self::Reserve => None,
        }
    }
}

impl Writer {
    /// Answers all of a commit that changed nothing; but where the disk is full, what only takes away is tried once
    /// more.
    pub(super) fn refuse(&mut self, commit: Commit, error: &CommitError) {
        let space = match error {
            CommitError::DiskFull => commit.space.next(),
            _ => None,
        };
        let Some(space) = space else { return answer(commit.staged, |_| Err(again(error))) };
        let (removals, others): (Vec<_>, Vec<_>) = commit.staged.into_iter().partition(|s| s.removal.is_some());
        answer(others, |_| Err(CommitError::DiskFull));
        if !removals.is_empty() {
            self.remove_on_a_full_disk(removals, space);
        }
    }

    /// Tries removals again on the next space that there is; if that does not do, [`Self::refuse`] goes on to the one
    /// after.
    fn remove_on_a_full_disk(&mut self, removals: Vec<Staged>, space: Space) {
        let found = match space {
            _ if !host::in_force("removals-have-room") => false,
            Space::Free => true,
            Space::Recycled => self.backend.recycle().is_ok(),
            Space::Reserve => self.reserve.as_mut().is_some_and(Reserve::give_up),
        };
        let begun = if found { self.begin() } else { Err(CommitError::DiskFull) };
        let mut commit = match begun {
            Ok(commit) => Commit { space, ..commit },
            Err(CommitError::DiskFull) if let Some(next) = space.next() => {
                return self.remove_on_a_full_disk(removals, next);
            }
            Err(error) => return answer(removals, |_| Err(again(&error))),
        };
        let mut waiting = removals.into_iter();
        while let Some(Staged { reply, removal, .. }) = waiting.next() {
            let Some(batch) = removal else { continue };
            match self.stage(commit, Write::Batch(batch), reply) {
                Some(next) => commit = next,
                None => return answer(waiting.collect(), |_| Err(CommitError::DiskFull)),
            }
        }
        self.finish(commit);
        // The log has its blocks for good with this, and the next removal needs none of the disk. Now, while there is
        // room for what earlier commits add to the database.
        if space == Space::Reserve
            && let Err(error) = self.backend.recycle()
        {
            tracing::warn!(%error, "the disk is full, and the store's log cannot be used again");
        }
    }

    /// Whether the store is where it was before a commit that met a full disk: then nobody needs to doubt, and the
    /// store goes on without the space that reopening it would take.
    pub(super) fn rolled_back(&mut self) -> bool {
        self.backend.rollback();
        matches!(self.backend.record(Record::Head, HEAD_BYTES), Ok(Some(found)) if found == self.head_bytes)
    }
}
