//! The beginning: a device that is ours to start, or why there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use delivery::{DeliverError, FileChannel, PathError};
use tokio::sync::{mpsc, watch};

use super::door::Door;
use super::environment::{Environment, Note, Observer};
use super::front::{Front, Serving};
use super::running::{Hands, Running};
use crate::gate::{BindError, Board, Hints};
use crate::machine::{Event, Machine};
use crate::plan::{Plan, PlanFault};

/// Starts a device: does everything that can be done at once, and returns with whatever state that leads to. A halted
/// or sealed device is returned too: its gates' socket answers "shut", and the admin socket may unseal it.
///
/// # Errors
/// [`UpError`] when there is nothing to run: a plan with faults, a directory in use, no place for tokens. Nothing was
/// made.
pub async fn up(plan: Plan, env: Environment, observer: Box<dyn Observer>) -> Result<Running, UpError> {
    Ok(claim(plan, env, observer)?.start(None).await)
}

/// A device that is ours to start: nobody else works on its data directory, and nothing of it was opened yet.
#[derive(Debug)]
pub struct Claimed(Running);

impl Claimed {
    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.0.plan
    }

    /// The gates, as they will change; all are shut until the start.
    pub fn gates(&self) -> watch::Receiver<Board> {
        self.0.gates()
    }

    /// Has the sources asked at once, however many starts before this one came to nothing.
    #[must_use]
    pub fn at_once(mut self, at_once: bool) -> Self {
        self.0.at_once = at_once;
        self
    }

    /// Does everything that can be done at once. Without a front the device is provided for, and nobody can ask it
    /// anything.
    pub async fn start(self, front: Option<Arc<dyn Front>>) -> Running {
        let mut running = self.0;
        running.front = front;
        running.dismiss_keeper();
        running.feed(Event::Started).await;
        running
    }
}

/// Takes the locks of the data directory and of the run directory, and the gates' socket, and prepares the place for
/// tokens. Must be called within a tokio runtime.
///
/// # Errors
/// As [`up`].
pub fn claim(plan: Plan, env: Environment, mut observer: Box<dyn Observer>) -> Result<Claimed, UpError> {
    plan.sources.iter().for_each(|spec| spec.take_pins(&*env.clock));
    let started = env.clock.boottime();
    let faults = plan.faults();
    if !faults.is_empty() {
        return Err(UpError::Plan(faults));
    }
    let channel = channel(&plan, &env);
    let data = lock(&plan, &env, &mut *observer)?;
    channel.prepare()?;
    // Tokens and sockets: two edgekeeps with stores of their own would take them from each other.
    let run = lock_run_dir(&plan, &env)?;
    for name in left_over(&plan, &env) {
        observer.note(Note::Warning(format!(
            "{name} has a token of before in {} and is no service of the configuration any more: the token ends with this boot, or when it \
             is revoked",
            plan.run_dir.join("secrets").join(&name).display()
        )));
    }
    let board = Board::shut(&plan, env.clock.boot_id());
    let (board, _) = watch::channel(board);
    let door = Door::open(&plan, &env, &board)?;
    let plan = Arc::new(plan);
    let running = Running {
        machine: Some(Machine::new(Arc::clone(&plan))),
        hands: Hands::default(),
        channel,
        board,
        told_open: BTreeSet::new(),
        sealed: Arc::default(),
        hints: Hints::new(&plan),
        probes: mpsc::channel(64),
        probing: Vec::new(),
        door,
        later: Vec::new(),
        started,
        front: None,
        serving: Serving::default(),
        at_once: false,
        used_up: false,
        pins_refused: Vec::new(),
        ticked: None,
        look_again: false,
        line: None,
        away: None,
        _locks: [data, run],
        plan,
        env,
        observer,
    };
    Ok(Claimed(running))
}

/// The way of tokens to their services.
pub(super) fn channel(plan: &Plan, env: &Environment) -> FileChannel {
    let (disk, medium) = (Arc::clone(&env.disk), Arc::clone(&env.medium));
    FileChannel::new(disk, medium, &plan.run_dir, env.us, plan.dangers.tokens_on_disk)
}

