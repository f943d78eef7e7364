//! The gates' socket while the device runs: answered at, and looked after.
//!
//! Whoever tidies up the run directory, or an edgekeep that does not ask first, takes it from its place, and then no
//! service's wait would ever end. So its file is looked at with the rest of the upkeep, and one that is gone or
//! another's is made anew.

use std::os::fd::OwnedFd;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::environment::Environment;
use super::running::Running;
use super::work::told;
use crate::gate::{BindError, Board, GateSocket};
use crate::plan::Plan;

/// The socket and the task that answers there.
#[derive(Debug)]
pub(super) struct Door {
    task: JoinHandle<()>,
    listener: Option<OwnedFd>,
    /// Which file it is; `None` if that is not known, and nothing is looked after.
    which: Option<(u64, u64)>,
    /// That it could not be made anew was said.
    told: bool,
}

impl Door {
    pub(super) fn open(plan: &Plan, env: &Environment, board: &watch::Sender<Board>) -> Result<Self, BindError> {
        let path = &plan.listen.gate_socket;
        let socket = GateSocket::bind(&*env.disk, path, env.us)?;
        let which = env.disk.which(path).unwrap_or_default();
        let listener = socket.handle().ok();
        Ok(Self { task: tokio::spawn(socket.serve(board.subscribe())), listener, which, told: false })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
        // The runtime drops the task at its next turn; until then nobody is to find somebody listening here who never
        // answers.
        if let Some(listener) = &self.listener {
            rustix::net::shutdown(listener, rustix::net::Shutdown::Both).ok();
        }
    }
}

impl Running {
    pub(super) fn keep_door(&mut self) {
        let path = &self.plan.listen.gate_socket;
        // Not known is not gone.
        let Ok(found) = self.env.disk.which(path) else { return };
        if self.door.which.is_none() || found == self.door.which || !host::in_force("gate-socket-kept") {
            return;
        }
        let what = if found.is_some() { "has another file in its place" } else { "was removed" };
        let text = format!("the gates' socket {} {what}", path.display());
        match Door::open(&self.plan, &self.env, &self.board) {
            // Who waits at the old one is still answered: a conversation is a task of its own.
            Ok(door) => {
                self.door = door;
                self.alarm(format!("{text}; it is made anew, and whoever tried meanwhile must try again"));
            }
            Err(_) if self.door.told => {}
            Err(e) => {
                self.door.told = true;
                self.alarm(told(&format!("{text}, and cannot be made anew yet"), &e));
            }
        }
    }
}
