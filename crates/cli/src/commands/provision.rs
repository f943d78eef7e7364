//! `edgekeep provision`: the first boot in a factory. Nobody is asked anything, and what the factory must keep of the device is one JSON
//! object.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use boot::driver::{MachineId, Note, Observer, Running, SlotReport};
use boot::machine::State;
use boot::plan::{Plan, RecoverySpec};
use clap::Args;
use host::{Disk, OsDisk};
use serde::Serialize;

use super::up;
use crate::failure::{Code, Failure};

/// Example: edgekeep provision --answers device-0042.toml > device-0042.json
#[derive(Args)]
pub(crate) struct Provision {
    /// The device's configuration, an edgekeep.toml; its [recovery] says who is to hold the recovery key.
    #[arg(long, value_name = "FILE")]
    answers: PathBuf,
    /// Where the store is kept, in place of data_dir.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// What the factory keeps. Nothing of it is secret.
#[derive(Debug, Serialize)]
struct Record {
    format: u8,
    /// The store's name, 32 hexadecimal digits.
    store: String,
    /// What the machine says of itself, as codes: the store is bound to it.
    machine: MachineId,
    /// SHA-256 of the device CA's certificate.
    ca: String,
    /// Who can open the store.
    slots: Vec<SlotReport>,
    /// The recovery key's file, if it is one.
    recovery: Option<PathBuf>,
}

pub(super) fn run(provision: &Provision) -> Result<(), Failure> {
    crate::process::log("warn");
    let plan = up::load(&provision.answers, None, provision.data_dir.as_deref())?.plan;
    unattended(&plan)?;
    let record = super::on_runtime_with(make(plan))?;
    crate::output::line(&serde_json::to_string_pretty(&record).unwrap_or_default());
    Ok(())
}

/// Refuses what would need somebody, and a device that has been made already.
fn unattended(plan: &Plan) -> Result<(), Failure> {
    if matches!(plan.recovery, Some(RecoverySpec::Terminal)) {
        return Err(Failure::usage(
            "nobody sits at a factory's terminal to write the recovery key down; nothing was done",
        )
        .hint("set age = [\"age1...\"] in [recovery]: the fleet's public keys"));
    }
    let state = plan.state_dir();
    match OsDisk.meta(&state) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => {
            Err(Failure::new(Code::Refused, format!("{} is there: this device was provisioned", state.display()))
                .hint("start it with edgekeep up; an image for many devices is made by edgekeep generalize"))
        }
        Err(e) => Err(Failure::fault(format!("{} cannot be looked at: {e}", state.display()))),
    }
}

async fn make(plan: Plan) -> Result<Record, Failure> {
    let environment = up::environment(None, None)?;
    let clock = Arc::clone(&environment.clock);
    let machine = MachineId::read(&OsDisk, &environment.machine);
    let ears = Ears::default();
    let claimed = boot::driver::claim(plan, environment, Box::new(ears.clone()))
        .map_err(|e| Failure::of(Code::NotReady, &e).hint(e.hint()))?;
    let mut running = claimed.start(None).await;
    let until = clock.boottime().plus(PATIENCE);
    while !matches!(running.state(), State::Serving(_)) && running.halted().is_none() && clock.boottime() < until {
        running.wait().await;
        running.tick().await;
    }
    let record = record(&mut running, machine, &ears).await;
    running.shutdown().await;
    record
}

async fn record(running: &mut Running, machine: MachineId, ears: &Ears) -> Result<Record, Failure> {
    let refused = |halt: &boot::machine::Halt| {
        Failure::new(Code::NotReady, format!("the device was not provisioned: {halt}")).hint(halt.hint())
    };
    if let Some(halt) = running.halted() {
        return Err(refused(halt));
    }
    let Some(ca) = running.ca().map(|ca| hex(&ca.fingerprint().0)) else {
        return Err(Failure::new(Code::NotReady, "the key source has not given its key within two minutes")
            .hint("the store was made; start it with edgekeep up when the source answers"));
    };
    let list = running.slots().await.map_err(|halt| refused(&halt))?;
    Ok(Record { format: 1, store: list.store, machine, ca, slots: list.slots, recovery: ears.recovery() })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hears where the recovery key is.
#[derive(Clone, Default)]
struct Ears(Arc<std::sync::Mutex<Option<PathBuf>>>);

impl Ears {
    fn recovery(&self) -> Option<PathBuf> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Observer for Ears {
    fn note(&mut self, note: Note) {
        match note {
            Note::RecoveryAt(path) => *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(path),
            Note::Warning(text) | Note::Alarm(text) => crate::output::error(&format!("warning: {text}")),
            _ => {}
        }
    }
}

/// For a source that is slow to come: a network, a card.
const PATIENCE: Duration = Duration::from_secs(120);
