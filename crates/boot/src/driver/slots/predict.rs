//! A slot for the image that the device will boot next, and the end of the one before it.
//!
//! ```text
//! predict   slot for the values of the next image | the present slot stays          restart: either image opens the store
//! commit    the slot that has opened stays | those of its kind before it go         root key and data key are new
//! ```
//! What was predicted cannot be tried before that image runs: so nothing goes until it has opened, and the way back to
//! the old image stays open until somebody says that the update has held. Where another source has opened the store in
//! the new image, the newest slot is tried then: by a release, where that is not the last of the boot.

use std::sync::Arc;

use api::PeerAddress;
use seal::{
    Evidence, MAX_SLOTS, NewSlot, PcrValues, Provisioned, Released, Slot, SlotId, SlotSet, Wanted,
    differ_in_values_alone, measures_registers,
};

use super::super::keys::of_source;
use super::super::running::Running;
use super::{SlotChange, Tested, source};
use crate::machine::Halt;

impl Running {
    /// Makes a slot beside the one with a TPM in it that has opened the store, for registers that have `values`.
    ///
    /// # Errors
    /// A [`Halt`] that says why; nothing was changed, or the slot is there and could not be recorded.
    pub async fn predict_slot(&mut self, values: &PcrValues, by: PeerAddress) -> Result<SlotChange, Halt> {
        let set = self.vouched()?;
        if set.slots().len() + 1 >= MAX_SLOTS {
            let fact = format!(
                "there are {} key slots; the last place is kept for a board that is replaced",
                set.slots().len()
            );
            let hint = "end an update that has held: edgekeep seal commit; or take slots away by their number: edgekeep seal slots \
                        remove"
                .into();
            return Err(Halt::Refused { fact, hint });
        }
        let (present, _) = self.opened_for_image(&set)?;
        self.are_one_sources(&set, present)?;
        let spec = self.source_of(&set, present.id()).ok_or_else(|| Halt::Refused {
            fact: format!("no source of the configuration goes with slot {}", present.id()),
            hint: "write its [[source]] into edgekeep.toml; see edgekeep seal slots list".into(),
        })?;
        let plan = Arc::clone(&self.plan);
        let act = self.announce("admin/slots/predict", by).await?;
        let made = source::predict(&spec, &plan, &self.env, present.public().clone(), values.clone()).await;
        let outcome = match made.map_err(|e| of_source(&spec, &plan, &e, e.hint_for(Wanted::Provision))) {
            Ok(made) => {
                let (unkept, public) = (super::noted(&spec, &made.public), made.public.clone());
                let added = self.add_untried(made).await;
                self.kept_or_taken_back(added, unkept, &public).await
            }
            Err(halt) => Err(halt),
        };
        let added = outcome.as_ref().map(|(id, _)| id.0).ok();
        self.conclude(act, outcome.map(|(_, sequence)| sequence)).await?;
        Ok(SlotChange { added: added.into_iter().collect(), ..SlotChange::default() })
    }

    /// Refuses to make a slot anew while a later one waits for its image: the newest is taken for the next image's, and
    /// the commit would take the one that waits away.
    pub(super) fn is_no_update_waiting(&self, set: &SlotSet, old: SlotId) -> Result<(), Halt> {
        let Some(old) = for_images(set).find(|slot| slot.id() == old) else { return Ok(()) };
        let waits = |slot: &&Slot| slot.id() > old.id() && alike(slot, old) && self.hands.seen.has(slot.id()).is_none();
        for_images(set).find(waits).map_or(Ok(()), |newer| Err(waits_for_its_image(newer)))
    }

