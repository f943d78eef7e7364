//! The KEK of each slot, kept under the barrier: so slots can be wrapped anew while their sources are absent.
//!
//! `boot/kek/<number of the slot>`. One that belongs to no slot harms nobody and goes at the next turn; a slot without its own
//! could not be wrapped anew. So a KEK comes before its slot, and goes after it.

use seal::{SlotKek, SlotSet};
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
    let put = |kek: &SlotKek| Op::Put(path(kek.slot.0), SecretBytes::new(kek.kek.expose().to_vec()));
    let ops = keks.iter().map(put).collect();
    store
        .commit(Batch { conds: Vec::new(), ops })
        .await
        .map(drop)
        .map_err(|e| refused(&e, "see whether the disk is full"))
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
    let kept = store.list(&dir()).await.map_err(|e| refused(&e, ""))?;
    let gone =
        kept.iter().filter_map(|n| n.parse::<u16>().ok()).filter(|id| set.slots().iter().all(|s| s.id().0 != *id));
    let ops: Vec<Op> = gone.map(|id| Op::Delete(path(id))).collect();
    if ops.is_empty() {
        return Ok(());
    }
    store.commit(Batch { conds: Vec::new(), ops }).await.map(drop).map_err(|e| refused(&e, ""))
}

#[derive(Debug, thiserror::Error)]
#[error("a KEK under the barrier has fewer than 32 bytes")]
struct TooShort;

const AGAIN: &str = "start edgekeep again";
