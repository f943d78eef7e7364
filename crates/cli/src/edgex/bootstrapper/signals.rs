//! SIGTERM and SIGINT end whatever is waited for.

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Code, Failure};

/// Works until it is done, or until told to stop; what was under way is then dropped.
///
/// # Errors
/// If signals cannot be received.
pub(super) async fn unless_told<T>(work: impl Future<Output = T>) -> Result<Option<T>, Failure> {
    let failed = |e: std::io::Error| Failure::fault(format!("signals cannot be received: {e}"));
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?);
    tokio::select! {
        done = work => Ok(Some(done)),
        _ = terminate.recv() => Ok(None),
        _ = interrupt.recv() => Ok(None),
    }
}

/// The same where being told to stop is a failure: what was waited for is not there.
///
/// # Errors
/// The work's own, and that.
pub(super) async fn or_stopped<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    unless_told(work).await?.unwrap_or_else(|| {
        Err(Failure::new(Code::NotReady, "told to stop while waiting").hint("start it again to go on"))
    })
}
