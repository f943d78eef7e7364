//! A request as it comes in, and what each stage learns of it.

use std::sync::Arc;

use api::Request;
use host::WallTime;
use policy::{Action, Granted};
use store::StoreTime;

use crate::authn::Actor;
use crate::boot::Boot;
use crate::error::EngineError;
use crate::mounts::Mounted;
use crate::services::Presented;
use crate::sink::{ActorRecord, RequestId, RequestRecord};
use crate::tokens::{Spent, TokenId};

/// A request with its id and its moment. Where it stands, nothing is known of who asks.
pub(crate) struct Received<'r> {
    pub(crate) request: &'r Request,
    pub(crate) id: RequestId,
    pub(crate) at: WallTime,
    pub(crate) now: StoreTime,
    /// Set by the in-process door alone; no byte from a wire can set it.
    pub(crate) boot: Option<Boot>,
    /// Where the presented token would be kept.
    pub(crate) token: Option<TokenId>,
    /// Whether a use of the token was paid for this request.
    pub(crate) spent: Spent,
}

impl<'r> Received<'r> {
    pub(crate) fn presented(&self) -> Option<Presented<'r>> {
        let token = self.request.token.as_ref()?;
        self.token.map(|id| Presented { token, id, spent: self.spent })
    }
}

/// What is known of a request so far: handed from stage to stage, and into the audit wherever the request ends.
pub(crate) struct Trace<'r> {
    pub(crate) received: &'r Received<'r>,
    pub(crate) mounted: Option<Arc<Mounted>>,
    pub(crate) actor: Actor,
    /// Code of a presented token that is not valid.
    pub(crate) unknown_token: Option<String>,
    pub(crate) action: Option<Action>,
    pub(crate) granted: Option<Granted>,
    /// The audit device has its request record.
    pub(crate) announced: bool,
}

impl<'r> Trace<'r> {
    pub(crate) fn new(received: &'r Received<'r>) -> Self {
        Self {
            received,
            mounted: None,
            actor: Actor::Anonymous,
            unknown_token: None,
            action: None,
            granted: None,
            announced: false,
        }
    }

    pub(crate) fn refuse(self, error: EngineError) -> Refused<'r> {
        Refused { trace: Box::new(self), error }
    }

    pub(crate) fn record(&self) -> RequestRecord<'_> {
        let Received { request, id, at, .. } = *self.received;
        RequestRecord {
            id,
            at,
            operation: self.action.map_or_else(|| wire_word(request.operation), |a| a.capability().as_str()),
            path: request.path.as_str(),
            mount: self.mounted.as_deref().map(Mounted::record),
            actor: match (&self.unknown_token, &self.actor) {
                (Some(token_code), _) => ActorRecord::Unknown { token_code },
                (None, actor) => actor.record(),
            },
            rule: self.granted.as_ref().map(Granted::rule_path),
            peer: &request.peer,
            certificate: request.certificates.as_deref().map(api::PeerCertificates::name),
        }
    }
}

/// A request that ended at some stage, with all that was known of it there.
pub(crate) struct Refused<'r> {
    pub(crate) trace: Box<Trace<'r>>,
    pub(crate) error: EngineError,
}

fn wire_word(operation: api::Operation) -> &'static str {
    match operation {
        api::Operation::Read => "read",
        api::Operation::List => "list",
        api::Operation::Write => "write",
        api::Operation::Delete => "delete",
        api::Operation::Patch => "patch",
    }
}
