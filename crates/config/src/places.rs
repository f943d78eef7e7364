//! Faults between parts of a plan, brought back to the lines that the parts came from.

use std::collections::BTreeMap;
use std::path::Path;

use boot::plan::{Plan, PlanFault};

use crate::fault::{Collector, Place};

/// Where each part was written. A later part of the same name displaces the earlier one: it is the one too many.
#[derive(Debug)]
pub(crate) struct Places {
    file: Place,
    parts: BTreeMap<(Part, String), Place>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Service,
    Credential,
    Gate,
    /// A key source, by what it is called.
    Source,
    Section,
}

impl Places {
    pub(crate) fn new(file: &Path) -> Self {
        Self { file: Place::whole(file), parts: BTreeMap::new() }
    }

    pub(crate) fn note(&mut self, part: Part, name: impl ToString, place: Place) {
        self.parts.insert((part, name.to_string()), place);
    }

    pub(crate) fn of(&self, part: Part, name: impl ToString) -> &Place {
        self.parts.get(&(part, name.to_string())).unwrap_or(&self.file)
    }

    /// Adds the faults of the plan, each with its place and remedy.
    pub(crate) fn report(&self, plan: &Plan, faults: &Collector) {
        for fault in plan.faults() {
            let (place, remedy) = self.place_and_remedy(plan, &fault);
            faults.add(place, fault.to_string(), remedy);
        }
    }

    fn place_and_remedy(&self, plan: &Plan, fault: &PlanFault) -> (&Place, String) {
        let section = |name: &str| self.of(Part::Section, name);
        let credential_at = |source: &str| {
            let name = plan
                .credentials
                .iter()
                .rfind(|c| c.source == source || c.copies.iter().any(|s| c.copy_path(s) == source));
            self.of(Part::Credential, name.map_or(source, |c| c.source.as_str()))
        };
        match fault {
            PlanFault::DuplicateService(name) => (self.of(Part::Service, name), "remove one of the two".into()),
            PlanFault::DuplicateGate(name) => (self.of(Part::Gate, name), "remove or rename one of the two".into()),
            PlanFault::DuplicateCredential(path) => {
                (credential_at(path), "give one of them another name or source".into())
            }
            PlanFault::UnknownCopy { service, credential } => {
                let source = plan.credentials.iter().find(|c| c.name == *credential && c.copies.contains(service));
                let place = self.of(Part::Credential, source.map_or("", |c| c.source.as_str()));
                (place, format!("add a [[service]] named {service}, or leave it out here"))
            }
            PlanFault::Credential { credential, .. } => {
                let source = plan.credentials.iter().find(|c| c.name.escape_default().to_string().starts_with(credential.as_str()));
                (self.of(Part::Credential, source.map_or("", |c| c.source.as_str())), "use only the characters named".into())
            }
            PlanFault::UnknownService { gate, service } => {
                (self.of(Part::Gate, gate), format!("add a [[service]] named {service}, or drop the need"))
            }
            PlanFault::UnknownGate { gate, .. } => {
                (self.of(Part::Gate, gate), "move the gate that is needed in front, or drop the need".into())
            }
            PlanFault::DuplicateHint(_) => (&self.file, "give one of the gates another hint".into()),
            PlanFault::ReadableToken { service, .. } => {
                let remedy = "use mode 0400 or 0440 with an owner and group; \
                     or set danger_readable_tokens = true in [delivery]";
                (self.of(Part::Service, service), remedy.into())
            }
            PlanFault::ShortPeriod(service) => {
                (self.of(Part::Service, service), "set period to 60s or more; 1h is usual".into())
            }
            PlanFault::NoRecovery => (
                section("recovery"),
                "choose in [recovery]: age = [\"age1...\"] (best), out = \"/other/disk/file\", terminal = true, or none = true"
                    .into(),
            ),
            PlanFault::NoSource | PlanFault::TooManySources { .. } => (section("source"), "keep one at least, 14 at most".into()),
            PlanFault::DuplicateSource(name) => (self.of(Part::Source, name), "remove one of the two".into()),
            PlanFault::SharedGate { name, .. } => {
                (self.of(Part::Source, name), "give one of them another gate_pcr: 8 to 15, not 10".into())
            }
            PlanFault::NothingCloses(_) => (
                section("release"),
                "set releases_per_boot in the [source] of kind \"tpm\", or in so many parts of a combination that the others are too few, \
                 or take after_close out"
                    .into(),
            ),
            PlanFault::SoftwareKey(file) => (
                self.of(Part::Source, format!("software {}", file.display())),
                "set kind = \"exec\" with the program that reads the hardware; to look around, \
                 `edgekeep up --demo`; to test a device, danger_software_key = true"
                    .into(),
            ),
            PlanFault::Combination { name, .. } => (
                self.of(Part::Source, name),
                "name 2 to 8 sources in [[source.part]], each once, none of them a combination, and a threshold that is not above \
                 their number"
                    .into(),
            ),
            PlanFault::NoMount(_) => (&self.file, "this is a fault of edgekeep; please report it".into()),
            PlanFault::RelativePath(_) => (&self.file, "write a path that begins with /".into()),
            PlanFault::NoServerName => (section("listen"), "name at least one host in names".into()),
        }
    }
}
