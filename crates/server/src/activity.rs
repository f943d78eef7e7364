//! What a connection is doing, and since when: one word that the stream writes and a watchdog reads.
//!
//! hyper has one timer for the silence between requests and for a slow head alike, armed anew for each request; this
//! tells the two apart, sees a peer that takes no reply as well, and costs a clock reading where that costs an
//! allocation.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Instant;

use crate::limits::Limits;

/// The five things that a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Nothing, between two requests.
    Idle = 0,
    /// Receiving a head.
    Head = 1,
    /// Waiting for the answer (the service keeps its own time).
    Request = 2,
    /// Sending a reply.
    Reply = 3,
    /// Nothing yet: it has just come.
    Arrived = 4,
}

/// Shared by stream, service and watchdog of one connection.
#[derive(Debug)]
pub(crate) struct Activity {
    origin: Instant,
    /// Milliseconds since `origin`, times 8, and what is being done.
    word: AtomicU64,
}

/// What the watchdog finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All is well: look again at the deadline.
    Wait,
    /// It has been silent for long enough: close it in order.
    Close,
    /// It is being held up: cut it.
    Cut,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { origin: Instant::now(), word: AtomicU64::new(Doing::Arrived as u64) })
    }

    /// Begins something now.
    pub(crate) fn enter(&self, doing: Doing) {
        self.word.store(self.now() << 3 | doing as u64, Relaxed);
    }

    /// Goes on to something else in the same moment, which spares a clock reading: a request counts from its head, and
    /// the silence after a reply from the last time that it moved.
    pub(crate) fn go_on(&self, doing: Doing) {
        let (_, since) = self.doing();
        self.word.store(since << 3 | doing as u64, Relaxed);
    }

    /// When what is being done has taken too long.
    pub(crate) fn deadline(&self, limits: &Limits) -> Instant {
        let (doing, since) = self.doing();
        let limit = match doing {
            Doing::Idle => limits.idle,
            Doing::Head => limits.head,
            // The service answers within its limit; beyond it and a stall, something is wrong with the service itself.
            Doing::Request => limits.request + limits.stall,
            Doing::Reply => limits.stall,
            Doing::Arrived if host::in_force("first-request-soon") => limits.first,
            Doing::Arrived => limits.idle,
        };
        self.origin + Duration::from_millis(since) + limit
    }

    pub(crate) fn verdict(&self, limits: &Limits) -> Verdict {
        if Instant::now() < self.deadline(limits) {
            Verdict::Wait
        } else if matches!(self.doing().0, Doing::Idle | Doing::Arrived) {
            Verdict::Close
        } else {
            Verdict::Cut
        }
    }

    fn doing(&self) -> (Doing, u64) {
        let word = self.word.load(Relaxed);
        let doing = match word & 7 {
            0 => Doing::Idle,
            1 => Doing::Head,
            2 => Doing::Request,
            3 => Doing::Reply,
            _ => Doing::Arrived,
        };
        (doing, word >> 3)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX >> 3)
    }

    fn on_read(&self) {
        // Further bytes of a head do not begin it anew: that is what a slowloris would like.
        if matches!(self.doing().0, Doing::Idle | Doing::Arrived) {
            self.enter(Doing::Head);
        }
    }

    /// The peer takes bytes again after it took none.
    fn on_moved(&self) {
        if self.doing().0 == Doing::Reply {
            self.enter(Doing::Reply);
        }
    }

    fn on_flushed(&self) {
        if self.doing().0 == Doing::Reply {
            self.go_on(Doing::Idle);
        }
    }
}

/// A stream that tells [`Activity`] what passes through it.
#[derive(Debug)]
pub(crate) struct Observed<S> {
    stream: S,
    activity: Arc<Activity>,
    stalled: bool,
}

impl<S> Observed<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, stalled: false }
    }

    /// A write that goes through at once is not worth a look at the clock.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Pending => self.stalled = true,
            Poll::Ready(Ok(_)) if self.stalled => {
                self.stalled = false;
                self.activity.on_moved();
            }
            Poll::Ready(_) => {}
        }
    }
}

impl<S: Read + Unpin> Read for Observed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            self.activity.on_read();
        }
        read
    }
}

impl<S: Write + Unpin> Write for Observed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&written);
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            self.activity.on_flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            head: Duration::from_secs(10),
            first: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            stall: Duration::from_secs(30),
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickled_head_is_cut_however_many_bytes_come() {
        let activity = Activity::new();
        for _ in 0..9 {
            activity.on_read();
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(activity.verdict(&limits()), Verdict::Wait);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(&limits()), Verdict::Cut);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_nothing_is_not_waited_for_as_who_has_asked() {
        let activity = Activity::new();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(activity.verdict(&limits()), Verdict::Wait);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(&limits()), Verdict::Close);
        // A first byte is the beginning of a head, which has its own end.
        activity.on_read();
        assert_eq!(activity.doing().0, Doing::Head);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_requests_is_closed_in_order() {
        let activity = Activity::new();
        activity.enter(Doing::Reply);
        activity.on_flushed();
        tokio::time::advance(Duration::from_secs(119)).await;
        assert_eq!(activity.verdict(&limits()), Verdict::Wait);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(activity.verdict(&limits()), Verdict::Close);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reply_may_be_slow_but_must_move() {
        let activity = Activity::new();
        activity.enter(Doing::Reply);
        for _ in 0..10 {
            tokio::time::advance(Duration::from_secs(20)).await;
            assert_eq!(activity.verdict(&limits()), Verdict::Wait);
            activity.on_moved();
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(activity.verdict(&limits()), Verdict::Cut);
    }
}
