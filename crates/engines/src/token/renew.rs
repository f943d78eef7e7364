//! `renew`, `renew-self`, `renew-accessor`.

use api::{Auth, Logical, PeerCertificates, Reply, Ttl};
use pipeline::{Authorized, EngineError, LiveToken, Outcome, TokenEntry, TtlRules, Txn};
use secret::{Accessor, Token};

use super::TokenEngine;
use super::lookup::{accessor, bearer, of_accessor};
use super::roles;
use crate::input::Input;

pub(super) async fn own(engine: &TokenEngine, request: &Authorized<'_>, txn: &mut Txn) -> Result<Outcome, EngineError> {
    let increment = increment(request)?;
    let token = engine.services.tokens.presented(request).and_then(|t| Token::parse(t.expose()).ok());
    renew(engine, bearer(request)?, token, increment, request.certificates(), txn).await
}

pub(super) async fn presented(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let named = Input::of(request.body())?.secret("token")?;
    let text = named.filter(|t| !t.is_empty()).ok_or_else(|| EngineError::bad_request("missing token ID"))?;
    let unknown = || EngineError::bad_request("token not found");
    let token = Token::parse(&text).map_err(|_| unknown())?;
    let tokens = &engine.services.tokens;
    let live = tokens.live(tokens.id(&token)).await?.ok_or_else(unknown)?;
    renew(engine, &live, Some(token), increment(request)?, request.certificates(), txn).await
}

pub(super) async fn by_accessor(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let live = of_accessor(engine, &accessor(request)?, txn).await?;
    // Who knows an accessor may keep the token alive, but never gets to see it.
    renew(engine, &live, None, increment(request)?, request.certificates(), txn).await
}

fn increment(request: &Authorized<'_>) -> Result<Ttl, EngineError> {
    Ok(Input::of(request.body())?.ttl("increment")?.unwrap_or_default())
}

/// The rules of today for a token that was made here: its own, and those of the role that made it.
pub(super) async fn rules(token: &TokenEntry, txn: &mut Txn) -> Result<TtlRules, EngineError> {
    let own = TtlRules {
        period: Ttl::seconds(token.period),
        explicit_max_ttl: Ttl::seconds(token.explicit_max_ttl),
        default_ttl: Ttl::seconds(token.creation_ttl),
        max_ttl: Ttl::ZERO,
    };
    let Some(name) = &token.role else { return Ok(own) };
    let role = roles::find(name, txn).await?.ok_or_else(|| {
        EngineError::bad_request(format!("original token role {name:?} could not be found, not renewing"))
    })?;
    let explicit_max_ttl = own.explicit_max_ttl.or_less(Ttl::seconds(role.explicit_max_ttl));
    Ok(TtlRules { period: Ttl::seconds(role.period), explicit_max_ttl, ..own })
}

async fn renew(
    engine: &TokenEngine,
    live: &LiveToken,
    token: Option<Token>,
    increment: Ttl,
    by: Option<&PeerCertificates>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let services = &engine.services;
    let renewed = services.renew(live, increment, by, txn).await?;
    let identity_policies = services.identity_policies(live).await?;
    let entry = &renewed.entry;
    let mut policies: Vec<String> = entry.policies.iter().chain(&identity_policies).cloned().collect();
    policies.sort();
    let auth = Auth {
        client_token: token.unwrap_or_else(Token::withheld),
        accessor: Accessor::parse(&entry.accessor)
            .map_err(|e| EngineError::internal(format!("a kept accessor: {e}")))?,
        policies,
        token_policies: entry.policies.clone(),
        identity_policies,
        metadata: entry.meta.clone(),
        lease_duration: renewed.ttl,
        renewable: entry.renewable,
        entity_id: entry.entity_id.clone(),
        token_type: "service",
        orphan: entry.is_orphan(),
        num_uses: entry.uses_left.unwrap_or(0),
    };
    let warnings = renewed.warnings;
    Ok(Reply::logical(Logical { auth: Some(auth), warnings, ..Logical::default() }).into())
}
