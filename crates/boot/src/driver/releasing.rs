//! What is asked of the key sources: one release.

use seal::{Remedy, SlotFiles};

use super::asking::{End, Given, Round};
use super::backoff::Came;
use super::keys;
use super::running::Running;
use crate::machine::Event;

impl Running {
    /// Asks the sources for the slots that they made.
    pub(super) async fn release(&mut self) -> Event {
        if let Some(released) = self.ask_keeper().await {
            return released;
        }
        if let Some(released) = self.released_when_made() {
            return released;
        }
        // After the keeper, whose key costs nothing.
        if let Some(rest) = self.rest_first() {
            return rest;
        }
        if let Err(e) = self.post_guard().await {
            let hint = "start edgekeep again; without a guard nothing is released while [release] after_close is set";
            return Event::Failed(keys::refused(&e, hint));
        }
        if let Err(rest) = self.note_try() {
            return rest;
        }
        let mut asking = std::mem::take(&mut self.hands.asking);
        let Round { end, told } = asking.round(&self.plan, &self.env).await;
        if !matches!(end, End::Given(_)) && !asking.gave_what_fits_no_slot() {
            self.rest_guard();
        }
        self.used_up = asking.ends_with_the_boot(&self.plan);
        self.note_outcome(match &end {
            End::Given(_) => Came::Given,
            _ if asking.needs_somebody(&self.plan) => Came::Refused,
            End::Later => Came::Later,
            End::Never(_) if self.used_up => Came::Exhausted,
            End::Never(_) => Came::Refused,
        });
        // Once each: a device may wait for months.
        for spec in asking.pins_refused() {
            if !self.pins_refused.contains(spec) {
                self.pins_refused.push(spec.clone());
            }
        }
        self.hands.asking = asking;
        for (remedy, text) in told {
            if remedy == Remedy::Alarm { self.alarm(text) } else { self.warn(text) }
        }
        match end {
            End::Given(given) => {
                let Given { found, kind, ikm, last, evidence } = *given;
                if last {
                    let text = "the source gives nothing more in this boot: after a seal or a crash the device must be restarted";
                    self.warn(text.into());
                }
                self.hands.found = Some(found);
                self.hands.ikm = Some((kind, ikm));
                self.hands.last_release = last;
                self.hands.evidence = evidence;
                self.see_to_guard().await;
                self.phase("released");
                Event::Released
            }
            End::Later => Event::SourceBusy,
            End::Never(halt) => Event::Failed(halt),
        }
    }

    /// On a first boot: what a source has given to make its slot with, if that was a release. It may have no second
    /// one.
    fn released_when_made(&mut self) -> Option<Event> {
        let kek = self.hands.released_when_made.take()?;
        let found = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read().ok()?;
        self.released_by(found, kek)
    }
}
