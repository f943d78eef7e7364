//! Making a store, and opening one with proof that it is whole.
//!
//! ```text
//! open:  lock -> schema -> keyring under the root key -> head under the keyring -> every name summed against the head
//! ```
//! Each step trusts only what the one before has authenticated. Values are not read: each is proven when it is asked
//! for.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{Clock, Disk, Entropy, FileKind, WallTime};
use secret::RootKey;
use secret::crypto::sha256;

use crate::backend::{Backend, BackendError, NameRow, Reader, Record};
use crate::head::{BootEpoch, HEAD_BYTES, Head, HeadRecord, Profile, SlotSet};
use crate::index::{Index, Scan};
use crate::keyring::{self, Keyring, KeyringError, Keys};
use crate::readers::Readers;
use crate::reserve::Reserve;
use crate::root::Root;
use crate::shared::{Published, Shared};
use crate::sqlite::{Location, Sqlite, leftovers};
use crate::time::Timeline;
use crate::wear::KeyWear;
use crate::writer::Writer;

/// Where a store is and what it may use.
#[derive(Clone)]
pub struct StoreConfig {
    /// `store.db`; `store.lock` is made beside it.
    pub path: PathBuf,
    /// Time within a boot, and the wall clock as a hint.
    pub clock: Arc<dyn Clock>,
    /// Random bytes for keys and nonces.
    pub entropy: Arc<dyn Entropy>,
    /// The disk that `path` is on.
    pub disk: Arc<dyn Disk>,
    /// An SQLite VFS by name, for tests that cut the power; `None` is the machine's own. With one, all reads go through
    /// the writer's connection.
    pub vfs: Option<String>,
    /// Most bytes of sealed values kept in memory.
    pub cache_bytes: usize,
    /// Threads that read what the cache does not hold; with 0 the writer reads.
    pub readers: usize,
    /// When the program was built: no store time is earlier.
    pub build_date: WallTime,
    /// How long a data key lasts.
    pub wear: KeyWear,
}

impl StoreConfig {
    /// The defaults: 8 MiB of cache, two readers.
    pub fn new(
        path: impl Into<PathBuf>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        build_date: WallTime,
    ) -> Self {
        Self {
            path: path.into(),
            clock,
            entropy,
            disk,
            vfs: None,
            cache_bytes: 8 << 20,
            readers: 2,
            build_date,
            wear: KeyWear::default(),
        }
    }
}

impl std::fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What is fixed, or first known, when a store is made.
#[derive(Clone, Copy, Debug)]
pub struct NewStore {
    /// Random; in every slot's header and in all that the store authenticates.
    pub store_id: [u8; 16],
    /// Production or demo, for good.
    pub profile: Profile,
    /// The slot set that wraps the root key.
    pub slots: SlotSet,
}

/// Why no store was made. What was begun is removed, unless that failed too.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Something is there already; nothing was changed.
    #[error("{path} exists already")]
    Exists {
        /// What is in the way.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// No space left.
    #[error("the disk is full")]
    DiskFull,
    /// The disk failed.
    #[error("the store cannot be made")]
    Disk(#[source] io::Error),
}

/// Why a store is not opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No database, or something that is no regular file.
    #[error("there is no store at {path}")]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// The database of another store.
    #[error("the database is that of store {found}, the slots are those of store {expected}")]
    Foreign {
        /// Store id in hexadecimal, as the database says.
        found: String,
        /// Store id in hexadecimal, as the slots say.
        expected: String,
    },
    /// The root key does not open the keyring: it is another, or the keyring was changed.
    #[error("the root key does not open the store's keyring")]
    WrongRoot,
    /// The database is not what the last commit left.
    #[error("the store was changed from outside: {what}")]
    Tampered {
        /// Which rule is broken.
        what: &'static str,
    },
    /// Not a readable edgekeep database.
    #[error("the database is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// The disk failed, or is full.
    #[error("the store cannot be opened")]
    Disk(#[source] io::Error),
}

/// An opened store before its threads run.
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) readers: Option<Readers>,
}

