//! What is wrong between parts of a plan that are each right by themselves.

use std::collections::BTreeSet;

use super::{CredentialPlanError, GateName, MountKind, Need, Plan, Profile, ServiceName, SourceSpec, StoreSpec};

/// One fault; its text says what, with values. A plan with faults is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// Two services of one name.
    #[error("the service {0} is there twice")]
    DuplicateService(ServiceName),
    /// Two gates of one name.
    #[error("the gate {0} is there twice")]
    DuplicateGate(GateName),
    /// Two credentials that would write one path.
    #[error("two credentials write secret/{0}")]
    DuplicateCredential(String),
    /// A copy for nobody.
    #[error("the credential {credential} is copied to {service}, which is no service of the plan")]
    UnknownCopy {
        /// The credential.
        credential: String,
        /// The name that is no service.
        service: ServiceName,
    },
    /// A credential that cannot be.
    #[error("the credential {credential}: {fault}")]
    Credential {
        /// Its name.
        credential: String,
        /// What is wrong.
        fault: CredentialPlanError,
    },
    /// A gate that waits for no service of the plan.
    #[error("the gate {gate} needs the service {service}, which is not in the plan")]
    UnknownService {
        /// The gate.
        gate: GateName,
        /// What it needs.
        service: ServiceName,
    },
    /// A gate that waits for none, for itself or for a later one.
    #[error("the gate {gate} needs the gate {needed}, which does not stand before it")]
    UnknownGate {
        /// The gate.
        gate: GateName,
        /// What it needs.
        needed: GateName,
    },
    /// Two gates would open one address.
    #[error("two gates open {0}")]
    DuplicateHint(std::net::SocketAddr),
    /// A token that anybody on the device can read.
    #[error("the token file of {service} has mode {mode:04o}, which lets everybody read it")]
    ReadableToken {
        /// The service.
        service: ServiceName,
        /// Its mode.
        mode: u32,
    },
    /// A period of nothing.
    #[error("the token of {0} has a period under 60 s, which is shorter than its renewal takes in the worst case")]
    ShortPeriod(ServiceName),
    /// No recovery was chosen.
    #[error("nobody has chosen who holds the recovery key")]
    NoRecovery,
    /// Nothing to make a key with.
    #[error("the plan has no key source")]
    NoSource,
    /// More than a slot set holds beside the recovery key.
    #[error("the plan has {count} key sources; at most {max} have room beside the recovery key", max = MAX_SOURCES)]
    TooManySources {
        /// How many.
        count: usize,
    },
    /// Two sources that would be one: the second way in would be lost with the first.
    #[error("the key source {0} is there twice")]
    DuplicateSource(String),
    /// Sources are to be closed, and none of them can be.
    #[error("[release] after_close is {0}, and no key source counts its releases: none would be closed")]
    NothingCloses(&'static str),
    /// A software key under the production profile.
    #[error("a production device would keep its key in the file {0}: whoever has the disk has the key")]
    SoftwareKey(std::path::PathBuf),
    /// Parts that make no combination.
    #[error("the key source {name}: {problem}")]
    Combination {
        /// The source, for people.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Two sources would count their releases by one register.
    #[error("{name} counts its releases by PCR {gate}, and so does a source before it: each would shut the other out")]
    SharedGate {
        /// The second.
        name: String,
        /// The register.
        gate: u8,
    },
    /// The mounts that services and credentials need are missing.
    #[error("no {0} is mounted, and the plan needs one")]
    NoMount(&'static str),
    /// A directory that is not absolute would depend on where the process was started.
    #[error("{0} is not an absolute path")]
    RelativePath(std::path::PathBuf),
    /// A certificate for nobody.
    #[error("the server certificate has no name")]
    NoServerName,
}

impl Plan {
    /// Everything that is wrong, in the order of the plan.
    pub fn faults(&self) -> Vec<PlanFault> {
        let mut faults = Vec::new();
        self.check_places(&mut faults);
        self.check_services(&mut faults);
        self.check_credentials(&mut faults);
        self.check_gates(&mut faults);
        faults
    }

    fn check_places(&self, faults: &mut Vec<PlanFault>) {
        for path in [&self.data_dir, &self.run_dir] {
            if !path.is_absolute() {
                faults.push(PlanFault::RelativePath(path.clone()));
            }
        }
        match &self.recovery {
            _ if !self.store.has_slots() => {}
            None => faults.push(PlanFault::NoRecovery),
            Some(_) => {}
        }
        self.check_sources(faults);
        for (kind, text) in [(MountKind::KvV1, "kv version 1"), (MountKind::Userpass, "userpass")] {
            if !self.mounts.iter().any(|m| m.kind == kind) {
                faults.push(PlanFault::NoMount(text));
            }
        }
        if self.listen.names.is_empty() && self.store == StoreSpec::Ours {
            faults.push(PlanFault::NoServerName);
        }
    }

    fn check_sources(&self, faults: &mut Vec<PlanFault>) {
        if self.sources.is_empty() && self.store.has_slots() {
            faults.push(PlanFault::NoSource);
        }
        if self.sources.len() > MAX_SOURCES {
            faults.push(PlanFault::TooManySources { count: self.sources.len() });
        }
        if let Some(after) = self.release.after_close.filter(|_| !self.sources.iter().any(SourceSpec::can_be_closed)) {
            faults.push(PlanFault::NothingCloses(after.as_str()));
        }
        for (i, source) in self.sources.iter().enumerate() {
            if self.sources.iter().take(i).any(|before| before.is_same_device(source)) {
                faults.push(PlanFault::DuplicateSource(source.to_string()));
            }
            if let Some(gate) = self.sources.iter().take(i).find_map(|before| before.shared_gate(source)) {
                faults.push(PlanFault::SharedGate { name: source.to_string(), gate });
            }
            let allowed = self.profile != Profile::Production || self.dangers.software_key;
            // As a part of `all` it is worth nothing, and as one of `threshold` it is worth too much.
            faults.extend(source.makes_files().filter(|_| !allowed).map(|f| PlanFault::SoftwareKey(f.to_owned())));
            if let SourceSpec::Combined { threshold, parts } = source {
                let kinds: Vec<_> = parts.iter().map(SourceSpec::kind).collect();
                let fault = |problem: String| PlanFault::Combination { name: source.to_string(), problem };
                faults.extend(seal::check_parts(&kinds, *threshold).err().map(|e| fault(e.to_string())));
                let twin = |i: usize| parts.iter().take(i).any(|before| before.is_same_device(&parts[i]));
                faults
                    .extend((0..parts.len()).find(|i| twin(*i)).map(|i| fault(format!("{} is named twice", parts[i]))));
            }
        }
    }

    fn check_services(&self, faults: &mut Vec<PlanFault>) {
        let mut seen = BTreeSet::new();
        for s in &self.services {
            if !seen.insert(&s.name) {
                faults.push(PlanFault::DuplicateService(s.name.clone()));
            }
            if s.mode.is_readable_by_all() && !self.dangers.readable_tokens {
                faults.push(PlanFault::ReadableToken { service: s.name.clone(), mode: s.mode.bits() });
            }
            if s.token.period.as_seconds() < 60 {
                faults.push(PlanFault::ShortPeriod(s.name.clone()));
            }
        }
    }

    fn check_credentials(&self, faults: &mut Vec<PlanFault>) {
        let mut written = BTreeSet::new();
        for c in &self.credentials {
            if let Err(fault) = c.check() {
                faults.push(PlanFault::Credential { credential: c.name.escape_default().take(64).collect(), fault });
            }
            let copies = c.copies.iter().map(|s| c.copy_path(s));
            for path in std::iter::once(c.source.clone()).chain(copies) {
                if !written.insert(path.clone()) {
                    faults.push(PlanFault::DuplicateCredential(path));
                }
            }
            for service in c.copies.iter().filter(|s| self.service(s).is_none()) {
                faults.push(PlanFault::UnknownCopy { credential: c.name.clone(), service: service.clone() });
            }
        }
    }

    fn check_gates(&self, faults: &mut Vec<PlanFault>) {
        let (mut before, mut hints) = (BTreeSet::new(), BTreeSet::new());
        for g in &self.gates {
            for need in &g.needs {
                match need {
                    Need::Service(s) if self.service(s).is_none() => {
                        faults.push(PlanFault::UnknownService { gate: g.name.clone(), service: s.clone() });
                    }
                    Need::Gate(n) if !before.contains(n) => {
                        faults.push(PlanFault::UnknownGate { gate: g.name.clone(), needed: n.clone() });
                    }
                    _ => {}
                }
            }
            if !before.insert(&g.name) {
                faults.push(PlanFault::DuplicateGate(g.name.clone()));
            }
            if let Some(hint) = g.hint.filter(|h| !hints.insert(*h)) {
                faults.push(PlanFault::DuplicateHint(hint));
            }
        }
    }
}

/// What a slot set has room for: one place is the recovery key's, one is free so that a slot can come before another
/// goes.
const MAX_SOURCES: usize = seal::MAX_SLOTS - 2;

#[cfg(test)]
mod tests {
    use super::super::{CredentialPlan, FileMode, GatePlan};
    use super::*;
    use crate::plan::{TpmKeeping, TpmSpec};
    use crate::testing::demo_plan;

    #[test]
    fn the_demo_has_none() {
        assert_eq!(demo_plan("/d".as_ref(), "/r".as_ref()).faults(), []);
    }

    /// What a combination gives ends when too few of its parts go on.
    #[test]
    fn a_combination_is_closed_by_its_parts() {
        let tpm = || crate::testing::counted_tpm("/dev/tpmrm0".as_ref(), 2);
        let hook =
            || SourceSpec::Exec { path: "/hook".into(), env: Default::default(), deadline: std::time::Duration::ZERO };
        for (threshold, parts, closes) in [
            (None, vec![tpm(), hook()], true),
            (None, vec![hook(), hook()], false),
            (Some(2), vec![tpm(), hook()], true),
            (Some(1), vec![tpm(), hook()], false),
            (Some(2), vec![tpm(), hook(), hook()], false),
        ] {
            let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
            plan.release.after_close = Some(crate::plan::AfterClose::StaySealed);
            plan.sources = vec![SourceSpec::Combined { threshold, parts }];
            let refused = plan.faults().iter().any(|fault| matches!(fault, PlanFault::NothingCloses(_)));
            assert_eq!(refused, !closes, "{:?}", plan.sources);
        }
    }

    #[test]
    fn all_faults_come_at_once() {
        let mut plan = demo_plan("/d".as_ref(), "r".as_ref());
        plan.recovery = None;
        plan.services.push(plan.services[0].clone());
        plan.services[1].mode = FileMode::new(0o444).unwrap();
        plan.credentials.push(CredentialPlan::redis(vec!["nobody".parse().unwrap()]));
        plan.credentials.push(CredentialPlan::redis(Vec::new()));
        let late: GateName = "late".parse().unwrap();
        let gate = GatePlan { name: late.clone(), needs: vec![Need::Gate(late)], deadline: None, hint: None };
        plan.gates.insert(0, gate);
        let text: Vec<String> = plan.faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            [
                "r is not an absolute path",
                "nobody has chosen who holds the recovery key",
                "the token file of uploader has mode 0444, which lets everybody read it",
                "the service sensor is there twice",
                "the credential redisdb is copied to nobody, which is no service of the plan",
                "two credentials write secret/edgex/security-bootstrapper-redis/redisdb",
                "the gate late needs the gate late, which does not stand before it",
            ]
        );
    }

    #[test]
    fn sources_are_several_and_each_is_another() {
        let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
        let exec =
            |path: &str| SourceSpec::Exec { path: path.into(), env: [].into(), deadline: std::time::Duration::ZERO };
        plan.sources = vec![exec("/a"), exec("/b"), exec("/a")];
        assert_eq!(plan.faults(), [PlanFault::DuplicateSource("exec /a".into())]);
        plan.sources = (0..15).map(|i| exec(&format!("/{i}"))).collect();
        assert_eq!(plan.faults(), [PlanFault::TooManySources { count: 15 }]);
        plan.sources = Vec::new();
        assert_eq!(plan.faults(), [PlanFault::NoSource]);
    }

    #[test]
    fn two_sources_never_count_by_one_register() {
        let tpm = |device: &str, gate_pcr, limit, pcr| {
            SourceSpec::Tpm(TpmSpec {
                device: device.into(),
                keeping: TpmKeeping::Sealed,
                pcrs: seal::PcrSet::new([pcr]).unwrap(),
                signing: seal::PcrSigning::default(),
                gate_pcr,
                counting: seal::Counting::default(),
                releases_per_boot: std::num::NonZeroU8::new(limit),
                window: None,
                pin: None,
                deadline: std::time::Duration::from_secs(1),
            })
        };
        let first = tpm("/dev/tpmrm0", 13, 2, 7);
        let all = |part: &SourceSpec| {
            let file = SourceSpec::Credential {
                directory: "/run/credentials/edgekeep.service".into(),
                name: "ikm".parse().unwrap(),
                form: seal::CredentialForm::Raw,
            };
            SourceSpec::Combined { threshold: None, parts: vec![file, part.clone()] }
        };
        let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
        for (second, shared) in [
            (tpm("/dev/tpmrm0", 13, 3, 11), true),
            (all(&tpm("/dev/tpmrm0", 13, 3, 11)), true),
            (tpm("/dev/tpmrm0", 12, 3, 11), false),
            (tpm("/dev/tpmrm1", 13, 3, 11), false),
            (tpm("/dev/tpmrm0", 13, 0, 11), false),
        ] {
            plan.sources = vec![first.clone(), second];
            let found = plan.faults().iter().any(|f| matches!(f, PlanFault::SharedGate { gate: 13, .. }));
            assert_eq!(found, shared, "{:?}", plan.sources[1]);
        }
    }

    #[test]
    fn production_refuses_a_software_key() {
        let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
        plan.profile = Profile::Production;
        assert!(matches!(plan.faults()[..], [PlanFault::SoftwareKey(_)]));
        plan.dangers.software_key = true;
        assert_eq!(plan.faults(), []);
    }
}
