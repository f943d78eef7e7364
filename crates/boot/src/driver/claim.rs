//! The beginning: a device that is ours to start, or why there is none.

use std::sync::Arc;

use delivery::{DeliverError, FileChannel};
use tokio::sync::{mpsc, watch};

use super::environment::{Environment, Note, Observer};
use super::front::{Front, Serving};
use super::running::{Hands, Running};
use crate::gate::{BindError, Board, GateSocket, Hints};
use crate::machine::{Event, Machine};
use crate::plan::{Plan, PlanFault, SourceSpec};

/// Starts a device: does everything that can be done at once, and returns with whatever state that leads to. A halted or sealed
/// device is returned too: its gates' socket answers "shut", and the admin socket may unseal it.
///
/// # Errors
/// [`UpError`] when there is nothing to run: a plan with faults, a data directory in use, no place for tokens. Nothing was made.
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

    /// Does everything that can be done at once. Without a front the device is provided for, and nobody can ask it anything.
    pub async fn start(self, front: Option<Arc<dyn Front>>) -> Running {
        let mut running = self.0;
        running.front = front;
        running.feed(Event::Started).await;
        running
    }
}

/// Takes the lock of the data directory and the gates' socket, and prepares the place for tokens. Must be called within a tokio
/// runtime.
///
/// # Errors
/// As [`up`].
pub fn claim(plan: Plan, env: Environment, mut observer: Box<dyn Observer>) -> Result<Claimed, UpError> {
    plan.sources.iter().for_each(SourceSpec::take_pins);
    let started = env.clock.boottime();
    let faults = plan.faults();
    if !faults.is_empty() {
        return Err(UpError::Plan(faults));
    }
    let channel = FileChannel::new(
        Arc::clone(&env.disk),
        Arc::clone(&env.medium),
        &plan.run_dir,
        env.us,
        plan.dangers.tokens_on_disk,
    );
    let lock = lock(&plan, &env, &mut *observer)?;
    channel.prepare()?;
    let board = Board::shut(&plan, env.clock.boot_id());
    let (board, receiver) = watch::channel(board);
    let socket = GateSocket::bind(&*env.disk, &plan.listen.gate_socket, env.us)?;
    let gate_socket = tokio::spawn(socket.serve(receiver));
    let plan = Arc::new(plan);
    let running = Running {
        machine: Some(Machine::new(Arc::clone(&plan))),
        hands: Hands::default(),
        channel,
        board,
        hints: Hints::new(&plan),
        probes: mpsc::channel(64),
        probing: Vec::new(),
        gate_socket,
        later: Vec::new(),
        started,
        front: None,
        serving: Serving::default(),
        at_once: false,
        used_up: false,
        ticked: None,
        look_again: false,
        line: None,
        away: None,
        _lock: lock,
        plan,
        env,
        observer,
    };
    Ok(Claimed(running))
}

fn lock(plan: &Plan, env: &Environment, observer: &mut dyn Observer) -> Result<Box<dyn Send>, UpError> {
    let failed = |cause| UpError::DataDir { path: plan.data_dir.clone(), cause };
    match delivery::check_parents(&*env.disk, &plan.data_dir, env.us) {
        Ok(()) => {}
        // A home directory that its group may write to is common; the demo says so and goes on.
        Err(e) if plan.profile == crate::plan::Profile::Demo => {
            observer.note(Note::Warning(format!("others could replace the data directory: {e}")));
        }
        Err(e) => return Err(UpError::Place(e)),
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
            Self::DataDir { .. } => {
                "data_dir must exist, or its parent be writable for the user that runs edgekeep".into()
            }
            Self::Place(e) => e.hint().into(),
            Self::Tokens(e) => e.hint().into(),
            Self::Gates(_) => {
                "somebody else may answer for edgekeep there; find out who, or give another run_dir".into()
            }
        }
    }
}

fn list(faults: &[PlanFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
