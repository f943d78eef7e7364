//! `edgekeep wait --gate NAME`: what a service's start script calls in place of waiting for a port.

use std::path::PathBuf;

use api::Ttl;
use boot::gate::{Trust, WaitError, wait_for};
use boot::plan::GateName;
use clap::Args;
use host::{Clock, OsClock};

use crate::failure::{Code, Failure};

/// Example: edgekeep wait --gate ready-to-run --timeout 60s
#[derive(Args)]
pub(crate) struct Wait {
    /// The gate, as [[gate]] in edgekeep.toml names it.
    #[arg(long, value_name = "NAME")]
    gate: GateName,
    /// How long to wait at most: seconds, or 90s, 5m.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = Ttl::parse)]
    timeout: Ttl,
    /// The directory of the running edgekeep's sockets.
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// The gate socket, where it is not gate.sock in the run directory.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The number of the user that edgekeep runs as, if it is neither root nor the one that runs this.
    #[arg(long, value_name = "NUMBER")]
    uid: Option<u32>,
}

pub(super) async fn run(wait: Wait) -> Result<(), Failure> {
    let clock = OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?;
    let socket = wait.socket.unwrap_or_else(|| crate::locate::run_dir(wait.run_dir.as_deref()).join("gate.sock"));
    let trust = Trust { boot: clock.boot_id(), uid: wait.uid.unwrap_or_else(crate::process::uid), ca: None };
    match wait_for(&socket, &wait.gate, &trust, wait.timeout.as_duration()).await {
        Ok(_) => Ok(()),
        Err(e) => {
            let code = match &e {
                WaitError::Absent { .. } | WaitError::Busy { .. } | WaitError::TimedOut { .. } => Code::NotReady,
                WaitError::NoSuchGate { .. } => Code::Usage,
                WaitError::Malformed(_) | WaitError::OtherGate { .. } => Code::Fault,
                WaitError::Stranger { .. } | WaitError::OtherBoot { .. } | WaitError::OtherCa { .. } => Code::Refused,
            };
            Err(Failure::of(code, &e).hint(e.hint()))
        }
    }
}