/// Makes the file and what it must hold. Durable on return, but for the name of the directory that it is in.
pub(crate) fn create(config: &StoreConfig, root: &RootKey, new: &NewStore) -> Result<Opened, CreateError> {
    let process_lock = lock_process(config).map_err(|e| match e {
        LockError::Held => CreateError::Locked { path: config.path.clone() },
        LockError::Disk(error) => CreateError::Disk(error),
    })?;
    // A WAL or journal that an earlier store left would be replayed into this one.
    for path in std::iter::once(config.path.clone()).chain(leftovers(&config.path)) {
        if config.disk.meta(&path).map_err(CreateError::Disk)?.is_some() {
            return Err(CreateError::Exists { path });
        }
    }
    create_in(config, root, new, process_lock).map_err(|error| {
        for path in std::iter::once(config.path.clone()).chain(leftovers(&config.path)) {
            let _ = config.disk.remove_file(&path);
        }
        match error {
            BackendError::Full => CreateError::DiskFull,
            BackendError::Disk(error) => CreateError::Disk(error),
            BackendError::Damaged { what } => CreateError::Disk(io::Error::other(what)),
        }
    })
}

fn create_in(
    config: &StoreConfig,
    root: &RootKey,
    new: &NewStore,
    process_lock: Box<dyn Send>,
) -> Result<Opened, BackendError> {
    let StoreConfig { clock, entropy, disk, .. } = config;
    let keyring = Keyring::generate(&**entropy);
    let record = keyring.wrap(root, &new.store_id, &**entropy);
    let keys = keyring.keys(new.store_id);
    let timeline = Timeline::start(None, config.build_date, &**clock);
    let head = HeadRecord {
        public: Head {
            sequence: 0,
            boot: BootEpoch { boot_id: clock.boot_id(), count: 1 },
            store_epoch: 1,
            profile: new.profile,
            slots: new.slots,
            sealed_values: 0,
        },
        time: timeline.record(&**clock),
        keyring_digest: sha256(&[&record]),
        rows: 0,
        root: Root::default(),
    };
    let head_bytes = head.seal(&keys, &**entropy);
    // An empty file of our own making first: SQLite would give it the umask's mode.
    disk.write_new(&config.path, &[], 0o600, None).map_err(BackendError::Disk)?;
    let backend = Sqlite::create(location(config), &[(Record::Keyring, &record), (Record::Head, &head_bytes)])?;
    // SQLite has synced the file; its name is durable only now. A cut before this line leaves no store, or this one.
    disk.sync_dir(parent(&config.path)).map_err(BackendError::Disk)?;
    let published = Published { keys: Arc::new(keys), index: Default::default(), head: head.public };
    // Without a reserve: what is made is closed and opened where it will be.
    start(config, backend, timeline, published, head, head_bytes, None, process_lock)
}

/// Opens and proves what is there.
pub(crate) fn open(config: &StoreConfig, root: &RootKey, store_id: &[u8; 16]) -> Result<Opened, OpenError> {
    match config.disk.meta(&config.path).map_err(OpenError::Disk)? {
        Some(meta) if meta.kind == FileKind::File && meta.len > 0 => {}
        _ => return Err(OpenError::Missing { path: config.path.clone() }),
    }
    let process_lock = lock_process(config).map_err(|e| match e {
        LockError::Held => OpenError::Locked { path: config.path.clone() },
        LockError::Disk(error) => OpenError::Disk(error),
    })?;
    // In WAL mode nothing of ours leaves a rollback journal, and SQLite would obey one: it can name any file to be
    // deleted (its "super-journal"). Looked at under the lock, before SQLite sees the directory.
    let [.., journal] = leftovers(&config.path);
    if config.disk.meta(&journal).map_err(OpenError::Disk)?.is_some() && host::in_force("journal-refused") {
        return Err(OpenError::Corrupt { what: format!("{} does not belong there", journal.display()) });
    }
    let (mut backend, record) = match first_look(config) {
        // SQLite makes two files beside the database to begin with. On a full disk the reserve has room for them.
        Err(BackendError::Full) if Reserve::release(&*config.disk, &config.path) => first_look(config),
        looked => looked,
    }
    .map_err(unopened)?;
    let record = record.ok_or_else(|| OpenError::Corrupt { what: "it holds no keyring".into() })?;
    let keys = Keyring::unwrap(&record, root, store_id)
        .map_err(|error| match error {
            KeyringError::Foreign { found } => OpenError::Foreign { found: hex(&found), expected: hex(store_id) },
            KeyringError::WrongRoot => OpenError::WrongRoot,
            KeyringError::Malformed => OpenError::Corrupt { what: "its keyring has an unknown format".into() },
        })?
        .keys(*store_id);
    let head_bytes = backend
        .record(Record::Head, HEAD_BYTES)
        .map_err(unopened)?
        .ok_or(OpenError::Tampered { what: "the head is gone" })?;
    let head = HeadRecord::open(&keys, &head_bytes)
        .ok_or(OpenError::Tampered { what: "the head fails its authentication" })?;
    // An older keyring put back would bring back the newest term of its day.
    if head.keyring_digest != sha256(&[&record]) {
        return Err(OpenError::Tampered { what: "the keyring is not the one that the head vouches for" });
    }
    let index = prove(&mut backend, &keys, &head)?;
    let timeline = Timeline::start(Some(head.time), config.build_date, &*config.clock);
    let published = Published { keys: Arc::new(keys), index, head: head.public };
    let reserve = Reserve::open(&config.disk, &config.path);
    start(config, backend, timeline, published, head, head_bytes, Some(reserve), process_lock).map_err(unopened)
}

