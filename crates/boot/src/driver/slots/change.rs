//! The order of writes. `driver::tests::slots` cuts the power after each of them.
//!
//! ```text
//! same root key   KEK under the barrier | slots.a | slots.b | head           cut: the newer copy opens, the head follows
//! new root key    slots.a | keyring + head | slots.b | KEK gone              cut before the commit: slots.a does not open the store,
//!                                                                            and slots.b does; after it: the other way round
//! ```
//! With a new root key the store's commit is the one moment at which the old set ends and the new one begins: so until then one copy
//! of each is there. No slot comes in such a change; whoever can open `slots.a` can open `slots.b`.

use host::Entropy;
use seal::{Change, HeadCheck, NewSlot, SlotFiles, SlotId, SlotKek, SlotSet};
use secret::{RootKey, Secret};
use store::{CommitError, RotateError, Store};

use super::super::kept_keks;
use super::super::keys::refused;
use super::super::running::Running;
use super::super::source;
use super::{Tested, disk_fault, not_open};
use crate::machine::Halt;

/// What a change stands on: the set that the head vouches for, opened.
pub(super) struct Ground {
    store: Store,
    set: SlotSet,
    root: RootKey,
    keks: Vec<SlotKek>,
}

impl Ground {
    /// The next set with one slot more, and that slot's KEK.
    pub(super) fn with(&self, slot: NewSlot, entropy: &dyn Entropy) -> Result<(SlotSet, SlotKek), Halt> {
        let change = Change { remove: Vec::new(), add: vec![slot] };
        let changed = self.set.change(&self.root, &self.keks, change, entropy);
        let (next, mut added) = changed.map_err(|e| refused(&e, AGAIN))?;
        let kek = added.pop().ok_or_else(|| super::internal("a slot without a KEK"))?;
        Ok((next, kek))
    }

    /// The next set without some slots, under a root key of its own.
    fn without(&self, ids: &[SlotId], entropy: &dyn Entropy) -> Result<(SlotSet, RootKey), Halt> {
        let root = seal::new_root_key(entropy);
        let change = Change { remove: ids.to_vec(), add: Vec::new() };
        let same = || RootKey::new(Secret::init_with(|key: &mut [u8; 32]| key.copy_from_slice(self.root.expose())));
        let root = if host::in_force("root-key-replaced") { root } else { same() };
        let (next, _) = self.set.change(&root, &self.keks, change, entropy).map_err(|e| refused(&e, AGAIN))?;
        Ok((next, root))
    }
}

impl Running {
    /// The set on the disk, if it is the one that the store's head vouches for.
    pub(in crate::driver) fn vouched(&self) -> Result<SlotSet, Halt> {
        let store = self.hands.store.as_ref().ok_or_else(not_open)?;
        let found = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read().map_err(|e| refused(&e, e.hint()))?;
        let head = store.head().map_err(|e| refused(&e, AGAIN))?.slots;
        if found.set.generation() != head.generation || found.set.digest().0 != head.digest {
            let fact = "the slot files are not those that the store has recorded".to_owned();
            return Err(Halt::Refused { fact, hint: AGAIN.into() });
        }
        Ok(found.set)
    }

    /// Opens the set by a KEK that is kept under the barrier: the root key is in no other place while the store is open.
    pub(super) async fn ground(&self) -> Result<Ground, Halt> {
        let store = self.hands.store.clone().ok_or_else(not_open)?;
        let files = SlotFiles::new(&*self.env.disk, self.plan.state_dir());
        let found = files.read().map_err(|e| refused(&e, e.hint()))?;
        let mut keks = kept_keks::of(&store, &found.set).await?;
        let unlocked = keks.pop().and_then(|kek| found.set.unlock_by(kek)).ok_or_else(|| Halt::Refused {
            fact: "no key slot opens by the KEK that is kept for it".into(),
            hint: "start edgekeep again, and see the log".into(),
        })?;
        let head = store.head().map_err(|e| refused(&e, AGAIN))?.slots;
        let check = unlocked.check_head(head.generation, &seal::SlotDigest(head.digest));
        let HeadCheck::Current(_) = check.map_err(|e| refused(&e, e.hint()))? else {
            let fact = "the store has not recorded its newest slots yet".to_owned();
            return Err(Halt::Refused { fact, hint: AGAIN.into() });
        };
        // Both copies, before one of them is the only one of its kind.
        files.heal(&found, &unlocked).map_err(|e| disk_fault(&e))?;
        keks.push(unlocked.kek);
        Ok(Ground { store, set: found.set, root: unlocked.root, keks })
    }

