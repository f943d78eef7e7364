//! The unattended start, as a pure machine: an event in, the next state and what to do out.
//!
//! ```text
//! PoweredOn -> (Making -> Publishing ->) Releasing -> Unlocking -> Opening -> Certifying -> Serving <-> Sealed
//!       \___________\___________\____________\____________\____________\___________> Halted
//!       \___________\___________\____________\____________\____________\_____________________> Sealed, on command
//!
//! a store of somebody else's:
//! PoweredOn -> Reaching <-> Serving
//! one that we keep for him:
//! PoweredOn -> (Making -> Publishing ->) Reaching <-> Serving
//!                                         |  ^ it is open
//!                      it waits for us    v  |
//!                                     Releasing -> Unlocking -> Opening
//! ```
//! A state is a struct that holds what is known there and nothing else. An arrow spends the state before it, and is
//! taken only by the event that proves its ground durable; an event that does not belong to a state changes nothing.
//! The driver alone touches disk, source, store and sockets: it does what an [`Action`] says, and tells what came of it
//! as an [`Event`].

mod action;
mod event;
mod halt;
mod remains;
mod serving;

use std::sync::Arc;
use std::time::Duration;

pub use action::{Action, Epoch};
pub use event::Event;
pub use halt::Halt;
pub use remains::{Ending, Part, Remains};
pub use serving::Serving;

use crate::plan::{ExternalStore, Plan, Profile, SourceSpec};

/// Where the boot stands, and the plan that it follows.
#[derive(Clone, Debug)]
pub struct Machine {
    plan: Arc<Plan>,
    state: State,
}

/// The states, in the order of a first boot.
#[derive(Clone, Debug)]
pub enum State {
    /// Nothing is known.
    PoweredOn,
    /// A first boot: slots and store are being made in `data.new`.
    Making,
    /// `data.new` is whole and synced; it is being renamed to `data`.
    Publishing,
    /// The store is in another process: it is looked whether it serves, and has us.
    Reaching(Reaching),
    /// The state is there; the source is asked for its key material.
    Releasing(Releasing),
    /// The key material is here; a slot is being opened.
    Unlocking,
    /// The root key is here; the store is being opened.
    Opening(Opening),
    /// The store is open; the CA and the server certificate are being compared with the plan.
    Certifying(Certifying),
    /// The server may run; services are provided for, gates open and shut.
    Serving(Box<Serving>),
    /// Sealed on command; no key is in memory.
    Sealed,
    /// Only an operator can go on.
    Halted(Halt),
}

/// Asking the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Releasing {
    /// Failed attempts so far.
    pub failed: u32,
}

/// Looking for a store in another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaching {
    /// Looks so far that did not find it serving.
    pub failed: u32,
}

/// Opening the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// A slot copy is missing or damaged, and is written anew once the store agrees with the other.
    pub heal: bool,
}

/// Comparing certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certifying {
    /// Whether the kernel has started anew since tokens were last issued.
    pub epoch: Epoch,
}

impl Machine {
    /// The machine of a plan, before anything has happened.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self { plan, state: State::PoweredOn }
    }

    /// The machine of a device whose source is lost: it waits for key material from a person.
    pub(crate) fn recovering(self) -> Self {
        Self { plan: self.plan, state: State::Releasing(Releasing { failed: 0 }) }
    }

    /// The same, by another plan from here on.
    pub(crate) fn with_plan(self, plan: Arc<Plan>) -> Self {
        Self { plan, ..self }
    }

    /// Where it stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Takes an event; the actions are to be carried out in their order.
    pub fn step(self, event: Event) -> (Self, Vec<Action>) {
        let Self { plan, state } = self;
        let (state, actions) = next(&plan, state, event);
        (Self { plan, state }, actions)
    }
}

