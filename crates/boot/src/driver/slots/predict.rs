//! A slot for the image that the device will boot next, and the end of the one before it.
//!
//! ```text
//! predict   slot for the values of the next image | the present slot stays          restart: either image opens the store
//! commit    the slot that has opened stays | those of its kind before it go         root key and data key are new
//! ```
//! What was predicted cannot be tried before that image runs: so nothing goes until it has opened the store, and the way back to the
//! old image stays open until somebody says that the update has held.

use std::sync::Arc;

use api::PeerAddress;
use seal::{NewSlot, PcrValues, Provisioned, Slot, SlotId, SlotSet, SourceKind, TpmSource};

use super::super::keys::of_source;
use super::super::running::Running;
use super::{SlotChange, Tested, asking, source};
use crate::machine::Halt;

impl Running {
    /// Makes a slot beside the TPM's slot that has opened the store, for registers that have `values`.
    ///
    /// # Errors
    /// A [`Halt`] that says why; nothing was changed, or the slot is there and could not be recorded.
    pub async fn predict_slot(&mut self, values: &PcrValues, by: PeerAddress) -> Result<SlotChange, Halt> {
        let set = self.vouched()?;
        let (present, _) = self.opened_tpm_slot(&set)?;
        let pair = asking::pairs(&self.plan, &self.env, &set).into_iter().find(|pair| pair.slot == present.id());
        let plan = Arc::clone(&self.plan);
        let spec = pair.and_then(|pair| plan.sources.get(pair.source)).ok_or_else(|| Halt::Refused {
            fact: format!("no source of the configuration goes with slot {}", present.id()),
            hint: "write its [[source]] into edgekeep.toml; see edgekeep seal slots list".into(),
        })?;
        let act = self.announce("admin/slots/predict", by).await?;
        let made = source::predict(spec, &plan, &self.env, present.public().clone(), values.clone()).await;
        let outcome = match made.map_err(|e| of_source(spec, &plan, &e, e.hint())) {
            Ok(made) => self.add_untried(made).await,
            Err(halt) => Err(halt),
        };
        let added = outcome.as_ref().map(|(id, _)| id.0).ok();
        self.conclude(act, outcome.map(|(_, sequence)| sequence)).await?;
        Ok(SlotChange { added: added.into_iter().collect(), ..SlotChange::default() })
    }

    /// Takes away what was there for images before the one that runs.
    ///
    /// # Errors
    /// A [`Halt`]: a newer slot has not opened yet, there is nothing to take away, or the disk failed.
    pub async fn commit_slots(&mut self, by: PeerAddress) -> Result<SlotChange, Halt> {
        let set = self.vouched()?;
        let (present, tested) = self.opened_tpm_slot(&set)?;
        let likes = |slot: &&Slot| {
            slot.id() != present.id() && TpmSource::differ_in_values_alone(slot.public(), present.public())
        };
        if let Some(newer) = set.slots().iter().filter(likes).find(|slot| slot.id() > present.id()) {
            let fact = format!("slot {} was made for an image that has not opened the store yet", newer.id());
            let hint = format!("restart into it first, or take it back: edgekeep seal slots remove {}", newer.id());
            return Err(Halt::Refused { fact, hint });
        }
        let going: Vec<SlotId> = set.slots().iter().filter(likes).map(Slot::id).collect();
        if going.is_empty() {
            let fact = format!("slot {} is the only one of its TPM and policy", present.id());
            return Err(Halt::Refused { fact, hint: "there is nothing to commit".into() });
        }
        let act = self.announce("admin/slots/commit", by).await?;
        let outcome = self.remove(&going, tested).await;
        self.conclude(act, outcome).await?;
        Ok(SlotChange { removed: going.iter().map(|id| id.0).collect(), ..SlotChange::default() })
    }

    /// The newest slot of a TPM that was seen to open.
    fn opened_tpm_slot<'a>(&self, set: &'a SlotSet) -> Result<(&'a Slot, Tested), Halt> {
        let seen = |slot: &'a Slot| Some((slot, self.hands.seen.has(slot.id())?));
        set.slots_of(SourceKind::Tpm).filter_map(seen).last().ok_or_else(|| Halt::Refused {
            fact: "no slot of a TPM has opened since the store was opened".into(),
            hint: "a slot for another image is made like one that opens on this device: edgekeep seal slots list"
                .into(),
        })
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