    /// Makes `next`, which has `added` besides, the store's set; the root key is the same.
    pub(super) async fn put(&mut self, ground: &Ground, next: &SlotSet, added: &SlotKek) -> Result<Option<u64>, Halt> {
        let files_at = self.plan.state_dir();
        kept_keks::keep(&ground.store, std::slice::from_ref(added)).await?;
        let disk = std::sync::Arc::clone(&self.env.disk);
        let files = SlotFiles::new(&*disk, files_at);
        // The slots before the head: the other way round a cut would leave slots that the head calls old.
        if let Err(e) = files.write(next) {
            if !files.read().is_ok_and(|found| found.set.digest() == next.digest()) {
                return Err(disk_fault(&e));
            }
            self.alarm(format!("the new slots are in one copy only, and the other cannot be written: {e}"));
        }
        let slots = store::SlotSet { generation: next.generation(), digest: next.digest().0 };
        match ground.store.set_slot_set(slots).await {
            Ok(committed) => Ok(Some(committed.sequence)),
            Err(e) => {
                self.alarm(format!("the store has not recorded its new slots yet, the next start will: {e}"));
                Ok(None)
            }
        }
    }

    /// Takes slots away, because `tested` opens. Root key and data key are new afterwards.
    pub(super) async fn remove(&mut self, ids: &[SlotId], tested: Tested) -> Result<Option<u64>, Halt> {
        if tested.is_among(ids) {
            return Err(super::internal("a slot as proof of its own removal"));
        }
        let ground = self.ground().await?;
        let (next, root) = ground.without(ids, &*self.env.entropy)?;
        let disk = std::sync::Arc::clone(&self.env.disk);
        let files = SlotFiles::new(&*disk, self.plan.state_dir());
        if let Err(e) = files.write_first(&ground.set, &next) {
            return Err(self.stepped_back(&files, &ground.set, disk_fault(&e)));
        }
        let slots = store::SlotSet { generation: next.generation(), digest: next.digest().0 };
        let sequence = match ground.store.change_root(&ground.root, &root, slots).await {
            Ok(committed) => committed.sequence,
            // Either root key may be the store's: both sets stay, one in each copy, and the next start sees which one opens.
            Err(e @ RotateError::Commit(CommitError::OutcomeUnknown(_))) => {
                return Err(refused(&e, "start edgekeep again: it finds out whether the slot is gone"));
            }
            Err(e) => return Err(self.stepped_back(&files, &ground.set, disk_fault(&e))),
        };
        if let Err(e) = files.write_second(&next) {
            self.alarm(format!("the new slots are in slots.a only, and slots.b cannot be written: {e}"));
        }
        if let Err(e) = kept_keks::forget(&ground.store, &next).await {
            self.warn(format!("the KEK of a slot that is gone is still kept: {e}"));
        }
        self.discard(&ground.set, ids, &next).await;
        Ok(Some(sequence))
    }

    /// What sources keep for slots that are gone, such as memory of a TPM. Last: before, a cut would have left a slot without it.
    async fn discard(&mut self, before: &SlotSet, gone: &[SlotId], next: &SlotSet) {
        let kept: Vec<_> = next.slots().iter().map(|slot| slot.public().clone()).collect();
        for slot in before.slots().iter().filter(|slot| gone.contains(&slot.id())) {
            let plan = std::sync::Arc::clone(&self.plan);
            for spec in plan.sources.iter().filter(|spec| spec.kind() == slot.public().kind()) {
                let done = source::discard(spec, &plan, &self.env, slot.public().clone(), kept.clone()).await;
                if let Err(e) = done {
                    self.warn(format!(
                        "{spec} still keeps something for slot {}: {}",
                        slot.id(),
                        host::with_causes(&e)
                    ));
                }
            }
        }
    }

    /// The old set in both copies again. If that fails too, the next start steps back.
    fn stepped_back(&mut self, files: &SlotFiles<'_>, before: &SlotSet, halt: Halt) -> Halt {
        if let Err(e) = files.take_back(before) {
            self.alarm(format!("slots.a is not as before, and the next start takes slots.b: {e}"));
        }
        halt
    }
}

const AGAIN: &str = "start edgekeep again";
