//! The listeners of a process, and how they follow the state of the store.
//!
//! Sealed, only the admin socket listens, and TCP if the operator gave TLS files, for health and seal-status alone.
//! With the keys come the API socket and TCP under the device's certificate; when the keys go, these close again.
//! Opening happens before [`Server::unseal`] returns, so that a gate that opens next opens on a listener that is there.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::sync::Arc;
use std::time::Duration;

use api::PeerAddress;
use host::{Clock, Disk};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::activity::Activity;
use crate::admin::AdminPort;
use crate::asking;
use crate::body::{BodyBudget, Terms};
use crate::connection;
use crate::counters::{Counters, Counts};
use crate::crowd::{Asker, Crowd};
use crate::limits::Limits;
use crate::listen::{Listen, Security, Tcp};
use crate::sealed::Sealed;
use crate::service::{Alive, Handler, Session};
use crate::sockets::{self, AdminPeer, Reach, SocketError, UnixPeer};
use crate::tls::{Handshakes, Identity, Shown};

/// Whether there are keys.
pub(crate) enum Phase<H> {
    Sealed(Sealed),
    Unsealed(Arc<H>),
}

/// What all connections share.
pub(crate) struct Shared<H> {
    pub(crate) phase: watch::Receiver<Phase<H>>,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What the server takes of the machine.
#[derive(Clone)]
pub struct Machine {
    /// For the time that health shows.
    pub clock: Arc<dyn Clock>,
    /// For the places of the sockets.
    pub disk: Arc<dyn Disk>,
}

/// The running listeners.
pub struct Server<H> {
    shared: Arc<Shared<H>>,
    phase: watch::Sender<Phase<H>>,
    listen: Listen,
    machine: Machine,
    tcp_slots: Arc<Semaphore>,
    tcp_bodies: BodyBudget,
    crowd: Arc<Crowd>,
    admin: Group,
    /// TCP under the operator's certificate: open all the time.
    operator: Option<(Group, Arc<Shown>, Vec<SocketAddr>)>,
    /// Open only with the keys.
    unsealed: Option<Opened>,
}

struct Opened {
    group: Group,
    shown: Option<Arc<Shown>>,
    tcp: Vec<SocketAddr>,
}

impl<H: Handler> Server<H> {
    /// Opens what is open on a sealed store. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`]; nothing stays open.
    pub fn start(
        listen: Listen,
        limits: Limits,
        sealed: Sealed,
        port: Arc<dyn AdminPort>,
        machine: Machine,
    ) -> Result<Self, ListenError> {
        let (phase, receiver) = watch::channel(Phase::Sealed(sealed));
        let shared = Arc::new(Shared {
            phase: receiver,
            counters: Counters::default(),
            clock: Arc::clone(&machine.clock),
            limits,
        });
        let tcp_slots = Arc::new(Semaphore::new(shared.limits.tcp_connections));
        let tcp_bodies = BodyBudget::new(shared.limits.body_budget_bytes);
        let crowd = Crowd::new(&shared.limits);
        let admin = Group::new();
        let listener = sockets::bind(&*machine.disk, &listen.admin_socket, Reach::Owner)?;
        let slots = Arc::new(Semaphore::new(shared.limits.admin_connections));
        let door = Door { shared: Arc::clone(&shared), slots, kind: Kind::Admin(port) };
        admin.spawn(|g| accept_unix(listener, door, g));
        let mut server = Self {
            shared,
            phase,
            machine,
            tcp_slots,
            tcp_bodies,
            crowd,
            admin,
            operator: None,
            unsealed: None,
            listen,
        };
        if let Some(Tcp { addresses, security: Security::Operator { identity, versions } }) = &server.listen.tcp {
            let shown = Shown::new(identity.clone());
            let group = Group::new();
            let handshakes = Handshakes::new(Arc::clone(&shown), *versions);
            let bound = server.open_tcp(&group, addresses, Some(handshakes))?;
            server.operator = Some((group, shown, bound));
        }
        Ok(server)
    }

    /// Opens what is open with the keys; from here on `core` answers. `device` is the certificate for TCP.
    ///
    /// # Errors
    /// [`ListenError`]; the server stays sealed, and what was open before stays open.
    pub fn unseal(&mut self, core: Arc<H>, device: &Identity) -> Result<Addresses, ListenError> {
        let group = Group::new();
        let mut opened = Opened { shown: None, tcp: Vec::new(), group };
        if let Some(Tcp { addresses, security }) = &self.listen.tcp {
            let handshakes = match security {
                Security::Operator { .. } => None,
                Security::DangerPlainHttp => Some(None),
                Security::Device { versions } => {
                    let shown = opened.shown.insert(Shown::new(device.clone()));
                    Some(Some(Handshakes::new(Arc::clone(shown), *versions)))
                }
            };
            if let Some(handshakes) = handshakes {
                opened.tcp = self.open_tcp(&opened.group, addresses, handshakes)?;
            }
        }
        if let Some(path) = &self.listen.api_socket {
            let listener = sockets::bind(&*self.machine.disk, path, Reach::Everyone)?;
            let slots = Arc::new(Semaphore::new(self.shared.limits.socket_connections));
            let kind = Kind::Api(Arc::clone(&self.crowd));
            let door = Door { shared: Arc::clone(&self.shared), slots, kind };
            opened.group.spawn(|g| accept_unix(listener, door, g));
        }
        self.phase.send_replace(Phase::Unsealed(core));
        self.unsealed = Some(opened);
        Ok(self.addresses())
    }