    /// Takes away what was there for images before the one that runs.
    ///
    /// # Errors
    /// A [`Halt`]: a newer slot has not opened yet, there is nothing to take away, or the disk failed.
    pub async fn commit_slots(&mut self, by: PeerAddress) -> Result<SlotChange, Halt> {
        let set = self.vouched()?;
        if self.opened_for_image(&set).is_err() {
            self.try_newest(&set, by.clone()).await?;
        }
        let (present, tested) = self.opened_for_image(&set)?;
        let likes = |slot: &&Slot| alike(slot, present);
        if let Some(newer) = for_images(&set).filter(likes).find(|slot| slot.id() > present.id()) {
            return Err(waits_for_its_image(newer));
        }
        let going: Vec<SlotId> = for_images(&set).filter(likes).map(Slot::id).collect();
        if going.is_empty() {
            let fact = format!("slot {} is the only one of its source and policy", present.id());
            return Err(Halt::Refused { fact, hint: "there is nothing to commit".into() });
        }
        self.are_one_sources(&set, present)?;
        self.needs_no_other_image(&set, present).await?;
        let act = self.announce("admin/slots/commit", by).await?;
        let outcome = self.remove(&going, tested).await;
        self.conclude(act, outcome).await?;
        Ok(SlotChange { removed: going.iter().map(|id| id.0).collect(), ..SlotChange::default() })
    }

