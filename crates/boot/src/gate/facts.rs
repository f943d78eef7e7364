//! What is known to hold, and which gates are open by it. Pure.

use std::collections::BTreeSet;

use crate::plan::{GateName, GatePlan, Need, Plan, ServiceName};

/// What holds now. Each fact is put here only after what it tells is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The store is unsealed and the server certificate is in it.
    pub store: bool,
    /// Services whose token is delivered and whose receipt is committed.
    pub services: BTreeSet<ServiceName>,
    /// All credentials stand at their source and all their copies.
    pub credentials: bool,
    /// Probes that have succeeded: gate, and position among its needs.
    pub probes: BTreeSet<(GateName, usize)>,
}

impl Facts {
    /// The gates of `plan` that are open by these facts. Sealed means that none is, whatever else was known.
    pub fn open(&self, plan: &Plan) -> BTreeSet<GateName> {
        let mut open = BTreeSet::new();
        if !self.store {
            return open;
        }
        // In the plan's order: a gate needs only gates before it, so one pass is enough.
        for gate in &plan.gates {
            if gate.needs.iter().enumerate().all(|(at, need)| self.holds(plan, &open, gate, at, need)) {
                open.insert(gate.name.clone());
            }
        }
        open
    }

    /// What the gate waits for, the first of its needs that does not hold; `None` if it is open, or is no gate of the
    /// plan.
    pub fn lacking(&self, plan: &Plan, gate: &GateName) -> Option<String> {
        let gate = plan.gates.iter().find(|g| g.name == *gate)?;
        if !self.store {
            return Some("the store".into());
        }
        let open = self.open(plan);
        let needs = gate.needs.iter().enumerate();
        needs
            .filter(|(at, need)| !self.holds(plan, &open, gate, *at, need))
            .map(|(_, need)| self.told(plan, need))
            .next()
    }

    fn holds(&self, plan: &Plan, open: &BTreeSet<GateName>, gate: &GatePlan, at: usize, need: &Need) -> bool {
        match need {
            Need::Store => self.store,
            Need::AllServices => {
                plan.services.iter().all(|s| self.services.contains(&s.name)) || !host::in_force("gates-by-evidence")
            }
            Need::Service(name) => self.services.contains(name),
            Need::AllCredentials => self.credentials,
            Need::Gate(name) => open.contains(name),
            Need::Probe(_) => self.probes.contains(&(gate.name.clone(), at)),
        }
    }

    fn told(&self, plan: &Plan, need: &Need) -> String {
        match need {
            Need::Store => "the store".into(),
            Need::AllServices => {
                let without = plan.services.iter().filter(|s| !self.services.contains(&s.name));
                let names: Vec<&str> = without.map(|s| s.name.as_str()).collect();
                format!("the tokens of {}", names.join(", "))
            }
            Need::Service(name) => format!("the token of {name}"),
            Need::AllCredentials => "the credentials".into(),
            Need::Gate(name) => format!("the gate {name}"),
            Need::Probe(probe) => probe.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::demo_plan;

    fn names(open: &BTreeSet<GateName>) -> Vec<&str> {
        open.iter().map(GateName::as_str).collect()
    }

    #[test]
    fn a_gate_opens_with_its_last_fact_and_shuts_with_the_first_that_lapses() {
        let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
        let needs = vec![Need::Gate("ready-to-run".parse().unwrap()), Need::Probe("file:/x".parse().unwrap())];
        plan.gates.push(GatePlan { name: "db".parse().unwrap(), needs, deadline: None, hint: None });
        let mut facts = Facts { store: true, credentials: true, ..Facts::default() };
        facts.services.insert("sensor".parse().unwrap());
        assert!(facts.open(&plan).is_empty(), "one service is missing");
        let lacking = |facts: &Facts, gate: &str| facts.lacking(&plan, &gate.parse().unwrap());
        assert_eq!(lacking(&facts, "tokens-ready").as_deref(), Some("the tokens of uploader"));
        assert_eq!(lacking(&facts, "ready-to-run").as_deref(), Some("the gate tokens-ready"));
        facts.services.insert("uploader".parse().unwrap());
        assert_eq!(names(&facts.open(&plan)), ["ready-to-run", "tokens-ready"]);
        assert_eq!(lacking(&facts, "db").as_deref(), Some("file:/x"));
        assert_eq!((lacking(&facts, "ready-to-run"), lacking(&facts, "nowhere")), (None, None));
        facts.probes.insert(("db".parse().unwrap(), 1));
        assert_eq!(names(&facts.open(&plan)), ["db", "ready-to-run", "tokens-ready"]);
        facts.credentials = false;
        assert!(facts.open(&plan).is_empty(), "what stands behind a shut gate is shut");
    }

    #[test]
    fn sealed_shuts_all() {
        let plan = demo_plan("/d".as_ref(), "/r".as_ref());
        let services = plan.services.iter().map(|s| s.name.clone()).collect();
        let facts = Facts { store: false, services, credentials: true, ..Facts::default() };
        assert!(facts.open(&plan).is_empty());
        assert_eq!(facts.lacking(&plan, &"tokens-ready".parse().unwrap()).as_deref(), Some("the store"));
    }
}
