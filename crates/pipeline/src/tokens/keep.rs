//! What is gathered and what is swept: notes of renewals, ends after a crash, dead tokens.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use secret::SecretBytes;
use store::{Batch, CommitError, Cond, Op, StorePath};

use super::entry::{self, TokenEntry, TokenId};
use super::{Tokens, renew};
use crate::error::EngineError;
use crate::txn::Txn;

/// A renewal that is not written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    expires_ms: u64,
    wall: i128,
    at_ms: u64,
    number: u64,
}

/// Where the sweep stands.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    left: Vec<String>,
    next_ms: u64,
}

impl Tokens {
    /// Learns whether the last stop was clean, and takes the mark away: from here on a crash is a crash.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) async fn open(&self) -> Result<(), EngineError> {
        let store = &self.ground.store;
        let clean = match store.get(&mark()).await? {
            None => false,
            Some(found) => {
                let batch =
                    Batch { conds: vec![Cond::VersionIs(mark(), found.version)], ops: vec![Op::Delete(mark())] };
                store.commit(batch).await?;
                true
            }
        };
        self.after_clean_stop.store(clean, Ordering::Release);
        self.life.store(store.head()?.sequence, Ordering::Release);
        Ok(())
    }

    /// Writes all notes down and marks the stop as clean, in that order: notes that are missing below a mark would be
    /// lost.
    ///
    /// # Errors
    /// [`EngineError`]: the next start treats this stop as a crash, which kills no token.
    pub(crate) async fn close(&self) -> Result<(), EngineError> {
        while self.write_notes(|_, _| true).await? > 0 {}
        // Entries written in an earlier, unclean life are exact only once they are rewritten; while any counts by
        // `keep_until` the mark would shorten it.
        if !self.rewrite_inexact().await? {
            return Ok(());
        }
        let ops = vec![Op::Put(mark(), SecretBytes::new(b"1".to_vec()))];
        self.ground.store.commit(Batch { conds: Vec::new(), ops }).await?;
        Ok(())
    }

    /// Writes down the notes whose head room is three quarters used, with all others at hand in the same commit, and
    /// sweeps a bounded number of tokens that are dead.
    ///
    /// # Errors
    /// [`EngineError`]; what is left is done next time.
    pub(crate) async fn upkeep(&self) -> Result<(), EngineError> {
        let urgent = self.notes_urgent().await?;
        if urgent {
            self.write_notes(|_, _| true).await?;
        }
        self.sweep_some().await
    }

    /// Notes a renewal whose end is durable already.
    pub(super) fn note(&self, id: TokenId, entry: &TokenEntry, expires_ms: u64, wall: i128) {
        let at_ms = self.now().0;
        let mut notes = self.notes();
        let number = after(entry, notes.get(&id));
        notes.insert(id, Note { expires_ms, wall, at_ms, number });
    }

    /// The number of a renewal that is about to be written: whatever was noted before it counts no longer with its
    /// commit.
    pub(super) fn next_renewal(&self, id: TokenId, entry: &TokenEntry) -> u64 {
        after(entry, self.notes().get(&id))
    }

    /// When a loaded token ends, and when it was last renewed.
    pub(super) fn end_of(&self, id: TokenId, entry: &TokenEntry) -> (Option<u64>, Option<i128>) {
        // A note that is not newer than the entry was written down with it, or replaced by it.
        if let Some(note) = self.notes().get(&id).filter(|n| n.number > entry.renewals) {
            return (Some(note.expires_ms), Some(note.wall));
        }
        if self.is_exact(entry) {
            (entry.expires_ms, entry.renewed_wall)
        } else {
            (entry.keep_until_ms.or(entry.expires_ms), entry.renewed_wall)
        }
    }

    pub(super) fn life(&self) -> u64 {
        self.life.load(Ordering::Acquire)
    }

    /// Whether no renewal of the entry can have been lost in a crash.
    fn is_exact(&self, entry: &TokenEntry) -> bool {
        entry.life == self.life() || self.after_clean_stop.load(Ordering::Acquire)
    }

    async fn notes_urgent(&self) -> Result<bool, EngineError> {
        let noted: Vec<(TokenId, Note)> = self.notes().iter().map(|(id, n)| (*id, *n)).collect();
        if noted.len() >= MAX_NOTES {
            return Ok(true);
        }
        for (id, note) in noted {
            let Some(live) = self.known(id).await? else {
                self.notes().remove(&id);
                continue;
            };
            let entry = live.entry();
            let (Some(end), Some(keep)) = (entry.expires_ms, entry.keep_until_ms) else { continue };
            let (used, room) = (note.expires_ms.saturating_sub(end), keep.saturating_sub(end));
            if note.number > entry.renewals && used.saturating_mul(4) >= room.saturating_mul(3) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes up to [`NOTES_AT_ONCE`] notes down in one commit; gives back how many there were to write.
    async fn write_notes(&self, wanted: impl Fn(TokenId, &Note) -> bool) -> Result<usize, EngineError> {
        let noted: Vec<(TokenId, Note)> = self
            .notes()
            .iter()
            .filter(|(id, n)| wanted(**id, n))
            .take(NOTES_AT_ONCE)
            .map(|(id, n)| (*id, *n))
            .collect();
        let mut batch = Batch::default();
        for (id, note) in &noted {
            let Some(found) = self.ground.store.get(&id.path()).await? else { continue };
            let mut entry = TokenEntry::decode(found.value.expose())?;
            if note.number <= entry.renewals {
                continue;
            }
            let ahead = note.expires_ms.saturating_sub(note.at_ms) / 1000;
            entry.expires_ms = Some(note.expires_ms);
            entry.renewed_wall = Some(note.wall);
            entry.written_ms = note.at_ms;
            // A renewal that comes between the note and its commit has a higher number, and counts.
            entry.renewals = note.number;
            entry.life = self.life();
            renew::set_head_room(&mut entry, ahead);
            batch.conds.push(Cond::VersionIs(id.path(), found.version));
            batch.ops.push(Op::Put(id.path(), entry.encode()));
        }
        if !batch.ops.is_empty() {
            match self.ground.store.commit(batch).await {
                Ok(_) => self.changed(),
                // Somebody changed one of them meanwhile: the notes stay, and the next turn sees the new entries.
                Err(CommitError::Conflict) => return Ok(noted.len()),
                Err(e) => {
                    self.changed();
                    return Err(e.into());
                }
            }
        }
        let mut notes = self.notes();
        for (id, written) in &noted {
            if notes.get(id).is_some_and(|n| n.number == written.number) {
                notes.remove(id);
            }
        }
        Ok(noted.len())
    }

    /// Rewrites entries that count by `keep_until` so that they count exactly; `false` if there are too many for one
    /// stop.
    async fn rewrite_inexact(&self) -> Result<bool, EngineError> {
        if self.after_clean_stop.load(Ordering::Acquire) {
            return Ok(true);
        }
        let names = self.ground.store.list(&entry::tokens_dir()).await?;
        if names.len() > NOTES_AT_ONCE {
            return Ok(false);
        }
        let mut batch = Batch::default();
        for id in names.iter().filter_map(|n| TokenId::parse(n)) {
            let Some(found) = self.ground.store.get(&id.path()).await? else { continue };
            let mut entry = TokenEntry::decode(found.value.expose())?;
            if !self.is_exact(&entry) && entry.keep_until_ms != entry.expires_ms {
                entry.expires_ms = entry.keep_until_ms;
                entry.life = self.life();
                batch.conds.push(Cond::VersionIs(id.path(), found.version));
                batch.ops.push(Op::Put(id.path(), entry.encode()));
            }
        }
        if !batch.ops.is_empty() {
            self.ground.store.commit(batch).await?;
            self.changed();
        }
        Ok(true)
    }

    /// Removes tokens that are dead, a bounded number at a time.
    async fn sweep_some(&self) -> Result<(), EngineError> {
        let mut sweep = self.sweep.lock().await;
        let now = self.now();
        if sweep.left.is_empty() {
            if now.0 < sweep.next_ms {
                return Ok(());
            }
            sweep.next_ms = now.0.saturating_add(SWEEP_EVERY_MS);
            sweep.left = self.ground.store.list(&entry::tokens_dir()).await?;
        }
        for _ in 0..SWEPT_AT_ONCE {
            let Some(id) = sweep.left.pop() else { break };
            let Some(id) = TokenId::parse(&id) else { continue };
            if self.live(id).await?.is_none() {
                self.remove_dead(id).await?;
            }
        }
        Ok(())
    }

    async fn remove_dead(&self, id: TokenId) -> Result<(), EngineError> {
        let mut txn = Txn::new(&self.ground, root());
        self.revoke(id, &mut txn).await?;
        if txn.is_read_only() {
            return Ok(());
        }
        match self.ground.store.commit(txn.into_batch()).await {
            // It is dead either way; the next round tries again.
            Ok(_) | Err(CommitError::Conflict) => {
                self.changed();
                Ok(())
            }
            Err(e) => {
                self.changed();
                Err(e.into())
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, HashMap<TokenId, Note>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number after the last renewal of a token, written or noted.
fn after(entry: &TokenEntry, noted: Option<&Note>) -> u64 {
    noted.map_or(0, |n| n.number).max(entry.renewals).saturating_add(1)
}

fn root() -> StorePath {
    StorePath::new::<String>([]).expect("the root directory is a path")
}

fn mark() -> StorePath {
    StorePath::new(["sys", "clean-stop"]).expect("a constant path is sound")
}

/// A full table of notes is written down whatever its head room.
const MAX_NOTES: usize = 1024;
/// Entries in one commit: well below the store's 1024 operations.
const NOTES_AT_ONCE: usize = 256;
const SWEPT_AT_ONCE: usize = 256;
const SWEEP_EVERY_MS: u64 = 60_000;
