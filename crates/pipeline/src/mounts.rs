//! The mount table: which engine answers below which path.
//!
//! One entry of the store holds the whole table, so that two requests cannot make mounts that overlap. A copy is kept
//! in memory and replaced after each commit that touches the entry. A mount's data lie under its UUID: a path that is
//! mounted anew never sees what an earlier mount there left behind.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use api::Uuid;
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use store::{Batch, Op, StorePath};

use crate::engine::Engine;
use crate::error::EngineError;
use crate::sink::MountRecord;
use crate::txn::{Ground, Txn};

/// A line of the mount table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountEntry {
    /// Where, with its slash: `secret/`, `auth/userpass/`.
    pub path: String,
    /// The engine: `kv`, `userpass` ...
    pub kind: String,
    /// `kv_7312e7eb`, `auth_userpass_26d8b498`: names the mount, whatever its path.
    pub accessor: String,
    /// Where its data lie.
    pub uuid: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Of the engine, as `version` of kv.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// Default time to live in seconds; zero for the system's.
    #[serde(default)]
    pub default_ttl: u64,
    /// Longest time to live in seconds; zero for the system's.
    #[serde(default)]
    pub max_ttl: u64,
}

impl MountEntry {
    /// Default time to live in seconds.
    pub fn default_ttl_seconds(&self) -> u64 {
        if self.default_ttl == 0 { SYSTEM_TTL_SECONDS } else { self.default_ttl }
    }

    /// Longest time to live in seconds.
    pub fn max_ttl_seconds(&self) -> u64 {
        if self.max_ttl == 0 { SYSTEM_TTL_SECONDS } else { self.max_ttl }
    }

    /// Whether it is below `auth/`.
    pub fn is_auth(&self) -> bool {
        self.path.starts_with(AUTH)
    }

    /// Whether the store cannot do without it, so that nobody may unmount it.
    pub fn is_fixed(&self) -> bool {
        FIXED.iter().any(|(path, _)| *path == self.path)
    }
}

/// A mount with the engine that answers there.
pub struct Mounted {
    entry: MountEntry,
    engine: Option<Arc<dyn Engine>>,
    base: StorePath,
}

impl Mounted {
    /// Its line in the table.
    pub fn entry(&self) -> &MountEntry {
        &self.entry
    }

    /// `None` for a mount whose engine this build does not have.
    pub(crate) fn engine(&self) -> Option<&Arc<dyn Engine>> {
        self.engine.as_ref()
    }

    pub(crate) fn base(&self) -> &StorePath {
        &self.base
    }

    pub(crate) fn record(&self) -> MountRecord<'_> {
        MountRecord { path: &self.entry.path, kind: &self.entry.kind, accessor: &self.entry.accessor }
    }
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mounted({} {})", self.entry.kind, self.entry.path)
    }
}

/// The table as of one moment.
#[derive(Debug, Default)]
pub struct MountTable(BTreeMap<String, Arc<Mounted>>);

impl MountTable {
    /// The mount whose path is the longest prefix of `path`, and the rest of `path` below it.
    pub fn route<'p>(&self, path: &'p str) -> Option<(&Arc<Mounted>, &'p str)> {
        // Mount paths end in a slash, so a prefix of `path` that is one ends at a slash of `path`; longest first.
        path.rmatch_indices('/').find_map(|(at, _)| {
            let (head, rest) = path.split_at(at + 1);
            self.0.get(head).map(|mounted| (mounted, rest))
        })
    }

    /// All mounts, by path.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Mounted>> {
        self.0.values()
    }

    /// The mount at exactly this path (with its slash).
    pub fn at(&self, path: &str) -> Option<&Arc<Mounted>> {
        self.0.get(path)
    }

    /// The mount with this accessor.
    pub fn with_accessor(&self, accessor: &str) -> Option<&Arc<Mounted>> {
        self.0.values().find(|m| m.entry.accessor == accessor)
    }
}

/// The mount table in memory and in the store.
pub struct Mounts {
    /// From the opening of the core to its end: engines have hold of what has hold of these.
    engines: RwLock<Option<Arc<ByKind>>>,
    table: RwLock<Arc<MountTable>>,
    generation: AtomicU64,
    reloading: tokio::sync::Mutex<()>,
}

type ByKind = BTreeMap<&'static str, Arc<dyn Engine>>;

/// A mount to be made.
#[derive(Clone, Debug, Default)]
pub struct NewMount {
    /// With its slash; below `auth/` for an auth mount.
    pub path: String,
    /// The engine.
    pub kind: String,
    /// For people.
    pub description: String,
    /// Of the engine.
    pub options: BTreeMap<String, String>,
    /// Default time to live in seconds; zero for the system's.
    pub default_ttl: u64,
    /// Longest time to live in seconds; zero for the system's.
    pub max_ttl: u64,
}

impl Mounts {
    pub(crate) fn new() -> Self {
        Self {
            engines: RwLock::default(),
            table: RwLock::default(),
            generation: AtomicU64::new(0),
            reloading: tokio::sync::Mutex::new(()),
        }
    }

