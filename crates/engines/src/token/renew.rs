//! `renew`, `renew-self`, `renew-accessor`.

use api::{Auth, Logical, Reply, Ttl};
use pipeline::{Authorized, EngineError, LiveToken, Outcome, Txn};
use secret::{Accessor, Token};

use super::TokenEngine;
use super::lookup::{accessor, bearer, of_accessor};
use crate::input::Input;

pub(super) async fn own(engine: &TokenEngine, request: &Authorized<'_>, txn: &mut Txn) -> Result<Outcome, EngineError> {
    let increment = increment(request)?;
    let token = engine.services.tokens.presented(request).and_then(|t| Token::parse(t.expose()).ok());
    renew(engine, bearer(request)?, token, increment, txn).await
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
    renew(engine, &live, Some(token), increment(request)?, txn).await
}

pub(super) async fn by_accessor(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let live = of_accessor(engine, &accessor(request)?, txn).await?;
    // Who knows an accessor may keep the token alive, but never gets to see it.
    renew(engine, &live, None, increment(request)?, txn).await
}

fn increment(request: &Authorized<'_>) -> Result<Ttl, EngineError> {
    Ok(Input::of(request.body())?.ttl("increment")?.unwrap_or_default())
}

async fn renew(
    engine: &TokenEngine,
    live: &LiveToken,
    token: Option<Token>,
    increment: Ttl,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let services = &engine.services;
    let renewed = services.tokens.renew(live.id(), increment, txn).await?;
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
