//! Trying until something is there: how long an attempt may take, how long to rest, when to give up.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How patiently something is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The longest that one attempt may take: a peer that says nothing must not cost the whole time.
    pub attempt: Duration,
    /// Between the end of one attempt and the next.
    pub pause: Duration,
    /// All in all; `None` is for ever.
    pub total: Option<Duration>,
}

/// Tries until an attempt succeeds. Dropping the future ends it, and the attempt that is under way.
///
/// # Errors
/// [`GaveUp`] when the total time has passed, with what was seen last.
pub async fn persist<T, E, F>(pace: Pace, mut attempt: impl FnMut() -> F) -> Result<T, GaveUp<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let end = pace.total.map(|total| Instant::now() + total);
    let left = || end.map(|end| end.saturating_duration_since(Instant::now()));
    let mut last = None;
    loop {
        let limit = left().map_or(pace.attempt, |left| left.min(pace.attempt));
        match timeout(limit, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = Some(seen),
            // One that was cut short by the end tells less than the one before.
            Err(_) if limit < pace.attempt => {}
            Err(_) => last = None,
        }
        match left() {
            Some(left) if left.is_zero() => return Err(GaveUp { last }),
            Some(left) => sleep(left.min(pace.pause)).await,
            None => sleep(pace.pause).await,
        }
    }
}

/// The time is over.
#[derive(Debug)]
pub struct GaveUp<E> {
    /// What the last attempt met; `None` where it got no answer in its time.
    pub last: Option<E>,
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const PACE: Pace =
        Pace { attempt: Duration::from_secs(5), pause: Duration::from_secs(1), total: Some(Duration::from_secs(60)) };

    #[tokio::test(start_paused = true)]
    async fn one_that_never_answers_does_not_use_up_the_whole_time() {
        let (start, tries) = (Instant::now(), Cell::new(0));
        let answer = persist(PACE, || {
            tries.set(tries.get() + 1);
            let silent = tries.get() < 3;
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                Ok::<_, ()>(7)
            }
        });
        assert_eq!(answer.await.unwrap(), 7);
        assert_eq!(start.elapsed(), Duration::from_secs(12), "two attempts of 5 s, two pauses of 1 s");
    }

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_at_its_time_and_tells_the_last_failure() {
        let start = Instant::now();
        let failing = persist(PACE, || async { Err::<(), _>("refused") });
        assert_eq!(failing.await.unwrap_err().last, Some("refused"));
        assert_eq!(start.elapsed(), Duration::from_secs(60));
        let tries = Cell::new(0);
        let cut_short = persist(Pace { pause: Duration::from_secs(58), ..PACE }, || {
            tries.set(tries.get() + 1);
            let silent = tries.get() > 1;
            async move {
                if silent {
                    std::future::pending::<()>().await;
                }
                Err::<(), _>("refused")
            }
        });
        assert_eq!(cut_short.await.unwrap_err().last, Some("refused"));
        assert_eq!((start.elapsed(), tries.get()), (Duration::from_secs(120), 2));
        let silent = persist(PACE, std::future::pending::<Result<(), ()>>);
        assert_eq!(silent.await.unwrap_err().last, None);
        assert_eq!(start.elapsed(), Duration::from_secs(180));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_end_it_goes_on_for_ever() {
        let tries = Cell::new(0);
        let stubborn = persist(Pace { total: None, ..PACE }, || {
            tries.set(tries.get() + 1);
            let done = tries.get() == 10_000;
            async move { if done { Ok(()) } else { Err(()) } }
        });
        stubborn.await.unwrap();
    }
}
