//! The demo's plan: two services, a key in a file, and nobody who could recover anything.

use std::path::{Path, PathBuf};

use boot::plan::{
    AuditPlan, Dangers, ListenPlan, Plan, Profile, RecoverySpec, ReleasePlan, ServicePlan, SourceSpec, StoreSpec,
};

use crate::fault::{Collector, Faults, Place, shown};
use crate::settings::{demo_gates, parse_address};

/// What can be chosen about a demo.
pub struct Demo<'a> {
    /// Absolute path of the directory that holds everything that is kept.
    pub data_dir: &'a Path,
    /// A directory on a tmpfs for tokens and sockets.
    pub run_dir: &'a Path,
    /// `host:port`; `127.0.0.1:8200` if not given.
    pub listen: Option<&'a str>,
}

/// The plan that `up --demo` carries out.
///
/// # Errors
/// [`Faults`] if the address is none, or one that others could reach: a demo is for this machine alone.
pub fn demo(wish: &Demo<'_>) -> Result<Plan, Faults> {
    let faults = Collector::default();
    let mut listen = ListenPlan::usual(wish.run_dir);
    if let Some(text) = wish.listen {
        let place = Place::Option("--listen");
        match parse_address(text) {
            Err(e) => faults.add(&place, format!("{}: {e}", shown(text)), "write host:port such as 127.0.0.1:8201"),
            Ok((host, _)) if !is_loopback(&host) && host::in_force("demo-on-loopback") => {
                let remedy = "listen on 127.0.0.1; what others shall reach needs a configuration: `edgekeep setup`";
                faults.add(
                    &place,
                    format!("{} can be reached from outside, and a demo protects nothing", shown(text)),
                    remedy,
                );
            }
            Ok((host, _)) => {
                listen.tcp = Some(text.to_owned());
                listen.add_name(&host);
            }
        }
    }
    let service = |name: &str| ServicePlan::usual(name.parse().expect("names in this file are names"));
    let mut plan = Plan {
        profile: Profile::Demo,
        data_dir: wish.data_dir.to_owned(),
        run_dir: wish.run_dir.to_owned(),
        store: StoreSpec::Ours,
        sources: vec![SourceSpec::Software { file: key_file(wish.data_dir) }],
        release: ReleasePlan::default(),
        recovery: Some(RecoverySpec::None),
        mounts: Plan::default_mounts(),
        services: SERVICES.map(service).into(),
        credentials: Vec::new(),
        gates: Vec::new(),
        listen,
        audit: AuditPlan::default(),
        dangers: Dangers::default(),
    };
    demo_gates(&mut plan);
    faults.finish(plan)
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

fn key_file(data_dir: &Path) -> PathBuf {
    data_dir.join("software.key")
}

/// One that measures and one that sends on: enough to show that neither reads the other's secrets.
const SERVICES: [&str; 2] = ["sensor", "uploader"];

#[cfg(test)]
mod tests {
    use super::*;

    fn with(listen: Option<&str>) -> Result<Plan, Faults> {
        demo(&Demo { data_dir: Path::new("/d"), run_dir: Path::new("/r"), listen })
    }

    #[test]
    fn the_demo_has_no_faults_and_stays_on_this_machine() {
        let plan = with(None).unwrap();
        assert_eq!(plan.faults(), []);
        assert_eq!(plan.profile, Profile::Demo);
        assert_eq!(with(Some("127.0.0.1:9")).unwrap().listen.tcp.as_deref(), Some("127.0.0.1:9"));
        // Clients that are told the address find it on the certificate.
        for (listen, name) in [("127.0.0.2:9", "127.0.0.2"), ("[::1]:9", "::1")] {
            assert_eq!(with(Some(listen)).unwrap().listen.names, ["localhost", "127.0.0.1", name]);
        }
        for bad in ["0.0.0.0:8200", "192.168.0.1:1", "example.org:1", "x"] {
            assert!(with(Some(bad)).is_err(), "{bad}");
        }
    }
}
