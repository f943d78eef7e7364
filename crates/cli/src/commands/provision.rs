//! `edgekeep provision`: the first boot in a factory. Nobody is asked anything, and what the factory must keep of the
//! device is one JSON object.

use std::io::Write as _;
use std::path::PathBuf;

use boot::driver::{Note, Observer, ProvisionFault};
use clap::Args;
use host::OsDisk;

use super::beside::CalledAs;
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

pub(super) fn run(provision: &Provision) -> Result<(), Failure> {
    crate::process::log("warn");
    let plan = up::load(&provision.answers, None, provision.data_dir.as_deref())?.plan;
    // With the same beside it as `up`: it releases, opens and closes as that does.
    let called_as =
        CalledAs { config: provision.answers.clone(), edgex_config: None, data_dir: provision.data_dir.clone() };
    let mut environment = up::environment(Some(called_as))?;
    environment.keeper = Some(up::keeper(&plan, environment.clock.boot_id()));
    let made = boot::driver::provision(plan.clone(), environment, Box::new(Ears));
    let record = super::on_runtime_with(async { made.await.map_err(|e| failure(&e)) })?;
    let text = serde_json::to_string_pretty(&record).unwrap_or_default();
    // Only what has left this process counts: a full disk behind `>` must not cost the factory its record.
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| {
        let fact = format!("the device is provisioned, and its record cannot be written: {e}");
        Failure::new(Code::Fault, fact).hint("repeat the command: it gives the record again")
    })?;
    boot::driver::record_kept(&OsDisk, &plan).map_err(|e| failure(&e))
}

fn failure(fault: &ProvisionFault) -> Failure {
    let code = match fault {
        ProvisionFault::Attended => Code::Usage,
        ProvisionFault::Already { .. } => Code::Refused,
        ProvisionFault::Up(_) | ProvisionFault::Halted(_) | ProvisionFault::Late => Code::NotReady,
        ProvisionFault::Disk { .. } => Code::Fault,
    };
    Failure::of(code, fault).hint(fault.hint())
}

/// Hears what goes wrong.
struct Ears;

impl Observer for Ears {
    fn note(&mut self, note: Note) {
        if let Note::Warning(text) | Note::Alarm(text) = note {
            crate::output::error(&format!("warning: {text}"));
        }
    }
}
