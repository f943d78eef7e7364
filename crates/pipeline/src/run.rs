//! Announced -> done: the engine does its work, and what it wrote becomes durable in one commit.

use api::{Logical, Payload, Reply};

use crate::announce::Announced;
use crate::authz::Authorized;
use crate::directory::Alias;
use crate::error::EngineError;
use crate::outcome::{After, Grant, Outcome};
use crate::received::{Refused, Trace};
use crate::services::{Services, Touched, added, sanitized};
use crate::sink::AuditSink;
use crate::tokens::{NewToken, TtlRules};
use crate::txn::Txn;

/// A request that was carried out, durably.
pub(crate) struct Done<'r> {
    pub(crate) trace: Trace<'r>,
    pub(crate) reply: Reply,
    pub(crate) after: Option<After>,
    /// The store's sequence number after the commit, if there was one.
    pub(crate) sequence: Option<u64>,
}

/// Runs the engine and commits. Nothing is durable unless all of it is.
pub(crate) async fn run<'r>(
    announced: Announced<'r>,
    services: &Services,
    audit: &dyn AuditSink,
    mut txn: Txn,
) -> Result<Done<'r>, Refused<'r>> {
    let Announced(mut authorized) = announced;
    let outcome = match work(&authorized, services, &mut txn).await {
        Ok(outcome) => outcome,
        Err(e) => return Err(authorized.trace.refuse(e)),
    };
    let sequence = if txn.is_read_only() {
        None
    } else {
        // A read that turned out to write: the audit must have it before it is durable.
        if !authorized.trace.announced {
            if let Err(e) = audit.announce(&authorized.trace.record()).await
                && host::in_force("audit-fails-closed")
            {
                return Err(authorized.trace.refuse(EngineError::internal(e)));
            }
            authorized.trace.announced = true;
        }
        match commit(txn, services).await {
            Ok(sequence) => Some(sequence),
            Err(e) => return Err(authorized.trace.refuse(e)),
        }
    };
    Ok(Done { trace: authorized.trace, reply: outcome.reply, after: outcome.after, sequence })
}

async fn work(authorized: &Authorized<'_>, services: &Services, txn: &mut Txn) -> Result<Outcome, EngineError> {
    let outer = txn.enter(authorized.mounted().base().clone());
    let outcome = authorized.engine().handle(authorized, txn).await;
    txn.leave(outer);
    let mut outcome = outcome?;
    if let Some(grant) = outcome.grant.take() {
        outcome.reply = login(authorized, grant, services, txn).await?;
    }
    Ok(outcome)
}

/// Makes the token of a login, in the commit of the login itself.
async fn login(
    authorized: &Authorized<'_>,
    grant: Grant,
    services: &Services,
    txn: &mut Txn,
) -> Result<Reply, EngineError> {
    let mount = authorized.mount();
    if grant.policies.iter().any(|p| p == policy::ROOT_NAME) && host::in_force("logins-never-root") {
        return Err(EngineError::bad_request("auth methods cannot create root tokens"));
    }
    let mut entity_id = String::new();
    let mut identity_policies = Vec::new();
    if let Some(name) = &grant.alias {
        let (mount_accessor, mount_kind, mount_path) = (&*mount.accessor, &*mount.kind, &*mount.path);
        let alias = Alias { mount_accessor, mount_kind, mount_path, name };
        entity_id = services.resolve(&alias, txn).await?;
        match services.entity(&entity_id, txn).await? {
            Some(standing) => identity_policies = standing.policies,
            None => return Err(EngineError::denied().because("the entity is disabled")),
        }
    }
    let Grant { period, explicit_max_ttl, max_ttl, .. } = grant;
    let rules = TtlRules { period, explicit_max_ttl, max_ttl, ..TtlRules::default() }.within(mount);
    let prefix = mount.path.trim_start_matches("auth/").trim_end_matches('/').replace('/', "-");
    let new = NewToken {
        policies: sanitized(grant.policies, !grant.no_default_policy),
        path: authorized.full_path().to_owned(),
        display_name: if grant.display_name.is_empty() { prefix } else { format!("{prefix}-{}", grant.display_name) },
        meta: (!grant.metadata.is_empty()).then_some(grant.metadata),
        entity_id,
        mount: Some(mount.accessor.clone()),
        num_uses: grant.num_uses,
        renewable: true,
        rules,
        ttl: grant.ttl,
        ..NewToken::default()
    };
    let issued = services.tokens.create(new, txn).await?;
    let identity_policies = added(identity_policies, &issued.entry.policies);
    let (auth, warnings) = issued.into_auth(identity_policies);
    Ok(Reply::logical(Logical { auth: Some(auth), warnings, ..Logical::default() }))
}

/// Makes the writes durable, and then known to the caches: in this order, so that no cache is ahead of the disk.
pub(crate) async fn commit(txn: Txn, services: &Services) -> Result<u64, EngineError> {
    let touched = services.touched(&txn);
    match services.ground.store.commit(txn.into_batch()).await {
        Ok(committed) => {
            services.published(&touched).await?;
            Ok(committed.sequence)
        }
        Err(e) => {
            // Lost races too: what was decided by may have come from a cache that is behind.
            services.published(&Touched::all()).await?;
            Err(e.into())
        }
    }
}

/// Whether a reply hands out a token, for the audit.
pub(crate) fn issued(reply: &Reply) -> Option<&api::Auth> {
    match &reply.payload {
        Payload::Logical(logical) => logical.auth.as_ref(),
        Payload::Empty | Payload::Raw { .. } | Payload::Errors(_) => None,
    }
}
