//! Roles: which key signs, for which audience, with which claims, for how long.

use api::Reply;
use pipeline::{Authorized, EngineError, Operation, Txn};
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::key::{DAY_SECONDS, Key};
use super::list_of;
use super::template::Template;
use crate::input::Input;

/// A role's entry: `oidc/role/<name>`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) key: String,
    pub(super) client_id: String,
    pub(super) template: String,
    pub(super) ttl: u64,
}

impl Role {
    pub(super) async fn load(name: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        let Some(entry) = txn.get(&place(name)).await? else { return Ok(None) };
        let role = serde_json::from_slice(entry.expose());
        role.map(Some).map_err(|e| EngineError::internal(format!("role {name} is unreadable: {e}")))
    }
}

/// Names of the roles that a key signs for.
pub(super) async fn roles_of(key: &str, txn: &mut Txn) -> Result<Vec<String>, EngineError> {
    let mut found = Vec::new();
    for name in txn.list(FOLDER).await? {
        if Role::load(&name, txn).await?.is_some_and(|role| role.key == key) {
            found.push(name);
        }
    }
    Ok(found)
}

/// `oidc/role`.
pub(super) async fn all(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    list_of(FOLDER, request, txn).await
}

/// `oidc/role/:name`.
pub(super) async fn one(name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    match request.operation() {
        Operation::Read => {
            let role = Role::load(name, txn).await?.ok_or_else(EngineError::absent)?;
            Ok(Reply::data(&json!({
                "client_id": role.client_id,
                "key": role.key,
                "template": role.template,
                "ttl": role.ttl,
            })))
        }
        Operation::Create | Operation::Update => {
            let found = Role::load(name, txn).await?;
            let role = updated(found, &Input::of(request.body())?, txn).await?;
            txn.put(&place(name), SecretBytes::new(serde_json::to_vec(&role).map_err(EngineError::internal)?))?;
            Ok(Reply::no_content())
        }
        Operation::Delete => {
            txn.delete(&place(name))?;
            Ok(Reply::no_content())
        }
        Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
    }
}

async fn updated(found: Option<Role>, input: &Input<'_>, txn: &mut Txn) -> Result<Role, EngineError> {
    let mut role = found.unwrap_or(Role {
        key: String::new(),
        client_id: String::new(),
        template: String::new(),
        ttl: DAY_SECONDS,
    });
    role.key = input.text("key")?.unwrap_or(role.key);
    if role.key.is_empty() {
        return Err(EngineError::bad_request("the key parameter is required"));
    }
    if let Some(template) = input.text("template")? {
        Template::parse(&template).map_err(|e| EngineError::bad_request(e.to_string()))?;
        role.template = template;
    }
    if let Some(ttl) = input.ttl("ttl")? {
        role.ttl = ttl.as_seconds();
    }
    if let Some(client_id) = input.text("client_id")? {
        if client_id.is_empty() || client_id.len() > MAX_CLIENT_ID_BYTES {
            return Err(EngineError::bad_request("client_id has 1 to 256 bytes"));
        }
        role.client_id = client_id;
    }
    let key = super::segment(&role.key).ok();
    let key = match key {
        Some(name) => Key::load(name, txn).await?,
        None => None,
    };
    let key = key.ok_or_else(|| {
        EngineError::bad_request(format!("cannot find key {:?}", role.key)).recorded_as("there is no such key")
    })?;
    if role.ttl > key.verification_ttl {
        // Otherwise a rotation would take the public key away under a token that still counts.
        return Err(EngineError::bad_request(
            "a role's token ttl cannot be longer than the verification_ttl of the key it references",
        ));
    }
    if role.client_id.is_empty() {
        role.client_id = secret::Accessor::generate(&mut |out| txn.fill(out)).as_str().to_owned();
    }
    Ok(role)
}

fn place(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

const MAX_CLIENT_ID_BYTES: usize = 256;
const FOLDER: &str = "oidc/role";
