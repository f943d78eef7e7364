//! Reading a body: bounded for one request, bounded for all together, and wiped.

use std::sync::Arc;

use api::MAX_BODY_BYTES;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::{Body, Buf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use crate::head::Malformed;
use crate::limits::SMALL_BODY_BYTES;

/// Room for large bodies, in KiB, shared by all connections.
#[derive(Clone, Debug)]
pub(crate) struct BodyBudget(Arc<Semaphore>);

impl BodyBudget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new((bytes / 1024).min(Semaphore::MAX_PERMITS))))
    }

    /// Room for one large body, or 503 at once: to wait would be to hold a connection as well.
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Malformed> {
        let kib = u32::try_from(bytes.div_ceil(1024)).map_err(|_| Malformed::BodyTooLarge)?;
        Arc::clone(&self.0).try_acquire_many_owned(kib).map_err(|_| Malformed::Crowded)
    }
}

/// What a large body holds of the budget.
#[derive(Debug)]
pub(crate) struct Room(
    #[expect(dead_code, reason = "held, and given back by dropping it")] Option<OwnedSemaphorePermit>,
);

/// Reads a whole body of at most [`MAX_BODY_BYTES`].
///
/// The buffer has its final size from the start where the length is announced (untouched pages cost nothing); where it is
/// not, a larger buffer replaces the smaller one, which is wiped. The caller keeps the [`Room`] for as long as the bytes.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    budget: &BodyBudget,
) -> Result<(Zeroizing<Vec<u8>>, Room), Malformed>
where
    B: Body + Unpin,
{
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|n| n > MAX_BODY_BYTES) {
        return Err(Malformed::BodyTooLarge);
    }
    if announced.is_none() && body.is_end_stream() {
        return Ok((Zeroizing::new(Vec::new()), Room(None)));
    }
    // Without a length the most is set aside at once it grows beyond the small: a chunk at a time would let many bodies
    // begin of which none could end.
    let mut permit = match announced {
        Some(n) if n > SMALL_BODY_BYTES => Some(budget.take(n)?),
        _ => None,
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(announced.unwrap_or(SMALL_BODY_BYTES)));
    let mut body = body;
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|_| Malformed::BodyBroken)?.into_data() else { continue };
        let length = bytes.len() + data.remaining();
        if length > MAX_BODY_BYTES && host::in_force("bodies-bounded") {
            return Err(Malformed::BodyTooLarge);
        }
        if length > bytes.capacity() {
            if permit.is_none() {
                permit = Some(budget.take(MAX_BODY_BYTES)?);
            }
            let mut larger = Zeroizing::new(Vec::with_capacity(length.next_power_of_two().min(MAX_BODY_BYTES)));
            larger.extend_from_slice(&bytes);
            bytes = larger;
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            bytes.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
    }
    Ok((bytes, Room(permit)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http_body_util::Full;
    use hyper::body::{Bytes, Frame};

    fn block<F: Future>(f: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f)
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
        let refused = block(read(&announced(MAX_BODY_BYTES + 1), Untouched, &budget));
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
        let read = |count| block(read(&HeaderMap::new(), Chunks(count), &budget));
        assert_eq!(read(1048).unwrap().0.len(), 1_048_000);
        assert_eq!(read(1049).unwrap_err(), Malformed::BodyTooLarge);
        assert_eq!(read(0).unwrap().0.len(), 0);
    }

    #[test]
    fn large_bodies_share_one_budget_and_small_ones_are_free() {
        let budget = BodyBudget::new(100 * 1024);
        let held = budget.take(90 * 1024).unwrap();
        let body = |n: usize| Full::new(Bytes::from(vec![b'x'; n]));
        assert_eq!(block(read(&announced(20_000), body(20_000), &budget)).unwrap_err(), Malformed::Crowded);
        assert_eq!(block(read(&announced(10_000), body(10_000), &budget)).unwrap().0.len(), 10_000);
        drop(held);
        assert_eq!(block(read(&announced(20_000), body(20_000), &budget)).unwrap().0.len(), 20_000);
        assert_eq!(budget.0.available_permits(), 100, "the room is given back");
    }
}