fn next(plan: &Plan, state: State, event: Event) -> (State, Vec<Action>) {
    match (state, event) {
        // A guest has no state of its own that could be whole or in parts.
        (State::PoweredOn, Event::Started) if !plan.store.has_slots() => reach(),
        (State::PoweredOn, Event::Started) => (State::PoweredOn, vec![Action::Look]),
        (State::PoweredOn, Event::Looked(remains)) => looked(plan, remains),
        // Whatever it was, it is no device any more.
        (_, Event::Erased { receipt }) => halt(Halt::Erased { receipt }, true),

        // The recovery key has left the device, slots and store are synced in data.new: only now may it be seen as
        // `data`.
        (State::Making, Event::Made) => (State::Publishing, vec![Action::Publish]),
        // Renamed, and the directory synced: from here on this is never a first boot again. What was written is read
        // back by the same way as at every other boot, before anybody relies on it.
        (State::Publishing, Event::Published) => begin(plan),

        // Nothing of what was found before the store was away is believed: it may come back as another, or as it was
        // last week. Within this boot receipts say which tokens live on, so the epoch is that of each receipt.
        (State::Reaching(_), Event::Reached { ca }) => {
            let serving = Serving::new(ca, Epoch::Same);
            (State::Serving(Box::new(serving)), vec![Action::Serve, Action::LayGround { after: Duration::ZERO }])
        }
        (State::Reaching(_), Event::FoundShut) if plan.store.has_slots() => release(),
        (State::Reaching(Reaching { failed }), Event::NotReached) => again(plan, failed),
        (State::Opening(_), Event::NotReached) => again(plan, 0),
        // Looked at anew, by the way that everybody goes: that it took our shares does not say that it serves.
        (State::Opening(_), Event::Unsealed) => reach(),
        // The gates first; then everything that was known of it, and our token.
        (State::Serving(_), Event::Lost) if host::in_force("gates-follow-the-store") => {
            (State::Reaching(Reaching { failed: 0 }), seal().into_iter().chain([REACH]).collect())
        }

        // What starts before this one have tried counts on.
        (State::Releasing(_), Event::Rested { failed, rest }) => {
            (State::Releasing(Releasing { failed }), vec![Action::Release { after: rest }])
        }
        (State::Releasing(_), Event::Released) => (State::Unlocking, vec![Action::Unlock]),
        (State::Releasing(r), Event::SourceBusy) if host::in_force("busy-source-asked-again") => {
            let failed = r.failed.saturating_add(1);
            (State::Releasing(Releasing { failed }), vec![Action::Release { after: pause(plan, failed) }])
        }

        (State::Unlocking, Event::Unlocked { profile, .. })
            if profile != plan.profile && host::in_force("profiles-never-mix") =>
        {
            halt(Halt::Profile { found: profile, asked: plan.profile }, true)
        }
        (State::Unlocking, Event::Unlocked { heal, .. }) => (State::Opening(Opening { heal }), vec![Action::OpenStore]),

        (State::Opening(_), Event::Opened { profile, .. }) if profile != plan.profile => {
            halt(Halt::Profile { found: profile, asked: plan.profile }, true)
        }
        (State::Opening(o), Event::Opened { epoch, .. }) => {
            // A slot copy is healed only now: the head has just confirmed the other one as the newest.
            let heal = o.heal.then_some(Action::HealSlots);
            (State::Certifying(Certifying { epoch }), heal.into_iter().chain([Action::EnsureCertificate]).collect())
        }

        (State::Certifying(c), Event::Certified { ca }) => {
            let serving = Serving::new(ca, c.epoch);
            (State::Serving(Box::new(serving)), vec![Action::Serve, Action::LayGround { after: Duration::ZERO }])
        }

        (State::Serving(_), Event::Failed(fault)) => halt(fault, true),
        (State::Serving(_), Event::SealAsked) => (State::Sealed, seal()),
        (State::Serving(serving), event) => {
            let (serving, actions) = serving.step(plan, event);
            (State::Serving(Box::new(serving)), actions)
        }

        (State::Sealed, Event::UnsealAsked) => begin(plan),

        // Whatever was under way, a fault for an operator ends it, and keys do not stay behind.
        (state @ (State::Halted(_) | State::Sealed), _) => (state, Vec::new()),
        // Also while it waits for a source or a store: whoever has sealed it must not find it open when that is back.
        (_, Event::SealAsked) if host::in_force("sealed-while-it-waits") => (State::Sealed, seal()),
        (_, Event::Failed(fault)) => halt(fault, true),

        (state, _) => (state, Vec::new()),
    }
}

