//! All servers at once, within one deadline: a slow one costs nothing where enough others answer.

use std::future::Future;
use std::io;
use std::time::Duration;

use client::{CallError, HttpReply, HttpRequest, Origin, exchange_plain};
use tang::{Recovery, ReplyError, Shared};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

/// What one server said instead of helping.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it does not have the slot's key: rotated away, or revoked")]
    NoKey,
    #[error("it refuses with status {0}")]
    Status(u16),
    #[error(transparent)]
    Advertisement(#[from] tang::AdvertisementError),
    #[error(transparent)]
    Reply(#[from] ReplyError),
    #[error("it was given up")]
    GivenUp,
    #[error("its answer is not the slot's key: it lies, or the slot was changed")]
    Lies,
}

impl Fault {
    /// With its causes, in one line.
    pub(super) fn told(&self) -> String {
        host::with_causes(self)
    }
}

/// The advertisement of a server, as it comes.
pub(super) async fn advertisement(origin: Origin, limit: Duration) -> Result<Vec<u8>, Fault> {
    let request = HttpRequest::Get { path: "/adv" };
    let reply = exchange_plain(&origin, request, tang::MAX_ADVERTISEMENT_BYTES, limit).await?;
    whole(reply)
}

/// Does the exchange with one server.
pub(super) async fn recover(origin: Origin, recovery: Recovery, limit: Duration) -> Result<Shared, Fault> {
    let (path, body) = (recovery.path(), recovery.body());
    let request = HttpRequest::Post { path: &path, content_type: tang::CONTENT_TYPE, body: &body };
    let reply = exchange_plain(&origin, request, tang::MAX_REPLY_BYTES, limit).await?;
    Ok(recovery.finish(&whole(reply)?)?)
}

fn whole(reply: HttpReply) -> Result<Vec<u8>, Fault> {
    match reply.status {
        200 => Ok(reply.body),
        404 => Err(Fault::NoKey),
        status => Err(Fault::Status(status)),
    }
}

/// Runs all at once and hands over each outcome as it comes, until `enough` says so or all are done; what is left is
/// given up.
///
/// It has a thread and a runtime of its own, so that a source may be asked from anywhere, from within another runtime
/// too. A name that the resolver hangs on is left behind with its thread.
pub(super) fn race<T: Send + 'static>(
    asked: Vec<impl Future<Output = T> + Send + 'static>,
    mut enough: impl FnMut(T) -> bool + Send,
) -> io::Result<()> {
    let work = move || {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(async {
            let mut running: JoinSet<T> = asked.into_iter().collect();
            while let Some(done) = running.join_next().await {
                // A task that panicked gives nothing, as a server that never answered.
                if done.is_ok_and(&mut enough) {
                    break;
                }
            }
        });
        runtime.shutdown_background();
        Ok(())
    };
    let lost = || io::Error::other("the thread that asks ended early");
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().name("tang".into()).spawn_scoped(scope, work)?;
        asking.join().map_err(|_| lost())?
    })
}
