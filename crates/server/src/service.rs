//! One request, from its head to its answer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use api::{PeerAddress, PeerCertificates, Request};
use http::Response;
use http::header::HeaderMap;
use http::request::Parts;
use hyper::body::Incoming;
use zeroize::Zeroizing;

use crate::activity::{Activity, Doing};
use crate::admin::{self, AdminPort};
use crate::body;
use crate::head::{Head, Malformed};
use crate::reply::{self, Answer, ReplyBody};
use crate::sealed;
use crate::server::{Phase, Shared};
use crate::sockets::AdminPeer;

/// What answers when there are keys.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, and has recorded it when the future ends. Once begun it is run to its end, even if the
    /// client goes away: what has been done must be recorded.
    fn handle(self: Arc<Self>, request: Request) -> impl Future<Output = Answer> + Send + 'static;

    /// Whether somebody may want to know clients by their certificates, so that a TLS client is asked for one.
    fn asks_for_certificates(&self) -> bool {
        false
    }
}

/// What a request may need to know of its connection.
pub(crate) struct Session<H> {
    pub(crate) shared: Arc<Shared<H>>,
    pub(crate) peer: PeerAddress,
    pub(crate) tls: bool,
    /// What the peer has proven in the TLS handshake, if it was asked.
    pub(crate) certificates: Option<Arc<PeerCertificates>>,
    /// On the admin socket: who it is, and what stands behind.
    pub(crate) admin: Option<(AdminPeer, Arc<dyn AdminPort>)>,
    pub(crate) activity: Arc<Activity>,
    /// On what terms its bodies are read.
    pub(crate) bodies: body::Terms,
    /// Whoever holds one keeps the drain waiting.
    pub(crate) alive: Alive,
}

/// Held by everything that is not finished.
pub(crate) type Alive = tokio::sync::mpsc::Sender<Infallible>;

impl<H: Handler> Session<H> {
    pub(crate) async fn serve(
        self: Arc<Self>,
        request: http::Request<Incoming>,
    ) -> Result<Response<ReplyBody>, Infallible> {
        self.activity.go_on(Doing::Request);
        let response = self.answer(request).await;
        self.activity.enter(Doing::Reply);
        Ok(response)
    }

    /// What seldom happens is boxed: hyper moves the future of every request into its place, and a read of what the
    /// cache holds should not move the room for a body, two timers and a task.
    async fn answer(&self, request: http::Request<Incoming>) -> Response<ReplyBody> {
        let shared = &self.shared;
        let (parts, body) = request.into_parts();
        if let Some((by, port)) = &self.admin
            && parts.uri.path().starts_with("/admin/")
        {
            return Box::pin(self.administer(by, &**port, &parts, body)).await;
        }
        let head = match Head::parse(&parts) {
            Ok(head) => head,
            Err(fault) => return self.malformed(fault),
        };
        let core = match &*shared.phase.borrow() {
            Phase::Unsealed(core) => Arc::clone(core),
            Phase::Sealed(state) => {
                shared.counters.requests.add();
                return sealed::answer(state, &head, &*shared.clock, self.tls);
            }
        };
        let (body, room) = if head.takes_body() {
            match Box::pin(self.read_body(&parts.headers, body)).await {
                Ok((body, room)) => (body, Some(room)),
                Err(fault) => return self.malformed(fault),
            }
        } else {
            (Zeroizing::default(), None)
        };
        let request = match head.with_body(body, self.peer.clone()) {
            Ok(request) => Request { certificates: self.certificates.clone(), ..request },
            Err(fault) => return self.malformed(fault),
        };
        shared.counters.requests.add();
        // What the cache answers is ready at the first look, and costs no task.
        let mut work = Box::pin(core.handle(request));
        match poll_once(work.as_mut()).await {
            Ok(Poll::Ready(answer)) => reply::answer(answer, self.tls),
            Ok(Poll::Pending) => Box::pin(self.outlive(work, room)).await,
            Err(Panicked) => {
                tracing::error!("a request ended without an answer: it panicked");
                reply::broken(self.tls)
            }
        }
    }

    /// Waits for work that has a task of its own, so that a client that goes away, or a limit that is reached, does not
    /// take it down half done and unrecorded.
    async fn outlive<W>(&self, work: Pin<Box<W>>, room: Option<body::Room>) -> Response<ReplyBody>
    where
        W: Future<Output = Answer> + Send + 'static,
    {
        if !host::in_force("begun-work-is-finished") {
            return reply::answer(work.await, self.tls);
        }
        let alive = self.alive.clone();
        let task = tokio::spawn(async move {
            let answer = work.await;
            drop((alive, room));
            answer
        });
        match tokio::time::timeout(self.shared.limits.request, task).await {
            Ok(Ok(answer)) => reply::answer(answer, self.tls),
            Ok(Err(failed)) => {
                tracing::error!(%failed, "a request ended without an answer");
                reply::broken(self.tls)
            }
            Err(_) => self.late(),
        }
    }

    async fn read_body(
        &self,
        headers: &HeaderMap,
        body: Incoming,
    ) -> Result<(Zeroizing<Vec<u8>>, body::Room), Malformed> {
        let read = body::read(headers, body, &self.bodies);
        tokio::time::timeout(self.shared.limits.request, read).await.unwrap_or(Err(Malformed::BodyLate))
    }

    async fn administer(
        &self,
        by: &AdminPeer,
        port: &dyn AdminPort,
        parts: &Parts,
        body: Incoming,
    ) -> Response<ReplyBody> {
        let shared = &self.shared;
        let answer = admin::answer(port, by, &parts.method, parts.uri.path(), &parts.headers, body, &self.bodies);
        match tokio::time::timeout(shared.limits.request, answer).await {
            Ok(response) => response,
            Err(_) => self.late(),
        }
    }

    fn malformed(&self, fault: Malformed) -> Response<ReplyBody> {
        self.shared.counters.malformed.add();
        tracing::debug!(peer = ?self.peer, %fault, "malformed request");
        reply::malformed(fault, self.tls)
    }

    fn late(&self) -> Response<ReplyBody> {
        self.shared.counters.late.add();
        tracing::warn!(peer = ?self.peer, "a request took longer than its limit; it goes on without its client");
        reply::late(self.tls)
    }
}

/// Polls once. A panic ends this request and not its connection, as one in a task of its own would.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Result<Poll<F::Output>, Panicked> {
    poll_fn(|cx| {
        // The future is not polled again after a panic, so nothing sees what it left half done.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(cx)));
        Poll::Ready(polled.map_err(|_| Panicked))
    })
    .await
}

struct Panicked;
