//! Processes that stand beside `up` and outlive it: one has the KEK for the next start of this boot, one closes the key
//! sources, one has another's store made.
//!
//! All are this executable, started by `up` as commands that nobody needs to type, in a session of their own so that
//! what ends `up` does not end them.

mod descriptors;
mod guard;
mod keeper;
mod maker;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use boot::driver::KekKeeper as _;
use boot::plan::Plan;
use clap::Args;

pub(crate) use descriptors::DescriptorStore;
pub(crate) use guard::{Guard, GuardProcess};
pub(crate) use keeper::{Keeper, KeeperProcess};
pub(crate) use maker::{MakeStore, MakerProcess};
pub(super) use {guard::run as run_guard, keeper::run as run_keeper, maker::run as run_maker};

use crate::commands::up;
use crate::failure::Failure;

/// What `up` was called with: whoever stands beside it reads the same configuration.
#[derive(Args, Clone)]
pub(crate) struct CalledAs {
    /// The configuration of `up`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// As for `up`.
    #[arg(long, value_name = "DIR")]
    pub(crate) edgex_config: Option<PathBuf>,
    /// As for `up`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

impl CalledAs {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["--config".into(), self.config.clone().into()];
        for (name, value) in [("--edgex-config", &self.edgex_config), ("--data-dir", &self.data_dir)] {
            if let Some(value) = value {
                arguments.extend([name.into(), value.clone().into()]);
            }
        }
        arguments
    }

    fn config(&self) -> Result<config::Config, Failure> {
        up::load(&self.config, self.edgex_config.as_deref(), self.data_dir.as_deref())
    }
}

/// Starts this executable as `command` and waits until it says that it is ready.
fn start(command: &str, arguments: &[OsString], errors: Stdio) -> io::Result<Child> {
    // The file that runs, even if another has its name by now: half of an upgrade is no version.
    let mut child = Command::new("/proc/self/exe")
        .arg(command)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (said, hears) = sync_channel(1);
    std::thread::Builder::new().name(command.to_owned()).spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(io::Read::take(stdout, 256)).read_line(&mut line);
        drop(said.send(read.map(|_| line)));
    })?;
    let fault = match hears.recv_timeout(READY) {
        Ok(Ok(line)) if line.trim_end() == READY_WORD => return Ok(child),
        Ok(Ok(line)) => io::Error::other(format!("{command} ended before it was ready: {}", line.trim_end())),
        Err(RecvTimeoutError::Disconnected) => io::Error::other(format!("{command} ended before it was ready")),
        Ok(Err(e)) => e,
        Err(RecvTimeoutError::Timeout) => {
            io::Error::new(io::ErrorKind::TimedOut, format!("{command} does not get ready"))
        }
    };
    let _ = child.kill(); // it may have ended by itself
    let _ = child.wait();
    Err(fault)
}

/// Says to whoever started this that it is ready, and leaves the session, whose signals are not meant for it.
fn ready() {
    // Refused only to the leader of a group, which already has what it would get.
    let _ = rustix::process::setsid();
    crate::output::line(READY_WORD);
}

/// Has a keeper process of this boot forget, and end. What cannot be had from it is told.
pub(crate) fn forget(plan: &Plan) {
    if let Err(e) = KeeperProcess::beside(&plan.listen.admin_socket).forget() {
        tracing::error!("the keeper of this boot may still have the key: {e}");
        crate::output::error(&format!(
            "warning: the keeper of this boot may still have the key until the device restarts: {e}"
        ));
    }
}

/// Takes note of a child's end whenever that is, so that no dead process is left in the table.
fn reap(mut child: Child) {
    let waiting = std::thread::Builder::new().name("child's end".into()).spawn(move || drop(child.wait()));
    if let Err(e) = waiting {
        tracing::debug!("a child's end is not waited for: {e}");
    }
}

/// What a peer that says nothing holds up.
const PATIENCE: Duration = Duration::from_secs(1);
const READY_WORD: &str = "ready";
/// An executable from slow flash, and a configuration to be read.
const READY: Duration = Duration::from_secs(10);
