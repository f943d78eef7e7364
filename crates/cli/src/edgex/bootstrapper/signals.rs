//! SIGTERM and SIGINT end whatever is waited for.
//!
//! From the first listener on neither ends the process by itself, whether or not one listens at the moment (tokio keeps
//! its handler). So that none is lost between two stages, whoever has several makes one [`Signals`] before the first
//! and lends it to each.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Code, Failure};

/// What has been heard since this was made and not yet been acted on.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// To be called on a runtime, and good for every later one: what comes between two is told on the second.
    ///
    /// # Errors
    /// If signals cannot be received.
    pub(super) fn listen() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|e| Failure::fault(format!("signals cannot be received: {e}")));
        Ok(Self { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    /// Works until it is done, or until told to stop; what was under way is then dropped.
    pub(super) async fn unless_told<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // What was heard before the work is acted on before it.
            biased;
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
            done = work => Some(done),
        }
    }

    /// The same where being told to stop is a failure: what was waited for is not there.
    ///
    /// # Errors
    /// The work's own, and that.
    pub(super) async fn or_stopped<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.unless_told(work).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Whether none has come until now, that is before this call.
    ///
    /// # Errors
    /// If one has.
    pub(super) async fn none_yet(&mut self) -> Result<(), Failure> {
        // A runtime hears of signals where it waits, and it waits for this.
        self.unless_told(tokio::time::sleep(TURN)).await.ok_or_else(stopped)
    }
}

fn stopped() -> Failure {
    Failure::new(Code::NotReady, "told to stop while waiting").hint("start it again to go on")
}

/// The shortest wait that tokio's clock knows.
const TURN: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::super::on_runtime;
    use super::*;

    /// No other test of this executable listens for SIGTERM.
    #[test]
    fn what_comes_between_two_stages_is_told_in_the_second() {
        let done = || async { Ok(()) };
        let mut signals = on_runtime(async { Signals::listen() }).unwrap();
        on_runtime(signals.or_stopped(done())).unwrap();
        on_runtime(signals.none_yet()).unwrap();

        kill_process(getpid(), Signal::TERM).unwrap();
        // The kernel gives it to whichever thread it likes, and that has to run first.
        let told = (0..120_000).find_map(|_| on_runtime(signals.none_yet()).err());
        let stopped = told.expect("it is told within two minutes of a millisecond each");
        assert_eq!((stopped.code, &*stopped.fact), (Code::NotReady, "told to stop while waiting"));
        on_runtime(signals.none_yet()).expect("it is told once");
    }
}
