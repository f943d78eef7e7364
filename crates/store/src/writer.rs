//! The one thread that writes.
//!
//! ```text
//! requests -> take up to 256 -> BEGIN, is the head still ours? -> stage each batch (savepoint) -> stage the head -> COMMIT
//!          -> publish index and cache -> answer each
//! ```
//! Nothing is told before it is durable, and nothing is published that is not. A COMMIT that fails leaves the outcome
//! open: the thread reopens the file, proves which of the two heads it holds, goes on from that one, and answers
//! `OutcomeUnknown` either way. What is neither head is tampering, and seals the store.

mod reads;
mod request;
mod rewrite;
mod room;

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use secret::crypto::sha256;
use tokio::sync::oneshot;

use crate::backend::{Backend, BackendError, Change, Record};
use crate::batch::{CommitError, Committed};
use crate::head::{HEAD_BYTES, HeadRecord};
use crate::keyring::Keys;
use crate::lock::lock;
use crate::plan::{HiddenBatch, Overlay, Plan, Refused, plan};
use crate::reserve::Reserve;
use crate::shared::Shared;
use room::Space;

pub(crate) use reads::{rows_wanted, unreadable};
pub(crate) use request::{KeyringChange, Request, Write};

/// The writer's own state.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    backend: Box<dyn Backend>,
    /// The last head known to be durable, and its bytes on disk.
    head: HeadRecord,
    head_bytes: Vec<u8>,
    /// Values encrypted under the last term, those of failed commits too; the head's count follows.
    sealed: u64,
    /// Space for removals; a store that is being made has none yet.
    reserve: Option<Reserve>,
    /// Held as long as the file is open.
    process_lock: Box<dyn Send>,
}

