//! Reading a body: bounded for one request, for one asker and for all together, in its time, and wiped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::MAX_BODY_BYTES;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::{Body, Buf};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::crowd::Asker;
use crate::head::Malformed;
use crate::limits::{Limits, SMALL_BODY_BYTES};

/// Room for the large bodies of one door (TCP, the API socket, the admin socket). It is taken as bytes arrive: an
/// announced length costs its sender nothing, and so must cost nobody else anything. One asker gets half of it at most.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget(Arc<Mutex<Taken>>);

#[derive(Debug)]
struct Taken {
    left: usize,
    most_of_one: usize,
    by: HashMap<Asker, usize>,
}

impl BodyBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Taken { left: bytes, most_of_one: bytes / 2, by: HashMap::new() })))
    }

    fn room(&self, asker: Asker) -> Room {
        Room { budget: self.clone(), asker, bytes: 0 }
    }

    /// Numbers are whole even if a thread died while it held the lock.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one body holds of the budget, until it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    budget: BodyBudget,
    asker: Asker,
    bytes: usize,
}

impl Room {
    /// Room for `bytes` in all, or 503 at once: to wait would be to hold a connection as well. What is small is free.
    fn grow_to(&mut self, bytes: usize) -> Result<(), Malformed> {
        if bytes <= SMALL_BODY_BYTES || bytes <= self.bytes {
            return Ok(());
        }
        let more = bytes - self.bytes;
        let mut taken = self.budget.lock();
        let of_asker = taken.by.get(&self.asker).map_or(0, |b| *b) + more;
        if more > taken.left || of_asker > taken.most_of_one && host::in_force("bodies-shared") {
            return Err(Malformed::Crowded);
        }
        taken.left -= more;
        taken.by.insert(self.asker, of_asker);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.budget.lock();
        taken.left += self.bytes;
        if let Some(of_asker) = taken.by.get_mut(&self.asker) {
            *of_asker -= self.bytes;
            if *of_asker == 0 {
                taken.by.remove(&self.asker);
            }
        }
    }
}

/// On what terms a connection's bodies are read.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    budget: BodyBudget,
    asker: Asker,
    pace: Pace,
}

impl Terms {
    pub(crate) fn new(budget: &BodyBudget, asker: Asker, limits: &Limits) -> Self {
        let pace = Pace { grace: limits.body, bytes_per_second: limits.body_bytes_per_second.max(1) };
        Self { budget: budget.clone(), asker, pace }
    }
}

/// How slow a body may be.
#[derive(Clone, Copy, Debug)]
struct Pace {
    grace: Duration,
    bytes_per_second: usize,
}

impl Pace {
    /// When a body of which so much is here must have gone on.
    fn deadline(self, begun: Instant, bytes: usize) -> Instant {
        let earned = Duration::from_millis((bytes.saturating_mul(1000) / self.bytes_per_second) as u64);
        begun + self.grace + earned
    }
}

