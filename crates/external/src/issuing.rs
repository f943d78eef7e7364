//! The token from which services' tokens are made: as much as that takes, for an hour, and no secret can be read with
//! it.

use api::Auth;
use client::{AskError, Bearer, Calls, Vault};
use secret::Accessor;
use serde_json::{Value, json};

/// EdgeX's name for the policy.
pub const PRIVILEGED_POLICY: &str = "privileged-token-creator";

/// Such a token.
#[must_use = "a token that is dropped lives on for an hour"]
pub struct IssuingToken(Auth);

impl IssuingToken {
    /// Installs the policy, and makes the token.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn create<V: Vault>(root: &Bearer<'_, V>) -> Result<Self, AskError> {
        let calls = Calls::over(root);
        calls
            .write(&format!("sys/policies/acl/{PRIVILEGED_POLICY}"), &json!({ "policy": policy().to_string() }))
            .await?;
        let body = json!({
            "display_name": PRIVILEGED_POLICY,
            "no_parent": true,
            "period": "1h",
            "ttl": "1h",
            "policies": [PRIVILEGED_POLICY],
        });
        calls.write_for_token("auth/token/create", &body).await.map(Self)
    }

    /// The store's reply, for a provider that reads it from a file.
    pub fn auth(&self) -> &Auth {
        &self.0
    }

    /// Its accessor.
    pub fn accessor(&self) -> &Accessor {
        &self.0.accessor
    }

    /// The store as its holder sees it.
    pub fn over<'v, V: Vault>(&'v self, vault: &'v V) -> Bearer<'v, V> {
        Bearer::new(vault, &self.0.client_token)
    }

    /// Ends it.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn revoke<V: Vault>(self, vault: &V) -> Result<(), AskError> {
        match Calls::with(vault, &self.0.client_token).write("auth/token/revoke-self", &json!({})).await {
            Ok(_) | Err(AskError::Refused { status: 403, .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }
}

impl std::fmt::Debug for IssuingToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuingToken({:?})", self.0.accessor)
    }
}

/// What EdgeX 4 grants it, and not more.
fn policy() -> Value {
    let rule = |capabilities: &[&str]| json!({ "capabilities": capabilities });
    let write = || rule(&["create", "update"]);
    json!({ "path": {
        "identity/entity/name": rule(&["list"]),
        "identity/entity/name/*": rule(&["create", "update", "read"]),
        "identity/entity/id/*": rule(&["read"]),
        "identity/entity-alias": write(),
        "identity/oidc/role": rule(&["list"]),
        "identity/oidc/role/*": write(),
        "auth/userpass/users/*": write(),
        "auth/token/create/*": rule(&["create", "update", "sudo"]),
        "auth/token/roles": rule(&["list"]),
        "auth/token/roles/*": write(),
        "auth/token/revoke-self": rule(&["update"]),
        "sys/auth": rule(&["read"]),
        "sys/policies/acl": rule(&["list"]),
        "sys/policies/acl/edgex-service-*": rule(&["create", "read", "update", "delete"]),
    }})
}
