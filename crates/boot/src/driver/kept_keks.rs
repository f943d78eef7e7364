//! The KEK of each slot, kept under the barrier: so slots can be wrapped anew while their sources are absent.
//!
//! `boot/kek/<number of the slot>`. One that belongs to no slot harms nobody and goes at the next turn; a slot without
//! its own could not be wrapped anew. So a KEK comes before its slot, or in one commit with it, and goes after it.
//!
//! Whoever could once open the store, and has a copy of the directory from then, knows all of them. So each slot that
//! stays when another goes is due to have another KEK (`boot/kek-due/<number>`), which its source's key material gives
//! at its next release (`slots::change`). Such a KEK, and that of a new recovery key, is kept only under a data key
//! that came after the one that such a copy has: in the commit that brings root key and data key anew.

use std::collections::BTreeSet;

use seal::{SlotId, SlotKek, SlotSet};
use secret::{Kek, Secret, SecretBytes};
use store::{Batch, Op, Store, StorePath};

use super::keys::refused;
use crate::machine::Halt;

/// Where they are.
pub(super) fn dir() -> StorePath {
    StorePath::new(["boot", "kek"]).expect("two short words are a path")
}

/// Where that of one slot is.
pub(super) fn path(slot: u16) -> StorePath {
    dir().child(slot.to_string()).expect("a number is a short word")
}

/// Keeps them, in a commit of their own.
pub(super) async fn keep(store: &Store, keks: &[SlotKek]) -> Result<(), Halt> {
    let ops = keks.iter().map(put).collect();
    store
        .commit(Batch { conds: Vec::new(), ops })
        .await
        .map(drop)
        .map_err(|e| refused(&e, "see whether the disk is full"))
}

fn put(kek: &SlotKek) -> Op {
    Op::Put(path(kek.slot.0), SecretBytes::new(kek.kek.expose().to_vec()))
}

/// Where slots are named that are due.
fn due_dir() -> StorePath {
    StorePath::new(["boot", "kek-due"]).expect("two short words are a path")
}

fn due_path(slot: u16) -> StorePath {
    due_dir().child(slot.to_string()).expect("a number is a short word")
}

/// Notes that slots are due, before that which makes them so.
pub(super) async fn mark(store: &Store, slots: impl Iterator<Item = SlotId>) -> Result<(), Halt> {
    let ops: Vec<Op> = slots.map(|slot| Op::Put(due_path(slot.0), SecretBytes::new(vec![1]))).collect();
    if ops.is_empty() {
        return Ok(());
    }
    let done = store.commit(Batch { conds: Vec::new(), ops }).await;
    done.map(drop).map_err(|e| refused(&e, "see whether the disk is full"))
}

/// The slots that are due.
pub(super) async fn due(store: &Store) -> Result<BTreeSet<SlotId>, Halt> {
    let marked = store.list(&due_dir()).await.map_err(|e| refused(&e, AGAIN))?;
    Ok(marked.iter().filter_map(|name| name.parse().ok().map(SlotId)).collect())
}

/// Keeps KEKs that are known to nobody else, for a commit that brings a new data key; their slots are due no more.
pub(super) fn anew(keks: &[SlotKek]) -> Batch {
    let ops = keks.iter().flat_map(|kek| [put(kek), Op::Delete(due_path(kek.slot.0))]).collect();
    Batch { conds: Vec::new(), ops }
}

/// Those of the slots of `set`. One that is missing is refused by the change that needs it, and told by its number.
pub(super) async fn of(store: &Store, set: &SlotSet) -> Result<Vec<SlotKek>, Halt> {
    let mut keks = Vec::new();
    for slot in set.slots() {
        if let Some(entry) = store.get(&path(slot.id().0)).await.map_err(|e| refused(&e, AGAIN))? {
            let kek = Secret::try_init_with(|kek: &mut [u8; 32]| {
                kek.copy_from_slice(entry.value.expose().get(..32).ok_or(TooShort)?);
                Ok::<(), TooShort>(())
            });
            keks.push(SlotKek { slot: slot.id(), kek: Kek::new(kek.map_err(|e| refused(&e, AGAIN))?) });
        }
    }
    Ok(keks)
}

/// Removes those that belong to no slot of `set`.
pub(super) async fn forget(store: &Store, set: &SlotSet) -> Result<(), Halt> {
    let is_gone = |id: &u16| set.slots().iter().all(|s| s.id().0 != *id);
    let mut ops = Vec::new();
    for (dir, of) in [(dir(), path as fn(u16) -> StorePath), (due_dir(), due_path)] {
        let kept = store.list(&dir).await.map_err(|e| refused(&e, ""))?;
        let gone = kept.iter().filter_map(|n| n.parse::<u16>().ok()).filter(is_gone);
        ops.extend(gone.map(|id| Op::Delete(of(id))));
    }
    if ops.is_empty() {
        return Ok(());
    }
    store.commit(Batch { conds: Vec::new(), ops }).await.map(drop).map_err(|e| refused(&e, ""))
}

#[derive(Debug, thiserror::Error)]
#[error("a KEK under the barrier has fewer than 32 bytes")]
struct TooShort;

const AGAIN: &str = "start edgekeep again";
