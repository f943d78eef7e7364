//! Plans and fakes for this crate's own tests.

use std::net::SocketAddr;
use std::num::NonZeroU8;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::plan::{
    AuditPlan, Dangers, GatePlan, ListenPlan, Need, Plan, Profile, RecoverySpec, ReleasePlan, ServicePlan, SourceSpec,
    TpmKeeping, TpmSpec,
};
use crate::provision::Ground;

/// Two services, two gates, a software key: what `up --demo` makes.
pub(crate) fn demo_plan(data_dir: &Path, run_dir: &Path) -> Plan {
    let gate = |name: &str, needs| GatePlan { name: name.parse().unwrap(), needs, deadline: None, hint: None };
    Plan {
        profile: Profile::Demo,
        data_dir: data_dir.into(),
        run_dir: run_dir.into(),
        store: crate::plan::StoreSpec::Ours,
        sources: vec![SourceSpec::Software { file: data_dir.join("software.key") }],
        release: ReleasePlan::default(),
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

/// A TPM that gives its key so many times in a boot.
pub(crate) fn counted_tpm(device: &Path, releases: u8) -> SourceSpec {
    SourceSpec::Tpm(TpmSpec {
        device: device.into(),
        keeping: TpmKeeping::Sealed,
        pcrs: seal::PcrSet::new([7]).unwrap(),
        signing: seal::PcrSigning::default(),
        gate_pcr: 13,
        counting: seal::Counting::Best,
        releases_per_boot: NonZeroU8::new(releases),
        window: None,
        pin: None,
        deadline: Duration::from_secs(30),
    })
}

/// What [`crate::provision::lay_ground`] finds for [`demo_plan`].
pub(crate) fn demo_ground() -> Ground {
    Ground { kv: "secret".into(), userpass: "userpass".into(), userpass_accessor: "accessor-sys/auth/userpass".into() }
}

/// Waits until nobody listens there. Whoever stopped may have done so already, and a child that another test has just
/// started has a copy of the listener until its exec.
///
/// # Panics
/// If somebody still listens after ten seconds.
pub(crate) async fn is_refused(address: SocketAddr) {
    let refused = async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refused).await.expect("nobody listens any more");
}

/// Bytes that count up: no two fills are alike.
#[derive(Default)]
pub(crate) struct Counting(AtomicU8);

impl host::Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        out.iter_mut().for_each(|b| *b = self.0.fetch_add(1, Ordering::Relaxed));
    }
}
