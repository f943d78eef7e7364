//! One request, from its head to its answer.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use api::{PeerAddress, Request};
use http::Response;
use http::header::{CONNECTION, HeaderValue, TRANSFER_ENCODING};
use hyper::body::Incoming;

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
    /// Answers one request, and has recorded it when the future ends. Once begun it is run to its end, even if the client
    /// goes away: what has been done must be recorded.
    fn handle(self: Arc<Self>, request: Request) -> impl Future<Output = Answer> + Send + 'static;
}

/// What a request may need to know of its connection.
pub(crate) struct Session<H> {
    pub(crate) shared: Arc<Shared<H>>,
    pub(crate) peer: PeerAddress,
    pub(crate) tls: bool,
    /// On the admin socket: who it is, and what stands behind.
    pub(crate) admin: Option<(AdminPeer, Arc<dyn AdminPort>)>,
    pub(crate) activity: Arc<Activity>,
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
        self.activity.enter(Doing::Request);
        let framed_by_chunks = request.headers().contains_key(TRANSFER_ENCODING);
        let mut response = self.answer(request).await;
        if framed_by_chunks {
            // RFC 9112, 6.3: where a Content-Length came with it (hyper has dropped it), the connection must end here, or a
            // proxy that believed the length would take the rest for another's request. It is rare enough to do always.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.activity.enter(Doing::Reply);
        Ok(response)
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Response<ReplyBody> {
        let shared = &self.shared;
        let (parts, body) = request.into_parts();
        if let Some((by, port)) = &self.admin
            && parts.uri.path().starts_with("/admin/")
        {
            let answer =
                admin::answer(&**port, by, &parts.method, parts.uri.path(), &parts.headers, body, &shared.bodies);
            return match tokio::time::timeout(shared.limits.request, answer).await {
                Ok(response) => response,
                Err(_) => self.late(),
            };
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
            match tokio::time::timeout(shared.limits.request, body::read(&parts.headers, body, &shared.bodies)).await {
                Ok(Ok((body, room))) => (body, Some(room)),
                Ok(Err(fault)) => return self.malformed(fault),
                Err(_) => return self.malformed(Malformed::BodyLate),
            }
        } else {
            (Default::default(), None)
        };
        let request = match head.with_body(body, self.peer.clone()) {
            Ok(request) => request,
            Err(fault) => return self.malformed(fault),
        };
        shared.counters.requests.add();
        self.handle(core, request, room).await
    }

    /// Runs the handler to its end, whatever becomes of the client. What the cache answers is ready at the first look and
    /// costs no task; what must wait is given a task of its own, which a closed connection does not take down.
    async fn handle(&self, core: Arc<H>, request: Request, room: Option<body::Room>) -> Response<ReplyBody> {
        let mut work = Box::pin(core.handle(request));
        if let Poll::Ready(answer) = poll_once(work.as_mut()).await {
            return reply::answer(answer, self.tls);
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

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}
