//! The order of writes. `driver::tests::slots` cuts the power after each of them.
//!
//! ```text
//! same root key   KEK under the barrier | slots.a | slots.b | head           cut: the newer copy opens, the head follows
//! new root key    slots that stay are due | slots.a | keyring + head + new KEKs | slots.b | audit turns | KEK gone
//!                                                                            cut before the commit: slots.a does not open the store,
//!                                                                            and slots.b does; after it: the other way round
//! ```
//! With a new root key the store's commit is the one moment at which the old set ends and the new one begins: so until
//! then one copy of each is there. The one slot that comes in such a change is a recovery key's, in the place of the
//! one that was used: of the two keys each opens its own copy, and the commit decides which of them opens the store.
//!
//! A new root key shuts out whoever could open a slot that goes only if he does not know the KEKs of those that stay,
//! which a copy of the directory from his time tells him. So they get others with it: at once where a source may be
//! asked at will, and at its next release where it counts them ([`Running::freshen`]).

use host::Entropy;
use seal::{
    Change, FoundSlots, FreshKek, HeadCheck, NewSlot, RecoveryKey, SlotFiles, SlotId, SlotKek, SlotSet, SourceKind,
    Unlocked,
};
use secret::{RootKey, Secret};
use store::{CommitError, RotateError, Store};

use super::super::audit_keys::Former;
use super::super::kept_keks;
use super::super::keys::refused;
use super::super::running::Running;
use super::super::source;
use super::{Tested, disk_fault, not_open};
use crate::machine::Halt;

/// What a change stands on: the set that the head vouches for, opened.
pub(in crate::driver) struct Ground {
    store: Store,
    set: SlotSet,
    root: RootKey,
    keks: Vec<SlotKek>,
}

impl Ground {
    /// The next set with one slot more, and that slot's KEK.
    pub(super) fn with(&self, slot: NewSlot, entropy: &dyn Entropy) -> Result<(SlotSet, SlotKek), Halt> {
        let change = Change { add: vec![slot], ..Change::default() };
        let changed = self.set.change(&self.root, &self.keks, change, entropy);
        let (next, mut added) = changed.map_err(|e| refused(&e, AGAIN))?;
        let kek = added.pop().ok_or_else(|| super::internal("a slot without a KEK"))?;
        Ok((next, kek))
    }

    /// The next set, under a root key of its own, and the KEKs that are new.
    fn renewed(&self, change: Change, entropy: &dyn Entropy) -> Result<(SlotSet, RootKey, Vec<SlotKek>), Halt> {
        let same = || RootKey::new(Secret::init_with(|key: &mut [u8; 32]| key.copy_from_slice(self.root.expose())));
        // A slot that comes is that of a recovery key in the place of a used one.
        let another = match change.add.is_empty() {
            true => host::in_force("root-key-replaced"),
            false => host::in_force("root-key-spent-too"),
        };
        let root = if another { seal::new_root_key(entropy) } else { same() };
        let changed = self.set.change(&root, &self.keks, change, entropy);
        let (next, keks) = changed.map_err(|e| refused(&e, "a recovery key: edgekeep operator rekey"))?;
        Ok((next, root, keks))
    }

    /// The set.
    pub(in crate::driver) fn set(&self) -> &SlotSet {
        &self.set
    }
}

/// What a new root key has brought.
pub(in crate::driver) struct Renewed {
    /// The set that is in force.
    pub(in crate::driver) set: SlotSet,
    /// The KEKs that slots have in the place of others.
    pub(in crate::driver) keks: Vec<SlotKek>,
    sequence: u64,
}