    /// Stops answering with the core at once, then closes what is open only with the keys. Requests that are under way
    /// get `deadline` to end.
    pub async fn seal(&mut self, sealed: Sealed, deadline: Duration) -> Drained {
        self.phase.send_replace(Phase::Sealed(sealed));
        if let Some(path) = &self.listen.api_socket
            && self.unsealed.is_some()
        {
            // A socket whose listener is gone only refuses; a file that is not there says more plainly what is the
            // case.
            if let Err(error) = self.machine.disk.remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "the API socket stays behind");
            }
        }
        match self.unsealed.take() {
            Some(Opened { group, .. }) => group.drain(deadline).await,
            None => Drained::Whole,
        }
    }

    /// Shows another certificate from the next handshake on: the operator's where the operator gave one, else the
    /// device's.
    pub fn replace_identity(&self, identity: Identity) {
        if let Some((_, shown, _)) = &self.operator {
            shown.replace(identity);
        } else if let Some(shown) = self.unsealed.as_ref().and_then(|u| u.shown.as_ref()) {
            shown.replace(identity);
        }
    }

    /// Where it listens at this moment.
    pub fn addresses(&self) -> Addresses {
        let operator = self.operator.iter().flat_map(|(_, _, bound)| bound);
        Addresses { tcp: operator.chain(self.unsealed.iter().flat_map(|u| &u.tcp)).copied().collect() }
    }

    /// What has been counted.
    pub fn counts(&self) -> Counts {
        self.shared.counters.read()
    }

    /// Takes no more connections, lets what is under way end within `deadline`, and closes the rest.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        let mut groups = vec![self.admin];
        groups.extend(self.operator.take().map(|(group, ..)| group));
        groups.extend(self.unsealed.take().map(|u| u.group));
        let until = tokio::time::Instant::now() + deadline;
        for group in &groups {
            group.close();
        }
        let mut drained = Drained::Whole;
        for group in groups {
            if group.drain(until.saturating_duration_since(tokio::time::Instant::now())).await == Drained::CutShort {
                drained = Drained::CutShort;
            }
        }
        drained
    }

    fn open_tcp(
        &self,
        group: &Group,
        addresses: &[SocketAddr],
        handshakes: Option<Handshakes>,
    ) -> Result<Vec<SocketAddr>, ListenError> {
        // All are bound before any accepts: a second address that is taken must not leave the first half open.
        let listeners = addresses.iter().map(|address| bind_tcp(*address)).collect::<Result<Vec<_>, _>>()?;
        let bound = listeners.iter().map(|(_, address)| *address).collect();
        for (listener, _) in listeners {
            let gate = Gate {
                shared: Arc::clone(&self.shared),
                slots: Arc::clone(&self.tcp_slots),
                bodies: self.tcp_bodies.clone(),
                crowd: Arc::clone(&self.crowd),
                handshakes: handshakes.clone(),
            };
            group.spawn(|g| accept_tcp(listener, gate, g));
        }
        Ok(bound)
    }
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// TCP addresses, with the ports that the kernel chose.
    pub tcp: Vec<SocketAddr>,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was begun was finished.
    Whole,
    /// The deadline came first.
    CutShort,
}

/// A listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// TCP.
    #[error("cannot listen at {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A Unix socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

impl ListenError {
    /// What to do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Tcp { cause, .. } => match cause.kind() {
                io::ErrorKind::AddrInUse => {
                    Some("another process listens there: find it with `ss -ltnp`, or choose another address")
                }
                io::ErrorKind::AddrNotAvailable => Some("no interface of this machine has that address"),
                io::ErrorKind::PermissionDenied => Some("ports below 1024 need CAP_NET_BIND_SERVICE"),
                _ => None,
            },
            Self::Socket(_) => None,
        }
    }
}

/// Listeners that open and close together, with all that they let in.
struct Group {
    closing: watch::Sender<bool>,
    alive: Alive,
    ended: mpsc::Receiver<std::convert::Infallible>,
}

/// What each task of a group has of it.
struct Member {
    closing: watch::Receiver<bool>,
    alive: Alive,
}

impl Group {
    fn new() -> Self {
        let (alive, ended) = mpsc::channel(1);
        Self { closing: watch::Sender::new(false), alive, ended }
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Member) -> F) {
        tokio::spawn(task(Member { closing: self.closing.subscribe(), alive: self.alive.clone() }));
    }

    fn close(&self) {
        self.closing.send_replace(true);
    }

    async fn drain(self, deadline: Duration) -> Drained {
        let Self { closing, alive, mut ended } = self;
        closing.send_replace(true);
        drop(alive);
        match tokio::time::timeout(deadline, ended.recv()).await {
            Ok(_) => Drained::Whole,
            Err(_) => Drained::CutShort,
        }
    }
}

