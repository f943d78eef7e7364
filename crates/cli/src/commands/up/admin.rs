//! What stands behind the admin socket: wishes are handed to the one task that owns the device, and answered when it has done them.

use std::sync::{Arc, Mutex, PoisonError};

use api::Status;
use boot::machine::Halt;
use secret::SecretBytes;
use server::{AdminFuture, AdminPeer, AdminPort, AdminRefusal, AdminStatus};
use tokio::sync::{mpsc, oneshot};

/// Something that root, or our own user, wants done.
pub(super) enum Wish {
    /// Drop the keys.
    Seal,
    /// Open by the recovery key, in its text form.
    Recover(SecretBytes),
}

/// A wish, and where its outcome is awaited.
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) done: oneshot::Sender<Result<(), Refusal>>,
}

/// Why a wish was not granted.
pub(super) enum Refusal {
    /// The text was no recovery key.
    NotAKey(String),
    /// The device refused.
    Halted(Halt),
}

/// The server's end.
pub(super) struct Port {
    wishes: mpsc::Sender<Asked>,
    status: Arc<Mutex<AdminStatus>>,
}

/// The end of the task that owns the device.
pub(super) struct Desk {
    pub(super) wishes: mpsc::Receiver<Asked>,
    status: Arc<Mutex<AdminStatus>>,
}

pub(super) fn open() -> (Arc<Port>, Desk) {
    let (send, wishes) = mpsc::channel(4);
    let status = Arc::new(Mutex::new(AdminStatus { state: "starting", ..AdminStatus::default() }));
    (Arc::new(Port { wishes: send, status: Arc::clone(&status) }), Desk { wishes, status })
}

impl Desk {
    pub(super) fn show(&self, status: AdminStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}

impl Port {
    async fn ask(&self, wish: Wish, by: &AdminPeer) -> Result<(), AdminRefusal> {
        let what = match &wish {
            Wish::Seal => "seal",
            Wish::Recover(_) => "recover",
        };
        tracing::warn!(what, ?by, "asked at the admin socket");
        let (done, outcome) = oneshot::channel();
        let gone = || refusal(Status::UNAVAILABLE, "edgekeep is ending");
        self.wishes.send(Asked { wish, done }).await.map_err(|_| gone())?;
        match outcome.await.map_err(|_| gone())? {
            Ok(()) => Ok(()),
            Err(Refusal::NotAKey(text)) => Err(refusal(Status::BAD_REQUEST, text)),
            Err(Refusal::Halted(halt)) => Err(refusal(Status::FORBIDDEN, format!("{halt}; {}", halt.hint()))),
        }
    }
}

impl AdminPort for Port {
    fn status<'a>(&'a self, _by: &'a AdminPeer) -> AdminFuture<'a, AdminStatus> {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move { status })
    }

    fn seal<'a>(&'a self, by: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(self.ask(Wish::Seal, by))
    }

    fn recover<'a>(&'a self, key: SecretBytes, by: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(self.ask(Wish::Recover(key), by))
    }
}

fn refusal(status: Status, told: impl Into<String>) -> AdminRefusal {
    AdminRefusal { status, told: told.into() }
}