impl Renewed {
    /// The store's sequence number of the commit.
    pub(in crate::driver) fn sequence(&self) -> u64 {
        self.sequence
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

    /// Opens the set by a KEK that is kept under the barrier: the root key is in no other place while the store is
    /// open.
    pub(in crate::driver) async fn ground(&self) -> Result<Ground, Halt> {
        let store = self.hands.store.clone().ok_or_else(not_open)?;
        let found = self.slot_files().read().map_err(|e| refused(&e, e.hint()))?;
        let mut keks = kept_keks::of(&store, &found.set).await?;
        let unlocked = keks.pop().and_then(|kek| found.set.unlock_by(kek)).ok_or_else(|| Halt::Refused {
            fact: "no key slot opens by the KEK that is kept for it".into(),
            hint: "start edgekeep again, and see the log".into(),
        })?;
        self.grounded(store, found, unlocked, keks)
    }

    /// The same, opened by the recovery key; its slot.
    pub(in crate::driver) async fn ground_by(&self, key: &RecoveryKey) -> Result<(Ground, SlotId), Halt> {
        let store = self.hands.store.clone().ok_or_else(not_open)?;
        let found = self.slot_files().read().map_err(|e| refused(&e, e.hint()))?;
        let ikm = key.ikm().map_err(|e| refused(&e, "give the key as it was given out"))?;
        let unlocked = found.set.unlock(SourceKind::Recovery, ikm).map_err(|e| refused(&e, e.hint()))?;
        let slot = unlocked.kek.slot;
        let mut keks = kept_keks::of(&store, &found.set).await?;
        keks.retain(|kek| kek.slot != slot);
        Ok((self.grounded(store, found, unlocked, keks)?, slot))
    }

    /// On the set that the head vouches for, in both copies; `keks` are those of its other slots.
    fn grounded(
        &self,
        store: Store,
        found: FoundSlots,
        unlocked: Unlocked,
        mut keks: Vec<SlotKek>,
    ) -> Result<Ground, Halt> {
        let head = store.head().map_err(|e| refused(&e, AGAIN))?.slots;
        let check = unlocked.check_head(head.generation, &seal::SlotDigest(head.digest));
        let HeadCheck::Current(_) = check.map_err(|e| refused(&e, e.hint()))? else {
            let fact = "the store has not recorded its newest slots yet".to_owned();
            return Err(Halt::Refused { fact, hint: AGAIN.into() });
        };
        // Both copies, before one of them is the only one of its kind.
        self.slot_files().heal(&found, &unlocked).map_err(|e| disk_fault(&e))?;
        keks.push(unlocked.kek);
        Ok(Ground { store, set: found.set, root: unlocked.root, keks })
    }

    fn slot_files(&self) -> SlotFiles<'_> {
        SlotFiles::new(&*self.env.disk, self.plan.state_dir())
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
        let fresh = self.fresh_at_will(&ground.set, ids).await;
        let stays = |id: &SlotId| !ids.contains(id) && fresh.iter().all(|fresh| fresh.slot() != *id);
        kept_keks::mark(&ground.store, ground.set.slots().iter().map(seal::Slot::id).filter(stays)).await?;
        let renewed = self.renew(&ground, Change { remove: ids.to_vec(), add: Vec::new(), fresh }).await?;
        self.discard(&ground.set, ids, &renewed.set).await;
        Ok(Some(renewed.sequence))
    }

