//! The store's face: what callers may ask of an unsealed store.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;

use secret::crypto::sha256;
use secret::{DataKey, RootKey, Secret};
use tokio::sync::oneshot;

use crate::batch::{Batch, CommitError, Committed, Cond, Entry, Op, ReadError};
use crate::entry::MAX_VALUE_BYTES;
use crate::head::{BootEpoch, Head, SlotSet};
use crate::index::Leaf;
use crate::keyring::{Keyring, Keys, MAX_TERMS};
use crate::lock::{Locked, lock};
use crate::names::HiddenName;
use crate::open::{CreateError, NewStore, OpenError, Opened, StoreConfig, create, open};
use crate::plan::{HiddenBatch, HiddenOp};
use crate::readers::{Job, NoRoom, Readers};
use crate::shared::{Shared, entry_in, list_in};
use crate::writer::{KeyringChange, Request, Write, rows_wanted, unreadable};
use crate::{StorePath, StoreTime};

/// An unsealed store. Cheap to clone; all clones are one store. When the last is dropped, its file is closed.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    requests: Mutex<Option<SyncSender<Request>>>,
    readers: RwLock<Option<Readers>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Bytes of values in batches that wait for their commit.
    waiting_bytes: AtomicUsize,
}

impl Store {
    /// Makes a new store at `config.path`, where nothing may be. `store.db` alone is complete on return, and its name
    /// durable in its directory; that directory's own name is the caller's.
    ///
    /// # Errors
    /// [`CreateError`]; then nothing is left behind, as far as the disk allows.
    pub fn create(config: &StoreConfig, root: &RootKey, new: &NewStore) -> Result<Self, CreateError> {
        Self::run(create(config, root, new)?).map_err(CreateError::Disk)
    }

    /// Opens the store `store_id` (as the slots name it) and proves every name in it, present or absent, against its
    /// head.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is changed.
    pub fn open(config: &StoreConfig, root: &RootKey, store_id: [u8; 16]) -> Result<Self, OpenError> {
        Self::run(open(config, root, &store_id)?).map_err(OpenError::Disk)
    }

    /// The entry at `path`, proven fresh (or proven absent) against the authenticated root before it is returned.
    ///
    /// # Errors
    /// [`ReadError`]; a tampered entry is an error, never an absence.
    pub async fn get(&self, path: &StorePath) -> Result<Option<Entry>, ReadError> {
        let shared = &self.inner.shared;
        let keys = shared.keys().ok_or(ReadError::Sealed)?;
        let Some(hidden) = keys.hidden(path) else { return Ok(None) };
        let name = &hidden.entry;
        let id = name.id();
        // Both of one moment: a change of the root key between would leave a value that the older keys do not open.
        let (keys, leaf) = shared.look(|p| (Arc::clone(&p.keys), p.index.leaf(&id))).ok_or(ReadError::Sealed)?;
        let Some(leaf) = leaf else { return Ok(None) };
        if let Some(bytes) = shared.cached(&id, &leaf.tag) {
            return Ok(Some(entry_in(&keys, name, &leaf, Some(&bytes))?));
        }
        match self.get_cold(&keys, name, leaf).await? {
            Some(entry) => Ok(Some(entry)),
            None => self.ask(|reply| Request::Read(name.clone(), reply)).await?,
        }
    }

