//! `internal/ui/mounts`: what clients ask before they know what kind of mount a path belongs to. `bao kv` and `vault
//! kv` begin with it.

use api::{Reply, Status};
use pipeline::{Authorized, EngineError, Outcome};
use serde_json::{Map, Value, json};

use super::SysEngine;
use super::mounts::{Class, described};

/// The mounts that the caller has any right on; a stranger sees none.
pub(super) fn mounts(engine: &SysEngine, request: &Authorized<'_>) -> Result<Outcome, EngineError> {
    if request.has_bad_token() {
        return Err(EngineError::no_token());
    }
    let table = engine.services.mounts.table();
    let visible = |class: Class| -> Map<String, Value> {
        let lines = table.iter().map(|m| m.entry()).filter(|e| class.holds(e) && request.reaches(&e.path));
        lines.map(|e| (class.shown(e), described(e))).collect()
    };
    Ok(Reply::data(&json!({ "auth": visible(Class::Auth), "secret": visible(Class::Secrets) })).into())
}

/// The mount of a path. Whether there is none, or the caller has no right on it, is the same answer.
pub(super) fn mount(engine: &SysEngine, request: &Authorized<'_>, path: &str) -> Result<Outcome, EngineError> {
    if request.actor().token().is_none() && !request.actor().is_boot() {
        return Err(EngineError::no_token());
    }
    let path = format!("{}/", path.trim_end_matches('/'));
    let table = engine.services.mounts.table();
    let Some((mounted, _)) = table.route(&path).filter(|(m, _)| request.reaches(&m.entry().path)) else {
        let told = format!(
            "preflight capability check returned 403, please ensure client's policies grant access to path \"{path}\""
        );
        return Err(EngineError::told(Status::FORBIDDEN, told));
    };
    let entry = mounted.entry();
    let mut data = described(entry);
    if let Value::Object(fields) = &mut data {
        fields.insert("path".to_owned(), json!(entry.path));
    }
    Ok(Reply::data(&data).into())
}
