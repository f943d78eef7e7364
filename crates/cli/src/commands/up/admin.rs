//! What stands behind the admin socket: wishes are handed to the one task that owns the device, and answered when it
//! has done them.

use std::sync::{Arc, Mutex, PoisonError};

use api::{Auth, PeerAddress, Status, Ttl};
use boot::machine::Halt;
use secret::SecretBytes;
use serde_json::Value;
use server::{AdminFuture, AdminPeer, AdminPort, AdminRefusal, AdminStatus, Recovered, SlotWish};
use tokio::sync::{mpsc, oneshot};

/// Something that root, or our own user, wants done.
pub(super) enum Wish {
    /// Drop the keys.
    Seal,
    /// Open by the recovery key, in its text form, for this peer; and make slots anew.
    Recover(SecretBytes, bool, PeerAddress),
    /// Let the offered recovery key take the place of this one.
    ConfirmRecovery(SecretBytes, PeerAddress),
    /// A root token that lives so long, for whoever has this recovery key.
    GenerateRoot(SecretBytes, Ttl, PeerAddress),
    /// Another recovery key in the place of this one, with the store open.
    Rekey(SecretBytes, PeerAddress),
    /// See to the key slots.
    Slots(SlotWish, PeerAddress),
}

/// What became of a wish.
pub(super) enum Granted {
    /// It is done.
    Done,
    /// The store is open, and this became of the recovery key.
    Recovered(Recovered, Option<Value>),
    /// The token is made, and this became of the recovery key.
    Root(Box<Auth>, Recovered),
    /// This is to be told.
    Told(Value),
}

/// A wish, and where its outcome is awaited.
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) done: oneshot::Sender<Result<Granted, Refusal>>,
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
    async fn ask(&self, wish: Wish, by: &AdminPeer) -> Result<Granted, AdminRefusal> {
        let what = match &wish {
            Wish::Seal => "seal",
            Wish::Recover(..) => "recover",
            Wish::ConfirmRecovery(..) => "confirm the new recovery key",
            Wish::GenerateRoot(..) => "make a root token",
            Wish::Rekey(..) => "replace the recovery key",
            Wish::Slots(wish, _) => match wish {
                SlotWish::List => "list key slots",
                SlotWish::Test(_) => "try key slots",
                SlotWish::Erase => "erase this device",
                SlotWish::Add(_)
                | SlotWish::Remove(_)
                | SlotWish::Reseal(_)
                | SlotWish::Predict(_)
                | SlotWish::Commit => "change key slots",
            },
        };
        tracing::warn!(what, ?by, "asked at the admin socket");
        let (done, outcome) = oneshot::channel();
        let gone = || refusal(Status::UNAVAILABLE, "edgekeep is ending");
        self.wishes.send(Asked { wish, done }).await.map_err(|_| gone())?;
        match outcome.await.map_err(|_| gone())? {
            Ok(granted) => Ok(granted),
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
        Box::pin(async { self.ask(Wish::Seal, by).await.map(drop) })
    }

    fn recover<'a>(
        &'a self,
        key: SecretBytes,
        reseal: bool,
        by: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Recovered, Option<Value>), AdminRefusal>> {
        Box::pin(async move {
            match self.ask(Wish::Recover(key, reseal, address(by)), by).await? {
                Granted::Recovered(recovered, slots) => Ok((recovered, slots)),
                // Only the answers to other wishes are like this.
                Granted::Done | Granted::Told(_) | Granted::Root(..) => Err(mixed_up()),
            }
        })
    }

    fn generate_root<'a>(
        &'a self,
        key: SecretBytes,
        ttl: Ttl,
        by: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Auth, Recovered), AdminRefusal>> {
        Box::pin(async move {
            match self.ask(Wish::GenerateRoot(key, ttl, address(by)), by).await? {
                Granted::Root(auth, recovered) => Ok((*auth, recovered)),
                _ => Err(mixed_up()),
            }
        })
    }

    fn rekey<'a>(&'a self, key: SecretBytes, by: &'a AdminPeer) -> AdminFuture<'a, Result<Recovered, AdminRefusal>> {
        Box::pin(async move {
            match self.ask(Wish::Rekey(key, address(by)), by).await? {
                Granted::Recovered(recovered, _) => Ok(recovered),
                _ => Err(mixed_up()),
            }
        })
    }

    fn slots<'a>(&'a self, wish: SlotWish, by: &'a AdminPeer) -> AdminFuture<'a, Result<Value, AdminRefusal>> {
        Box::pin(async move {
            match self.ask(Wish::Slots(wish, address(by)), by).await? {
                Granted::Told(value) => Ok(value),
                Granted::Done | Granted::Recovered(..) | Granted::Root(..) => Err(mixed_up()),
            }
        })
    }

    fn confirm_recovery<'a>(
        &'a self,
        key: SecretBytes,
        by: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(), AdminRefusal>> {
        Box::pin(async { self.ask(Wish::ConfirmRecovery(key, address(by)), by).await.map(drop) })
    }
}

fn mixed_up() -> AdminRefusal {
    refusal(Status::INTERNAL, "the answer belongs to another wish")
}

/// For the audit.
fn address(by: &AdminPeer) -> PeerAddress {
    PeerAddress::Unix { uid: by.uid(), pid: by.pid() }
}

fn refusal(status: Status, told: impl Into<String>) -> AdminRefusal {
    AdminRefusal { status, told: told.into() }
}
