//! A process of its own that has a store made: this executable, in a session of its own, so that what ends whoever
//! wants the store does not end it.
//!
//! ```text
//! whoever wants it --key material, by a pipe--> maker --nothing, or what went wrong in two lines--> whoever wants it
//! ```
//! It hears no signal: between the store's answer and the disk there is nothing to be stopped.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::pin::Pin;
use std::process::{Command, Stdio};

use external::{BringUpError, Custody};

use crate::failure::Failure;

/// The waiting for its end.
pub(crate) type Making<'a> = Pin<Box<dyn Future<Output = Result<(), BringUpError>> + 'a>>;

/// Starts it by `command`, hands it what `custody` keeps shares under, and waits for its end.
pub(crate) async fn start(mut command: Command, custody: &Custody<'_>) -> Result<(), BringUpError> {
    let fault = |e: std::io::Error| BringUpError::Beside {
        fact: format!("the process that makes the store does not run: {e}"),
        hint: "see that /proc is mounted, and that processes can be started".into(),
    };
    let started = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(fault)?;
    let stdin = child.stdin.take();
    // If it has ended already, it has said why.
    let handed = stdin.map_or(Ok(()), |mut pipe| custody.hand_over(&mut pipe));
    let waiting = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_SAID_BYTES).read_to_string(&mut said)?;
        }
        child.wait().map(|status| (status, said))
    });
    let (status, said) = waiting.await.map_err(|e| fault(std::io::Error::other(e)))?.map_err(fault)?;
    if status.success() {
        return handed.map_err(fault);
    }
    let mut lines = said.lines().map(str::to_owned);
    Err(BringUpError::Beside {
        fact: lines.next().unwrap_or_else(|| format!("the process that makes the store has ended: {status}")),
        hint: lines.next().unwrap_or_else(|| "see the log above".into()),
    })
}

/// Is it: does `work` to its end, and says to whoever started it what went wrong.
pub(crate) async fn be(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    // Refused only to the leader of a group of its own, who already has what he would get.
    let _ = rustix::process::setsid();
    // Taken over, and not looked at.
    let _deaf = server::Signals::new().map_err(|e| Failure::fault(format!("signals cannot be taken over: {e}")))?;
    let outcome = work.await;
    if let Err(failure) = &outcome {
        let line = |text: &str| crate::output::line(&text.replace('\n', " "));
        line(&failure.fact);
        line(failure.hint.as_deref().unwrap_or_default());
    }
    outcome
}

const MAX_SAID_BYTES: u64 = 8192;
