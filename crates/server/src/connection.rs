//! One connection: hyper under a watchdog.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::activity::{Observed, Verdict};
use crate::service::{Handler, Session};

/// Serves `stream` until the peer leaves, is cut off, or `closing` is told and the request of the moment is answered.
pub(crate) async fn serve<S, H>(stream: S, session: Arc<Session<H>>, mut closing: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let limits = &session.shared.limits;
    let mut http = http1::Builder::new();
    http.keep_alive(true)
        .half_close(false)
        .max_header_size(limits.head_bytes)
        .max_buf_size(limits.head_bytes.max(8192))
        .max_headers(limits.head_fields)
        // RFC 9110, 6.6.1: no Date from a device that may not know it.
        .auto_date_header(false);
    let activity = Arc::clone(&session.activity);
    let observed = Observed::new(TokioIo::new(stream), Arc::clone(&activity));
    let service = service_fn(|request| Arc::clone(&session).serve(request));
    let mut connection = pin!(http.serve_connection(observed, service));
    let mut watchdog = pin!(tokio::time::sleep_until(activity.deadline(limits)));
    // A sender that is gone closes as well.
    let mut closing = pin!(async move {
        let _ = closing.wait_for(|closing| *closing).await;
    });
    let mut told = false;
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Event::Ended(ended));
            }
            // The timer is armed anew only when something has begun that ends sooner than what it waits for. A request
            // that is answered at once begins and ends within the line above, and never touches it.
            let deadline = activity.deadline(limits);
            if deadline < watchdog.deadline() {
                watchdog.as_mut().reset(deadline);
            }
            if watchdog.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Look);
            }
            if !told && closing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Event::Close);
            }
            Poll::Pending
        });
        match event.await {
            Event::Ended(Ok(())) => return,
            Event::Ended(Err(error)) => {
                // The peer's own doing, mostly; hyper has answered 400, 414 or 431 where it could.
                tracing::debug!(peer = ?session.peer, %error, "connection ended");
                if error.is_parse() {
                    session.shared.counters.malformed.add();
                }
                return;
            }
            Event::Look => match activity.verdict(limits) {
                Verdict::Wait => watchdog.as_mut().reset(activity.deadline(limits)),
                Verdict::Close => {
                    connection.as_mut().graceful_shutdown();
                    // hyper closes an idle connection at once; TLS may still want to say goodbye.
                    watchdog.as_mut().reset(Instant::now() + limits.stall);
                }
                Verdict::Cut if host::in_force("stalled-connections-cut") => {
                    session.shared.counters.cut.add();
                    tracing::debug!(peer = ?session.peer, "connection cut: it did not move");
                    return;
                }
                Verdict::Cut => watchdog.as_mut().reset(Instant::now() + limits.stall),
            },
            Event::Close => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

enum Event {
    Ended(hyper::Result<()>),
    Look,
    Close,
}
