//! `capabilities`, `capabilities-self`, `capabilities-accessor`: what a token may do at which paths.

use pipeline::{Authorized, EngineError, LiveToken, Outcome, Txn};
use secret::Token;
use serde_json::{Map, Value, json};

use super::SysEngine;
use super::policies::at_top;
use crate::input::Input;

pub(super) fn own(request: &Authorized<'_>) -> Result<Outcome, EngineError> {
    let paths = paths(&Input::of(request.body())?)?;
    Ok(answer(&paths, |path| request.capabilities(path)))
}

pub(super) async fn of_token(engine: &SysEngine, request: &Authorized<'_>) -> Result<Outcome, EngineError> {
    let input = Input::of(request.body())?;
    let paths = paths(&input)?;
    let invalid = || EngineError::bad_request("1 error occurred:\n\t* invalid token\n\n");
    let text = input.secret("token")?.filter(|t| !t.is_empty());
    let text = text.ok_or_else(|| EngineError::bad_request("1 error occurred:\n\t* no token found\n\n"))?;
    let token = Token::parse(&text).map_err(|_| invalid())?;
    let tokens = &engine.services.tokens;
    let live = tokens.live(tokens.id(&token)).await?.ok_or_else(invalid)?;
    of(engine, &live, &paths).await
}

pub(super) async fn of_accessor(
    engine: &SysEngine,
    request: &Authorized<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let input = Input::of(request.body())?;
    let paths = paths(&input)?;
    let invalid = || EngineError::bad_request("1 error occurred:\n\t* invalid accessor\n\n");
    let tokens = &engine.services.tokens;
    let id = tokens.by_accessor(&input.text("accessor")?.unwrap_or_default(), txn).await?.ok_or_else(invalid)?;
    let live = tokens.live(id).await?.ok_or_else(invalid)?;
    of(engine, &live, &paths).await
}

async fn of(engine: &SysEngine, live: &LiveToken, paths: &[String]) -> Result<Outcome, EngineError> {
    let rights = engine.services.rights(live).await?;
    Ok(answer(paths, |path| rights.as_ref().map_or_else(|| vec!["deny"], |r| r.capabilities(path))))
}

fn paths(input: &Input<'_>) -> Result<Vec<String>, EngineError> {
    let mut paths = input.list("paths")?.unwrap_or_default();
    paths.extend(input.text("path")?.filter(|p| !p.is_empty()));
    if paths.is_empty() {
        return Err(EngineError::bad_request("paths must be supplied"));
    }
    if paths.len() > MAX_PATHS {
        return Err(EngineError::bad_request(format!("at most {MAX_PATHS} paths in one request")));
    }
    Ok(paths)
}

fn answer(paths: &[String], capabilities: impl Fn(&str) -> Vec<&'static str>) -> Outcome {
    let mut data: Map<String, Value> = paths.iter().map(|p| (p.clone(), json!(capabilities(p)))).collect();
    if let [only] = paths {
        data.insert("capabilities".to_owned(), json!(capabilities(only)));
    }
    at_top(Value::Object(data))
}

const MAX_PATHS: usize = 1024;
