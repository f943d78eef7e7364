use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::gate::Evidence;
use crate::plan::{GateName, GatePlan, Need, ServiceName};
use crate::testing::demo_plan;

fn plan() -> Arc<Plan> {
    Arc::new(demo_plan("/data".as_ref(), "/run".as_ref()))
}

fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

/// Feeds events and gathers all actions.
fn run(mut machine: Machine, events: impl IntoIterator<Item = Event>) -> (Machine, Vec<Action>) {
    let mut all = Vec::new();
    for event in events {
        let (next, actions) = machine.step(event);
        machine = next;
        all.extend(actions);
    }
    (machine, all)
}

fn whole() -> Remains {
    Remains { parts: Part::WHOLE.to_vec(), leftover: false, ending: None }
}

fn until_serving(epoch: Epoch) -> Vec<Event> {
    let profile = Profile::Demo;
    vec![
        Event::Started,
        Event::Looked(whole()),
        Event::Released,
        Event::Unlocked { profile, heal: false },
        Event::Opened { profile, epoch },
        Event::Certified { ca: [1; 32] },
        Event::GroundLaid,
    ]
}

fn provided(name: &str) -> Event {
    Event::Provided { service: service(name), receipt: [2; 32] }
}

fn open(actions: &[Action]) -> BTreeSet<GateName> {
    let last = actions.iter().rev().find_map(|a| match a {
        Action::SetGates { open, .. } => Some(open.clone()),
        Action::ShutGates => Some(BTreeSet::new()),
        _ => None,
    });
    last.unwrap_or_default()
}

#[test]
fn nothing_is_made_before_somebody_holds_the_recovery_key() {
    let mut p = demo_plan("/data".as_ref(), "/run".as_ref());
    p.recovery = None;
    let (machine, actions) = run(Machine::new(Arc::new(p)), [Event::Started, Event::Looked(Remains::default())]);
    assert_eq!(actions, [Action::Look, Action::Tell(Halt::NoRecovery)]);
    assert!(matches!(machine.state(), State::Halted(Halt::NoRecovery)));
}

#[test]
fn a_partial_wipe_halts_and_touches_nothing() {
    for parts in
        [vec![Part::Store, Part::Audit], vec![Part::SlotsA, Part::SlotsB], vec![Part::Audit], vec![Part::Other]]
    {
        let remains = Remains { parts, leftover: true, ending: None };
        let (machine, actions) = run(Machine::new(plan()), [Event::Started, Event::Looked(remains)]);
        assert!(matches!(machine.state(), State::Halted(_)));
        assert!(matches!(actions[..], [Action::Look, Action::Tell(_)]), "{actions:?}");
    }
}

#[test]
fn one_slot_copy_is_healed_only_after_the_head_has_confirmed_the_other() {
    let profile = Profile::Demo;
    let remains = Remains { parts: vec![Part::SlotsB, Part::Store, Part::Audit], leftover: false, ending: None };
    let events = [Event::Started, Event::Looked(remains), Event::Released, Event::Unlocked { profile, heal: true }];
    let (machine, before) = run(Machine::new(plan()), events);
    assert!(!before.contains(&Action::HealSlots));
    let (_, after) = run(machine, [Event::Opened { profile, epoch: Epoch::Same }]);
    assert_eq!(after, [Action::HealSlots, Action::EnsureCertificate]);
}

#[test]
fn a_demo_store_is_refused_by_production_in_slot_and_head() {
    let mut p = demo_plan("/data".as_ref(), "/run".as_ref());
    p.profile = Profile::Production;
    let p = Arc::new(p);
    let begin = [Event::Started, Event::Looked(whole()), Event::Released];
    let (machine, _) = run(Machine::new(Arc::clone(&p)), begin.clone());
    let (slot, _) = run(machine.clone(), [Event::Unlocked { profile: Profile::Demo, heal: false }]);
    assert!(matches!(slot.state(), State::Halted(Halt::Profile { found: Profile::Demo, asked: Profile::Production })));
    let in_head = [
        Event::Unlocked { profile: Profile::Production, heal: false },
        Event::Opened { profile: Profile::Demo, epoch: Epoch::New },
    ];
    let (head, actions) = run(machine, in_head);
    assert!(matches!(head.state(), State::Halted(Halt::Profile { .. })));
    assert!(actions.contains(&Action::CloseStore), "keys do not stay behind");
}

