//! Each action, carried out: by the file of its subject, or here where it is small.

use std::sync::Arc;

use super::environment::Note;
use super::running::{Hands, ProbeNews, Running};
use super::{keys, state_dir};
use crate::gate::{Evidence, ProbeFailure, lapse_of, probe_until};
use crate::machine::{Action, Event, Halt};
use crate::plan::{GateName, Need};

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
                Action::Publish => Some(self.publish()),
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
                    self.set_gates(&std::collections::BTreeSet::new(), None).await;
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
            Err(e) => Event::Failed(keys::refused(&e, "data_dir must be readable for the user that runs edgekeep")),
        }
    }

    fn clear_leftover(&mut self) -> Option<Event> {
        let published = self.env.disk.meta(&self.plan.state_dir().join(state_dir::STORE)).is_ok_and(|m| m.is_some());
        match state_dir::clear_leftover(&*self.env.disk, &self.plan, published) {
            Ok(()) => {
                self.warn("a first boot that was cut short was cleared away".into());
                None
            }
            Err(e) => Some(Event::Failed(keys::refused(&e, "data.new in data_dir cannot be removed"))),
        }
    }

    async fn make(&mut self) -> Event {
        match keys::make(&self.plan, &self.env, &mut *self.observer).await {
            Ok(()) => {
                self.phase("made");
                Event::Made
            }
            Err(halt) => {
                // Nothing of it was ever seen: what was begun goes, so that the next attempt finds nothing.
                if let Err(e) = state_dir::clear_leftover(&*self.env.disk, &self.plan, false) {
                    self.warn(format!("{} is left behind: {e}", self.plan.data_dir.join(state_dir::NEW).display()));
                }
                Event::Failed(halt)
            }
        }
    }

    fn publish(&mut self) -> Event {
        match state_dir::publish(&*self.env.disk, &self.plan) {
            Ok(()) => {
                self.phase("published");
                Event::Published
            }
            Err(e) => Event::Failed(keys::refused(&e, "data_dir must be writable; start again")),
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

    async fn set_gates(&mut self, open: &std::collections::BTreeSet<GateName>, evidence: Option<Evidence>) {
        let before = self.board.borrow().open();
        self.board.send_modify(|board| match evidence {
            Some(evidence) => board.set(open, evidence),
            None => board.shut_all(),
        });
        let board = self.board.borrow().clone();
        for alarm in self.hints.follow(&board).await {
            self.alarm(told("a hint port is not ours", &alarm));
        }
        let at_ms = self.at_ms();
        for gate in open.difference(&before) {
            self.observer.note(Note::GateOpen { gate: gate.clone(), at_ms });
        }
        for gate in before.difference(open) {
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
        let Hands { core, audit, store, .. } = hands;
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