    /// The newest slot for an image that was seen to open.
    fn opened_for_image<'a>(&self, set: &'a SlotSet) -> Result<(&'a Slot, Tested), Halt> {
        let seen = |slot: &'a Slot| Some((slot, self.hands.seen.has(slot.id())?));
        for_images(set).filter_map(seen).next_back().ok_or_else(|| match for_images(set).next() {
            Some(_) => Halt::Refused {
                fact: "no slot of a TPM has opened since the store was opened".into(),
                hint: "a slot for another image is made like one that opens on this device: edgekeep seal slots list"
                    .into(),
            },
            None => Halt::Refused {
                fact: "no slot is bound to registers of a TPM".into(),
                hint: "such slots open in every image, and nothing has to be predicted for them".into(),
            },
        })
    }

    /// Refuses where slots that look like those of one update may be those of several sources.
    fn are_one_sources(&self, set: &SlotSet, present: &Slot) -> Result<(), Halt> {
        let likes = |slot: &&Slot| slot.id() == present.id() || alike(slot, present);
        let ids: Vec<SlotId> = for_images(set).filter(likes).map(Slot::id).collect();
        let mut owners = self.owned(set).into_iter().filter(|(_, slot)| ids.contains(slot));
        match (owners.next(), owners.next()) {
            (Some((one, of)), Some((other, and))) => Err(Halt::Refused {
                fact: format!(
                    "slots {of} and {and} cannot be told apart: they may be those of [[source]] {} and {}",
                    one + 1,
                    other + 1
                ),
                hint: "have one of these sources alone in edgekeep.toml, or take slots away by their number: edgekeep seal slots \
                       remove"
                    .into(),
            }),
            _ => Ok(()),
        }
    }

    /// Refuses a slot that has opened by other parts than its TPM, until its TPM too would give its own in this image.
    async fn needs_no_other_image(&self, set: &SlotSet, present: &Slot) -> Result<(), Halt> {
        let id = present.id();
        let Some(part) = self.hands.seen.left_out(id) else { return Ok(()) };
        let now = match self.source_of(set, id) {
            Some(spec) => self.foresee(&spec, present.public()).await,
            None => Ok(Evidence::default()),
        };
        let why = match &now {
            Ok(evidence) => evidence.left_out().map(str::to_owned),
            Err(e) => Some(format!("{part}: {}", host::with_causes(e))),
        };
        let Some(why) = why.filter(|_| host::in_force("image-seen-before-commit")) else { return Ok(()) };
        let fact = format!("slot {id} has opened without its part {why}");
        let hint = format!(
            "restart into the image that it was made for, and ask again: edgekeep seal commit; or take it back: edgekeep seal slots \
             remove {id}"
        );
        Err(Halt::Refused { fact, hint })
    }

    /// Has the newest slot of an update opened, in a boot in which another source has opened the store. One before it
    /// need not be asked: with a newer one beside it nothing would be taken away.
    async fn try_newest(&mut self, set: &SlotSet, by: PeerAddress) -> Result<(), Halt> {
        let updates = |slot: &&Slot| {
            let others = for_images(set).filter(|other| alike(other, slot)).map(Slot::id);
            others.max().is_some_and(|newest| newest < slot.id())
        };
        let Some(newest) = for_images(set).rfind(updates) else {
            let fact = "no slot of a TPM was made for another image".to_owned();
            return Err(Halt::Refused { fact, hint: "there is nothing to commit".into() });
        };
        let act = self.announce("admin/slots/test", by).await?;
        let outcome = self.try_to_open(set, newest).await;
        self.conclude(act, outcome.map(|()| None)).await
    }

    /// One release of a slot with a TPM in it, where it leaves another.
    async fn try_to_open(&mut self, set: &SlotSet, slot: &Slot) -> Result<(), Halt> {
        let (id, public) = (slot.id(), slot.public());
        let refuse = |why: String, hint: String| Err(Halt::Refused { fact: format!("slot {id} {why}"), hint });
        let Some(spec) = self.source_of(set, id) else {
            let hint = "write its [[source]] into edgekeep.toml; see edgekeep seal slots list".into();
            return refuse("has no source in the configuration".into(), hint);
        };
        let left = match self.foresee(&spec, public).await {
            Ok(evidence) => evidence.releases_left(),
            Err(e) => {
                let hint = format!(
                    "restart into the image that it was made for, and ask again: edgekeep seal commit; or take it back: edgekeep seal \
                     slots remove {id}"
                );
                return refuse(format!("has not opened in this boot: {}", host::with_causes(&e)), hint);
            }
        };
        let limit = public.release_limit().map(std::num::NonZeroU8::get);
        if (limit.is_some() || left.is_some())
            && left.is_none_or(|left| left < 2)
            && host::in_force("last-release-kept")
        {
            let hint = match limit {
                Some(1) => format!(
                    "restart the device with its TPM as the only [[source]], so that slot {id} opens the store, and ask again: \
                     edgekeep seal commit"
                ),
                _ => "restart the device, and ask again: edgekeep seal commit".into(),
            };
            return refuse("has not opened in this boot, and to try it would take the last release".into(), hint);
        }
        self.warn(format!("slot {id} is tried before the image of before is given up: one release of this boot"));
        let plan = Arc::clone(&self.plan);
        let released = source::release(&spec, &plan, &self.env, public.clone(), set.slots()).await;
        let Released { ikm, evidence, .. } = released.map_err(|e| of_source(&spec, &plan, &e, e.hint()))?;
        let opens = set.fits(id, &ikm) && set.unlock(public.kind(), ikm).is_ok_and(|opened| opened.kek.slot == id);
        if !opens {
            let hint = "see edgekeep seal slots list; edgekeep seal slots reseal makes it anew".into();
            return refuse("does not open by what its source has released".into(), hint);
        }
        self.hands.seen.opened(id, &evidence);
        Ok(())
    }

    /// Puts a slot into the set that cannot open here and now.
    async fn add_untried(&mut self, made: Provisioned) -> Result<(SlotId, Option<u64>), Halt> {
        let ground = self.ground().await?;
        let Provisioned { public, ikm } = made;
        let (next, added) = ground.with(NewSlot { public, ikm }, &*self.env.entropy)?;
        let sequence = self.put(&ground, &next, &added).await?;
        Ok((added.slot, sequence))
    }
}

fn waits_for_its_image(slot: &Slot) -> Halt {
    let fact = format!("slot {} was made for an image that has not opened the store yet", slot.id());
    let hint = format!("restart into it first, or take it back: edgekeep seal slots remove {}", slot.id());
    Halt::Refused { fact, hint }
}

/// The slots that are bound to what registers of a TPM hold, in their order.
fn for_images(set: &SlotSet) -> impl DoubleEndedIterator<Item = &Slot> {
    set.slots().iter().filter(|slot| measures_registers(slot.public()))
}

/// Whether two slots are of one source, for different images.
fn alike(one: &Slot, other: &Slot) -> bool {
    one.id() != other.id() && differ_in_values_alone(one.public(), other.public())
}