    /// Names directly below `dir`, sorted; a name that has names below it ends in `/` (and may stand there twice, as
    /// `b` and `b/`). Proven complete.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn list(&self, dir: &StorePath) -> Result<Vec<String>, ReadError> {
        let shared = &self.inner.shared;
        let keys = shared.keys().ok_or(ReadError::Sealed)?;
        let id = keys.names().dir_id(dir);
        let expected = shared.look(|p| p.index.children(&id)).ok_or(ReadError::Sealed)?;
        if expected == 0 {
            return Ok(Vec::new());
        }
        let (reply, rows) = oneshot::channel();
        let asked = self.read(Job::Names(id, rows_wanted(expected), reply))?;
        if asked && let Ok(rows) = rows.await {
            let rows = rows.map_err(unreadable)?;
            if let Ok(names) = shared.look(|p| list_in(p, &id, &rows)).ok_or(ReadError::Sealed)? {
                return Ok(names);
            }
        }
        // No readers, or a commit came between: the writer answers between commits.
        self.ask(|reply| Request::List(id, reply)).await?
    }

    /// Makes all operations of `batch` durable, or none of them. On `Ok` they survive a power cut. One path named twice
    /// is written once: the last operation decides.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when a condition does not hold; [`CommitError::OutcomeUnknown`] when the disk failed.
    pub async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        let keys = self.inner.shared.keys().ok_or(CommitError::Sealed)?;
        let hidden = hide(&keys, batch)?;
        let _waiting = Waiting::enter(&self.inner.waiting_bytes, hidden.value_bytes)?;
        self.write(Write::Batch(hidden)).await
    }

    /// The store's own time now: monotone, unaffected by steps of the wall clock (docs/formats.md, Time).
    pub fn now(&self) -> StoreTime {
        self.inner.shared.timeline.now(&*self.inner.shared.clock)
    }

    /// HMAC-SHA-256 under a key of the keyring that is made for `purpose`, for values that are kept only as codes
    /// (tokens, generated passwords). Once the store is closed the codes are random, so that they match nothing.
    pub fn mac(&self, purpose: &'static str, parts: &[&[u8]]) -> [u8; 32] {
        match self.inner.shared.keys() {
            Some(keys) => keys.mac(purpose).sign(parts),
            None => {
                let mut nothing = [0; 32];
                self.inner.shared.entropy.fill(&mut nothing);
                nothing
            }
        }
    }

    /// The head as last committed.
    ///
    /// # Errors
    /// [`ReadError::Sealed`].
    pub fn head(&self) -> Result<Head, ReadError> {
        self.inner.shared.look(|p| p.head).ok_or(ReadError::Sealed)
    }

    /// The key under which the audit log is chained and its values are hashed.
    ///
    /// # Errors
    /// [`ReadError::Sealed`].
    pub fn audit_key(&self) -> Result<DataKey, ReadError> {
        self.own_key(Keys::audit)
    }

    /// Records which slot set the store is bound to, in a commit of its own.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn set_slot_set(&self, slots: SlotSet) -> Result<Committed, CommitError> {
        self.write(Write::Slots(slots)).await
    }

    /// The boot epoch that now runs: the recorded one if the kernel's boot id is still the same, otherwise the next,
    /// which the next commit will record. Writes nothing itself.
    ///
    /// # Errors
    /// [`ReadError::Sealed`].
    pub fn begin_boot(&self) -> Result<BootEpoch, ReadError> {
        let shared = &self.inner.shared;
        let recorded = self.head()?.boot;
        let boot_id = shared.clock.boot_id();
        if recorded.boot_id == boot_id {
            return Ok(recorded);
        }
        let next = BootEpoch { boot_id, count: recorded.count.saturating_add(1) };
        *lock(&shared.pending_boot) = Some(next);
        Ok(next)
    }

    /// Adds a data key: all that is written from now on is under it. Old entries stay readable.
    ///
    /// # Errors
    /// [`RotateError`]; then no key was added, unless the outcome is unknown.
    pub async fn rotate(&self, root: &RootKey) -> Result<Committed, RotateError> {
        self.rotate_to(root, root, None, Batch::default()).await
    }

    /// Puts `new` in the place of the root key `old`, records the slot set that has `new`, and carries `with` out: all
    /// in one commit, so that the store opens by the one or by the other. Every value is encrypted anew under a new data
    /// key, and the head has another key: whoever had `old` and an older copy reads the names of this store (their key
    /// stays) and no value, and nothing that he writes is believed. The time that it takes, and the room on the disk,
    /// are those of the whole store.
    ///
    /// # Errors
    /// [`RotateError`]; then `old` is the root key, unless the outcome is unknown.
    pub async fn change_root(
        &self,
        old: &RootKey,
        new: &RootKey,
        slots: SlotSet,
        with: Batch,
    ) -> Result<Committed, RotateError> {
        self.rotate_to(old, new, Some(slots), with).await
    }

    async fn rotate_to(
        &self,
        old: &RootKey,
        new: &RootKey,
        slots: Option<SlotSet>,
        with: Batch,
    ) -> Result<Committed, RotateError> {
        let shared = &self.inner.shared;
        let keys = shared.keys().ok_or(ReadError::Sealed)?;
        let record = self.ask(Request::Keyring).await??;
        let mut keyring = Keyring::unwrap(&record, old, keys.store_id()).map_err(|_| RotateError::WrongRoot)?;
        if slots.is_some() && host::in_force("keyring-made-anew") {
            keyring = keyring.anew(&*shared.entropy).ok_or(RotateError::Exhausted)?;
        } else {
            keyring.add_term(&*shared.entropy).ok_or(RotateError::Exhausted)?;
        }
        let changed = keyring.wrap(new, keys.store_id(), &*shared.entropy);
        let keys = Arc::new(keyring.keys(*keys.store_id()));
        let with = hide(&keys, with)?;
        let _waiting = Waiting::enter(&self.inner.waiting_bytes, with.value_bytes)?;
        let change = KeyringChange { replaces: sha256(&[&record]), record: changed, keys, slots, with };
        Ok(self.write(Write::Keyring(Box::new(change))).await?)
    }

    /// Adds a data key if the newest has encrypted [`KeyWear::replace`] values. Says whether it did.
    ///
    /// # Errors
    /// [`RotateError`], as [`rotate`](Self::rotate).
    pub async fn rotate_if_worn(&self, root: &RootKey) -> Result<bool, RotateError> {
        if self.head()?.sealed_values < self.inner.shared.wear.replace {
            return Ok(false);
        }
        self.rotate(root).await.map(|_| true)
    }

    /// Seals the store: keys, index and cache are gone for all clones on return, and `store.db` alone is complete.
    /// Blocks until the last commit is done.
    pub fn close(&self) {
        self.inner.close();
    }

    fn run(opened: Opened) -> std::io::Result<Self> {
        let Opened { shared, writer, readers } = opened;
        let (requests, queue) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("store-write".into()).spawn(move || writer.run(&queue))?;
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                requests: Mutex::new(Some(requests)),
                readers: RwLock::new(readers),
                thread: Mutex::new(Some(thread)),
                waiting_bytes: AtomicUsize::new(0),
            }),
        })
    }

    /// Reads with one of the readers; `None` when the writer has to answer.
    async fn get_cold(&self, keys: &Keys, name: &HiddenName, leaf: Leaf) -> Result<Option<Entry>, ReadError> {
        let (reply, bytes) = oneshot::channel();
        if !self.read(Job::Value(leaf.row, reply))? {
            return Ok(None);
        }
        let Ok(bytes) = bytes.await else { return Ok(None) };
        let bytes = bytes.map_err(unreadable)?;
        // What does not fit may be a commit that is durable but not yet published: only the writer can tell it from
        // tampering.
        let Ok(entry) = entry_in(keys, name, &leaf, bytes.as_deref()) else { return Ok(None) };
        if let Some(bytes) = bytes {
            self.inner.shared.keep(name.id(), leaf.tag, bytes.into());
        }
        Ok(Some(entry))
    }

    /// Hands a job to the readers; `false` when there are none.
    fn read(&self, job: Job) -> Result<bool, ReadError> {
        match self.inner.readers.reading().as_ref().map(|readers| readers.ask(job)) {
            Some(Ok(())) => Ok(true),
            Some(Err(NoRoom::Full)) => Err(ReadError::Busy),
            Some(Err(NoRoom::Ended)) | None => Ok(false),
        }
    }

    async fn write(&self, write: Write) -> Result<Committed, CommitError> {
        // The writer answers every request it has taken; a channel that closes without an answer is a panic between.
        let lost = || CommitError::OutcomeUnknown(std::io::Error::other("the writer ended"));
        let (reply, answer) = oneshot::channel();
        self.send(Request::Write(write, reply), CommitError::Busy, CommitError::Sealed)?;
        answer.await.map_err(|_| lost())?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, ReadError> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply), ReadError::Busy, ReadError::Sealed)?;
        answer.await.map_err(|_| ReadError::Sealed)
    }

    fn send<E>(&self, request: Request, busy: E, sealed: E) -> Result<(), E> {
        match lock(&self.inner.requests).as_ref().map(|requests| requests.try_send(request)) {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_))) => Err(busy),
            Some(Err(TrySendError::Disconnected(_))) | None => Err(sealed),
        }
    }

    fn own_key(&self, of: fn(&Keys) -> &Secret<32>) -> Result<DataKey, ReadError> {
        let keys = self.inner.shared.keys().ok_or(ReadError::Sealed)?;
        Ok(DataKey::new(Secret::init_with(|out| out.copy_from_slice(of(&keys).expose()))))
    }
}