/// What stands on the disk decides between first boot, boot and refusal.
fn looked(plan: &Plan, remains: Remains) -> (State, Vec<Action>) {
    match remains.ending {
        None => {}
        Some(Ending::Destroying) => return halt(Halt::Destroying, false),
        Some(Ending::Erasing) => return (State::PoweredOn, vec![Action::FinishErasing]),
        Some(Ending::Erased { receipt }) => return halt(Halt::Erased { receipt }, false),
    }
    if remains.is_virgin() {
        if plan.recovery.is_none() && host::in_force("recovery-chosen-first") {
            // Before anything exists: afterwards it would be too late to ask.
            return halt(Halt::NoRecovery, false);
        }
        let clear = remains.leftover.then_some(Action::ClearLeftover);
        return (State::Making, clear.into_iter().chain([Action::Make]).collect());
    }
    if let Some(fault) = remains.fault(&plan.store) {
        return halt(fault, false);
    }
    let (state, mut actions) = begin(plan);
    if remains.leftover {
        // `data` is whole, so `data.new` is of an attempt that ended before or after it: nothing in it was ever served.
        actions.insert(0, Action::ClearLeftover);
    }
    (state, actions)
}

/// From a state that is whole: to the source, or to the store that may not need it.
fn begin(plan: &Plan) -> (State, Vec<Action>) {
    if plan.store.external().is_some() { reach() } else { release() }
}

fn reach() -> (State, Vec<Action>) {
    (State::Reaching(Reaching { failed: 0 }), vec![REACH])
}

fn again(plan: &Plan, failed: u32) -> (State, Vec<Action>) {
    let failed = failed.saturating_add(1);
    let after = doubled(plan.store.external().map(ExternalStore::pauses).unwrap_or_default(), failed);
    (State::Reaching(Reaching { failed }), vec![Action::Reach { after }])
}

const REACH: Action = Action::Reach { after: Duration::ZERO };

fn release() -> (State, Vec<Action>) {
    (State::Releasing(Releasing { failed: 0 }), vec![Action::Release { after: Duration::ZERO }])
}

/// Gates first, then the keys: nobody is let go by a gate whose store is being closed.
fn seal() -> Vec<Action> {
    vec![Action::ShutGates, Action::CloseStore]
}

fn halt(fault: Halt, close: bool) -> (State, Vec<Action>) {
    let mut actions = if close { seal() } else { Vec::new() };
    actions.push(Action::Tell(fault.clone()));
    (State::Halted(fault), actions)
}

/// Doubled each time, up to a longest: 0.1 s ... 10 s for hardware, 1 s ... 60 s for servers.
pub(crate) fn pause(plan: &Plan, failed: u32) -> Duration {
    // Of several, begun with the pace of the quickest and ended with that of the most patient.
    let pauses = || plan.sources.iter().map(SourceSpec::pauses);
    let first = pauses().map(|(first, _)| first).min().unwrap_or(LEAST_PAUSE);
    let longest = pauses().map(|(_, longest)| longest).max().unwrap_or(LEAST_PAUSE);
    doubled((first, longest), failed)
}

/// The pause after so many failures: the first, twice that ..., up to the longest.
pub(crate) fn doubled((first, longest): (Duration, Duration), failed: u32) -> Duration {
    first.saturating_mul(1 << failed.saturating_sub(1).min(10)).min(longest)
}

/// Without a source nothing is asked, and nothing spins.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// The profile that does not fit, for [`Halt::Profile`].
pub(crate) fn profile_of(profile: Profile) -> &'static str {
    profile.as_str()
}

#[cfg(test)]
mod tests;
