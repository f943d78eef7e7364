//! The keys that the audit has had: kept under the barrier, to prove the segments that are still under them.
//!
//! ```text
//! boot/audit-keys    up to 64 times, rising: where the key after it begins 56, zeros while nobody knows | key 32
//! ```
//! The key of today is in the keyring, and comes anew with each root key; in that commit the one before it is noted here
//! as ending, not yet known where. Then the ring turns (`pipeline::audit::turn`), and that is noted. There is at most one
//! such question at a time: no root key is changed before it is answered. Until then the former key counts, so a disk
//! that did not take the turn or the note is tried again ([`Running::upkeep`]).

use std::path::Path;

use host::Disk;
use pipeline::audit::{ChainKey, ChainKeys, Opened, Ring, Turned};
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

    /// Whether nobody knows yet where the key after the last of them begins.
    pub(super) fn is_turning(&self) -> bool {
        self.records().last().is_some_and(|(turned, _)| turned.is_none())
    }

    /// With today's key behind them, for the commit that brings another.
    pub(super) fn ending(&self, store: &Store) -> Result<Op, Halt> {
        let today = store.audit_key().map_err(|e| refused(&e, AGAIN))?;
        Ok(Op::Put(path(), self.with(today.expose())))
    }

    fn with(&self, today: &[u8; KEY_BYTES]) -> SecretBytes {
        let before = self.0.expose();
        // A ring has 64 segments at most, and each key has one or more: what is older has been written over.
        let from = before.len().saturating_sub(RECORD_BYTES * (MAX_KEYS - 1));
        // Its full size at once: a vector that grows leaves copies behind.
        let mut bytes = Vec::with_capacity(RECORD_BYTES * MAX_KEYS);
        bytes.extend_from_slice(&before[from..]);
        bytes.extend_from_slice(&UNKNOWN);
        bytes.extend_from_slice(today);
        SecretBytes::new(bytes)
    }

    /// Notes where the key of today has begun, if that was the question.
    pub(super) async fn note(&self, store: &Store, turned: &Turned) -> Result<(), Halt> {
        if !self.is_turning() {
            return Ok(());
        }
        let mut bytes = self.0.expose().to_vec();
        let last = bytes.len() - RECORD_BYTES;
        bytes[last..last + Turned::BYTES].copy_from_slice(&turned.to_bytes());
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
        let mut records = self.records();
        let Some((mut begins, first)) = records.next() else { return (ChainKeys::new(today), None) };
        let mut keys = ChainKeys::new(ChainKey::new(first));
        for (turned, key) in records {
            // Only the last may be without.
            if let Some(at) = begins {
                keys = keys.turned(ChainKey::new(key), at);
            }
            begins = turned;
        }
        match begins {
            Some(at) => (keys.turned(today, at), None),
            None => (keys, Some(today)),
        }
    }

    /// Each key, and where the one after it begins.
    fn records(&self) -> impl Iterator<Item = (Option<Turned>, &[u8; KEY_BYTES])> {
        self.0.expose().chunks_exact(RECORD_BYTES).filter_map(|record| {
            let (turned, key) = record.split_first_chunk::<{ Turned::BYTES }>()?;
            Some(((*turned != UNKNOWN).then(|| Turned::from_bytes(turned)), key.first_chunk()?))
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
        let turned =
            audit.turn(today(store)?).map_err(|e| refused(&e, "see whether the disk of the audit ring works"))?;
        former.note(store, &turned).await
    }

    /// The same where a fault of a disk has left one open, at each turn of upkeep.
    pub(super) async fn turn_audit_again(&mut self) {
        if let (true, Some(store)) = (self.hands.audit_turns, self.hands.store.clone()) {
            self.hands.audit_turns = self.turn_audit(&store).await.is_err();
        }
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
const KEY_BYTES: usize = 32;
const RECORD_BYTES: usize = Turned::BYTES + KEY_BYTES;
/// No key begins with the first generation and follows another.
const UNKNOWN: [u8; Turned::BYTES] = [0; Turned::BYTES];
const AGAIN: &str = "start edgekeep again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sixty_four_are_kept_and_the_last_is_the_question() {
        let mut former = Former(SecretBytes::new(Vec::new()));
        assert!(!former.is_turning());
        for n in 1..=70 {
            former = Former(former.with(&[n; KEY_BYTES]));
            let kept: Vec<u8> = former.records().map(|(_, key)| key[0]).collect();
            assert_eq!(kept, (1.max(i32::from(n) - 63) as u8..=n).collect::<Vec<_>>());
            assert!(former.is_turning() && former.0.len() <= RECORD_BYTES * MAX_KEYS);
        }
    }
}
