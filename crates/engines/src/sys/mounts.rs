//! `mounts`, `auth` and what is below them: engines mounted, tuned and unmounted.

use api::{Reply, Ttl};
use pipeline::{Authorized, EngineError, MountEntry, NewMount, Operation, Outcome, Txn};
use serde_json::{Map, Value, json};

use super::SysEngine;
use super::policies::at_top;
use crate::input::Input;

/// The two tables that Vault shows of the one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// `sys/mounts`.
    Secrets,
    /// `sys/auth`, whose paths are shown without `auth/`.
    Auth,
}

impl Class {
    pub(super) fn holds(self, entry: &MountEntry) -> bool {
        entry.is_auth() == (self == Self::Auth)
    }

    fn whole(self, path: &str) -> String {
        let path = path.trim_end_matches('/');
        match self {
            Self::Secrets => format!("{path}/"),
            Self::Auth => format!("auth/{path}/"),
        }
    }

    pub(super) fn shown(self, entry: &MountEntry) -> String {
        match self {
            Self::Secrets => entry.path.clone(),
            Self::Auth => entry.path.trim_start_matches("auth/").to_owned(),
        }
    }
}

pub(super) fn list(engine: &SysEngine, class: Class) -> Outcome {
    let table = engine.services.mounts.table();
    let lines = table.iter().map(|m| m.entry()).filter(|e| class.holds(e));
    at_top(Value::Object(lines.map(|e| (class.shown(e), described(e))).collect()))
}

pub(super) async fn one(
    engine: &SysEngine,
    request: &Authorized<'_>,
    class: Class,
    path: &str,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    // Clients of Vault read and tune an auth mount as `sys/mounts/auth/x` too, which takes all rights that `sys/auth/x`
    // takes.
    let read_or_tuned = request.operation() == Operation::Read || path.ends_with("/tune");
    let (class, path) = match path.strip_prefix("auth/") {
        Some(below) if class == Class::Secrets && read_or_tuned => (Class::Auth, below),
        _ => (class, path),
    };
    let tuned = path.strip_suffix("/tune");
    let whole = class.whole(tuned.unwrap_or(path));
    let table = engine.services.mounts.table();
    let found = table.at(&whole).map(|m| m.entry()).filter(|e| class.holds(e));
    let write = matches!(request.operation(), Operation::Create | Operation::Update);
    match (tuned, request.operation()) {
        (None, Operation::Read) => found.map(|e| at_top(described(e))).ok_or_else(|| {
            let path = path.trim_end_matches('/');
            EngineError::bad_request(match class {
                Class::Secrets => format!("No secret engine mount at {path}/"),
                Class::Auth => format!("No auth engine at {path}/"),
            })
        }),
        (None, _) if write => add(engine, request, class, whole, txn).await,
        (None, Operation::Delete) => {
            if class == Class::Secrets && whole.starts_with("auth/") {
                return Err(EngineError::bad_request(format!("cannot unmount \"{whole}\"")));
            }
            engine.services.mounts.remove(&whole, txn).await?;
            Ok(Reply::no_content().into())
        }
        (Some(_), Operation::Read) => found
            .map(|e| at_top(tuning(e)))
            .ok_or_else(|| EngineError::bad_request(format!("cannot fetch sysview for path \"{whole}\""))),
        (Some(_), _) if write => match found {
            Some(found) => tune(engine, request, found, txn).await,
            None => Err(EngineError::bad_request(format!("tune of path \"{whole}\" failed: no mount entry found"))),
        },
        _ => Err(EngineError::unsupported_operation()),
    }
}

async fn add(
    engine: &SysEngine,
    request: &Authorized<'_>,
    class: Class,
    path: String,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let input = Input::of(request.body())?;
    let kind = input.text("type")?.filter(|k| !k.is_empty());
    let kind = kind.ok_or_else(|| EngineError::bad_request("backend type must be specified as a string"))?;
    if class == Class::Secrets && path.starts_with("auth/") {
        return Err(EngineError::bad_request(format!("cannot mount \"{path}\"")));
    }
    let options = input.map("options")?.unwrap_or_default();
    if kind == "kv-v2" || kind == "kv" && options.get("version").is_some_and(|v| v != "1") {
        return Err(EngineError::bad_request("kv version 2 is not supported; mount kv with options.version=1"));
    }
    let kind = if kind == "kv-v1" { "kv".to_owned() } else { kind };
    let times = input.object("config")?.map(|config| Times::of(&config)).transpose()?;
    let (default_ttl, max_ttl) = times.map_or((0, 0), |t| (t.default_ttl.unwrap_or(0), t.max_ttl.unwrap_or(0)));
    let description = input.text("description")?.unwrap_or_default();
    fits(default_ttl, max_ttl)?;
    bounded(&description, &options)?;
    let new = NewMount { path, kind, description, options, default_ttl, max_ttl };
    engine.services.mounts.add(new, txn).await?;
    Ok(Reply::no_content().into())
}

