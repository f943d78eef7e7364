//! The state of all gates, as published to whoever answers for them.

use std::collections::{BTreeMap, BTreeSet};

use host::BootId;

use crate::gate::{Answer, GateState};
use crate::plan::{GateName, Plan, Profile};

/// What makes an open gate believable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// SHA-256 of the device CA's certificate (DER).
    pub ca: [u8; 32],
    /// SHA-256 over all receipts, in the order of the services' names.
    pub receipts: [u8; 32],
}

/// All gates of a plan with their states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    boot: BootId,
    profile: Profile,
    gates: BTreeMap<GateName, Option<Evidence>>,
}

impl Board {
    /// All gates of the plan, shut.
    pub fn shut(plan: &Plan, boot: BootId) -> Self {
        let gates = plan.gates.iter().map(|g| (g.name.clone(), None)).collect();
        Self { boot, profile: plan.profile, gates }
    }

    /// Opens exactly these gates by this evidence; all others are shut. A gate that stays open keeps the newest
    /// evidence.
    pub fn set(&mut self, open: &BTreeSet<GateName>, evidence: Evidence) {
        for (name, state) in &mut self.gates {
            *state = open.contains(name).then_some(evidence);
        }
    }

    /// Shuts all.
    pub fn shut_all(&mut self) {
        self.gates.values_mut().for_each(|state| *state = None);
    }

    /// What to answer about a gate.
    pub fn answer(&self, name: &GateName) -> Answer {
        let state = match self.gates.get(name) {
            None => GateState::Unknown,
            Some(None) => GateState::Shut,
            Some(Some(evidence)) => GateState::Open(*evidence),
        };
        Answer { gate: name.clone(), boot: self.boot, profile: self.profile, state }
    }

    /// The names of the open gates.
    pub fn open(&self) -> BTreeSet<GateName> {
        self.gates.iter().filter(|(_, s)| s.is_some()).map(|(n, _)| n.clone()).collect()
    }
}