fn first_look(config: &StoreConfig) -> Result<(Sqlite, Option<Vec<u8>>), BackendError> {
    let mut backend = Sqlite::open(location(config))?;
    let keyring = backend.record(Record::Keyring, keyring::MAX_BYTES)?;
    Ok((backend, keyring))
}

/// Proves all names of a backend against `head`.
fn prove(backend: &mut dyn Backend, keys: &Keys, head: &HeadRecord) -> Result<Index, OpenError> {
    let mut scan = Scan::default();
    backend.scan(&mut |row: NameRow| scan.take(keys.root(), &row)).map_err(unopened)?;
    Index::prove(scan, head).map_err(|what| OpenError::Tampered { what })
}

#[expect(clippy::too_many_arguments, reason = "what two ways of beginning hand over")]
fn start(
    config: &StoreConfig,
    backend: Sqlite,
    timeline: Timeline,
    published: Published,
    head: HeadRecord,
    head_bytes: Vec<u8>,
    reserve: Option<Reserve>,
    process_lock: Box<dyn Send>,
) -> Result<Opened, BackendError> {
    let readers = if config.vfs.is_some() || config.readers == 0 {
        None
    } else {
        let readers = (0..config.readers)
            .map(|_| backend.reader().map(|r| Box::new(r) as Box<dyn Reader>))
            .collect::<Result<_, _>>()?;
        Some(Readers::start(readers).map_err(BackendError::Disk)?)
    };
    let shared = Arc::new(Shared::new(
        Arc::clone(&config.clock),
        Arc::clone(&config.entropy),
        timeline,
        published,
        config.cache_bytes,
        config.wear,
    ));
    let writer = Writer::new(Arc::clone(&shared), Box::new(backend), head, head_bytes, reserve, process_lock);
    Ok(Opened { shared, writer, readers })
}

enum LockError {
    Held,
    Disk(io::Error),
}

/// A file of its own: closing any descriptor of the database itself would give up SQLite's locks on it (fcntl(2)).
fn lock_process(config: &StoreConfig) -> Result<Box<dyn Send>, LockError> {
    match config.disk.lock(&config.path.with_extension("lock")) {
        Ok(Some(held)) => Ok(held),
        Ok(None) => Err(LockError::Held),
        Err(error) => Err(LockError::Disk(error)),
    }
}

fn location(config: &StoreConfig) -> Location {
    Location { path: config.path.clone(), vfs: config.vfs.clone() }
}

fn unopened(error: BackendError) -> OpenError {
    match error {
        BackendError::Damaged { what } => OpenError::Corrupt { what },
        BackendError::Full => OpenError::Disk(io::ErrorKind::StorageFull.into()),
        BackendError::Disk(error) => OpenError::Disk(error),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}
