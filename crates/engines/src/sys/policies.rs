//! `policy/<name>` and `policies/acl/<name>`: the same policies in two shapes.

use api::{Logical, Payload, Reply};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pipeline::{Authorized, EngineError, Operation, Outcome, Txn};
use serde_json::{Map, Value, json};

use super::SysEngine;
use crate::input::Input;

/// Which of the two shapes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// `sys/policy`: the text is `rules`, and everything stands at top level too.
    Old,
    /// `sys/policies/acl`: the text is `policy`.
    Acl,
}

pub(super) async fn list(engine: &SysEngine, txn: &mut Txn, family: Family) -> Result<Outcome, EngineError> {
    let names = engine.services.policies.names(txn).await?;
    Ok(match family {
        Family::Acl => Reply::data(&json!({ "keys": names })).into(),
        Family::Old => at_top(json!({ "keys": names, "policies": names })),
    })
}

pub(super) async fn one(
    engine: &SysEngine,
    request: &Authorized<'_>,
    name: &str,
    family: Family,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let name = kept_name(name);
    match request.operation() {
        Operation::Read => read(engine, &name, family, txn).await,
        Operation::Create | Operation::Update => write(engine, request, &name, family, txn),
        Operation::Delete => {
            engine.services.policies.delete(&name, txn)?;
            Ok(Reply::no_content().into())
        }
        Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
    }
}

/// The name under which a policy is kept, however a path spells it.
pub(super) fn kept_name(name: &str) -> String {
    name.trim_end_matches('/').to_lowercase()
}

async fn read(engine: &SysEngine, name: &str, family: Family, txn: &mut Txn) -> Result<Outcome, EngineError> {
    let entry = engine.services.policies.read(name, txn).await?.ok_or_else(EngineError::absent)?;
    let mut data = Map::new();
    data.insert("name".to_owned(), json!(name));
    if entry.modified_wall != 0 {
        data.insert("modified".to_owned(), json!(host::WallTime(entry.modified_wall).to_rfc3339()));
    }
    data.insert("cas_required".to_owned(), json!(false));
    Ok(match family {
        Family::Acl => {
            data.insert("policy".to_owned(), json!(entry.text));
            Reply::data(&Value::Object(data)).into()
        }
        Family::Old => {
            data.insert("rules".to_owned(), json!(entry.text));
            at_top(Value::Object(data))
        }
    })
}

fn write(
    engine: &SysEngine,
    request: &Authorized<'_>,
    name: &str,
    family: Family,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let input = Input::of(request.body())?;
    // Taken and not kept, each would leave a policy in force longer than its author meant, or undo another's change.
    if let Some(field) = ["cas", "expiration", "ttl"].into_iter().find(|field| input.has(field)) {
        return Err(EngineError::bad_request(format!("a policy has no '{field}' here: leave it out")));
    }
    let (mut text, mut warnings) = (input.text("policy")?.filter(|t| !t.is_empty()), Vec::new());
    if text.is_none() && family == Family::Old {
        text = input.text("rules")?.filter(|t| !t.is_empty());
        warnings.extend(text.is_some().then(|| "'rules' is deprecated, please use 'policy' instead".to_owned()));
    }
    let text = text.ok_or_else(|| EngineError::bad_request("'policy' parameter not supplied or empty"))?;
    engine.services.policies.write(name, &plain(text), txn)?;
    if warnings.is_empty() {
        return Ok(Reply::no_content().into());
    }
    Ok(Reply::logical(Logical { warnings, ..Logical::default() }).into())
}

/// A policy may come in base64, as the command line of Vault sends it for the old shape. No policy's text is base64
/// itself: it has a space or a brace.
fn plain(text: String) -> String {
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.unwrap_or(text)
}

/// 200 with the data twice, as older clients read it.
pub(super) fn at_top(data: Value) -> Outcome {
    let mut reply = Reply::data(&data);
    if let Payload::Logical(logical) = &mut reply.payload {
        logical.data_at_top = true;
    }
    reply.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_and_text_stays_text() {
        let text = "path \"x\" { capabilities=[\"read\"] }";
        assert_eq!(plain(STANDARD.encode(text)), text);
        assert_eq!(plain(text.to_owned()), text);
    }
}
