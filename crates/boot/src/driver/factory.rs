//! The first boot in a factory: nobody is asked anything, and what the factory must keep of the device is one record.
//!
//! ```text
//! note `provisioning` -> first boot, opened once -> record -> (the factory has it) -> the note goes
//! ```
//! While the note is there the same command goes on, or gives the record again: a cut between the store and its record
//! leaves no device that nobody knows. Without the note a device that has a store is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use host::Disk;
use serde::Serialize;

use super::claim::{UpError, claim};
use super::environment::{Environment, Observer};
use super::identity::MachineId;
use super::running::Running;
use super::slots::SlotReport;
use super::state_dir::RECOVERY;
use crate::machine::{Halt, State};
use crate::plan::{Plan, RecoverySpec};

/// What the factory keeps. Nothing of it is secret.
#[derive(Debug, Serialize)]
pub struct Record {
    /// 1.
    pub format: u8,
    /// The store's name, 32 hexadecimal digits.
    pub store: String,
    /// What the machine says of itself, as codes: the store is bound to it.
    pub machine: MachineId,
    /// SHA-256 of the device CA's certificate.
    pub ca: String,
    /// Who can open the store.
    pub slots: Vec<SlotReport>,
    /// The recovery key's file, if it is one.
    pub recovery: Option<PathBuf>,
}

/// Why a device was not provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionFault {
    /// The plan wants somebody who is not there.
    #[error("nobody sits at a factory's terminal to write the recovery key down; nothing was done")]
    Attended,
    /// Its record was given out.
    #[error("{} is there: this device was provisioned", state.display())]
    Already {
        /// The state directory.
        state: PathBuf,
    },
    /// It cannot be begun.
    #[error(transparent)]
    Up(#[from] UpError),
    /// The boot refused.
    #[error("the device was not provisioned: {0}")]
    Halted(Halt),
    /// The store was made, and its source has not given its key yet.
    #[error("the key source has not given its key within two minutes")]
    Late,
    /// The disk failed.
    #[error("{} cannot be used", path.display())]
    Disk {
        /// What.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
}

impl ProvisionFault {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Attended => "set age = [\"age1...\"] in [recovery]: the fleet's public keys".into(),
            Self::Already { .. } => {
                "start it with edgekeep up; an image for many devices is made by edgekeep generalize".into()
            }
            Self::Up(e) => e.hint(),
            Self::Halted(halt) => halt.hint(),
            Self::Late => "repeat the command when the source answers: it goes on".into(),
            Self::Disk { .. } => "put that right, and repeat the command: it goes on".into(),
        }
    }
}

/// Makes the store of a device, or goes on with that, and opens it once. [`record_kept`] is to follow when the record
/// is where it belongs.
///
/// # Errors
/// [`ProvisionFault`]; repeated, it goes on.
pub async fn provision(plan: Plan, env: Environment, observer: Box<dyn Observer>) -> Result<Record, ProvisionFault> {
    if matches!(plan.recovery, Some(RecoverySpec::Terminal)) {
        return Err(ProvisionFault::Attended);
    }
    let (state, note) = (plan.state_dir(), plan.data_dir.join(NOTE));
    let at = |path: &Path| disk_fault(path.to_owned());
    let begun = env.disk.meta(&note).map_err(at(&note))?.is_some();
    if !begun && env.disk.meta(&state).map_err(at(&state))?.is_some() {
        return Err(ProvisionFault::Already { state });
    }
    let (clock, disk) = (Arc::clone(&env.clock), Arc::clone(&env.disk));
    let machine = MachineId::read(&*disk, &env.machine);
    let claimed = claim(plan, env, observer)?;
    if !begun {
        // Durable before there is a store: from here on the command can be repeated.
        disk.replace(&note, b"", 0o600, None).map_err(at(&note))?;
    }
    let mut running = claimed.start(None).await;
    let until = clock.boottime().plus(PATIENCE);
    while !matches!(running.state(), State::Serving(_)) && running.halted().is_none() && clock.boottime() < until {
        running.wait().await;
        running.tick().await;
    }
    let record = record(&mut running, machine).await;
    running.shutdown().await;
    record
}

/// The factory has the record: from now on the device is one that was provisioned.
///
/// # Errors
/// [`ProvisionFault::Disk`]; the command may be repeated.
pub fn record_kept(disk: &dyn Disk, plan: &Plan) -> Result<(), ProvisionFault> {
    let note = plan.data_dir.join(NOTE);
    disk.remove_file(&note).and_then(|()| disk.sync_dir(&plan.data_dir)).map_err(disk_fault(note))
}

async fn record(running: &mut Running, machine: MachineId) -> Result<Record, ProvisionFault> {
    if let Some(halt) = running.halted() {
        return Err(ProvisionFault::Halted(halt.clone()));
    }
    let Some(ca) = running.ca().map(|ca| hex::encode(ca.fingerprint().0)) else {
        return Err(ProvisionFault::Late);
    };
    let list = running.slots().await.map_err(ProvisionFault::Halted)?;
    let recovery = match &running.plan().recovery {
        Some(RecoverySpec::Age(_)) => Some(running.plan().state_dir().join(RECOVERY)),
        Some(RecoverySpec::File(path)) => Some(path.clone()),
        Some(RecoverySpec::Terminal | RecoverySpec::None) | None => None,
    };
    Ok(Record { format: 1, store: list.store, machine, ca, slots: list.slots, recovery })
}

fn disk_fault(path: PathBuf) -> impl FnOnce(std::io::Error) -> ProvisionFault {
    move |cause| ProvisionFault::Disk { path, cause }
}

/// Says that the factory has not got its record yet.
pub(super) const NOTE: &str = "provisioning";
/// For a source that is slow to come: a network, a card.
const PATIENCE: Duration = Duration::from_secs(120);
