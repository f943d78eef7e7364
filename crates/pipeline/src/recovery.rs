//! The use of a recovery key, in the audit. It has no path of the API: only code within the process, which has just opened the
//! store by that key, can record it.

use api::PeerAddress;
use host::WallTime;

use crate::core::Core;
use crate::error::EngineError;
use crate::sink::{ActorRecord, RequestId, RequestRecord, ResponseRecord};

/// A use that the audit has taken, and whose outcome it waits for.
#[derive(Debug)]
#[must_use]
pub struct RecoveryUse {
    id: RequestId,
    at: WallTime,
    path: &'static str,
    key: String,
    peer: PeerAddress,
}

impl Core {
    /// Records that the recovery key of this public name is used by `peer`, for `path` (`admin/recover` ...). Durable on return,
    /// unless the audit is never synced.
    ///
    /// # Errors
    /// [`EngineError`] when the audit does not take it: then the use must have no effect.
    pub async fn announce_recovery(
        &self,
        path: &'static str,
        key: &str,
        peer: PeerAddress,
    ) -> Result<RecoveryUse, EngineError> {
        let at = self.services().ground.clock.wall();
        let announced = RecoveryUse { id: self.next_id(), at, path, key: format!("recovery-{key}"), peer };
        self.audit().announce(&announced.record()).await.map_err(EngineError::internal)?;
        Ok(announced)
    }

    /// Records what came of it: the store's sequence number after the change of the slots, none if they did not change, or why
    /// the used key stays valid.
    ///
    /// # Errors
    /// [`EngineError`] when the audit does not take it; what was done is done.
    pub async fn conclude_recovery(
        &self,
        used: RecoveryUse,
        outcome: Result<Option<u64>, &str>,
    ) -> Result<(), EngineError> {
        let response = ResponseRecord {
            at: self.services().ground.clock.wall(),
            status: if outcome.is_ok() { 200 } else { 500 },
            error: outcome.err(),
            issued: None,
            sequence: outcome.ok().flatten(),
            stranger: false,
        };
        self.audit().conclude(&used.record(), &response).await.map_err(EngineError::internal)
    }
}

impl RecoveryUse {
    fn record(&self) -> RequestRecord<'_> {
        RequestRecord {
            id: self.id,
            at: self.at,
            operation: "update",
            path: self.path,
            mount: None,
            actor: ActorRecord::Recovery { name: &self.key },
            rule: None,
            peer: &self.peer,
        }
    }
}
