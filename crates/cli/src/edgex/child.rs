//! Programs that EdgeX's configuration names: run with an end.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use config::Program;
use external::Stop;
use host::{Disk, FileKind, OsDisk};
use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

/// Why a program is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    /// Not there.
    #[error("{program} is not there, nor anywhere on PATH")]
    Missing {
        /// As it was named.
        program: String,
    },
    /// Not started.
    #[error("{program} cannot be started: {cause}")]
    NotStarted {
        /// Its path.
        program: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// No end.
    #[error("{program} did not end within {seconds} s, and was killed")]
    TimedOut {
        /// Its path.
        program: String,
        /// The time it had.
        seconds: u64,
    },
    /// A bad end.
    #[error("{program} failed: {status}")]
    Failed {
        /// Its path.
        program: String,
        /// Exit status or signal.
        status: String,
    },
    /// We are to stop.
    #[error("stopped by a signal while {program} was at work")]
    Stopped {
        /// Its path.
        program: String,
    },
}

/// A program that is there.
#[derive(Debug)]
pub(super) struct Found {
    path: PathBuf,
    arguments: Vec<String>,
}

/// Finds a program: a path as it is, a name along `PATH`.
pub(super) fn find(wanted: &Program, search: Option<&str>) -> Result<Found, ChildError> {
    let path = find_path(&wanted.program, search)?;
    Ok(Found { path, arguments: wanted.arguments.clone() })
}

/// The same for its path alone.
pub(super) fn find_path(wanted: &str, search: Option<&str>) -> Result<PathBuf, ChildError> {
    let is_file = |path: &Path| OsDisk.meta(path).is_ok_and(|m| m.is_some_and(|m| m.kind != FileKind::Dir));
    let found = if wanted.contains('/') {
        std::path::absolute(wanted).ok().filter(|p| is_file(p))
    } else {
        let places = search.into_iter().flat_map(std::env::split_paths);
        places.filter(|p| p.is_absolute()).map(|p| p.join(wanted)).find(|p| is_file(p))
    };
    found.ok_or_else(|| ChildError::Missing { program: wanted.to_owned() })
}

impl Found {
    /// Runs it to a good end, with our environment and output.
    pub(super) async fn run(&self, limit: Duration, stop: &Stop) -> Result<(), ChildError> {
        let mut child = self.start(Stdio::inherit())?;
        self.wait(&mut child, limit, stop).await
    }

    /// Runs it and takes what it prints, up to `max` bytes: one more, and it is cut so that the caller can tell.
    pub(super) async fn output(
        &self,
        max: usize,
        limit: Duration,
        stop: &Stop,
    ) -> Result<Zeroizing<Vec<u8>>, ChildError> {
        let mut child = self.start(Stdio::piped())?;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let stdout = child.stdout.take();
        // A thread, for somebody whom the program started may hold the pipe open for ever; then the thread stays with
        // them.
        std::thread::spawn(move || {
            let mut text = Zeroizing::new(vec![0; max + 1]);
            let mut filled = 0;
            if let Some(mut stdout) = stdout {
                while filled < text.len() {
                    match stdout.read(&mut text[filled..]) {
                        Ok(0) | Err(_) => break,
                        Ok(n) => filled += n,
                    }
                }
            }
            text.truncate(filled);
            sender.send(text).ok();
        });
        self.wait(&mut child, limit, stop).await?;
        match tokio::time::timeout(DRAIN, receiver).await {
            Ok(Ok(text)) => Ok(text),
            _ => Err(self.timed_out(DRAIN)),
        }
    }

    fn start(&self, stdout: Stdio) -> Result<Child, ChildError> {
        use std::os::unix::process::CommandExt;
        Command::new(&self.path)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .process_group(0)
            .spawn()
            .map_err(|cause| ChildError::NotStarted { program: self.name(), cause })
    }

    async fn wait(&self, child: &mut Child, limit: Duration, stop: &Stop) -> Result<(), ChildError> {
        let ended = tokio::select! {
            ended = tokio::time::timeout(limit, exited(child)) => ended.map_err(|_| self.timed_out(limit)),
            () = stop.said() => Err(ChildError::Stopped { program: self.name() }),
        };
        match ended {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(ChildError::Failed { program: self.name(), status: status.to_string() }),
            Ok(None) => Err(ChildError::Failed { program: self.name(), status: "its end cannot be seen".into() }),
            Err(e) => {
                // With all that it started.
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
                let _ = child.wait();
                Err(e)
            }
        }
    }

    fn timed_out(&self, limit: Duration) -> ChildError {
        ChildError::TimedOut { program: self.name(), seconds: limit.as_secs() }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

async fn exited(child: &mut Child) -> Option<std::process::ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) => tokio::time::sleep(LOOK).await,
            Err(_) => return None,
        }
    }
}

const LOOK: Duration = Duration::from_millis(20);
/// What a program printed is there when it has ended.
const DRAIN: Duration = Duration::from_secs(1);