type Reply = oneshot::Sender<Result<Committed, CommitError>>;

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        backend: Box<dyn Backend>,
        head: HeadRecord,
        head_bytes: Vec<u8>,
        reserve: Option<Reserve>,
        process_lock: Box<dyn Send>,
    ) -> Self {
        let sealed = head.public.sealed_values;
        Self { shared, backend, head, head_bytes, sealed, reserve, process_lock }
    }

    /// Serves requests until all senders are gone or one asks to close; the file is closed and unlocked on return.
    pub(crate) fn run(mut self, requests: &Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            // A panic in here is ours or SQLite's on a damaged file. Its requests are lost (their callers see their
            // channel closed), and so is any claim to know the state: the store is sealed.
            match catch_unwind(AssertUnwindSafe(|| self.serve(first, requests))) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break,
                Err(_) => {
                    tracing::error!("the store's writer panicked; the store is sealed");
                    self.shared.seal();
                }
            }
        }
        self.shared.seal();
        // Only for tidiness: a store that was not checkpointed opens just as well.
        if let Err(error) = self.backend.checkpoint() {
            tracing::warn!(%error, "the store was closed without a checkpoint");
        }
        let Self { backend, process_lock, .. } = self;
        drop(backend);
        drop(process_lock); // after the file is closed
    }

    /// Serves one request, and with it as many writes as wait already.
    fn serve(&mut self, first: Request, requests: &Receiver<Request>) -> ControlFlow<()> {
        let mut next = Some(first);
        while let Some(request) = next.take() {
            match request {
                Request::Write(write, reply) => next = self.commit_group(write, reply, requests),
                Request::Read(name, reply) => drop(reply.send(self.read(&name))),
                Request::List(dir, reply) => drop(reply.send(self.list(&dir))),
                Request::Keyring(reply) => drop(reply.send(self.keyring())),
                Request::Close => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    /// One COMMIT for this write and those that wait. Returns a request of another kind that was met on the way.
    fn commit_group(&mut self, write: Write, reply: Reply, requests: &Receiver<Request>) -> Option<Request> {
        let mut commit = match self.begin() {
            Ok(commit) => commit,
            Err(error) => {
                let _ = reply.send(Err(error));
                return None;
            }
        };
        let mut next = None;
        let mut bytes = 0;
        let mut taken = Some((write, reply));
        while let Some((write, reply)) = taken.take() {
            bytes += write.bytes();
            commit = self.stage(commit, write, reply)?;
            if commit.staged.len() >= MAX_GROUP || bytes >= MAX_GROUP_BYTES {
                break;
            }
            match requests.try_recv() {
                Ok(Request::Write(write, reply)) if !write.begins_a_commit() => taken = Some((write, reply)),
                Ok(other) => next = Some(other),
                Err(_) => {}
            }
        }
        self.finish(commit);
        next
    }

    /// Opens a transaction on top of the head that we know.
    fn begin(&mut self) -> Result<Commit, CommitError> {
        let Some(overlay) =
            self.shared.look(|p| Overlay::new(&p.index, self.head.root, self.head.rows, self.head.public.sequence))
        else {
            return Err(CommitError::Sealed);
        };
        self.backend.begin().map_err(refusal)?;
        // Whoever writes beside us would have his head overwritten, and his rows vouched for.
        match self.backend.record(Record::Head, HEAD_BYTES) {
            Ok(Some(found)) if found == self.head_bytes => Ok(Commit {
                overlay,
                head: self.head,
                keys: None,
                staged: Vec::new(),
                begun_at: self.sealed,
                space: Space::Free,
            }),
            Ok(_) => {
                self.backend.rollback();
                Err(CommitError::Tampered { what: "the head on disk is not the one last written" })
            }
            Err(error) => {
                self.backend.rollback();
                Err(refusal(error))
            }
        }
    }

    /// Stages one write. `None` when the transaction is gone and all have been answered.
    fn stage(&mut self, mut commit: Commit, write: Write, reply: Reply) -> Option<Commit> {
        let removal = write.again_if_removal();
        let staged = match write {
            Write::Batch(batch) => self.stage_batch(&mut commit, batch),
            Write::Slots(slots) => {
                commit.head.public.slots = slots;
                commit.overlay.sequence += 1;
                Ok(())
            }
            Write::Keyring(change) => self.stage_keyring(&mut commit, *change),
        };
        match staged {
            Ok(()) => {
                commit.staged.push(Staged { sequence: commit.overlay.sequence, reply, removal });
                Some(commit)
            }
            Err(Unstaged { error, open: true }) => {
                let _ = reply.send(Err(error));
                Some(commit)
            }
            Err(Unstaged { error, open: false }) => {
                self.backend.rollback();
                // The others changed nothing either, and for the same reason.
                commit.staged.push(Staged { sequence: commit.overlay.sequence, reply, removal });
                self.refuse(commit, &error);
                None
            }
        }
    }

    fn stage_keyring(&mut self, commit: &mut Commit, change: KeyringChange) -> Result<(), Unstaged> {
        let KeyringChange { replaces, record, keys, slots, with } = change;
        // Made from a keyring that is no longer the newest, it would lose the term that was added since.
        if replaces != commit.head.keyring_digest {
            return Err(Unstaged { error: CommitError::Conflict, open: true });
        }
        let digest = sha256(&[&record]);
        let root_is_new = slots.is_some() && host::in_force("keyring-made-anew");
        if root_is_new {
            self.rewrite(commit, &keys)?;
        }
        let before = commit.keys.replace(keys);
        let staged = self.plan_batch(commit, with).and_then(|mut plan| {
            plan.changes.push(Change::SetRecord { record: Record::Keyring, bytes: record });
            self.backend.stage(&plan.changes)?;
            Ok(plan)
        });
        match staged {
            // All values are under keys by now that only this keyring has.
            Err(unstaged) if root_is_new => Err(Unstaged { open: false, ..unstaged }),
            Ok(plan) => {
                commit.overlay.absorb(plan);
                commit.head.keyring_digest = digest;
                commit.head.public.slots = slots.unwrap_or(commit.head.public.slots);
                Ok(())
            }
            Err(unstaged) => {
                commit.keys = before;
                Err(unstaged)
            }
        }
    }

    fn stage_batch(&mut self, commit: &mut Commit, batch: HiddenBatch) -> Result<(), Unstaged> {
        let plan = self.plan_batch(commit, batch)?;
        self.backend.stage(&plan.changes)?;
        commit.overlay.absorb(plan);
        Ok(())
    }

    /// What a batch comes to on top of the commit, encrypted under its newest term.
    fn plan_batch(&mut self, commit: &Commit, batch: HiddenBatch) -> Result<Plan, Unstaged> {
        let values = batch.ops.iter().filter(|op| op.value.is_some()).count() as u64;
        if values > 0 && self.reserve.as_mut().is_some_and(|r| !r.stands()) {
            return Err(Unstaged { error: CommitError::DiskFull, open: true });
        }
        if !self.shared.wear.allows(self.sealed_under(commit), values) {
            return Err(Unstaged { error: CommitError::KeyWornOut, open: true });
        }
        // Before it is encrypted, and whatever becomes of the commit: a nonce that was used is used.
        self.sealed += values;
        let entropy = Arc::clone(&self.shared.entropy);
        let planned = self.shared.look(|p| {
            let keys = commit.keys.as_ref().unwrap_or(&p.keys);
            plan(batch, &p.index, &commit.overlay, keys, &*entropy)
        });
        planned.unwrap_or(Err(Refused::Sealed)).map_err(|refused| {
            let error = match refused {
                Refused::Conflict => CommitError::Conflict,
                Refused::Impossible(what) => CommitError::Tampered { what },
                Refused::Sealed => CommitError::Sealed,
            };
            Unstaged { error, open: true }
        })
    }

    /// Values encrypted under the term that this commit writes with. With a new one it counts a few of the old one too.
    fn sealed_under(&self, commit: &Commit) -> u64 {
        if commit.keys.is_some() { self.sealed - commit.begun_at } else { self.sealed }
    }

    /// Stages the head, commits, publishes, answers: in this order.
    fn finish(&mut self, mut commit: Commit) {
        if commit.staged.is_empty() {
            self.backend.rollback();
            return;
        }
        let Some(keys) = commit.keys.clone().or_else(|| self.shared.keys()) else {
            self.backend.rollback();
            return answer(commit.staged, |_| Err(CommitError::Sealed));
        };
        let boot = *lock(&self.shared.pending_boot);
        if let Some(boot) = boot {
            commit.head.public.boot = boot;
        }
        commit.head.public.sequence = commit.overlay.sequence;
        commit.head.time = self.shared.timeline.record(&*self.shared.clock);
        commit.head.public.sealed_values = self.sealed_under(&commit);
        commit.head.rows = commit.overlay.rows;
        commit.head.root = commit.overlay.root;
        let bytes = commit.head.seal(&keys, &*self.shared.entropy);
        let change = Change::SetRecord { record: Record::Head, bytes: bytes.clone() };
        if let Err(failed) = self.backend.stage(&[change]) {
            self.backend.rollback();
            return self.refuse(commit, &refusal(failed.cause));
        }
        match self.backend.commit() {
            Ok(()) => {
                self.publish(&mut commit, bytes);
                answer(commit.staged, |sequence| Ok(Committed { sequence }));
            }
            Err(BackendError::Full) if self.rolled_back() => self.refuse(commit, &CommitError::DiskFull),
            Err(cause) => self.in_doubt(commit, bytes, &cause),
        }
    }

    fn publish(&mut self, commit: &mut Commit, head_bytes: Vec<u8>) {
        self.head = commit.head;
        self.head_bytes = head_bytes;
        self.sealed = self.head.public.sealed_values;
        self.shared.publish(|p| {
            commit.overlay.publish(&mut p.index);
            p.head = commit.head.public;
            if let Some(keys) = commit.keys.take() {
                p.keys = keys;
            }
        });
        let mut pending = lock(&self.shared.pending_boot);
        if *pending == Some(self.head.public.boot) {
            *pending = None;
        }
        drop(pending);
        for (id, leaf) in &commit.overlay.leaves {
            if leaf.is_none() {
                self.shared.forget(id);
            }
        }
        for (id, tag, bytes) in commit.overlay.written.drain(..) {
            self.shared.keep(id, tag, bytes.into());
        }
    }

    /// COMMIT failed. Whether it took place is read from a reopened file; nobody is told yes on the strength of that.
    fn in_doubt(&mut self, mut commit: Commit, attempted: Vec<u8>, cause: &BackendError) {
        tracing::error!(%cause, "a commit failed; the store is reopened");
        self.backend.rollback();
        let found = self.backend.reopen().and_then(|()| self.backend.record(Record::Head, HEAD_BYTES));
        match found {
            Ok(Some(found)) if found == self.head_bytes => {
                answer(commit.staged, |_| Err(unknown(cause)));
            }
            Ok(Some(found)) if found == attempted => {
                let staged = std::mem::take(&mut commit.staged);
                self.publish(&mut commit, attempted);
                answer(staged, |_| Err(unknown(cause)));
            }
            other => {
                tracing::error!(found = other.is_ok(), "the store cannot go on after a failed commit; it is sealed");
                self.shared.seal();
                answer(commit.staged, |_| Err(unknown(cause)));
            }
        }
    }
}

/// A transaction on its way.
struct Commit {
    overlay: Overlay,
    head: HeadRecord,
    /// A new keyring's keys, if one is staged.
    keys: Option<Arc<Keys>>,
    staged: Vec<Staged>,
    /// How many values had been encrypted before it.
    begun_at: u64,
    space: Space,
}

/// Who waits for a commit.
struct Staged {
    /// Of his write.
    sequence: u64,
    reply: Reply,
    /// His batch again, where it only takes away.
    removal: Option<HiddenBatch>,
}

struct Unstaged {
    error: CommitError,
    /// Whether the transaction goes on without this write.
    open: bool,
}

impl From<crate::backend::StageError> for Unstaged {
    fn from(failed: crate::backend::StageError) -> Self {
        Self { error: refusal(failed.cause), open: failed.open }
    }
}

/// A write that the backend refused before its COMMIT: nothing was changed.
fn refusal(error: BackendError) -> CommitError {
    match error {
        BackendError::Full => CommitError::DiskFull,
        BackendError::Damaged { what } => {
            tracing::error!(what, "the store's file is damaged");
            CommitError::Tampered { what: "the database file is damaged" }
        }
        BackendError::Disk(error) => CommitError::OutcomeUnknown(error),
    }
}

/// The same error for another who waited for the same commit.
fn again(error: &CommitError) -> CommitError {
    match error {
        CommitError::DiskFull => CommitError::DiskFull,
        CommitError::Tampered { what } => CommitError::Tampered { what },
        CommitError::Sealed => CommitError::Sealed,
        CommitError::KeyWornOut => CommitError::KeyWornOut,
        CommitError::Conflict => CommitError::Conflict,
        other => CommitError::OutcomeUnknown(io::Error::other(other.to_string())),
    }
}

fn unknown(cause: &BackendError) -> CommitError {
    CommitError::OutcomeUnknown(io::Error::other(cause.to_string()))
}

fn answer(staged: Vec<Staged>, mut with: impl FnMut(u64) -> Result<Committed, CommitError>) {
    for Staged { sequence, reply, .. } in staged {
        let _ = reply.send(with(sequence)); // nobody waits any more: the commit stands all the same
    }
}

/// Most batches in one COMMIT.
const MAX_GROUP: usize = 256;
/// Most bytes of values in one COMMIT, give or take one batch.
const MAX_GROUP_BYTES: usize = 8 * 1024 * 1024;
