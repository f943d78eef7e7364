//! Routed -> authenticated: who asks, and by which policies.

use std::sync::Arc;

use policy::Compiled;

use crate::engine::Access;
use crate::error::EngineError;
use crate::received::Refused;
use crate::route::Routed;
use crate::services::Services;
use crate::sink::ActorRecord;
use crate::tokens::{LiveToken, TokenEntry};
use crate::txn::Txn;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Actor {
    /// Nobody in particular: the path is open to all.
    Anonymous,
    /// The bearer of a valid token.
    Token(Arc<LiveToken>),
    /// The unattended start, within this process.
    Boot(BootRole),
}

/// How much of the boot's work is still to do. Each role is bound by a policy of its own (`crate::boot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootRole {
    /// Before the gates open: mounts, policies, identities, credentials, tokens.
    Provision,
    /// Afterwards: renewing and issuing anew what was provisioned.
    Keep,
}

impl Actor {
    /// The token's entry, if a token was presented.
    pub fn token(&self) -> Option<&TokenEntry> {
        match self {
            Self::Token(live) => Some(live.entry()),
            Self::Anonymous | Self::Boot(_) => None,
        }
    }

    /// The entity behind the token, if there is one.
    pub fn entity_id(&self) -> Option<&str> {
        self.token().map(|t| t.entity_id.as_str()).filter(|id| !id.is_empty())
    }

    /// Whether it is the unattended start.
    pub fn is_boot(&self) -> bool {
        matches!(self, Self::Boot(_))
    }

    pub(crate) fn record(&self) -> ActorRecord<'_> {
        match self {
            Self::Anonymous => ActorRecord::Anonymous,
            Self::Boot(_) => ActorRecord::Boot,
            Self::Token(live) => live.record(),
        }
    }
}

/// A request whose caller is known, or which needs none.
pub(crate) struct Authenticated<'r> {
    pub(crate) routed: Routed<'r>,
    pub(crate) access: Access,
    /// The caller's policies. `None` only where [`Access::Anonymous`] asks for none.
    pub(crate) acl: Option<Arc<Compiled>>,
}

/// Finds out who asks. A path open to all lets everybody pass, and takes note of a token that happens to be valid.
pub(crate) async fn authenticate<'r>(
    mut routed: Routed<'r>,
    services: &Services,
    txn: &mut Txn,
) -> Result<Authenticated<'r>, Refused<'r>> {
    let received = routed.trace.received;
    let engine = routed.trace.mounted.as_ref().and_then(|m| m.engine());
    let access = engine.map_or(Access::Ordinary, |e| e.access(received.request.operation, routed.path));
    match (received.presented(), &received.boot) {
        (Some(presented), _) => match services.bearer(presented, txn).await {
            Ok(Some(bearer)) => {
                routed.trace.actor = Actor::Token(bearer.live);
                Ok(Authenticated { routed, access, acl: Some(bearer.acl) })
            }
            Ok(None) => {
                routed.trace.unknown_token = Some(services.tokens.code(presented.token.expose().as_bytes()));
                stranger(routed, access, "the token is unknown, expired, used up or of another boot")
            }
            Err(e) => Err(routed.trace.refuse(e)),
        },
        (None, Some(boot)) => {
            routed.trace.actor = Actor::Boot(boot.role);
            Ok(Authenticated { routed, access, acl: Some(Arc::clone(&boot.acl)) })
        }
        (None, None) => stranger(routed, access, "no token"),
    }
}

fn stranger<'r>(routed: Routed<'r>, access: Access, why: &str) -> Result<Authenticated<'r>, Refused<'r>> {
    match access {
        _ if !host::in_force("routes-need-a-token") => Ok(Authenticated { routed, access, acl: None }),
        Access::Anonymous => Ok(Authenticated { routed, access, acl: None }),
        Access::Ordinary | Access::Sudo => Err(routed.trace.refuse(EngineError::no_token().because(why))),
    }
}
