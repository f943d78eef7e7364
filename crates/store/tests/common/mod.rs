//! A store in a temporary directory, and the few words that tests say to it.

#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part of this

use std::path::PathBuf;
use std::sync::Arc;

use host::{OsDisk, WallTime};
use secret::{RootKey, Secret, SecretBytes};
use store::{Batch, CommitError, Committed, NewStore, Op, Profile, ReadError, SlotSet, Store, StoreConfig, StorePath};
use testkit::{FakeClock, SeededEntropy, block_on};

pub(crate) const STORE_ID: [u8; 16] = [7; 16];
pub(crate) const BUILT: WallTime = WallTime(1_700_000_000 * 1_000_000_000);

/// A directory with a store in it.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) config: StoreConfig,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = testkit::scratch_dir();
        let clock = Arc::new(FakeClock::at(1_750_000_000));
        let config = StoreConfig::new(
            dir.path().join("store.db"),
            Arc::new(OsDisk),
            Arc::clone(&clock) as Arc<dyn host::Clock>,
            Arc::new(SeededEntropy::new(1)),
            BUILT,
        );
        Self { dir, clock, config }
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.config.path.clone()
    }

    pub(crate) fn create(&self) -> Store {
        Store::create(&self.config, &root(1), &new_store()).unwrap()
    }

    pub(crate) fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    pub(crate) fn try_open(&self) -> Result<Store, store::OpenError> {
        Store::open(&self.config, &root(1), STORE_ID)
    }
}

pub(crate) fn new_store() -> NewStore {
    NewStore { store_id: STORE_ID, profile: Profile::Production, slots: SlotSet { generation: 1, digest: [5; 32] } }
}

pub(crate) fn root(fill: u8) -> RootKey {
    RootKey::new(Secret::init_with(|b| b.fill(fill)))
}

pub(crate) fn path(text: &str) -> StorePath {
    StorePath::new(text.split('/').filter(|c| !c.is_empty())).unwrap()
}

pub(crate) fn put_op(at: &str, value: &str) -> Op {
    Op::Put(path(at), SecretBytes::new(value.as_bytes().to_vec()))
}

pub(crate) fn commit(store: &Store, ops: Vec<Op>) -> Result<Committed, CommitError> {
    block_on(store.commit(Batch { conds: Vec::new(), ops }))
}

pub(crate) fn put(store: &Store, at: &str, value: &str) -> Committed {
    commit(store, vec![put_op(at, value)]).unwrap()
}

pub(crate) fn delete(store: &Store, at: &str) -> Committed {
    commit(store, vec![Op::Delete(path(at))]).unwrap()
}

pub(crate) fn try_get(store: &Store, at: &str) -> Result<Option<String>, ReadError> {
    let entry = block_on(store.get(&path(at)))?;
    Ok(entry.map(|e| String::from_utf8(e.value.expose().to_vec()).unwrap()))
}

pub(crate) fn get(store: &Store, at: &str) -> Option<String> {
    try_get(store, at).unwrap()
}

pub(crate) fn list(store: &Store, at: &str) -> Vec<String> {
    block_on(store.list(&path(at))).unwrap()
}
