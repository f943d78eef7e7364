//! The guard: closes the key sources unless it is told in time that they are closed.
//!
//! Its standard input is a pipe from `up`. One byte says that it may go; the end of the pipe (`up` has died), a signal to end, or the deadline
//! has it close them. `up` looks after it in turn: before a release another takes the place of one that was killed, and
//! behind it the sources are closed at once. Whoever kills both in one moment has what releases are left: a window is narrowed, and none
//! is shut against root.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use boot::driver::{OnGuard, ReleaseGuard, Watch, close_sources};
use clap::Args;
use server::Signals;

use super::{ready, reap, start};
use crate::commands::up;
use crate::failure::{Code, Failure};

/// Started by `up`.
#[derive(Args)]
pub(crate) struct Guard {
    /// The configuration of `up`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// As for `up`.
    #[arg(long, value_name = "DIR")]
    edgex_config: Option<PathBuf>,
    /// As for `up`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// When it closes the sources at the latest.
    #[arg(long, value_name = "SECONDS")]
    within: u64,
}

/// The guard as `up` starts it.
pub(crate) struct GuardProcess {
    /// What `up` was called with.
    pub(crate) config: PathBuf,
    pub(crate) edgex_config: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
}

impl ReleaseGuard for GuardProcess {
    fn start(&self, limit: Duration) -> io::Result<Box<dyn OnGuard>> {
        let mut arguments: Vec<OsString> = vec!["--config".into(), self.config.clone().into()];
        for (name, value) in [("--edgex-config", &self.edgex_config), ("--data-dir", &self.data_dir)] {
            if let Some(value) = value {
                arguments.extend([name.into(), value.clone().into()]);
            }
        }
        arguments.extend(["--within".into(), limit.as_secs().to_string().into()]);
        let mut child = start("guard", &arguments, Stdio::inherit())?;
        let word = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Box::new(Posted { word, child: Some(child) }))
    }
}

/// A guard at its post; dropped, the pipe ends and it closes the sources.
struct Posted {
    word: ChildStdin,
    child: Option<Child>,
}

impl OnGuard for Posted {
    /// It ends well only when it has closed everything.
    fn watch(&mut self) -> Watch {
        match self.child.as_mut().map(Child::try_wait) {
            Some(Ok(None)) => Watch::Stands,
            Some(Ok(Some(status))) if status.success() => Watch::Closed,
            _ => Watch::Killed,
        }
    }

    fn dismiss(mut self: Box<Self>) {
        if let Err(e) = self.word.write_all(b"d") {
            tracing::warn!("the guard of the key sources ended before it was told to: {e}");
        }
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            reap(child);
        }
    }
}

/// Waits, and closes the sources if it must.
pub(in crate::commands) async fn run(guard: Guard) -> Result<(), Failure> {
    crate::process::log("warn");
    let config = up::load(&guard.config, guard.edgex_config.as_deref(), guard.data_dir.as_deref())?;
    let environment = up::environment(None)?;
    let mut signals = Signals::new().map_err(|e| Failure::fault(format!("signals cannot be taken over: {e}")))?;
    let (told, word) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("word of up".into())
        .spawn(move || {
            // Nobody hears it any more: the sources are being closed.
            let _ = told.send(matches!(io::stdin().read(&mut [0]), Ok(1)));
        })
        .map_err(|e| Failure::fault(format!("the guard cannot listen: {e}")))?;
    ready();
    let why = tokio::select! {
        dismissed = word => match dismissed {
            Ok(true) => return Ok(()),
            _ => "edgekeep is gone",
        },
        _ = signals.next() => "the guard is to end",
        () = tokio::time::sleep(Duration::from_secs(guard.within)) => "the store did not open in time",
    };
    let closed = close_sources(&config.plan, &environment).await;
    let closed = closed.map_err(|e| Failure::new(Code::NotReady, format!("the key sources are not closed: {e}")))?;
    let mut open = 0;
    for source in closed {
        match source {
            Ok(source) => tracing::warn!("{why}: {source} gives nothing more in this boot"),
            Err(fault) => {
                open += 1;
                tracing::error!("{why}, and a key source is not closed: {fault}");
            }
        }
    }
    if open == 0 { Ok(()) } else { Err(Failure::new(Code::NotReady, format!("{open} key sources are not closed"))) }
}