    /// The table as of now.
    pub fn table(&self) -> Arc<MountTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is a mount with this accessor.
    pub(crate) fn has(&self, accessor: &str) -> bool {
        self.table().with_accessor(accessor).is_some()
    }

    /// Whether this build has an engine of that kind.
    pub fn knows(&self, kind: &str) -> bool {
        self.engines().is_some_and(|e| e.contains_key(kind))
    }

    /// Adds a mount, when the request commits.
    ///
    /// # Errors
    /// 400 for a path that is taken or reserved, or an engine that is not there.
    pub async fn add(&self, new: NewMount, txn: &mut Txn) -> Result<MountEntry, EngineError> {
        let mut entries = read(txn).await?;
        let NewMount { path, kind, description, options, default_ttl, max_ttl } = new;
        let auth = path.strip_prefix(AUTH);
        let shown = auth.unwrap_or(&path);
        if auth.is_some() && kind == "token" {
            return Err(EngineError::bad_request("token credential backend cannot be instantiated"));
        }
        if FIXED.iter().any(|(_, fixed)| *fixed == kind) {
            return Err(EngineError::bad_request(format!("mount type of \"{kind}\" is not mountable"))
                .recorded_as("the type is not mountable"));
        }
        if !self.knows(&kind) || AUTH_KINDS.contains(&&*kind) != auth.is_some() {
            return Err(EngineError::bad_request(format!("plugin not found in the catalog: {kind}"))
                .recorded_as("there is no such type of mount"));
        }
        let reserved = shown.is_empty()
            || !shown.ends_with('/')
            || path.len() > MAX_MOUNT_BYTES
            || RESERVED.iter().any(|r| path.starts_with(r)) && auth.is_none()
            || path == AUTH;
        if reserved {
            return Err(EngineError::bad_request(format!("cannot mount \"{shown}\"")));
        }
        if let Some(other) = entries.iter().find(|e| e.path.starts_with(&path) || path.starts_with(&e.path)) {
            let other = other.path.strip_prefix(AUTH).unwrap_or(&other.path);
            return Err(EngineError::bad_request(format!("path is already in use at {other}"))
                .recorded_as("the path is already in use"));
        }
        if entries.len() >= MAX_MOUNTS {
            return Err(EngineError::bad_request(format!("there are {MAX_MOUNTS} mounts already")));
        }
        let entry = fresh(&path, &kind, |out| txn.fill(out));
        let entry = MountEntry { description, options, default_ttl, max_ttl, ..entry };
        entries.push(entry.clone());
        write(&entries, txn);
        Ok(entry)
    }

