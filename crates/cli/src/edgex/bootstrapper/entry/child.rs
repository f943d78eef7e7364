//! Programs that do their part before the real one runs. They are told when we are told to stop, and we end after them:
//! a container whose first process goes takes everybody with it, in the middle of a write.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, ExitStatus};

use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Code, Failure};
use crate::output;

/// Runs a program to its good end. Dropping the future asks it to stop, and waits until it has.
///
/// # Errors
/// If it does not start, or ends badly.
pub(super) async fn run(command: &mut Command) -> Result<(), Failure> {
    // Before the start: an end that nobody listens for would be waited for in vain.
    let mut ends = signal(SignalKind::child())
        .map_err(|e| Failure::fault(format!("the ends of programs cannot be heard: {e}")))?;
    let name = command.get_program().to_owned();
    let mut child = Running::start(command, Signal::TERM).map_err(|e| not_run(&name, &e))?;
    output::error(&format!("running {}", name.display()));
    let unseen = |e| Failure::fault(format!("the end of {} cannot be seen: {e}", name.display()));
    let status = loop {
        if let Some(status) = child.0.try_wait().map_err(unseen)? {
            break status;
        }
        ends.recv().await;
    };
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(Code::Refused, format!("{} ended with {status}", name.display()))
        .hint("its own words stand above; the gate behind it stays shut"))
}

/// A program that cannot be started, in words.
pub(super) fn not_run(name: &OsStr, cause: &io::Error) -> Failure {
    Failure::new(Code::Usage, format!("{} cannot be run: {cause}", name.display()))
        .hint("name a program that is in this image and that this user may run")
}

/// A child that does not outlive this value.
pub(super) struct Running(Child, Signal);

impl Running {
    /// Starts it; `ends` is the signal by which it ends.
    pub(super) fn start(command: &mut Command, ends: Signal) -> io::Result<Self> {
        Ok(Self(command.spawn()?, ends))
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().ok().flatten()
    }

    /// Asks it to end, if it has not, and waits until it has.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.0.try_wait()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.0), self.1)?;
        self.0.wait()
    }
}

impl Drop for Running {
    /// Where the work was given up; otherwise there is nothing left to end.
    fn drop(&mut self) {
        self.end().ok();
    }
}
