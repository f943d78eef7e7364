//! What all services stand on: mounts, and the key that signs their JSON Web Tokens.

use std::collections::BTreeMap;

use client::{AskError, Calls, Vault};
use serde::Deserialize;
use serde_json::json;

use crate::plan::{MountKind, MountPlan, Plan};
use crate::provision::ProvisionError;

/// The OIDC key of all services, by EdgeX's name.
pub const SIGNING_KEY: &str = "edgex-identity";

/// What was found or made, as far as later steps need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ground {
    /// Path of the KV mount, such as `secret`.
    pub kv: String,
    /// Path of the userpass mount below `auth/`, such as `userpass`.
    pub userpass: String,
    /// Accessor of the userpass mount, by which aliases name it.
    pub userpass_accessor: String,
}

#[derive(Deserialize)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    accessor: String,
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

/// Sees that the plan's mounts and the signing key are there.
///
/// # Errors
/// [`ProvisionError`]; a mount of another kind is never displaced.
pub async fn lay_ground<V: Vault>(vault: &V, plan: &Plan) -> Result<Ground, ProvisionError> {
    lay_mounts(vault, &plan.mounts).await
}

/// The same with these mounts: one for secrets, one for logins.
///
/// # Errors
/// As [`lay_ground`].
pub async fn lay_mounts<V: Vault>(vault: &V, mounts: &[MountPlan]) -> Result<Ground, ProvisionError> {
    let calls = Calls::over(vault);
    let secrets: BTreeMap<String, Mount> = calls.read("sys/mounts").await?.unwrap_or_default();
    let mut logins: BTreeMap<String, Mount> = calls.read("sys/auth").await?.unwrap_or_default();
    let (mut kv, mut userpass) = (None, None);
    for mount in mounts {
        let path = mount.path.as_str();
        let key = format!("{path}/");
        match mount.kind {
            MountKind::KvV1 => {
                match secrets.get(&key) {
                    None => {
                        let body = json!({
                            "type": "kv", "description": "secrets of services", "options": { "version": "1" }
                        });
                        calls.write(&format!("sys/mounts/{path}"), &body).await?;
                    }
                    Some(found) => check_kv(path, found)?,
                }
                kv.get_or_insert(path);
            }
            MountKind::Userpass => {
                if !logins.contains_key(&key) {
                    calls.write(&format!("sys/auth/{path}"), &json!({ "type": "userpass" })).await?;
                    logins = calls.read("sys/auth").await?.unwrap_or_default();
                }
                let found =
                    logins.get(&key).ok_or_else(|| unfit("sys/auth", "the mount that was made is not in it"))?;
                if found.kind != "userpass" {
                    return Err(other(path, &found.kind, "userpass"));
                }
                userpass.get_or_insert((path, found.accessor.clone()));
            }
        }
    }
    keep_signing_key(&calls).await?;
    let (Some(kv), Some((userpass, userpass_accessor))) = (kv, userpass) else {
        // `Plan::faults` refuses such a plan.
        return Err(unfit("sys/mounts", "the plan has no mount for secrets or logins"));
    };
    Ok(Ground { kv: kv.into(), userpass: userpass.into(), userpass_accessor })
}

fn check_kv(path: &str, found: &Mount) -> Result<(), ProvisionError> {
    let version = found.options.as_ref().and_then(|o| o.get("version")).map_or("1", String::as_str);
    match (found.kind.as_str(), version) {
        ("kv", "1") => Ok(()),
        ("kv", version) => Err(other(path, &format!("kv version {version}"), "kv version 1")),
        (kind, _) => Err(other(path, kind, "kv version 1")),
    }
}

/// ES384: its signatures are of fixed length, and the key is made by the store and never leaves it.
async fn keep_signing_key<V: Vault>(calls: &Calls<'_, V>) -> Result<(), ProvisionError> {
    #[derive(Deserialize)]
    struct Key {
        algorithm: String,
    }
    let path = format!("identity/oidc/key/{SIGNING_KEY}");
    match calls.read::<Key>(&path).await? {
        Some(key) if key.algorithm == ALGORITHM => Ok(()),
        Some(_) => Err(unfit(&path, "it signs with another algorithm than ES384")),
        None => {
            let body = json!({ "algorithm": ALGORITHM, "allowed_client_ids": ["*"] });
            calls.write(&path, &body).await?;
            Ok(())
        }
    }
}

fn other(path: &str, found: &str, wanted: &'static str) -> ProvisionError {
    ProvisionError::Mounted { path: path.into(), found: found.into(), wanted }
}

fn unfit(path: &str, reason: &'static str) -> ProvisionError {
    AskError::answer(path, reason).into()
}

const ALGORITHM: &str = "ES384";
