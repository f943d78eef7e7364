//! Each action, carried out: by the file of its subject, or here where it is small.

use std::collections::BTreeSet;
use std::sync::Arc;

use pipeline::Core;
use seal::{SlotPublic, Unkept};

use super::environment::Note;
use super::running::{Hands, ProbeNews, Running};
use super::{keys, source, state_dir};
use crate::gate::{Board, Evidence, ProbeFailure, lapse_of, probe_until};
use crate::machine::{Action, Event, Halt};
use crate::plan::{GateName, Need, SourceSpec};

impl Running {
    /// Carries out one action, or several `Provide` together; the events in order.
    pub(super) async fn act(&mut self, batch: Vec<Action>) -> Vec<Event> {
        let mut provide = Vec::new();
        let mut events = Vec::new();
        for action in batch {
            let event = match action {
                Action::Provide { service, anew, .. } => {
                    provide.push((service, anew));
                    continue;
                }
                Action::Look => Some(self.look()),
                Action::FinishErasing => Some(self.finish_erasing().await),
                Action::ClearLeftover => self.clear_leftover(),
                Action::Make => Some(self.make().await),
                Action::Publish => Some(self.publish().await),
                Action::Release { .. } => Some(self.release().await),
                Action::Unlock => Some(self.unlock()),
                Action::Reach { .. } => Some(self.reach().await),
                Action::OpenStore => Some(self.open_store().await.unwrap_or_else(Event::Failed)),
                Action::HealSlots => self.heal_slots(),
                Action::EnsureCertificate => Some(self.certify().await),
                Action::Serve => self.serve().await.err().map(Event::Failed),
                Action::LayGround { .. } => Some(self.lay_ground().await),
                Action::KeepCredentials { .. } => Some(self.keep_credentials().await),
                Action::Probe { gate, at } => {
                    self.begin_probe(gate, at);
                    None
                }
                Action::SetGates { open, evidence } => {
                    self.set_gates(&open, Some(evidence)).await;
                    None
                }
                Action::ShutGates => {
                    self.set_gates(&BTreeSet::new(), None).await;
                    None
                }
                Action::CloseStore => {
                    self.close_store().await;
                    None
                }
                Action::Tell(halt) => {
                    tracing::error!(fact = %halt, hint = %halt.hint(), "the boot has stopped");
                    self.observer.note(Note::Halted(halt));
                    None
                }
            };
            events.extend(event);
        }
        if !provide.is_empty() {
            events.extend(self.provide(provide).await);
        }
        events
    }

    fn look(&mut self) -> Event {
        match state_dir::look(&*self.env.disk, &self.plan) {
            Ok(remains) => Event::Looked(remains),
            Err(e) => Event::Failed(keys::refused(&e, state_dir::UNREADABLE)),
        }
    }

    fn clear_leftover(&mut self) -> Option<Event> {
        match state_dir::clear_leftover(&*self.env.disk, &self.plan) {
            Ok(()) => {
                self.warn("a first boot that was cut short was cleared away".into());
                None
            }
            Err(e) => Some(Event::Failed(keys::refused(&e, "data.new in data_dir cannot be removed"))),
        }
    }

    async fn make(&mut self) -> Event {
        match keys::make(&self.plan, &self.env, &mut *self.observer).await {
            Ok(keys::Made { released, unkept }) => {
                self.hands.released_when_made = released;
                self.hands.unkept = unkept;
                self.phase("made");
                Event::Made
            }
            Err(halt) => {
                // Nothing of it was ever seen: what was begun goes, so that the next attempt finds nothing.
                if let Err(e) = state_dir::clear_leftover(&*self.env.disk, &self.plan) {
                    self.warn(format!("{} is left behind: {e}", self.plan.data_dir.join(state_dir::NEW).display()));
                }
                Event::Failed(halt)
            }
        }
    }

    async fn publish(&mut self) -> Event {
        let unkept = std::mem::take(&mut self.hands.unkept);
        match state_dir::publish(&*self.env.disk, &self.plan) {
            Ok(()) => {
                unkept.kept();
                self.phase("published");
                Event::Published
            }
            Err(e) => {
                // It may be there under its final name all the same: then it is a store, and its slots are in use.
                match self.env.disk.meta(&self.plan.state_dir().join(state_dir::STORE)) {
                    Ok(None) => self.take_back(unkept, Vec::new()).await,
                    _ => unkept.kept(),
                }
                Event::Failed(keys::refused(&e, "data_dir must be writable; start again"))
            }
        }
    }

    /// Takes back what sources have made for slots that did not come about; `kept` are those that stay.
    pub(super) async fn take_back(&mut self, unkept: Unkept<SourceSpec>, kept: Vec<SlotPublic>) {
        let plan = Arc::clone(&self.plan);
        for stays in source::take_back(unkept, &plan, &self.env, kept).await {
            self.warn(stays);
        }
    }

