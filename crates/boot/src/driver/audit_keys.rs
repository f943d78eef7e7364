//! The keys that the audit has had: kept under the barrier, to prove the segments that are still under them.
//!
//! ```text
//! boot/audit-keys    up to 64 times, rising: first generation that the key is not for u64, 0 while nobody knows | key 32
//! ```
//! The key of today is in the keyring, and comes anew with each root key; in that commit the one before it is noted here
//! as ending, not yet known when. Then the ring turns (`pipeline::audit::turn`), and the generation is noted. There is at
//! most one such question at a time: no root key is changed before it is answered.

use std::path::Path;

use host::Disk;
use pipeline::audit::{ChainKey, ChainKeys, Opened, Ring};
use secret::SecretBytes;
use store::{Batch, Op, Store, StorePath};

use super::keys::refused;
use super::running::Running;
use crate::machine::Halt;

/// The keys before today's, the oldest first.
pub(super) struct Former(SecretBytes);

impl Former {
    pub(super) async fn of(store: &Store) -> Result<Self, Halt> {
        let kept = store.get(&path()).await.map_err(|e| refused(&e, AGAIN))?;
        let bytes = kept.map_or_else(|| SecretBytes::new(Vec::new()), |entry| entry.value);
        if bytes.len() > RECORD_BYTES * MAX_KEYS || !bytes.len().is_multiple_of(RECORD_BYTES) {
            return Err(refused(&Damaged, "put the data directory back from a backup"));
        }
        Ok(Self(bytes))
    }

    /// Whether nobody knows yet where the last of them ends.
    pub(super) fn is_turning(&self) -> bool {
        self.records().last().is_some_and(|(end, _)| end == UNKNOWN)
    }

    /// With today's key behind them, for the commit that brings another.
    pub(super) fn ending(&self, store: &Store) -> Result<Op, Halt> {
        let today = store.audit_key().map_err(|e| refused(&e, AGAIN))?;
        let before = self.0.expose();
        // A ring has 64 segments at most, and each key has one or more: what is older has been written over.
        let from = before.len().saturating_sub(RECORD_BYTES * (MAX_KEYS - 1));
        // Its full size at once: a vector that grows leaves copies behind.
        let mut bytes = Vec::with_capacity(RECORD_BYTES * MAX_KEYS);
        bytes.extend_from_slice(&before[from..]);
        bytes.extend_from_slice(&UNKNOWN.to_be_bytes());
        bytes.extend_from_slice(today.expose());
        Ok(Op::Put(path(), SecretBytes::new(bytes)))
    }

    /// Notes that the key of today has begun with generation `begins`, if that was the question.
    pub(super) async fn note(&self, store: &Store, begins: u64) -> Result<(), Halt> {
        if !self.is_turning() {
            return Ok(());
        }
        let mut bytes = self.0.expose().to_vec();
        let last = bytes.len() - RECORD_BYTES;
        bytes[last..last + END_BYTES].copy_from_slice(&begins.to_be_bytes());
        let ops = vec![Op::Put(path(), SecretBytes::new(bytes))];
        let noted = store.commit(Batch { conds: Vec::new(), ops }).await;
        noted.map(drop).map_err(|e| refused(&e, "see whether the disk is full"))
    }

    /// Opens the ring under these and `today`.
    pub(super) fn open(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        today: ChainKey,
        store_sequence: u64,
    ) -> Result<Opened, pipeline::audit::OpenError> {
        match self.chain(today) {
            (keys, None) => Ring::open(disk, dir, keys, store_sequence),
            (keys, Some(next)) => Ring::open_turning(disk, dir, keys, next, store_sequence),
        }
    }

    /// The keys of the ring; today's apart from them while nobody knows where it begins.
    pub(super) fn chain(&self, today: ChainKey) -> (ChainKeys, Option<ChainKey>) {
        let (mut keys, mut begins) = (None::<ChainKeys>, 0);
        for (end, key) in self.records() {
            let key = ChainKey::new(key);
            keys = Some(match keys {
                None => ChainKeys::new(key),
                Some(before) => before.turned(key, begins),
            });
            begins = end;
        }
        match keys {
            None => (ChainKeys::new(today), None),
            Some(keys) if begins == UNKNOWN => (keys, Some(today)),
            Some(keys) => (keys.turned(today, begins), None),
        }
    }

    fn records(&self) -> impl Iterator<Item = (u64, &[u8; KEY_BYTES])> {
        self.0.expose().chunks_exact(RECORD_BYTES).filter_map(|record| {
            let (end, key) = record.split_first_chunk::<END_BYTES>()?;
            Some((u64::from_be_bytes(*end), key.first_chunk()?))
        })
    }
}

impl Running {
    /// Ends a turn of the audit to the key of today, if one is under way.
    pub(super) async fn turn_audit(&self, store: &Store) -> Result<(), Halt> {
        let former = Former::of(store).await?;
        if !former.is_turning() {
            return Ok(());
        }
        let audit =
            self.hands.audit.as_ref().ok_or_else(|| super::slots::internal("a turn of an audit that is not open"))?;
        let begins =
            audit.turn(today(store)?).map_err(|e| refused(&e, "see whether the disk of the audit ring works"))?;
        former.note(store, begins).await
    }
}

/// The key of today.
pub(super) fn today(store: &Store) -> Result<ChainKey, Halt> {
    let key = store.audit_key().map_err(|e| refused(&e, AGAIN))?;
    Ok(ChainKey::new(key.expose()))
}

fn path() -> StorePath {
    StorePath::new(["boot", "audit-keys"]).expect("two short words are a path")
}

#[derive(Debug, thiserror::Error)]
#[error("the former keys of the audit, under the barrier, are damaged")]
struct Damaged;

const MAX_KEYS: usize = 64;
const END_BYTES: usize = 8;
const KEY_BYTES: usize = 32;
const RECORD_BYTES: usize = END_BYTES + KEY_BYTES;
/// No key ends before the first generation.
const UNKNOWN: u64 = 0;
const AGAIN: &str = "start edgekeep again";
