//! Done or refused -> recorded: nothing goes back that the audit has not got.

use api::{Reply, Status};

use crate::error::EngineError;
use crate::outcome::After;
use crate::received::{Refused, Trace};
use crate::run::{Done, issued};
use crate::services::Services;
use crate::sink::{ActorRecord, AuditSink, IssuedRecord, RequestId, ResponseRecord};

/// A reply that the audit has accepted: the only thing that a listener may send.
#[derive(Debug)]
pub struct Recorded {
    reply: Reply,
    id: RequestId,
    after: Option<After>,
}

impl Recorded {
    /// The reply.
    pub fn into_reply(self) -> Reply {
        self.reply
    }

    /// The reply's status.
    pub fn status(&self) -> Status {
        self.reply.status
    }

    /// The id of the request: `request_id` of the envelope, and the audit's.
    pub fn request_id(&self) -> RequestId {
        self.id
    }

    /// What follows the reply.
    pub fn after(&self) -> Option<After> {
        self.after
    }

    /// The answer of a store that is closing: nothing was looked at, and the audit is closing too.
    pub(crate) fn sealed(id: RequestId) -> Self {
        Self { reply: EngineError::sealed().into_reply(), id, after: None }
    }
}

/// Gives the outcome to the audit device. If it refuses, the caller gets 500 and nothing of the reply.
pub(crate) async fn record(
    result: Result<Done<'_>, Refused<'_>>,
    services: &Services,
    audit: &dyn AuditSink,
) -> Recorded {
    match result {
        Ok(Done { trace, reply, after, sequence }) => {
            let issued = issued(&reply).map(|auth| IssuedRecord {
                token_code: services.tokens.code(auth.client_token.expose().as_bytes()),
                accessor_code: services.tokens.code(auth.accessor.as_str().as_bytes()),
            });
            write(&trace, reply, None, issued, sequence, after, services, audit).await
        }
        Err(Refused { trace, error }) => {
            let logged = error.logged().to_owned();
            if error.status().0 >= 500 {
                tracing::error!(path = trace.received.request.path.as_str(), id = %trace.received.id, "{logged}");
            }
            write(&trace, error.into_reply(), Some(&logged), None, None, None, services, audit).await
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the fields of one record, from two places")]
async fn write(
    trace: &Trace<'_>,
    reply: Reply,
    error: Option<&str>,
    issued: Option<IssuedRecord>,
    sequence: Option<u64>,
    after: Option<After>,
    services: &Services,
    audit: &dyn AuditSink,
) -> Recorded {
    let id = trace.received.id;
    let request = trace.record();
    let known = matches!(request.actor, ActorRecord::Token { .. } | ActorRecord::Boot);
    let response = ResponseRecord {
        at: services.ground.clock.wall(),
        status: reply.status.0,
        error,
        issued,
        sequence,
        stranger: !known && !reply.status.is_success(),
    };
    let accepted = match trace.announced {
        true => audit.conclude(&request, &response).await,
        false => audit.record(&request, &response).await,
    };
    match accepted {
        Ok(()) => Recorded { reply, id, after },
        Err(e) => {
            tracing::error!(path = request.path, %id, "{e}");
            // Sealing goes on even so: it takes power away, and an attacker must not stop it by filling the audit.
            Recorded { reply: EngineError::internal(e).into_reply(), id, after }
        }
    }
}
