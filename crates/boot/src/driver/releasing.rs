//! What is asked of the key sources: one release, and their end for this boot.

use std::sync::Arc;

use seal::{Remedy, SlotFiles, SlotId};

use super::asking::{self, End, Given, Round};
use super::backoff::Came;
use super::running::Running;
use super::work::told;
use super::{keys, source};
use crate::machine::Event;

impl Running {
    /// Asks the sources for the slots that they made.
    pub(super) async fn release(&mut self) -> Event {
        if let Some(released) = self.ask_keeper() {
            return released;
        }
        // After the keeper, whose key costs nothing.
        if let Some(rest) = self.rest_first() {
            return rest;
        }
        if let Err(e) = self.post_guard() {
            let hint = "start edgekeep again; without a guard nothing is released while [release] after_close is set";
            return Event::Failed(keys::refused(&e, hint));
        }
        if let Err(rest) = self.note_try() {
            return rest;
        }
        let mut asking = std::mem::take(&mut self.hands.asking);
        let Round { end, told } = asking.round(&self.plan, &self.env).await;
        self.used_up = asking.ends_with_the_boot();
        self.note_outcome(match &end {
            End::Given(_) => Came::Given,
            _ if asking.needs_somebody() => Came::Refused,
            End::Later => Came::Later,
            End::Never(_) if self.used_up => Came::Exhausted,
            End::Never(_) => Came::Refused,
        });
        self.hands.asking = asking;
        for (remedy, text) in told {
            if remedy == Remedy::Alarm { self.alarm(text) } else { self.warn(text) }
        }
        match end {
            End::Given(given) => {
                let Given { found, kind, ikm, last } = *given;
                if last {
                    let text = "the source gives nothing more in this boot: after a seal or a crash the device must be restarted";
                    self.warn(text.into());
                }
                self.hands.found = Some(found);
                self.hands.ikm = Some((kind, ikm));
                self.hands.last_release = last;
                self.see_to_guard().await;
                self.phase("released");
                Event::Released
            }
            End::Later => Event::SourceBusy,
            End::Never(halt) => Event::Failed(halt),
        }
    }

    /// Ends this boot's releases of every slot but `kept`, of those that a source of the plan can open: what they might still give
    /// is then for nobody.
    pub(super) async fn close_sources(&mut self, kept: Option<SlotId>) {
        let Ok(found) = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read() else { return };
        let (plan, env) = (Arc::clone(&self.plan), self.env.clone());
        for pair in asking::pairs(&plan, &env, &found.set).into_iter().filter(|p| Some(p.slot) != kept) {
            let slot = found.set.slots().iter().find(|s| s.id() == pair.slot).map(|s| s.public().clone());
            let (Some(spec), Some(slot)) = (plan.sources.get(pair.source), slot) else { continue };
            match source::close(spec, &plan, &env, slot).await {
                Ok(closed) if closed.is_until_reboot() => {
                    tracing::info!(slot = %pair.slot, "the source gives nothing more in this boot");
                }
                Ok(_) => {}
                Err(e) => self.warn(told(&format!("{spec} was not closed for this boot"), &e)),
            }
        }
    }
}
