//! Authorised -> announced: nothing that may change something happens before the audit has the request.

use crate::authz::Authorized;
use crate::error::EngineError;
use crate::received::Refused;
use crate::sink::AuditSink;

/// A request that the audit knows of, or one without side effects, whose two records go in one write before the reply.
pub(crate) struct Announced<'r>(pub(crate) Authorized<'r>);

/// Gives the request to the audit device. If the device refuses it, the request ends here.
pub(crate) async fn announce<'r>(
    mut authorized: Authorized<'r>,
    audit: &dyn AuditSink,
) -> Result<Announced<'r>, Refused<'r>> {
    if is_safe(&authorized) {
        return Ok(Announced(authorized));
    }
    match audit.announce(&authorized.trace.record()).await {
        Ok(()) => {
            authorized.trace.announced = true;
            Ok(Announced(authorized))
        }
        Err(_) if !host::in_force("audit-fails-closed") => Ok(Announced(authorized)),
        Err(e) => Err(authorized.trace.refuse(EngineError::internal(e))),
    }
}

fn is_safe(authorized: &Authorized<'_>) -> bool {
    matches!(authorized.operation(), policy::Action::Read | policy::Action::List)
}