    /// Another root key and another data key with a change of the slots. Whoever is shut out by it may know the KEKs of
    /// those that stay: they were marked before.
    pub(in crate::driver) async fn renew(&mut self, ground: &Ground, change: Change) -> Result<Renewed, Halt> {
        let (next, root, keks) = ground.renewed(change, &*self.env.entropy)?;
        self.turn_audit(&ground.store).await?;
        // The audit's former key: it proves what was written until now.
        let audit_key = Former::of(&ground.store).await?.ending(&ground.store)?;
        let disk = std::sync::Arc::clone(&self.env.disk);
        let files = SlotFiles::new(&*disk, self.plan.state_dir());
        if let Err(e) = files.write_first(&ground.set, &next) {
            return Err(self.stepped_back(&files, &ground.set, disk_fault(&e)));
        }
        let slots = store::SlotSet { generation: next.generation(), digest: next.digest().0 };
        // The KEKs with it: before, under the data key that was, whoever is shut out would read them; after it, a cut
        // would leave slots that cannot be wrapped anew.
        let mut with = kept_keks::anew(&keks);
        with.ops.push(audit_key);
        let sequence = match ground.store.change_root(&ground.root, &root, slots, with).await {
            Ok(committed) => committed.sequence,
            // Either root key may be the store's: both sets stay, one in each copy, and the next start sees which one
            // opens.
            Err(e @ RotateError::Commit(CommitError::OutcomeUnknown(_))) => {
                return Err(refused(&e, "start edgekeep again: it finds out whether the slot is gone"));
            }
            Err(e) => return Err(self.stepped_back(&files, &ground.set, disk_fault(&e))),
        };
        if let Err(e) = files.write_second(&next) {
            self.alarm(format!("the new slots are in slots.a only, and slots.b cannot be written: {e}"));
        }
        if let Err(e) = self.turn_audit(&ground.store).await {
            self.hands.audit_turns = true;
            self.alarm(format!("the audit's former key is still believed, and it is tried on: {e}"));
        }
        if let Err(e) = kept_keks::forget(&ground.store, &next).await {
            self.warn(format!("the KEK of a slot that is gone is still kept: {e}"));
        }
        Ok(Renewed { set: next, keks, sequence })
    }

    /// Other KEKs for the slots that stay and whose sources count no releases: they are asked once more, but for a PIN
    /// that was refused. A KEK that stays is due still.
    async fn fresh_at_will(&mut self, set: &SlotSet, going: &[SlotId]) -> Vec<FreshKek> {
        let mut fresh = Vec::new();
        if !host::in_force("keks-made-anew") {
            return fresh;
        }
        let plan = std::sync::Arc::clone(&self.plan);
        for (source, id) in self.owned(set) {
            let slot = set.slots().iter().find(|s| s.id() == id && !going.contains(&id));
            let (Some(slot), Some(spec)) = (slot, plan.sources.get(source)) else { continue };
            if seal::may_count(slot.public()) || self.pin_was_refused(spec, slot.public()) {
                continue;
            }
            match source::release(spec, &plan, &self.env, slot.public().clone(), set.slots()).await {
                Ok(released) => fresh.extend(set.fresh_kek(id, &released.ikm, &*self.env.entropy)),
                Err(e) => self.warn(format!("slot {id} keeps its KEK for now: {spec}: {}", host::with_causes(&e))),
            }
        }
        fresh
    }

    /// After the store was opened by key material: gives the slot another KEK if it is due. What cannot be done now
    /// stays due.
    pub(in crate::driver) async fn freshen(&mut self, fresh: Option<FreshKek>) {
        if let Err(halt) = self.try_to_freshen(fresh).await {
            self.warn(format!(
                "the KEK of the slot that has opened the store stays as it was: {halt}; {}",
                halt.hint()
            ));
        }
    }

    async fn try_to_freshen(&mut self, fresh: Option<FreshKek>) -> Result<(), Halt> {
        let (Some(store), Some(unlocked)) = (self.hands.store.clone(), &self.hands.unlocked) else { return Ok(()) };
        let Some(fresh) = fresh.filter(|fresh| fresh.slot() == unlocked.kek.slot) else { return Ok(()) };
        if !kept_keks::due(&store).await?.contains(&fresh.slot()) || !host::in_force("keks-made-anew") {
            return Ok(());
        }
        let ground = self.ground().await?;
        let change = Change { fresh: vec![fresh], ..Change::default() };
        let mut renewed = self.renew(&ground, change).await?;
        // What is left of this start goes by the new set.
        self.hands.unlocked = renewed.keks.pop().and_then(|kek| renewed.set.unlock_by(kek));
        self.hands.found = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read().ok();
        Ok(())
    }

    /// What sources keep for slots that are gone, such as memory of a TPM. Last: before, a cut would have left a slot
    /// without it.
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