    /// Changes the line of a mount, when the request commits; `false` if there is none at `path`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn tune(
        &self,
        path: &str,
        change: impl FnOnce(&mut MountEntry),
        txn: &mut Txn,
    ) -> Result<bool, EngineError> {
        let mut entries = read(txn).await?;
        let Some(entry) = entries.iter_mut().find(|e| e.path == path) else { return Ok(false) };
        change(entry);
        write(&entries, txn);
        Ok(true)
    }

    /// Removes a mount, when the request commits; its data are unreachable at once and swept later. Nothing happens
    /// where none is.
    ///
    /// # Errors
    /// 400 for a mount that the store cannot do without.
    pub async fn remove(&self, path: &str, txn: &mut Txn) -> Result<(), EngineError> {
        if path == TOKENS {
            return Err(EngineError::bad_request("token credential backend cannot be disabled"));
        }
        if FIXED.iter().any(|(fixed, _)| *fixed == path) {
            return Err(EngineError::bad_request(format!("cannot unmount \"{path}\"")));
        }
        let mut entries = read(txn).await?;
        let Some(at) = entries.iter().position(|e| e.path == path) else { return Ok(()) };
        let gone = entries.remove(at);
        // In the same commit, so that data without a mount are always on the list of what is to be swept.
        txn.put_at(doomed().child(gone.uuid)?, SecretBytes::new(b"1".to_vec()));
        write(&entries, txn);
        Ok(())
    }

    pub(crate) fn base_of(&self, path: &str) -> Option<StorePath> {
        self.table().at(path).map(|m| m.base.clone())
    }

    /// Counts the commits that touched the table.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whether a touched path is the table.
    pub(crate) fn owns(path: &StorePath) -> bool {
        *path == place()
    }

    /// Takes the engines, makes the mounts that the store cannot do without, and reads the table.
    pub(crate) async fn open(&self, engines: Vec<Arc<dyn Engine>>, ground: &Arc<Ground>) -> Result<(), EngineError> {
        let by_kind = engines.into_iter().map(|e| (e.kind(), e)).collect();
        if self.engines.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(by_kind)).is_some() {
            return Err(EngineError::internal("the core was opened twice"));
        }
        let mut txn = Txn::new(ground, root());
        let mut entries = read(&mut txn).await?;
        let missing: Vec<_> = FIXED.iter().filter(|(path, _)| entries.iter().all(|e| e.path != *path)).collect();
        if !missing.is_empty() {
            entries.extend(missing.iter().map(|(path, kind)| fresh(path, kind, |out| txn.fill(out))));
            write(&entries, &mut txn);
            ground.store.commit(txn.into_batch()).await?;
        }
        self.reload(ground).await
    }

    /// Lets the engines go, and with them all that hangs on a store which is sealed.
    pub(crate) fn close(&self) {
        *self.engines.write().unwrap_or_else(PoisonError::into_inner) = None;
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(MountTable(BTreeMap::new()));
    }

    fn engines(&self) -> Option<Arc<ByKind>> {
        self.engines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the table anew, after a commit that touched it. One at a time, so that an older table never replaces a
    /// newer.
    pub(crate) async fn reload(&self, ground: &Arc<Ground>) -> Result<(), EngineError> {
        let _one_at_a_time = self.reloading.lock().await;
        let entries = read(&mut Txn::new(ground, root())).await?;
        let engines = self.engines();
        let mut table = BTreeMap::new();
        for entry in entries {
            let engine = engines.as_ref().and_then(|e| e.get(entry.kind.as_str())).cloned();
            let base = StorePath::new(["mnt", entry.uuid.as_str()])?;
            table.insert(entry.path.clone(), Arc::new(Mounted { entry, engine, base }));
        }
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(MountTable(table));
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Removes some of the data of mounts that are gone.
    pub(crate) async fn upkeep(&self, ground: &Arc<Ground>) -> Result<(), EngineError> {
        for uuid in ground.store.list(&doomed()).await?.into_iter().take(1) {
            let mut batch = Batch::default();
            let base = StorePath::new(["mnt", uuid.as_str()])?;
            let mut dirs = vec![base];
            while let Some(dir) = dirs.pop() {
                for name in ground.store.list(&dir).await? {
                    match name.strip_suffix('/') {
                        Some(folder) => dirs.push(dir.child(folder)?),
                        None => batch.ops.push(Op::Delete(dir.child(name)?)),
                    }
                }
                if batch.ops.len() >= SWEPT_AT_ONCE {
                    batch.ops.truncate(SWEPT_AT_ONCE);
                    break;
                }
            }
            // Its name leaves the list only when nothing of it is left.
            if batch.ops.is_empty() {
                batch.ops.push(Op::Delete(doomed().child(uuid)?));
            }
            ground.store.commit(batch).await?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Mounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.table().fmt(f)
    }
}

fn fresh(path: &str, kind: &str, fill: impl Fn(&mut [u8])) -> MountEntry {
    let (mut accessor, mut uuid) = ([0; 4], [0; 16]);
    fill(&mut accessor);
    fill(&mut uuid);
    let auth = if path.starts_with(AUTH) { "auth_" } else { "" };
    MountEntry {
        path: path.to_owned(),
        kind: kind.to_owned(),
        accessor: format!("{auth}{kind}_{}", hex::encode(accessor)),
        uuid: Uuid::from_random(uuid).to_string(),
        description: String::new(),
        options: BTreeMap::new(),
        default_ttl: 0,
        max_ttl: 0,
    }
}

async fn read(txn: &mut Txn) -> Result<Vec<MountEntry>, EngineError> {
    match txn.get_at(&place()).await? {
        None => Ok(Vec::new()),
        Some(bytes) => serde_json::from_slice(bytes.expose())
            .map_err(|e| EngineError::internal(format!("the mount table cannot be read: {e}"))),
    }
}

fn write(entries: &[MountEntry], txn: &mut Txn) {
    let bytes = serde_json::to_vec(entries).expect("a table of strings and numbers is JSON");
    txn.put_at(place(), SecretBytes::new(bytes));
}

fn root() -> StorePath {
    StorePath::new::<String>([]).expect("the root directory is a path")
}

fn place() -> StorePath {
    StorePath::new(["sys", "mounts"]).expect("a constant path is sound")
}

fn doomed() -> StorePath {
    StorePath::new(["sys", "doomed"]).expect("a constant path is sound")
}

const AUTH: &str = "auth/";
/// The mount of the entities.
pub(crate) const IDENTITY: &str = "identity/";
/// The mount of the tokens.
pub(crate) const TOKENS: &str = "auth/token/";
/// What a store always has, by path and kind.
const FIXED: [(&str, &str); 4] =
    [("sys/", "system"), (IDENTITY, "identity"), ("cubbyhole/", "cubbyhole"), (TOKENS, "token")];
/// Where no secrets engine may be.
const RESERVED: [&str; 4] = ["sys/", IDENTITY, "cubbyhole/", AUTH];
/// Kinds that let callers in; all others keep secrets.
const AUTH_KINDS: [&str; 5] = ["userpass", "approle", "cert", "jwt", "kubernetes"];
/// 32 days, as Vault's.
const SYSTEM_TTL_SECONDS: u64 = 2_764_800;
const MAX_MOUNT_BYTES: usize = 256;
/// The table is one entry of at most 1 MiB, and every change writes all of it.
const MAX_MOUNTS: usize = 256;
const SWEPT_AT_ONCE: usize = 256;