/// Sees whether the data directory can be worked in, or be made; what is to be said of it all the same. Makes nothing.
pub(super) fn check_data_dir(plan: &Plan, env: &Environment) -> Result<Option<String>, UpError> {
    let failed = |cause| UpError::DataDir { path: plan.data_dir.clone(), cause };
    let warning = match delivery::check_parents(&*env.disk, &plan.data_dir, env.us) {
        Ok(()) => None,
        // A home directory that its group may write to is common; the demo says so and goes on.
        Err(e) if plan.profile == crate::plan::Profile::Demo => {
            Some(format!("others could replace the data directory: {e}"))
        }
        Err(e) => return Err(UpError::Place(e)),
    };
    let there = env.disk.meta(&plan.data_dir).map_err(failed)?.is_some();
    let written = if there { &*plan.data_dir } else { plan.data_dir.parent().unwrap_or(&plan.data_dir) };
    env.disk.check_writable(written).map_err(failed)?;
    Ok(warning)
}

fn lock(plan: &Plan, env: &Environment, observer: &mut dyn Observer) -> Result<Box<dyn Send>, UpError> {
    let failed = |cause| UpError::DataDir { path: plan.data_dir.clone(), cause };
    if let Some(warning) = check_data_dir(plan, env)? {
        observer.note(Note::Warning(warning));
    }
    if env.disk.meta(&plan.data_dir).map_err(failed)?.is_none() {
        env.disk.create_dir(&plan.data_dir, 0o700).map_err(failed)?;
        if let Some(parent) = plan.data_dir.parent() {
            env.disk.sync_dir(parent).map_err(failed)?;
        }
    }
    let path = plan.data_dir.join("lock");
    env.disk.lock(&path).map_err(failed)?.ok_or(UpError::InUse { path })
}

/// Directories of tokens that nobody in the plan has.
fn left_over(plan: &Plan, env: &Environment) -> Vec<String> {
    let found = env.disk.list(&plan.run_dir.join("secrets")).unwrap_or_default();
    let mut left: Vec<String> =
        found.into_iter().filter(|name| !plan.services.iter().any(|s| s.name.as_str() == name)).collect();
    left.sort();
    left
}

fn lock_run_dir(plan: &Plan, env: &Environment) -> Result<Box<dyn Send>, UpError> {
    let path = plan.run_dir.join("lock");
    let held = env.disk.lock(&path).map_err(|e| DeliverError::from(PathError::new("lock", &path, e)))?;
    match held {
        Some(lock) => Ok(lock),
        None if !host::in_force("run-directory-locked") => Ok(Box::new(())),
        None => Err(UpError::RunDirInUse { path }),
    }
}

/// Why nothing was started. Nothing was made, except perhaps empty directories.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The plan contradicts itself.
    #[error("the plan has {} fault(s): {}", .0.len(), list(.0))]
    Plan(Vec<PlanFault>),
    /// Another edgekeep works there.
    #[error("{} is held by another edgekeep", path.display())]
    InUse {
        /// The lock.
        path: std::path::PathBuf,
    },
    /// Another edgekeep, of another store, has its tokens and sockets there.
    #[error("{} is held by another edgekeep, whose tokens and sockets are there", path.display())]
    RunDirInUse {
        /// The lock.
        path: std::path::PathBuf,
    },
    /// The data directory cannot be used.
    #[error("{} cannot be used", path.display())]
    DataDir {
        /// The directory.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The data directory is not safe.
    #[error(transparent)]
    Place(delivery::PlaceError),
    /// There is no place for tokens.
    #[error(transparent)]
    Tokens(#[from] DeliverError),
    /// The gates' socket cannot be made.
    #[error(transparent)]
    Gates(#[from] BindError),
}

impl UpError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Plan(_) => "put each of them right in edgekeep.toml".into(),
            Self::InUse { .. } => "stop the other one, or give another data_dir".into(),
            Self::RunDirInUse { .. } => "stop the other one, or give this one another run_dir".into(),
            Self::DataDir { cause, .. } if cause.kind() == std::io::ErrorKind::ReadOnlyFilesystem => {
                "its file system is mounted read-only: by intent, or after a fault of the disk (see dmesg); in a unit with \
                 ProtectSystem=strict, StateDirectory= or ReadWritePaths= must name it"
                    .into()
            }
            Self::DataDir { .. } => {
                "data_dir must exist, or its parent be writable for the user that runs edgekeep".into()
            }
            Self::Place(e) => e.hint().into(),
            Self::Tokens(e) => e.hint().into(),
            Self::Gates(BindError::Taken(_)) => "stop what answers there, or give another [listen] gate_socket".into(),
            Self::Gates(_) => {
                "somebody else may answer for edgekeep there; find out who, or give another run_dir".into()
            }
        }
    }
}

fn list(faults: &[PlanFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