    /// Listens, and says where: only then is anything done whose end would open a gate.
    async fn serve(&mut self) -> Result<(), Halt> {
        // A store in another process answers for itself.
        if let Some(front) = self.front.clone().filter(|_| self.plan.store.external().is_none()) {
            let (Some(core), Some(certificates)) = (&self.hands.core, &self.hands.certificates) else {
                return Err(out_of_order("serve"));
            };
            self.serving = front.open(core, &certificates.server).await?;
        }
        self.forget_tries();
        // What a source refused on the way here is no reason to restart the device for a later halt.
        self.used_up = false;
        self.publish_endpoint();
        self.phase("serving");
        Ok(())
    }

    fn begin_probe(&mut self, gate: GateName, at: usize) {
        let plan = self.plan.gates.iter().find(|g| g.name == gate);
        let Some((Some(Need::Probe(probe)), deadline)) = plan.map(|g| (g.needs.get(at).cloned(), g.deadline)) else {
            return;
        };
        let (disk, send) = (Arc::clone(&self.env.disk), self.probes.0.clone());
        self.probing.push(tokio::spawn(async move {
            let told = |e: &ProbeFailure| format!("{probe}: {}", host::with_causes(e));
            let tell = async |news| send.send((gate.clone(), at, news)).await.is_ok();
            // What was there once is waited for without an end: somebody has stopped it, and starts it again.
            let mut within = deadline;
            loop {
                let standing = match probe_until(&*disk, &probe, within.take()).await {
                    Ok(standing) => standing,
                    Err(e) => {
                        tell(ProbeNews::GivenUp(told(&e))).await;
                        return;
                    }
                };
                let lapse = async { tell(ProbeNews::Lapsed(told(&lapse_of(&*disk, &probe, standing).await))).await };
                if !(tell(ProbeNews::Passed).await && lapse.await) {
                    return tracing::debug!("a probe ended after its device");
                }
            }
        }));
    }

    /// The gates of a core that requests can seal: shut before the reply to one that has, and the rest of the sealing
    /// follows at once.
    pub(super) fn gates_follow(&self, core: &Core) {
        if host::in_force("gates-shut-at-the-seal") {
            let (board, sealed) = (self.board.clone(), Arc::clone(&self.sealed));
            core.on_seal(move || {
                board.send_modify(Board::shut_all);
                sealed.notify_one();
            });
        }
    }

    pub(super) async fn set_gates(&mut self, open: &BTreeSet<GateName>, evidence: Option<Evidence>) {
        let core = self.hands.core.as_deref();
        self.board.send_modify(|board| match evidence {
            // A request may have sealed the store meanwhile: what it has shut stays shut.
            Some(evidence) if !core.is_some_and(Core::is_sealing) || !host::in_force("gates-shut-at-the-seal") => {
                board.set(open, evidence);
            }
            _ => board.shut_all(),
        });
        let board = self.board.borrow().clone();
        for alarm in self.hints.follow(&board).await {
            self.alarm(told("a hint port is not ours", &alarm));
        }
        let at_ms = self.at_ms();
        let now = board.open();
        let before = std::mem::replace(&mut self.told_open, now.clone());
        for gate in now.difference(&before) {
            self.observer.note(Note::GateOpen { gate: gate.clone(), at_ms });
        }
        for gate in before.difference(&now) {
            self.observer.note(Note::GateShut { gate: gate.clone() });
        }
    }

    async fn close_store(&mut self) {
        self.probing.drain(..).for_each(|p| p.abort());
        if let Some(front) = self.front.clone().filter(|_| self.plan.store.external().is_none()) {
            // What was begun is finished while there are keys.
            front.close().await;
        }
        let hands = std::mem::take(&mut self.hands);
        let Hands { core, audit, store, on_guard, guard_rests, .. } = hands;
        if guard_rests {
            // Nothing was released: whoever has the recovery key may make slots anew before the sources are closed.
            (self.hands.on_guard, self.hands.guard_rests) = (on_guard, true);
        }
        if let Some(core) = core
            && let Err(e) = core.close().await
        {
            self.warn(format!("what was gathered is not written down: {}", e.logged()));
        }
        if let Some(audit) = audit
            && let Err(e) = audit.close()
        {
            self.warn(told("the last audit records are not written", &e));
        }
        if let Some(store) = store {
            store.close();
        }
    }
}

/// A fault with its causes, in one line.
pub(super) fn told(what: &str, error: &dyn std::error::Error) -> String {
    match keys::refused(error, "") {
        Halt::Refused { fact, .. } => format!("{what}: {fact}"),
        other => format!("{what}: {other}"),
    }
}

pub(super) fn out_of_order(what: &str) -> Halt {
    Halt::Refused { fact: format!("internal fault: {what} out of its order"), hint: "please report this".into() }
}
