//! Being told to stop: by a signal, in the whole of this crate.
//!
//! Waits end at once. Work that may be dropped between two requests is dropped ([`Stop::or`]); work that may not, such
//! as the saving of key shares that exist in memory alone, does not look here.

use tokio::sync::watch;

/// The side that says it.
#[derive(Debug)]
pub struct Halt(watch::Sender<bool>);

/// The side that hears it.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A new pair. A [`Halt`] that is dropped unsaid never stops anything.
pub fn stop() -> (Halt, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Halt(sender), Stop(receiver))
}

impl Halt {
    /// Says it; for good.
    pub fn say(&self) {
        self.0.send_replace(true);
    }
}

/// Somebody asked us to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Stopped;

impl Stop {
    /// Whether it was said.
    ///
    /// # Errors
    /// [`Stopped`].
    pub fn check(&self) -> Result<(), Stopped> {
        if *self.0.borrow() { Err(Stopped) } else { Ok(()) }
    }

    /// Resolves when it is said.
    pub async fn said(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|said| *said).await.is_err() {
            // Nobody is left who could say it.
            std::future::pending::<()>().await;
        }
    }

    /// Does `work` unless it is said first; then the work is dropped where it stands.
    ///
    /// # Errors
    /// [`Stopped`], or what the work says.
    pub async fn or<T, E: From<Stopped>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::select! {
            biased;
            () = self.said() => Err(Stopped.into()),
            outcome = work => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_stops_waits_and_work() {
        testkit::block_on(async {
            let (halt, stop) = stop();
            assert_eq!(stop.check(), Ok(()));
            assert_eq!(stop.or(async { Ok::<_, Stopped>(7) }).await, Ok(7));
            halt.say();
            assert_eq!(stop.check(), Err(Stopped));
            stop.said().await;
            assert_eq!(stop.or(std::future::pending::<Result<(), Stopped>>()).await, Err(Stopped));
        });
    }

    #[test]
    fn silence_stops_nothing() {
        let (halt, stop) = stop();
        drop(halt);
        assert_eq!(testkit::block_on(stop.or(async { Ok::<_, Stopped>(7) })), Ok(7));
    }
}
