//! Processes that stand beside `up` and outlive it: one has the KEK for the next start of this boot, one closes the key sources.
//!
//! Both are this executable, started by `up` as commands that nobody needs to type, in a session of their own so that what ends `up` does
//! not end them.

mod descriptors;
mod guard;
mod keeper;

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

pub(crate) use descriptors::DescriptorStore;
pub(crate) use guard::{Guard, GuardProcess};
pub(crate) use keeper::{Keeper, KeeperProcess};
pub(super) use {guard::run as run_guard, keeper::run as run_keeper};

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
