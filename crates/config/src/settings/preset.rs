//! `preset = "compose"`: the host names, ports and gates that EdgeX's docker-compose files are written for, so that its
//! services find edgekeep where they look for Vault or OpenBao and for the security bootstrapper.

use std::net::{Ipv4Addr, SocketAddr};

use boot::gate::Database;
use boot::plan::{GatePlan, ListenPlan, Need, Plan, Probe};

use crate::environment::Environment;
use crate::fault::{Place, shown};
use crate::section::{Section, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    Compose,
}

pub(super) fn read(top: &mut Section<'_>) -> Option<Preset> {
    let preset = top.text("preset")?;
    if preset.value == "compose" {
        return Some(Preset::Compose);
    }
    top.fault(&preset.place, format!("unknown preset {}", shown(&preset.value)), "the only one is \"compose\"");
    None
}

impl Preset {
    /// Listens for the other containers, under the names by which they look.
    pub(super) fn listen(self, plan: &mut ListenPlan) {
        plan.tcp = Some("0.0.0.0:8200".into());
        plan.names = HOSTS.map(str::to_owned).into();
    }
}

/// The preset's gates; one that the file writes by the same name takes its place, others follow.
pub(super) fn gates(preset: Option<Preset>, source: Source<'_>, written: Vec<GatePlan>) -> Vec<GatePlan> {
    let Some(Preset::Compose) = preset else {
        return if written.is_empty() { usual_gates() } else { written };
    };
    let port = |name: &str, default: u16| port_of(source, name).unwrap_or(default);
    let host =
        source.environment.value("STAGEGATE_DATABASE_HOST").filter(|h| !h.is_empty()).unwrap_or("edgex-postgres");
    let host = if super::listen::is_server_name(host) {
        host
    } else {
        let place = Place::Variable("STAGEGATE_DATABASE_HOST".into());
        source.faults.add(&place, format!("{} is no host", shown(host)), "set it to a host name or an address");
        "edgex-postgres"
    };
    let (host, at) = (host.to_owned(), port("STAGEGATE_DATABASE_READYPORT", 5432));
    let database = match Database::named(None, at) {
        Some(Database::Postgres) => Probe::Postgres { host, port: at },
        Some(Database::Redis) => Probe::Redis { host, port: at },
        Some(Database::Unknown) | None => Probe::Tcp { host, port: at },
    };
    let gate = |name: &str, needs, at: u16| GatePlan {
        name: name.parse().expect("names in this file are names"),
        needs,
        deadline: None,
        hint: Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, at))),
    };
    let tokens_ready = || Need::Gate(TOKENS_READY.parse().expect("names in this file are names"));
    let mut gates = vec![
        gate("bootstrap-start", vec![Need::Store], port("STAGEGATE_BOOTSTRAPPER_STARTPORT", 54321)),
        gate(
            TOKENS_READY,
            vec![Need::AllServices, Need::AllCredentials],
            port("STAGEGATE_SECRETSTORESETUP_TOKENS_READYPORT", 54322),
        ),
        gate("ready-to-run", vec![tokens_ready(), Need::Probe(database)], port("STAGEGATE_READY_TORUNPORT", 54329)),
    ];
    for own in written {
        match gates.iter_mut().find(|g| g.name == own.name) {
            Some(usual) => *usual = own,
            None => gates.push(own),
        }
    }
    gates
}

/// Without a word about gates there are two, opened by evidence alone: no port is taken.
fn usual_gates() -> Vec<GatePlan> {
    let gate = |name: &str, needs| GatePlan {
        name: name.parse().expect("names in this file are names"),
        needs,
        deadline: None,
        hint: None,
    };
    let before = TOKENS_READY.parse().expect("names in this file are names");
    vec![
        gate(TOKENS_READY, vec![Need::AllServices, Need::AllCredentials]),
        gate("ready-to-run", vec![Need::Gate(before)]),
    ]
}

/// The demo's gates: the usual ones.
pub(crate) fn demo_gates(plan: &mut Plan) {
    plan.gates = usual_gates();
}

fn port_of(source: Source<'_>, name: &str) -> Option<u16> {
    let environment: &Environment = source.environment;
    let text = environment.value(name).filter(|t| !t.is_empty())?;
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Some(port),
        _ => {
            let place = Place::Variable(name.to_owned());
            source.faults.add(&place, format!("{} is no port", shown(text)), "set it to a number from 1 to 65535");
            None
        }
    }
}

const TOKENS_READY: &str = "tokens-ready";
/// As the services of EdgeX 4's compose files name the store, the bootstrapper and the set-up.
const HOSTS: [&str; 6] = [
    "edgex-secret-store",
    "edgex-security-bootstrapper",
    "edgex-security-secretstore-setup",
    "edgex-secretstore-setup",
    "localhost",
    "127.0.0.1",
];