/// What a TCP connection passes.
struct Gate<H> {
    shared: Arc<Shared<H>>,
    slots: Arc<Semaphore>,
    bodies: BodyBudget,
    crowd: Arc<Crowd>,
    handshakes: Option<Handshakes>,
}

/// What a connection to a Unix socket passes.
struct Door<H> {
    shared: Arc<Shared<H>>,
    slots: Arc<Semaphore>,
    kind: Kind,
}

/// The two sockets.
enum Kind {
    /// For every user, as many connections as one user may have.
    Api(Arc<Crowd>),
    /// For root and our own user, who are not counted: no service of theirs is to shut them out.
    Admin(Arc<dyn AdminPort>),
}

fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let bind = || {
        let listener = StdTcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, bound))
    };
    bind().map_err(|cause| ListenError::Tcp { address, cause })
}

async fn accept_tcp<H: Handler>(listener: TcpListener, gate: Gate<H>, member: Member) {
    let mut closing = member.closing.clone();
    loop {
        // The slot first: whoever has none waits in the kernel's queue, and costs us nothing.
        let accepted = async {
            let slot = Arc::clone(&gate.slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = closing.wait_for(|c| *c) => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let asker = Asker::at(address.ip());
        let Some(place) = gate.crowd.enter(asker) else {
            gate.shared.counters.crowded.add();
            continue;
        };
        gate.shared.counters.connections.add();
        let session = Session {
            shared: Arc::clone(&gate.shared),
            peer: PeerAddress::Tcp(address),
            tls: gate.handshakes.is_some(),
            certificates: None,
            admin: None,
            activity: Activity::new(),
            bodies: Terms::new(&gate.bodies, asker, &gate.shared.limits),
            alive: member.alive.clone(),
        };
        let (handshakes, closing) = (gate.handshakes.clone(), closing.clone());
        tokio::spawn(async move {
            serve_tcp(stream, handshakes, session, closing).await;
            drop((slot, place));
        });
    }
}

async fn serve_tcp<H: Handler>(
    stream: TcpStream,
    handshakes: Option<Handshakes>,
    mut session: Session<H>,
    mut closing: watch::Receiver<bool>,
) {
    // Replies are one write; waiting for more to send with it is all loss.
    let _ = stream.set_nodelay(true);
    let Some(handshakes) = handshakes else {
        return connection::serve(stream, Arc::new(session), closing).await;
    };
    let shared = Arc::clone(&session.shared);
    let asks = match &*shared.phase.borrow() {
        Phase::Unsealed(core) => core.asks_for_certificates(),
        Phase::Sealed(_) => false,
    };
    let handshake = tokio::time::timeout(shared.limits.handshake, handshakes.acceptor(asks).accept(stream));
    let handshake = tokio::select! {
        handshake = handshake => handshake,
        _ = closing.wait_for(|c| *c) => return,
    };
    match handshake {
        Ok(Ok(stream)) => {
            session.certificates = asking::proven(stream.get_ref().1).map(Arc::new);
            session.activity.enter(crate::activity::Doing::Arrived);
            connection::serve(stream, Arc::new(session), closing).await;
        }
        Ok(Err(error)) => {
            shared.counters.handshakes_failed.add();
            tracing::debug!(peer = ?session.peer, %error, "TLS handshake failed");
        }
        Err(_) => {
            shared.counters.handshakes_failed.add();
            tracing::debug!(peer = ?session.peer, "TLS handshake did not end in time");
        }
    }
}

async fn accept_unix<H: Handler>(listener: UnixListener, door: Door<H>, member: Member) {
    let Door { shared, slots, kind } = door;
    let bodies = BodyBudget::new(shared.limits.body_budget_bytes);
    let mut closing = member.closing.clone();
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = closing.wait_for(|c| *c) => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        // Before the first byte is read.
        let UnixPeer { uid, pid } = match UnixPeer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(%error, "the kernel does not say who connects; refused");
                continue;
            }
        };
        let asker = Asker::User(uid);
        let (admin, place) = match &kind {
            Kind::Api(crowd) => match crowd.enter(asker) {
                Some(place) => (None, Some(place)),
                None => {
                    shared.counters.crowded.add();
                    continue;
                }
            },
            Kind::Admin(port) => match AdminPeer::check(&stream) {
                Ok(peer) => (Some((peer, Arc::clone(port))), None),
                Err(refused) => {
                    shared.counters.admin_refused.add();
                    tracing::warn!(%refused, "refused at the admin socket");
                    continue;
                }
            },
        };
        shared.counters.connections.add();
        let session = Session {
            shared: Arc::clone(&shared),
            peer: PeerAddress::Unix { uid, pid },
            tls: false,
            certificates: None,
            admin,
            activity: Activity::new(),
            bodies: Terms::new(&bodies, asker, &shared.limits),
            alive: member.alive.clone(),
        };
        let closing = closing.clone();
        tokio::spawn(async move {
            connection::serve(stream, Arc::new(session), closing).await;
            drop((slot, place));
        });
    }
}

/// A peer that left before it was accepted is nothing; no descriptors left is not cured by trying at once.
async fn pause_after(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
