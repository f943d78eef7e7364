//! Who is let in with shares to make a root token.
//!
//! Vault, and OpenBao up to 2.5.2, take shares from anybody (`sys/generate-root`). OpenBao 2.6 takes them from whoever
//! is logged in and may (`sys/generate-root-token`); in between are versions that take them from nobody unless a
//! listener says so. For the later ones a login is kept in the store that whoever holds all shares can compute
//! ([`seal::edgex::SharesLogin`]), and that may do this one thing: no more than everybody may with the older ones.

use std::collections::BTreeMap;

use client::{AskError, Bearer, Calls, Vault};
use seal::edgex::ClearShares;
use secret::Token;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Where the login lives in the store, below `auth/`.
pub const CUSTODY_MOUNT: &str = "edgekeep-custody";
/// Its policy.
pub const CUSTODY_POLICY: &str = "edgekeep-custody";

/// Sees that the shares' login is there, where the store has a use for it. Whoever calls holds a root token. Users of
/// earlier shares are taken away.
///
/// # Errors
/// [`AskError`].
pub async fn keep_login<V: Vault>(root: &Bearer<'_, V>, shares: &ClearShares) -> Result<bool, AskError> {
    // The new one before the old one goes: there is never none.
    if !add_login(root, shares).await? {
        return Ok(false);
    }
    let calls = Calls::over(root);
    let user = shares.login().user;
    for other in calls.list(USERS).await?.iter().filter(|other| **other != user) {
        calls.delete(&format!("{USERS}/{other}")).await?;
    }
    Ok(true)
}

/// The same, and users of other shares stay: of two sets it is not known yet which counts.
///
/// # Errors
/// [`AskError`].
pub(crate) async fn add_login<V: Vault>(root: &Bearer<'_, V>, shares: &ClearShares) -> Result<bool, AskError> {
    let calls = Calls::over(root);
    if calls.read::<Value>(&format!("{AUTHENTICATED}/attempt")).await?.is_none() {
        return Ok(false);
    }
    let policy = json!({ "path": {
        format!("{AUTHENTICATED}/attempt"): { "capabilities": ["read", "update", "delete"] },
        format!("{AUTHENTICATED}/update"): { "capabilities": ["update"] },
        "auth/token/revoke-self": { "capabilities": ["update"] },
    }})
    .to_string();
    calls.write(&format!("sys/policies/acl/{CUSTODY_POLICY}"), &json!({ "policy": policy })).await?;

    #[derive(Deserialize)]
    struct Mount {
        #[serde(rename = "type")]
        kind: String,
    }
    let mounts: BTreeMap<String, Mount> = calls.read("sys/auth").await?.unwrap_or_default();
    match mounts.get(&format!("{CUSTODY_MOUNT}/")) {
        None => {
            let body =
                json!({"type": "userpass", "description": "lets the holder of the key shares ask for a root token"});
            calls.write(&format!("sys/auth/{CUSTODY_MOUNT}"), &body).await?;
        }
        Some(mount) if mount.kind == "userpass" => {}
        Some(_) => {
            return Err(AskError::answer(
                "sys/auth",
                "something else is mounted where the login of the shares belongs",
            ));
        }
    }
    let login = shares.login();
    let body = Zeroizing::new(
        format!(
            r#"{{"password":"{}","token_policies":["{CUSTODY_POLICY}"],"token_no_default_policy":true,"token_ttl":"{LIFE}","token_max_ttl":"{LIFE}"}}"#,
            *login.password
        )
        .into_bytes(),
    );
    calls.write_secret(&format!("{USERS}/{}", login.user), body).await?;
    Ok(true)
}

/// A way to hand shares in.
pub(crate) enum Door {
    /// By a login, at [`AUTHENTICATED`].
    LoggedIn(Token),
    /// By anybody, at `sys/generate-root`.
    Open,
}

impl Door {
    /// Logs in with the shares. A store that knows no such login leaves the door of old.
    pub(crate) async fn find<V: Vault>(vault: &V, shares: &ClearShares) -> Result<Self, AskError> {
        let login = shares.login();
        let body = Zeroizing::new(format!(r#"{{"password":"{}"}}"#, *login.password).into_bytes());
        let path = format!("auth/{CUSTODY_MOUNT}/login/{}", login.user);
        match Calls::over(vault).exchange_for_token(&path, body).await {
            Ok(auth) => Ok(Self::LoggedIn(auth.client_token)),
            Err(AskError::Refused { status: 400..=499, .. }) => Ok(Self::Open),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn path(&self) -> &'static str {
        match self {
            Self::LoggedIn(_) => AUTHENTICATED,
            Self::Open => OPEN,
        }
    }

    pub(crate) fn calls<'v, V: Vault>(&'v self, vault: &'v V) -> Calls<'v, V> {
        match self {
            Self::LoggedIn(token) => Calls::with(vault, token),
            Self::Open => Calls::over(vault),
        }
    }
}

const USERS: &str = "auth/edgekeep-custody/users";
const AUTHENTICATED: &str = "sys/generate-root-token";
const OPEN: &str = "sys/generate-root";
/// Long enough to hand in 255 shares to a slow store.
const LIFE: &str = "5m";
