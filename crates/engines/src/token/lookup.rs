//! `lookup`, `lookup-self`, `lookup-accessor`, `accessors`.

use std::sync::Arc;

use api::{Logical, Reply};
use pipeline::{Actor, Authorized, EngineError, LiveToken, Outcome, Txn};
use secret::Token;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::TokenEngine;
use crate::input::Input;
use crate::listing::listed;

pub(super) async fn own(engine: &TokenEngine, request: &Authorized<'_>) -> Result<Outcome, EngineError> {
    let live = bearer(request)?;
    let id = engine.services.tokens.presented(request).map_or("", Token::expose);
    shown(engine, request, live, id).await
}

pub(super) async fn presented(engine: &TokenEngine, request: &Authorized<'_>) -> Result<Outcome, EngineError> {
    let named = Input::of(request.body())?.secret("token")?;
    let Some(text) = named.filter(|t| !t.is_empty()) else { return own(engine, request).await };
    let bad = || EngineError::told(api::Status::FORBIDDEN, "bad token");
    let token = Token::parse(&text).map_err(|_| bad())?;
    let tokens = &engine.services.tokens;
    let live = tokens.live(tokens.id(&token)).await?.ok_or_else(bad)?;
    shown(engine, request, &live, token.expose()).await
}

pub(super) async fn by_accessor(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let live = of_accessor(engine, &accessor(request)?, txn).await?;
    shown(engine, request, &live, "").await
}

pub(super) async fn accessors(engine: &TokenEngine, txn: &mut Txn) -> Result<Outcome, EngineError> {
    Ok(listed(engine.services.tokens.accessors(txn).await?)?.into())
}

/// The accessor that the body names.
///
/// # Errors
/// 400 where it names none.
pub(super) fn accessor(request: &Authorized<'_>) -> Result<String, EngineError> {
    let named = Input::of(request.body())?.text("accessor")?;
    named
        .filter(|a| !a.is_empty())
        .ok_or_else(|| EngineError::bad_request("1 error occurred:\n\t* missing accessor\n\n"))
}

/// The caller's own token.
pub(super) fn bearer<'r>(request: &'r Authorized<'_>) -> Result<&'r Arc<LiveToken>, EngineError> {
    match request.actor() {
        Actor::Token(live) => Ok(live),
        Actor::Anonymous | Actor::Boot(_) => Err(EngineError::bad_request("the request carries no token")),
    }
}

/// The token that an accessor names.
pub(super) async fn of_accessor(
    engine: &TokenEngine,
    accessor: &str,
    txn: &mut Txn,
) -> Result<Arc<LiveToken>, EngineError> {
    let tokens = &engine.services.tokens;
    let live = match tokens.by_accessor(accessor, txn).await? {
        Some(id) => tokens.live(id).await?,
        None => None,
    };
    live.ok_or_else(|| EngineError::bad_request("1 error occurred:\n\t* invalid accessor\n\n"))
}

async fn shown(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    live: &LiveToken,
    id: &str,
) -> Result<Outcome, EngineError> {
    let entry = live.entry();
    let now = request.now();
    let wall = |nanos: i128| host::WallTime(nanos).to_rfc3339();
    let ttl = live.ttl_seconds(now);
    // The end is kept in the store's time, which no step of the wall clock moves; people are shown it by the wall
    // clock.
    let expire = live.expires().map(|end| request.at().0.saturating_add(now.until(end).as_nanos() as i128));
    let mut data = Map::new();
    let mut put = |key: &str, value: Value| drop(data.insert(key.to_owned(), value));
    put("accessor", json!(entry.accessor));
    put("creation_time", json!(host::WallTime(entry.issued_wall).unix_seconds()));
    put("creation_ttl", json!(entry.creation_ttl));
    put("display_name", json!(entry.display_name));
    put("entity_id", json!(entry.entity_id));
    put("expire_time", json!(expire.map(wall)));
    put("explicit_max_ttl", json!(entry.explicit_max_ttl));
    put("issue_time", json!(wall(entry.issued_wall)));
    if let Some(renewed) = live.renewed_wall() {
        put("last_renewal", json!(wall(renewed)));
        put("last_renewal_time", json!(host::WallTime(renewed).unix_seconds()));
    }
    put("meta", json!(entry.meta));
    put("num_uses", json!(entry.uses_left.unwrap_or(0)));
    put("orphan", json!(entry.is_orphan()));
    put("path", json!(entry.path));
    if entry.period > 0 {
        put("period", json!(entry.period));
    }
    put("policies", json!(entry.policies));
    if !entry.entity_id.is_empty() {
        put("identity_policies", json!(engine.services.identity_policies(live).await?));
    }
    put("renewable", json!(entry.renewable));
    if let Some(role) = &entry.role {
        put("role", json!(role));
    }
    put("ttl", json!(ttl));
    put("type", json!("service"));
    Ok(Reply::logical(Logical { data: Some(with_id(id, &data)), ..Logical::default() }).into())
}

/// The object's JSON with the token in front: written once, into a buffer that is wiped.
fn with_id(id: &str, data: &Map<String, Value>) -> Zeroizing<Vec<u8>> {
    let rest = serde_json::to_vec(data).expect("a map of JSON values is JSON");
    let mut text = Zeroizing::new(Vec::with_capacity(rest.len() + 6 * id.len() + 16));
    text.extend_from_slice(b"{\"id\":");
    serde_json::to_writer(&mut *text, id).expect("a text is JSON, and a vector takes it");
    text.push(b',');
    text.extend_from_slice(&rest[1..]); // Never empty: the map has its fixed keys.
    text
}
