//! The device as it serves: what is known to hold, and the gates that follow from it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::gate::{Evidence, Facts};
use crate::machine::{Action, Epoch, Event};
use crate::plan::{GateName, Need, Plan, ServiceName};

/// What is known while the store is open.
#[derive(Clone, Debug)]
pub struct Serving {
    ca: [u8; 32],
    epoch: Epoch,
    ground: bool,
    facts: Facts,
    receipts: BTreeMap<ServiceName, [u8; 32]>,
    probing: BTreeSet<(GateName, usize)>,
    failed: BTreeMap<Work, u32>,
    published: (BTreeSet<GateName>, Option<Evidence>),
}

/// Work that is tried again when it fails, each with a count of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Ground,
    Credentials,
    Service(ServiceName),
}

impl Serving {
    pub(super) fn new(ca: [u8; 32], epoch: Epoch) -> Self {
        Self {
            ca,
            epoch,
            ground: false,
            facts: Facts { store: true, ..Facts::default() },
            receipts: BTreeMap::new(),
            probing: BTreeSet::new(),
            failed: BTreeMap::new(),
            published: (BTreeSet::new(), None),
        }
    }

    /// What holds.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Fingerprint of the CA, and the digest of all receipts.
    pub fn evidence(&self) -> Evidence {
        let receipts: Vec<&[u8]> =
            self.receipts.iter().flat_map(|(name, digest)| [name.as_str().as_bytes(), &[0], digest]).collect();
        Evidence { ca: self.ca, receipts: secret::crypto::sha256(&receipts) }
    }

    pub(super) fn step(mut self, plan: &Plan, event: Event) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        match event {
            Event::GroundLaid if !self.ground => {
                self.ground = true;
                self.failed.remove(&Work::Ground);
                actions.push(Action::KeepCredentials { after: Duration::ZERO });
                // In a new boot of the kernel all tokens of before are dead; within one, what has a receipt lives on.
                let anew = self.epoch == Epoch::New;
                actions.extend(plan.services.iter().map(|s| Action::Provide {
                    service: s.name.clone(),
                    anew,
                    after: Duration::ZERO,
                }));
            }
            Event::NoGround if !self.ground => {
                let after = self.again(Work::Ground);
                actions.push(Action::LayGround { after });
            }
            Event::CredentialsKept if self.ground => {
                self.failed.remove(&Work::Credentials);
                self.facts.credentials = true;
            }
            Event::CredentialsLacking if self.ground => {
                self.facts.credentials = false;
                let after = self.again(Work::Credentials);
                actions.push(Action::KeepCredentials { after });
            }
            Event::Provided { service, receipt } if self.ground && plan.service(&service).is_some() => {
                self.failed.remove(&Work::Service(service.clone()));
                self.facts.services.insert(service.clone());
                self.receipts.insert(service, receipt);
            }
            // Tried again by itself; others go on, and only the gates that need it stay shut.
            Event::NotProvided { service } if self.ground && plan.service(&service).is_some() => {
                self.lapse(&service);
                let after = self.again(Work::Service(service.clone()));
                actions.push(Action::Provide { service, anew: self.epoch == Epoch::New, after });
            }
            Event::Lapsed { service } if self.ground && plan.service(&service).is_some() => {
                self.lapse(&service);
                actions.push(Action::Provide { service, anew: true, after: Duration::ZERO });
            }
            Event::ProbePassed { gate, at } if self.probing.contains(&(gate.clone(), at)) => {
                self.facts.probes.insert((gate, at));
            }
            // Looked for on and on by whoever was told to probe.
            Event::ProbeLapsed { gate, at } => {
                self.facts.probes.remove(&(gate, at));
            }
            _ => {}
        }
        // The gates before the work: a gate that must shut does not wait until its reason is mended.
        let mut all = self.publish(plan);
        all.extend(actions);
        all.extend(self.probe(plan));
        (self, all)
    }

    fn lapse(&mut self, service: &ServiceName) {
        self.facts.services.remove(service);
        self.receipts.remove(service);
    }

    /// Publishes the gates if they, or the evidence of those that are open, have changed.
    fn publish(&mut self, plan: &Plan) -> Vec<Action> {
        let open = self.facts.open(plan);
        let evidence = self.evidence();
        let next = (open, Some(evidence));
        let nothing_yet = next.0.is_empty() && self.published.0.is_empty();
        if nothing_yet || next == self.published {
            return Vec::new();
        }
        self.published = next.clone();
        vec![Action::SetGates { open: next.0, evidence }]
    }

    /// Probes begin when everything else that their gate needs holds: their deadline should not run before that.
    fn probe(&mut self, plan: &Plan) -> Vec<Action> {
        let open = self.facts.open(plan);
        let mut actions = Vec::new();
        for gate in &plan.gates {
            let others_hold = gate.needs.iter().all(|need| match need {
                Need::Probe(_) => true,
                Need::Store => self.facts.store,
                Need::AllServices => plan.services.iter().all(|s| self.facts.services.contains(&s.name)),
                Need::Service(name) => self.facts.services.contains(name),
                Need::AllCredentials => self.facts.credentials,
                Need::Gate(name) => open.contains(name),
            });
            if !others_hold {
                continue;
            }
            for at in (0..gate.needs.len()).filter(|at| matches!(gate.needs[*at], Need::Probe(_))) {
                if self.probing.insert((gate.name.clone(), at)) {
                    actions.push(Action::Probe { gate: gate.name.clone(), at });
                }
            }
        }
        actions
    }

    /// Counts a failure, and says how long to wait: 0.5 s, 1 s ... up to a minute.
    fn again(&mut self, work: Work) -> Duration {
        let failed = self.failed.entry(work).or_insert(0);
        *failed = failed.saturating_add(1);
        Duration::from_millis(500).saturating_mul(1 << (*failed - 1).min(7)).min(Duration::from_secs(60))
    }
}
