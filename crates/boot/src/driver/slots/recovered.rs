//! After a recovery: slots for the hardware that is there now.

use api::PeerAddress;
use seal::{Board, Remedy, SlotId, may_count};

use super::super::keys::of_source;
use super::super::running::Running;
use super::super::source;
use super::SlotChange;

impl Running {
    /// Makes slots anew for the sources that do not open theirs any more, and for those that have none: also on another
    /// board, which is told by name. What cannot be made is told, and its old slot stays.
    pub(crate) async fn reseal_lost(&mut self, by: PeerAddress) -> SlotChange {
        let mut change = SlotChange::default();
        let act = match self.announce("admin/slots/reseal", by).await {
            Ok(act) => act,
            Err(halt) => {
                change.told.push(halt.to_string());
                return change;
            }
        };
        let mut outcome = Ok(None);
        for index in 0..self.plan.sources.len() {
            // Anew for each: the slots of the one before are others now.
            let old = match self.vouched() {
                Ok(set) => self.owned(&set).into_iter().find(|(source, _)| *source == index).map(|(_, slot)| slot),
                Err(halt) => {
                    outcome = Err(halt);
                    break;
                }
            };
            if let Some(slot) = old
                && self.still_opens(index, slot).await
            {
                continue;
            }
            let old: Vec<SlotId> = old.into_iter().collect();
            match self.replace_slots(index, &old, Board::Any, &mut change).await {
                Ok(sequence) => outcome = Ok(sequence),
                Err(halt) => {
                    self.warn(format!("no new slot was made: {halt}"));
                    change.told.push(format!("{halt}; {}", halt.hint()));
                }
            }
        }
        if let Err(halt) = self.conclude(act, outcome).await {
            change.told.push(halt.to_string());
        }
        change
    }

    /// Whether a source opens its slot, or would at another time. A source that counts its releases is not asked for
    /// one.
    async fn still_opens(&mut self, index: usize, slot: SlotId) -> bool {
        let (plan, env) = (std::sync::Arc::clone(&self.plan), self.env.clone());
        let (Some(spec), Ok(set)) = (plan.sources.get(index), self.vouched()) else { return false };
        let Some(slot) = set.slots().iter().find(|s| s.id() == slot) else { return false };
        let public = slot.public().clone();
        let outcome = if may_count(&public) {
            source::foresee(spec, &plan, &env, public).await.map(|_| true)
        } else if self.pin_was_refused(spec, &public) {
            self.warn(format!(
                "slot {} is made anew: its PIN was refused at this start, and is not tried again",
                slot.id()
            ));
            return false;
        } else {
            source::release(spec, &plan, &env, public, set.slots())
                .await
                .map(|released| set.fits(slot.id(), &released.ikm))
        };
        match outcome {
            Ok(opens) => opens,
            Err(e) if e.remedy() == Remedy::Reboot => true,
            Err(e) => {
                self.warn(format!("slot {} is made anew: {}", slot.id(), of_source(spec, &plan, &e, "")));
                false
            }
        }
    }
}