impl Inner {
    fn close(&self) {
        // Readers first: a checkpoint waits for their transactions.
        *self.readers.writing() = None;
        if let Some(requests) = lock(&self.requests).take() {
            // All writes that were accepted stand before this in the queue, and are done first.
            let _ = requests.send(Request::Close);
        }
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join(); // the writer catches its own panics
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// A batch's share of the bytes that may wait; given back when it is answered, or nobody waits for the answer any more.
struct Waiting<'a> {
    all: &'a AtomicUsize,
    bytes: usize,
}

impl<'a> Waiting<'a> {
    fn enter(all: &'a AtomicUsize, bytes: usize) -> Result<Self, CommitError> {
        let entered = Self { all, bytes };
        let before = all.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > MAX_WAITING_BYTES { Err(CommitError::Busy) } else { Ok(entered) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Why no data key was added.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The root key is not this store's.
    #[error("the root key does not open the store's keyring")]
    WrongRoot,
    /// The keyring is full.
    #[error("the keyring holds {MAX_TERMS} data keys already")]
    Exhausted,
    /// The keyring cannot be read.
    #[error("the keyring cannot be read")]
    Read(#[from] ReadError),
    /// The new keyring is not durable.
    #[error("the keyring cannot be written")]
    Commit(#[from] CommitError),
}

/// Hides the names of a batch and holds it to its bounds.
fn hide(keys: &Keys, batch: Batch) -> Result<HiddenBatch, CommitError> {
    let Batch { conds, ops } = batch;
    if ops.len() + conds.len() > MAX_OPS {
        return Err(CommitError::TooLarge);
    }
    let mut hidden = HiddenBatch { absent: Vec::new(), versions: Vec::new(), ops: Vec::new(), value_bytes: 0 };
    for cond in conds {
        match cond {
            Cond::Absent(path) => hidden.absent.extend(keys.hidden(&path).map(|h| h.entry.id())),
            Cond::VersionIs(path, version) => {
                let found = keys.hidden(&path).ok_or(CommitError::Conflict)?; // the root holds no entry
                hidden.versions.push((found.entry.id(), version));
            }
        }
    }
    for op in ops {
        let (path, value) = match op {
            Op::Put(path, value) => (path, Some(value)),
            Op::Delete(path) => (path, None),
        };
        let length = value.as_ref().map_or(0, |v| v.len());
        hidden.value_bytes += length;
        if length > MAX_VALUE_BYTES || hidden.value_bytes > MAX_BATCH_BYTES {
            return Err(CommitError::TooLarge);
        }
        match (keys.hidden(&path), &value) {
            (Some(path), _) => hidden.ops.push(HiddenOp { path, value }),
            (None, Some(_)) => return Err(CommitError::TooLarge), // the root has no place for a value
            (None, None) => {}
        }
    }
    Ok(hidden)
}

/// Most conditions and operations in one batch.
const MAX_OPS: usize = 1024;
/// Most bytes of values in one batch.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes of values in all batches that wait: 16 MiB of the device's memory, whatever clients do.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Most requests that wait for the writer.
const QUEUE: usize = 512;
