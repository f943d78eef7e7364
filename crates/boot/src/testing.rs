//! Plans and fakes for this crate's own tests.

use std::path::Path;

use crate::plan::{
    AuditPlan, Dangers, GatePlan, ListenPlan, Need, Plan, Profile, RecoverySpec, ServicePlan, SourceSpec,
};

/// Two services, two gates, a software key: what `up --demo` makes.
pub(crate) fn demo_plan(data_dir: &Path, run_dir: &Path) -> Plan {
    let gate = |name: &str, needs| GatePlan { name: name.parse().unwrap(), needs, deadline: None, hint: None };
    Plan {
        profile: Profile::Demo,
        data_dir: data_dir.into(),
        run_dir: run_dir.into(),
        source: SourceSpec::Software { file: data_dir.join("software.key") },
        recovery: Some(RecoverySpec::None),
        mounts: Plan::default_mounts(),
        services: ["sensor", "uploader"].map(|n| ServicePlan::usual(n.parse().unwrap())).into(),
        credentials: Vec::new(),
        gates: vec![
            gate("tokens-ready", vec![Need::AllServices, Need::AllCredentials]),
            gate("ready-to-run", vec![Need::Gate("tokens-ready".parse().unwrap())]),
        ],
        listen: ListenPlan::usual(run_dir),
        audit: AuditPlan::default(),
        dangers: Dangers::default(),
    }
}
