//! A root token, for who proved by other means (the recovery key, the shares) that the store is his. It has no path:
//! only code within the process that checked the proof can ask.

use api::{Auth, PeerAddress, Ttl};

use crate::core::Core;
use crate::error::EngineError;
use crate::run::commit;
use crate::sink::{ActorRecord, IssuedRecord, RequestRecord, ResponseRecord};
use crate::tokens::{NewToken, TtlRules};

impl Core {
    /// Makes a root token that ends after `ttl`, or never if that is zero. Each is recorded before it exists.
    ///
    /// # Errors
    /// [`EngineError`] when the audit or the store does not take it; then there is no such token, or one that nobody
    /// knows.
    pub async fn generate_root(&self, ttl: Ttl) -> Result<Auth, EngineError> {
        let (services, audit) = (self.services(), self.audit());
        let peer = PeerAddress::Internal;
        let request = RequestRecord {
            id: self.next_id(),
            at: services.ground.clock.wall(),
            operation: "update",
            path: "sys/generate-root/update",
            mount: None,
            actor: ActorRecord::Boot,
            rule: None,
            peer: &peer,
            certificate: None,
        };
        audit.announce(&request).await.map_err(EngineError::internal)?;
        let mut txn = services.txn();
        let new = NewToken {
            policies: vec![policy::ROOT_NAME.to_owned()],
            path: "auth/token/root".to_owned(),
            display_name: "root".to_owned(),
            rules: TtlRules { default_ttl: ttl, ..TtlRules::default() },
            ttl,
            for_ever: ttl.is_zero(),
            ..NewToken::default()
        };
        let (auth, _) = services.tokens.create(new, &mut txn).await?.into_auth(Vec::new());
        let sequence = commit(txn, services).await?;
        let response = ResponseRecord {
            at: services.ground.clock.wall(),
            status: 200,
            error: None,
            issued: Some(IssuedRecord {
                token_code: services.tokens.code(auth.client_token.expose().as_bytes()),
                accessor_code: services.tokens.code(auth.accessor.as_str().as_bytes()),
            }),
            sequence: Some(sequence),
            stranger: false,
        };
        audit.conclude(&request, &response).await.map_err(EngineError::internal)?;
        Ok(auth)
    }
}
