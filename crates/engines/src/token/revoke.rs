//! `revoke`, `revoke-self`, `revoke-accessor`, `revoke-orphan`.

use api::{Logical, Reply};
use pipeline::{Authorized, EngineError, Outcome, TokenId, Txn};
use secret::Token;

use super::TokenEngine;
use super::lookup::{accessor, bearer};
use crate::input::Input;

pub(super) async fn own(engine: &TokenEngine, request: &Authorized<'_>, txn: &mut Txn) -> Result<Outcome, EngineError> {
    engine.services.tokens.revoke(bearer(request)?.id(), txn).await?;
    Ok(Reply::no_content().into())
}

/// A token that is not there is gone already, which is what was asked for.
pub(super) async fn presented(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    if let Some(id) = named(engine, request)? {
        engine.services.tokens.revoke(id, txn).await?;
    }
    Ok(Reply::no_content().into())
}

pub(super) async fn by_accessor(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let accessor = accessor(request)?;
    let tokens = &engine.services.tokens;
    let gone = match tokens.by_accessor(&accessor, txn).await? {
        Some(id) => tokens.revoke(id, txn).await?,
        None => false,
    };
    if gone {
        return Ok(Reply::no_content().into());
    }
    // OpenBao's answer; Vault's is 400. EdgeX asks for tokens of earlier boots to go, and must not fail when they have.
    let warnings = vec!["No token found with this accessor".to_owned()];
    Ok(Reply::logical(Logical { warnings, ..Logical::default() }).into())
}

pub(super) async fn orphan(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let gone = match named(engine, request)? {
        Some(id) => engine.services.tokens.revoke_orphan(id, txn).await?,
        None => false,
    };
    if gone { Ok(Reply::no_content().into()) } else { Err(EngineError::bad_request("token to revoke not found")) }
}

/// The token that the body names; `None` for what cannot be one.
fn named(engine: &TokenEngine, request: &Authorized<'_>) -> Result<Option<TokenId>, EngineError> {
    let named = Input::of(request.body())?.secret("token")?;
    let text = named.filter(|t| !t.is_empty()).ok_or_else(|| EngineError::bad_request("missing token ID"))?;
    Ok(Token::parse(&text).ok().map(|token| engine.services.tokens.id(&token)))
}
