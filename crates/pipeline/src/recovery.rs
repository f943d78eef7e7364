//! What is done at the admin socket, in the audit: the use of a recovery key, a change of the key slots. It has no path
//! of the API: only code within the process can record it.

use api::PeerAddress;
use host::WallTime;

use crate::core::Core;
use crate::error::EngineError;
use crate::sink::{ActorRecord, RequestId, RequestRecord, ResponseRecord};

/// An act that the audit has taken, and whose outcome it waits for.
#[derive(Debug)]
#[must_use]
pub struct LocalAct {
    id: RequestId,
    at: WallTime,
    path: &'static str,
    actor: String,
    peer: PeerAddress,
}

impl Core {
    /// Records that the recovery key of this public name is used by `peer`, for `path` (`admin/recover` ...). Durable
    /// on return, unless the audit is never synced.
    ///
    /// # Errors
    /// [`EngineError`] when the audit does not take it: then the use must have no effect.
    pub async fn announce_recovery(
        &self,
        path: &'static str,
        key: &str,
        peer: PeerAddress,
    ) -> Result<LocalAct, EngineError> {
        self.announce_local(path, format!("recovery-{key}"), peer).await
    }

    /// Records that `peer`, whom the kernel vouches for at the admin socket, is about to do `path` (`admin/slots/add`
    /// ...). Durable as above.
    ///
    /// # Errors
    /// [`EngineError`] when the audit does not take it: then nothing may be done.
    pub async fn announce_admin(&self, path: &'static str, peer: PeerAddress) -> Result<LocalAct, EngineError> {
        self.announce_local(path, "admin".to_owned(), peer).await
    }

    async fn announce_local(
        &self,
        path: &'static str,
        actor: String,
        peer: PeerAddress,
    ) -> Result<LocalAct, EngineError> {
        let at = self.services().ground.clock.wall();
        let announced = LocalAct { id: self.next_id(), at, path, actor, peer };
        self.audit().announce(&announced.record()).await.map_err(EngineError::internal)?;
        Ok(announced)
    }

    /// Records what came of it: the store's sequence number after the change of the slots, none if they did not change,
    /// or why nothing was done (of a used recovery key: why it stays valid).
    ///
    /// # Errors
    /// [`EngineError`] when the audit does not take it; what was done is done.
    pub async fn conclude_local(&self, act: LocalAct, outcome: Result<Option<u64>, &str>) -> Result<(), EngineError> {
        let response = ResponseRecord {
            at: self.services().ground.clock.wall(),
            status: if outcome.is_ok() { 200 } else { 500 },
            error: outcome.err(),
            issued: None,
            sequence: outcome.ok().flatten(),
            stranger: false,
        };
        self.audit().conclude(&act.record(), &response).await.map_err(EngineError::internal)
    }
}

impl LocalAct {
    fn record(&self) -> RequestRecord<'_> {
        RequestRecord {
            id: self.id,
            at: self.at,
            operation: "update",
            path: self.path,
            mount: None,
            actor: ActorRecord::Local { name: &self.actor },
            rule: None,
            peer: &self.peer,
            certificate: None,
        }
    }
}