async fn tune(
    engine: &SysEngine,
    request: &Authorized<'_>,
    found: &MountEntry,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let input = Input::of(request.body())?;
    let times = Times::of(&input)?;
    fits(times.default_ttl.unwrap_or(found.default_ttl), times.max_ttl.unwrap_or(found.max_ttl))?;
    let description = input.text("description")?;
    let options = input.map("options")?;
    if options.as_ref().and_then(|o| o.get("version")).is_some_and(|v| v != "1") {
        return Err(EngineError::bad_request("kv version 2 is not supported"));
    }
    bounded(description.as_deref().unwrap_or_default(), options.as_ref().unwrap_or(&Default::default()))?;
    let change = |entry: &mut MountEntry| {
        entry.default_ttl = times.default_ttl.unwrap_or(entry.default_ttl);
        entry.max_ttl = times.max_ttl.unwrap_or(entry.max_ttl);
        if let Some(description) = description {
            entry.description = description;
        }
        entry.options.extend(options.unwrap_or_default());
    };
    engine.services.mounts.tune(&found.path, change, txn).await?;
    Ok(Reply::no_content().into())
}

/// Seconds, zero for the system's; `None` leaves what is there.
struct Times {
    default_ttl: Option<u64>,
    max_ttl: Option<u64>,
}

impl Times {
    fn of(input: &Input<'_>) -> Result<Self, EngineError> {
        let read = |name: &str| match input.text(name) {
            Ok(Some(text)) if text == "system" => Ok(Some(0)),
            _ => input.ttl(name).map(|ttl| ttl.map(Ttl::as_seconds)),
        };
        Ok(Self { default_ttl: read("default_lease_ttl")?, max_ttl: read("max_lease_ttl")? })
    }
}

fn fits(default: u64, max: u64) -> Result<(), EngineError> {
    if max > 0 && default > max {
        return Err(EngineError::bad_request(format!(
            "backend max lease TTL of {max} would be less than backend default lease TTL of {default}"
        )));
    }
    Ok(())
}

/// The table is one entry of the store: no line of it may crowd out the others.
fn bounded(description: &str, options: &std::collections::BTreeMap<String, String>) -> Result<(), EngineError> {
    let options: usize = options.iter().map(|(k, v)| k.len() + v.len()).sum();
    if description.len() > MAX_TEXT_BYTES || options > MAX_TEXT_BYTES {
        return Err(EngineError::bad_request(format!("description and options may have {MAX_TEXT_BYTES} bytes each")));
    }
    Ok(())
}

/// A line of the table, as `sys/mounts` shows it.
pub(super) fn described(entry: &MountEntry) -> Value {
    let mut config = Map::new();
    config.insert("default_lease_ttl".to_owned(), json!(entry.default_ttl));
    config.insert("force_no_cache".to_owned(), json!(false));
    config.insert("max_lease_ttl".to_owned(), json!(entry.max_ttl));
    if entry.is_auth() {
        config.insert("token_type".to_owned(), json!("default-service"));
    }
    json!({
        "accessor": entry.accessor,
        "config": config,
        "deprecation_status": "supported",
        "description": entry.description,
        "external_entropy_access": false,
        "local": false,
        "options": if entry.is_fixed() { Value::Null } else { json!(entry.options) },
        "plugin_version": "",
        "running_plugin_version": "",
        "running_sha256": "",
        "seal_wrap": false,
        "type": entry.kind,
        "uuid": entry.uuid,
    })
}

fn tuning(entry: &MountEntry) -> Value {
    let mut data = json!({
        "default_lease_ttl": entry.default_ttl_seconds(),
        "description": entry.description,
        "force_no_cache": false,
        "max_lease_ttl": entry.max_ttl_seconds(),
    });
    if let Value::Object(fields) = &mut data {
        if entry.is_auth() {
            fields.insert("token_type".to_owned(), json!("default-service"));
        } else if !entry.options.is_empty() {
            fields.insert("options".to_owned(), json!(entry.options));
        }
    }
    data
}

const MAX_TEXT_BYTES: usize = 1024;