#[test]
fn a_busy_source_is_asked_again_ever_more_slowly() {
    let busy = (0..12).map(|_| Event::SourceBusy);
    let (_, actions) = run(Machine::new(plan()), [Event::Started, Event::Looked(whole())].into_iter().chain(busy));
    let pauses: Vec<u64> = actions
        .iter()
        .filter_map(|a| if let Action::Release { after } = a { Some(after.as_millis() as u64) } else { None })
        .collect();
    assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000, 10_000]);
}

#[test]
fn a_start_rests_first_and_goes_on_at_the_pace_of_those_before() {
    let rest = std::time::Duration::from_secs(7);
    let events =
        [Event::Started, Event::Looked(whole()), Event::Rested { failed: 3, rest }, Event::SourceBusy, Event::Released];
    let (machine, actions) = run(Machine::new(plan()), events);
    let pauses: Vec<u64> = actions
        .iter()
        .filter_map(|a| if let Action::Release { after } = a { Some(after.as_millis() as u64) } else { None })
        .collect();
    assert_eq!(pauses, [0, 7000, 800]);
    assert!(matches!(machine.state(), State::Unlocking));
}

#[test]
fn servers_that_are_away_are_asked_every_minute_for_as_long_as_it_takes() {
    let mut p = (*plan()).clone();
    let server = seal::TangServer {
        origin: seal::Origin::parse("http://tang.site").unwrap(),
        pinned: seal::Thumbprint([1; 32]),
    };
    let servers = seal::TangServers::new(vec![server], 1).unwrap();
    p.sources = vec![crate::plan::SourceSpec::Tang { servers, deadline: std::time::Duration::from_secs(10) }];
    let busy = (0..500).map(|_| Event::SourceBusy);
    let (machine, actions) =
        run(Machine::new(Arc::new(p)), [Event::Started, Event::Looked(whole())].into_iter().chain(busy));
    let pauses: Vec<u64> = actions
        .iter()
        .filter_map(|a| if let Action::Release { after } = a { Some(after.as_secs()) } else { None })
        .collect();
    assert_eq!(pauses[..9], [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    assert!(pauses.len() == 501 && pauses[9..].iter().all(|s| *s == 60), "it never gives up");
    let (machine, _) = run(machine, [Event::Released]);
    assert!(matches!(machine.state(), State::Unlocking));
}

#[test]
fn a_restart_within_a_boot_leaves_tokens_alone_and_a_new_boot_does_not() {
    for (epoch, wanted) in [(Epoch::Same, false), (Epoch::New, true)] {
        let (_, actions) = run(Machine::new(plan()), until_serving(epoch));
        let anew: Vec<bool> = actions
            .iter()
            .filter_map(|a| if let Action::Provide { anew, .. } = a { Some(*anew) } else { None })
            .collect();
        assert_eq!(anew, [wanted, wanted]);
    }
}

#[test]
fn a_fault_while_serving_shuts_the_gates_and_drops_the_keys() {
    let ready = [Event::CredentialsKept, provided("sensor"), provided("uploader")];
    let (machine, _) = run(Machine::new(plan()), until_serving(Epoch::New).into_iter().chain(ready));
    let fault = Halt::Refused { fact: "the store was changed from outside".into(), hint: "look".into() };
    let (machine, actions) = run(machine, [Event::Failed(fault.clone())]);
    assert_eq!(actions, [Action::ShutGates, Action::CloseStore, Action::Tell(fault)]);
    assert!(matches!(machine.state(), State::Halted(_)));
}

#[test]
fn a_lapsed_token_shuts_the_gate_before_it_is_mended() {
    let ready = [Event::CredentialsKept, provided("sensor"), provided("uploader")];
    let (machine, actions) = run(Machine::new(plan()), until_serving(Epoch::New).into_iter().chain(ready));
    assert_eq!(open(&actions).len(), 2);
    let (machine, actions) = run(machine, [Event::Lapsed { service: service("sensor") }]);
    assert!(matches!(&actions[0], Action::SetGates { open, .. } if open.is_empty()), "{actions:?}");
    assert!(matches!(&actions[1], Action::Provide { anew: true, .. }));
    let (_, actions) = run(machine, [provided("sensor")]);
    assert_eq!(open(&actions).len(), 2);
}

#[test]
fn new_evidence_of_an_open_gate_is_published() {
    let ready = [Event::CredentialsKept, provided("sensor"), provided("uploader")];
    let (machine, _) = run(Machine::new(plan()), until_serving(Epoch::New).into_iter().chain(ready));
    let (_, actions) = run(machine, [Event::Provided { service: service("sensor"), receipt: [3; 32] }]);
    assert!(matches!(&actions[..], [Action::SetGates { open, .. }] if open.len() == 2));
}

#[test]
fn probes_begin_when_the_rest_holds() {
    let mut p = demo_plan("/data".as_ref(), "/run".as_ref());
    let needs = vec![Need::Gate("tokens-ready".parse().unwrap()), Need::Probe("tcp:db:5432".parse().unwrap())];
    p.gates.push(GatePlan { name: "db".parse().unwrap(), needs, deadline: None, hint: None });
    let (machine, actions) = run(Machine::new(Arc::new(p)), until_serving(Epoch::New));
    let probes = |a: &[Action]| a.iter().filter(|a| matches!(a, Action::Probe { .. })).count();
    assert_eq!(probes(&actions), 0);
    let early = Event::ProbePassed { gate: "db".parse().unwrap(), at: 1 };
    let ready = [early.clone(), Event::CredentialsKept, provided("sensor"), provided("uploader")];
    let (machine, actions) = run(machine, ready);
    assert_eq!((probes(&actions), open(&actions).len()), (1, 2), "an answer that nobody asked for opens nothing");
    let (machine, actions) = run(machine, [early.clone()]);
    assert_eq!(open(&actions).len(), 3);
    let (machine, actions) = run(machine, [Event::ProbeLapsed { gate: "db".parse().unwrap(), at: 1 }]);
    assert_eq!((probes(&actions), open(&actions).len()), (0, 2), "shut again, and the probe goes on");
    let (_, actions) = run(machine, [early]);
    assert_eq!(open(&actions).len(), 3);
}

fn any_event() -> impl Strategy<Value = Event> {
    let name = prop_oneof![Just("sensor"), Just("uploader"), Just("stranger")].prop_map(service);
    let profile = prop_oneof![9 => Just(Profile::Demo), 1 => Just(Profile::Production)];
    let epoch = prop_oneof![Just(Epoch::Same), Just(Epoch::New)];
    let parts = prop_oneof![
        Just(Vec::new()),
        Just(Part::WHOLE.to_vec()),
        prop::sample::subsequence(Part::WHOLE.to_vec(), 0..=4)
    ];
    prop_oneof![
        1 => Just(Event::Started),
        1 => (parts, any::<bool>()).prop_map(|(parts, leftover)| Event::Looked(Remains { parts, leftover, ending: None })),
        1 => Just(Event::Made),
        1 => Just(Event::Published),
        2 => Just(Event::Released),
        1 => Just(Event::SourceBusy),
        1 => (0u32..20, 0u64..100).prop_map(|(failed, s)| Event::Rested { failed, rest: std::time::Duration::from_secs(s) }),
        2 => (profile.clone(), any::<bool>()).prop_map(|(profile, heal)| Event::Unlocked { profile, heal }),
        2 => (profile, epoch).prop_map(|(profile, epoch)| Event::Opened { profile, epoch }),
        2 => Just(Event::Certified { ca: [1; 32] }),
        2 => Just(Event::GroundLaid),
        1 => Just(Event::NoGround),
        2 => Just(Event::CredentialsKept),
        1 => Just(Event::CredentialsLacking),
        6 => name.clone().prop_map(|service| Event::Provided { service, receipt: [2; 32] }),
        1 => name.clone().prop_map(|service| Event::NotProvided { service }),
        1 => name.prop_map(|service| Event::Lapsed { service }),
        2 => Just(Event::ProbePassed { gate: "probed".parse().unwrap(), at: 0 }),
        1 => Just(Event::ProbeLapsed { gate: "probed".parse().unwrap(), at: 0 }),
        1 => Just(Event::SealAsked),
        2 => Just(Event::UnsealAsked),
    ]
}

/// What has been proven since the store was last opened, kept by other rules than the machine's: straight from the
/// events.
#[derive(Default)]
struct Proven {
    certified: bool,
    credentials: bool,
    services: BTreeSet<String>,
    probed: bool,
}

impl Proven {
    fn hear(&mut self, event: &Event) {
        match event {
            Event::Certified { .. } => self.certified = true,
            Event::CredentialsKept => self.credentials = true,
            Event::CredentialsLacking => self.credentials = false,
            Event::Provided { service, .. } => drop(self.services.insert(service.to_string())),
            Event::NotProvided { service } | Event::Lapsed { service } => drop(self.services.remove(service.as_str())),
            Event::ProbePassed { .. } => self.probed = true,
            Event::ProbeLapsed { .. } => self.probed = false,
            Event::SealAsked => *self = Self::default(),
            _ => {}
        }
    }

    fn allows(&self, gate: &str) -> bool {
        let services = ["sensor", "uploader"].iter().all(|s| self.services.contains(*s));
        self.certified && self.credentials && services && (gate != "probed" || self.probed)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever happens in whatever order: no gate is open ahead of its evidence, nothing is made over something that
    /// exists, and no step is taken before the one that it stands on.
    #[test]
    fn no_order_of_events_opens_a_gate_early_or_makes_a_store_twice(
        begin in prop::option::weighted(0.7, Just(())),
        events in prop::collection::vec(any_event(), 1..60),
    ) {
        let mut p = demo_plan("/data".as_ref(), "/run".as_ref());
        let needs = vec![Need::Probe("file:/x".parse().unwrap()), Need::Gate("tokens-ready".parse().unwrap())];
        p.gates.push(GatePlan { name: "probed".parse().unwrap(), needs, deadline: None, hint: None });
        let mut machine = Machine::new(Arc::new(p));
        // Random events alone seldom come far, so most runs begin where the store is open.
        let opening = if begin.is_some() { until_serving(Epoch::New) } else { Vec::new() };

        let (mut proven, mut gates) = (Proven::default(), BTreeSet::new());
        let (mut made, mut seen_something, mut released, mut unlocked, mut opened) = (0, false, false, false, false);
        for event in opening.into_iter().chain(events) {
            proven.hear(&event);
            if let Event::Looked(remains) = &event {
                seen_something |= !remains.parts.is_empty();
            }
            match &event {
                Event::Released => released = true,
                Event::Unlocked { .. } => unlocked = true,
                Event::Opened { .. } => opened = true,
                _ => {}
            }
            let was_halted = matches!(machine.state(), State::Halted(_));
            let (next, actions) = machine.step(event.clone());
            machine = next;
            if was_halted {
                prop_assert_eq!(&actions, &[]);
            }
            for action in &actions {
                match action {
                    Action::SetGates { open, evidence } => {
                        gates = open.clone();
                        prop_assert_ne!(*evidence, Evidence { ca: [0; 32], receipts: [0; 32] });
                    }
                    Action::ShutGates => gates.clear(),
                    Action::CloseStore => {
                        prop_assert!(gates.is_empty(), "keys are dropped behind open gates");
                        (released, unlocked, opened) = (false, false, false);
                        proven = Proven::default();
                    }
                    Action::Make => {
                        made += 1;
                        prop_assert!(matches!(&event, Event::Looked(r) if r.parts.is_empty()) && !seen_something);
                    }
                    Action::Unlock => prop_assert!(released),
                    Action::OpenStore => prop_assert!(unlocked),
                    Action::EnsureCertificate | Action::HealSlots => prop_assert!(opened),
                    Action::Provide { service, .. } => prop_assert!(service.as_str() != "stranger"),
                    _ => {}
                }
            }
            for gate in &gates {
                prop_assert!(proven.allows(gate.as_str()), "{} is open ahead of its evidence", gate);
            }
            if !matches!(machine.state(), State::Serving(_)) {
                prop_assert!(gates.is_empty(), "a gate is open and the store is not");
            }
        }
        prop_assert!(made <= 1);
    }
}

fn elsewhere(terms: crate::plan::Terms) -> Arc<Plan> {
    let mut p = demo_plan("/data".as_ref(), "/run".as_ref());
    p.store = crate::plan::StoreSpec::External(crate::plan::ExternalStore {
        host: "vault.site".into(),
        port: 8200,
        ca: "/ca.pem".into(),
        server_name: None,
        terms,
    });
    Arc::new(p)
}

fn guest() -> Arc<Plan> {
    elsewhere(crate::plan::Terms::Guest(crate::plan::Access::TokenFile("/token".into())))
}

fn owner() -> Arc<Plan> {
    let counts = crate::plan::ShareCounts { shares: 5, threshold: 3 };
    elsewhere(crate::plan::Terms::Owner { counts, reunseal: crate::plan::Reunseal::Always })
}

fn reached() -> Event {
    Event::Reached { ca: [1; 32] }
}

#[test]
fn a_guest_makes_nothing_and_is_asked_for_no_key() {
    let (machine, actions) =
        run(Machine::new(guest()), [Event::Started, Event::FoundShut, Event::NotReached, reached()]);
    assert!(matches!(machine.state(), State::Serving(_)));
    let named = |a: &Action| matches!(a, Action::Reach { .. } | Action::Serve | Action::LayGround { .. });
    assert!(actions.iter().all(named), "{actions:?}");
}

#[test]
fn a_store_that_is_away_is_asked_ever_more_slowly_by_a_guest_and_steadily_by_its_owner() {
    let pauses = |plan: Arc<Plan>, before: Vec<Event>| -> Vec<u64> {
        let away = (0..8).map(|_| Event::NotReached);
        let (_, actions) = run(Machine::new(plan), before.into_iter().chain(away));
        let pause = |a: &Action| if let Action::Reach { after } = a { Some(after.as_millis() as u64) } else { None };
        actions.iter().filter_map(pause).collect()
    };
    assert_eq!(pauses(guest(), vec![Event::Started]), [0, 250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
    let state = Remains { parts: vec![Part::SlotsA, Part::SlotsB, Part::Shares], leftover: false, ending: None };
    assert_eq!(pauses(owner(), vec![Event::Started, Event::Looked(state)]), [0, 25, 25, 25, 25, 25, 25, 25, 25]);
}

#[test]
fn gates_shut_before_anything_else_when_the_store_is_lost() {
    let events = [Event::Started, reached(), Event::GroundLaid, Event::CredentialsKept];
    let (machine, actions) =
        run(Machine::new(guest()), events.into_iter().chain([provided("sensor"), provided("uploader")]));
    assert_eq!(open(&actions).len(), 2);
    let (machine, actions) = run(machine, [Event::Lost]);
    assert_eq!(actions, [Action::ShutGates, Action::CloseStore, Action::Reach { after: Duration::ZERO }]);
    // What was provided before is no evidence for the store that comes back.
    let (machine, actions) = run(machine, [provided("sensor"), Event::CredentialsKept, reached()]);
    assert!(open(&actions).is_empty());
    let (_, actions) =
        run(machine, [Event::GroundLaid, Event::CredentialsKept, provided("sensor"), provided("uploader")]);
    assert_eq!(open(&actions).len(), 2);
}

#[test]
fn an_owner_asks_its_source_only_for_a_store_that_waits() {
    let state = Remains { parts: vec![Part::SlotsA, Part::SlotsB, Part::Shares], leftover: false, ending: None };
    let (machine, actions) = run(Machine::new(owner()), [Event::Started, Event::Looked(state), reached()]);
    assert!(!actions.iter().any(|a| matches!(a, Action::Release { .. })), "it was open: {actions:?}");
    let (machine, actions) = run(machine, [Event::Lost, Event::NotReached, Event::FoundShut]);
    assert_eq!(actions.last(), Some(&Action::Release { after: Duration::ZERO }));
    let unlocked = Event::Unlocked { profile: Profile::Demo, heal: false };
    let (machine, actions) = run(machine, [Event::Released, unlocked, Event::Unsealed]);
    assert_eq!(actions, [Action::Unlock, Action::OpenStore, Action::Reach { after: Duration::ZERO }]);
    // That it was given its shares is no evidence either.
    assert!(matches!(machine.state(), State::Reaching(_)));
}

#[test]
fn an_owners_state_in_parts_is_refused_by_name() {
    for (parts, fault) in [
        (vec![Part::SlotsA, Part::SlotsB], Halt::SharesMissing),
        (vec![Part::Shares], Halt::SharesSlotsMissing),
        (vec![Part::SlotsA, Part::Store, Part::Audit], Halt::OtherKind { found: Part::Store }),
        (vec![Part::Other], Halt::OnlyRemains { parts: vec![Part::Other] }),
    ] {
        let remains = Remains { parts, leftover: false, ending: None };
        let (machine, actions) = run(Machine::new(owner()), [Event::Started, Event::Looked(remains)]);
        assert!(matches!(machine.state(), State::Halted(found) if *found == fault), "{actions:?}");
    }
    let shares =
        Remains { parts: vec![Part::SlotsA, Part::Store, Part::Audit, Part::Shares], leftover: false, ending: None };
    assert_eq!(shares.fault(&crate::plan::StoreSpec::Ours), Some(Halt::OtherKind { found: Part::Shares }));
}

#[test]
fn a_seal_is_heard_in_every_state_and_nothing_that_was_under_way_opens_the_store_after_it() {
    let serving = until_serving(Epoch::Same);
    let making = [Event::Started, Event::Looked(Remains::default()), Event::Made];
    let shares = Remains { parts: vec![Part::SlotsA, Part::SlotsB, Part::Shares], leftover: false, ending: None };
    let reaching = [Event::Started, Event::Looked(shares), Event::NotReached, Event::FoundShut];
    for (plan, way, since) in [(plan(), &serving[..], 0), (plan(), &making, 2), (owner(), &reaching, 2)] {
        for steps in since..=way.len() {
            let (before, after) = way.split_at(steps);
            let (machine, _) = run(Machine::new(Arc::clone(&plan)), before.to_vec());
            let when = format!("{:?}", machine.state());
            let (machine, actions) = run(machine, [Event::SealAsked]);
            assert_eq!(actions, [Action::ShutGates, Action::CloseStore], "{when}");
            let later = after.iter().cloned().chain([Event::SourceBusy, Event::Released, Event::NotReached, reached()]);
            let (machine, actions) = run(machine, later);
            assert!(matches!(machine.state(), State::Sealed) && actions.is_empty(), "{when}: {actions:?}");
        }
    }
    let (machine, actions) = run(Machine::new(plan()), [Event::Failed(Halt::NoRecovery), Event::SealAsked]);
    assert!(matches!(machine.state(), State::Halted(Halt::NoRecovery)), "why it stands still is not forgotten");
    assert_eq!(actions.iter().filter(|a| **a == Action::CloseStore).count(), 1);
}