/// Reads a whole body of at most [`MAX_BODY_BYTES`].
///
/// The buffer has its final size from the start where the length is announced (untouched pages cost nothing); where it
/// is not, a larger buffer replaces the smaller one, which is wiped. The caller keeps the [`Room`] for as long as the
/// bytes.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    terms: &Terms,
) -> Result<(Zeroizing<Vec<u8>>, Room), Malformed>
where
    B: Body + Unpin,
{
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|n| n > MAX_BODY_BYTES) {
        return Err(Malformed::BodyTooLarge);
    }
    let mut room = terms.budget.room(terms.asker);
    if announced.is_none() && body.is_end_stream() {
        return Ok((Zeroizing::new(Vec::new()), room));
    }
    if !host::in_force("bodies-pay-as-they-come") {
        room.grow_to(announced.unwrap_or(0))?;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(SMALL_BODY_BYTES)));
    let (mut body, begun) = (body, Instant::now());
    loop {
        let frame = match tokio::time::timeout_at(terms.pace.deadline(begun, bytes.len()), body.frame()).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(_) if !host::in_force("slow-bodies-refused") => std::future::pending().await,
            Err(_) => return Err(Malformed::BodyLate),
        };
        let Ok(mut data) = frame.map_err(|_| Malformed::BodyBroken)?.into_data() else { continue };
        let length = bytes.len() + data.remaining();
        if length > MAX_BODY_BYTES && host::in_force("bodies-bounded") {
            return Err(Malformed::BodyTooLarge);
        }
        if length > bytes.capacity() {
            let capacity = length.next_power_of_two().min(MAX_BODY_BYTES);
            room.grow_to(capacity)?;
            let mut larger = Zeroizing::new(Vec::with_capacity(capacity));
            larger.extend_from_slice(&bytes);
            bytes = larger;
        }
        room.grow_to(length)?;
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
    }
    Ok((bytes, room))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::Full;
    use hyper::body::{Bytes, Frame};

    fn block<F: Future>(f: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(f)
    }

    fn terms(budget: &BodyBudget) -> Terms {
        Terms::new(budget, Asker::User(1), &Limits::default())
    }

    fn announced(n: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(n));
        headers
    }

    /// `count` chunks of 1000 bytes without an announced length.
    struct Chunks(usize);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Ready((self.0 > 0).then(|| {
                self.0 -= 1;
                Ok(Frame::data(Bytes::from_static(&[b'x'; 1000])))
            }))
        }
    }

    #[test]
    fn an_announced_excess_is_refused_unread() {
        let budget = BodyBudget::new(1 << 24);
        let refused = block(read(&announced(MAX_BODY_BYTES + 1), Untouched, &terms(&budget)));
        assert_eq!(refused.unwrap_err(), Malformed::BodyTooLarge);
    }

    /// A body that must not be touched.
    struct Untouched;

    impl Body for Untouched {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            panic!("the body was read");
        }
    }

    #[test]
    fn chunks_are_counted_as_they_come() {
        let budget = BodyBudget::new(1 << 24);
        let read = |count| block(read(&HeaderMap::new(), Chunks(count), &terms(&budget)));
        assert_eq!(read(1048).unwrap().0.len(), 1_048_000);
        assert_eq!(read(1049).unwrap_err(), Malformed::BodyTooLarge);
        assert_eq!(read(0).unwrap().0.len(), 0);
    }

    #[test]
    fn large_bodies_share_one_budget_and_small_ones_are_free() {
        let budget = BodyBudget::new(100 * 1024);
        let of = |user: u32, n: usize| {
            let terms = Terms::new(&budget, Asker::User(user), &Limits::default());
            block(read(&announced(n), Full::new(Bytes::from(vec![b'x'; n])), &terms))
        };
        let held = [of(1, 50 * 1024).unwrap(), of(2, 40 * 1024).unwrap()];
        assert_eq!(of(3, 20_000).unwrap_err(), Malformed::Crowded);
        assert_eq!(of(3, 10_000).unwrap().0.len(), 10_000);
        drop(held);
        assert_eq!(of(3, 20_000).unwrap().0.len(), 20_000);
        let taken = budget.lock();
        assert_eq!((taken.left, taken.by.len()), (100 * 1024, 0), "the room is given back");
    }

    #[test]
    fn one_asker_leaves_half_of_the_room() {
        let budget = BodyBudget::new(100 * 1024);
        let mut first = budget.room(Asker::User(1));
        first.grow_to(50 * 1024).unwrap();
        let mut second = budget.room(Asker::User(1));
        assert_eq!(second.grow_to(20 * 1024).unwrap_err(), Malformed::Crowded);
        budget.room(Asker::User(2)).grow_to(50 * 1024).unwrap();
        drop(first);
        second.grow_to(20 * 1024).unwrap();
        second.grow_to(50 * 1024).unwrap();
    }

    /// What was announced, so much of it, and then silence.
    struct Silent(usize);

    impl Body for Silent {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            match std::mem::take(&mut self.0) {
                0 => std::task::Poll::Pending,
                n => std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; n]))))),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_length_takes_no_room_before_its_bytes() {
        let budget = BodyBudget::new(1 << 21);
        let (terms, headers) = (terms(&budget), announced(MAX_BODY_BYTES));
        let mut silent: Vec<_> = (0..16).map(|_| Box::pin(read(&headers, Silent(0), &terms))).collect();
        for body in &mut silent {
            let once = std::future::poll_fn(|cx| std::task::Poll::Ready(body.as_mut().poll(cx).is_pending()));
            assert!(once.await);
        }
        let honest = Full::new(Bytes::from(vec![b'x'; MAX_BODY_BYTES]));
        assert_eq!(read(&headers, honest, &terms).await.unwrap().0.len(), MAX_BODY_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_the_time_that_its_bytes_earn() {
        let limits = Limits { body_bytes_per_second: 1000, ..Limits::default() };
        let terms = Terms::new(&BodyBudget::new(1 << 20), Asker::User(1), &limits);
        for (sent, seconds) in [(0, 10), (5000, 15)] {
            let begun = Instant::now();
            let headers = announced(10_000);
            let late = read(&headers, Silent(sent), &terms);
            let late = tokio::time::timeout(Duration::from_secs(60), late).await.expect("it is not waited for");
            assert_eq!(late.unwrap_err(), Malformed::BodyLate);
            assert_eq!(begun.elapsed().as_secs(), seconds);
        }
    }
}
