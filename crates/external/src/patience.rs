//! How long to go on asking: a deadline, and pauses that grow.

use std::time::Duration;

use host::{BootTime, Clock};

use crate::stop::{Stop, Stopped};

/// A wait with an end.
pub struct Patience<'c> {
    clock: &'c dyn Clock,
    until: BootTime,
    pause: Duration,
    longest: Duration,
}

/// The deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl<'c> Patience<'c> {
    /// Gives up `limit` from now; pauses begin at 50 ms and double up to `longest`.
    pub fn new(clock: &'c dyn Clock, limit: Duration, longest: Duration) -> Self {
        Self { clock, until: clock.boottime().plus(limit), pause: FIRST_PAUSE.min(longest), longest }
    }

    /// Pauses, if there is time left for it.
    ///
    /// # Errors
    /// `Ok(Err(Exhausted))` past the deadline; [`Stopped`] at once when it is said.
    pub async fn pause(&mut self, stop: &Stop) -> Result<Result<(), Exhausted>, Stopped> {
        stop.check()?;
        let left = self.until.since(self.clock.boottime());
        if left.is_zero() {
            return Ok(Err(Exhausted));
        }
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(self.longest);
        stop.or(async {
            tokio::time::sleep(pause).await;
            Ok(Ok(()))
        })
        .await
    }
}

impl std::fmt::Debug for Patience<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Patience(until {:?})", self.until)
    }
}

/// A store on the same device answers within milliseconds of its start.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
