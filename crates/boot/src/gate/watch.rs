//! Watching what a gate was opened for: a gate that stays open behind a database that has stopped lets its services run
//! into nothing.
//!
//! ```text
//! it answers, and the connection is kept -> that ends, or it is time: asked again -> it answers
//!                                                   '-> it certainly is not there: lapsed at once; no sense in the answer: asked
//!                                                       once more
//! ```

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{sleep, timeout};

/// That something has answered, and the connection at which it did, where there is one: its end is seen sooner than the
/// next question is due, and costs nothing to wait for.
pub struct Standing(Option<Box<dyn AsyncRead + Send + Unpin>>);

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Standing(connected)" } else { "Standing" })
    }
}

impl Standing {
    /// With the connection.
    pub fn at(stream: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self(Some(Box::new(stream)))
    }

    /// With nothing that would end.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// Returns when the other side has closed the connection, or babbles.
    async fn ended(self) {
        let Some(mut stream) = self.0 else { return std::future::pending().await };
        let mut unasked = [0; 64];
        for _ in 0..MAX_UNASKED_READS {
            if !matches!(stream.read(&mut unasked).await, Ok(n) if n > 0) {
                return;
            }
        }
    }
}

/// How closely something is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The longest that a question may take.
    pub attempt: Duration,
    /// The least between two questions.
    pub pause: Duration,
    /// The most between two questions, as long as nothing was noticed.
    pub calm: Duration,
}

/// Returns when what stood no longer does, with what was seen last; `None` is no answer at all. An error that is
/// `certain` counts at once, any other when it comes twice.
pub async fn until_lapsed<E, F>(
    watch: Watch,
    mut standing: Standing,
    mut ask: impl FnMut() -> F,
    certain: impl Fn(&E) -> bool,
) -> Option<E>
where
    F: Future<Output = Result<Standing, E>>,
{
    let mut doubtful = false;
    if !host::in_force("gates-shut-again") {
        return std::future::pending().await;
    }
    loop {
        let rest = if doubtful { watch.pause } else { watch.calm };
        // Whoever closes every connection is not asked more often than this.
        let (_ended_or_time, ()) = tokio::join!(timeout(rest, standing.ended()), sleep(watch.pause));
        let seen = match timeout(watch.attempt, ask()).await {
            Ok(Ok(again)) => {
                (standing, doubtful) = (again, false);
                continue;
            }
            Ok(Err(seen)) => Some(seen),
            Err(_) => None,
        };
        if doubtful || seen.as_ref().is_some_and(&certain) {
            return seen;
        }
        (standing, doubtful) = (Standing::unknown(), true);
    }
}

/// What is left of a refusal that PostgreSQL has begun is a few hundred bytes; nobody else says a word.
const MAX_UNASKED_READS: usize = 64;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    const WATCH: Watch =
        Watch { attempt: Duration::from_secs(5), pause: Duration::from_secs(1), calm: Duration::from_secs(10) };

    #[derive(Debug, PartialEq)]
    enum Seen {
        Gone,
        Odd,
    }

    /// What is answered, in turn; then nothing for ever.
    async fn lapse(first: Standing, mut answers: Vec<Result<Standing, Seen>>) -> (Option<Seen>, u64) {
        answers.reverse();
        let (start, left) = (Instant::now(), RefCell::new(answers));
        let ask = || {
            let next = left.borrow_mut().pop();
            async move {
                match next {
                    Some(answer) => answer,
                    None => std::future::pending().await,
                }
            }
        };
        let lapse = until_lapsed(WATCH, first, ask, |e| *e == Seen::Gone);
        let seen = timeout(Duration::from_secs(3600), lapse).await.expect("it lapses within the hour");
        (seen, start.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_ends_is_noticed_at_once_and_its_end_alone_is_no_lapse() {
        let (ours, theirs) = tokio::io::duplex(16);
        drop(theirs);
        let still_there = vec![Ok(Standing::unknown()), Err(Seen::Gone)];
        assert_eq!(lapse(Standing::at(ours), still_there).await, (Some(Seen::Gone), 1 + 10));
        let (ours, _theirs) = tokio::io::duplex(16);
        assert_eq!(lapse(Standing::at(ours), vec![Err(Seen::Gone)]).await, (Some(Seen::Gone), 10));
    }

    #[tokio::test(start_paused = true)]
    async fn one_odd_answer_is_asked_about_once_more() {
        let odd = || Err(Seen::Odd);
        let answers = vec![odd(), Ok(Standing::unknown()), odd(), odd()];
        assert_eq!(lapse(Standing::unknown(), answers).await, (Some(Seen::Odd), 10 + 1 + 10 + 1));
        assert_eq!(lapse(Standing::unknown(), Vec::new()).await, (None, 10 + 5 + 1 + 5), "silence, twice");
    }

    #[tokio::test(start_paused = true)]
    async fn who_closes_every_connection_is_asked_no_more_than_once_a_pause() {
        let closed = || {
            let (ours, _) = tokio::io::duplex(16);
            Standing::at(ours)
        };
        let answers = (0..20).map(|_| Ok(closed())).chain([Err(Seen::Gone)]).collect();
        assert_eq!(lapse(closed(), answers).await, (Some(Seen::Gone), 21));
    }
}
