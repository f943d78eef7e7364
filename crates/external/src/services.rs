//! A service of EdgeX in the store: policy, entity, user, alias, role for its JSON Web Tokens, role for its tokens; and
//! then a token, by a login with a password that is thrown away, so that it belongs to the entity.
//!
//! Each call is an upsert: a run that was cut short is finished by the next, and none of them takes a token away.

use std::collections::BTreeMap;

use api::{Auth, Ttl};
use client::{AskError, Bearer, Calls, Vault};
use host::Entropy;
use secret::Password;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

/// What a service is to have. Its name has been checked by whoever made this: it becomes part of paths.
#[derive(Clone, Debug)]
pub struct ServiceWish {
    /// Its name, which is also that of its user, its entity and its roles.
    pub name: String,
    /// Name of its policy: `edgex-service-<name>`.
    pub policy_name: String,
    /// The policy, as JSON text.
    pub policy_text: String,
    /// Period of its token.
    pub period: Ttl,
    /// Life of its JSON Web Tokens.
    pub jwt_ttl: Ttl,
    /// For whom they are.
    pub audience: String,
}

/// What all of them stand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceGround {
    /// The userpass mount, below `auth/`.
    pub userpass: String,
    /// Its accessor.
    pub accessor: String,
}

impl ServiceGround {
    /// Looks for the mount.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn find<V: Vault>(store: &Bearer<'_, V>, userpass: &str) -> Result<Self, AskError> {
        let path = "sys/auth";
        match logins(&Calls::over(store)).await?.remove(&format!("{userpass}/")) {
            Some(mount) if mount.kind == "userpass" => {
                Ok(Self { userpass: userpass.to_owned(), accessor: mount.accessor })
            }
            Some(_) => Err(AskError::answer(path, "the mount for logins is of another kind than userpass")),
            None => Err(AskError::answer(path, "the mount for logins is not there")),
        }
    }
}

#[derive(Deserialize)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    accessor: String,
}

/// The mounts for logins, by their paths.
async fn logins<V: Vault>(calls: &Calls<'_, V>) -> Result<BTreeMap<String, Mount>, AskError> {
    Ok(calls.read("sys/auth").await?.unwrap_or_default())
}

/// Makes the service known, and a new token for it. Tokens that it has stay alive.
///
/// # Errors
/// [`AskError`]; then there is no new token.
pub async fn issue<V: Vault>(
    store: &Bearer<'_, V>,
    wish: &ServiceWish,
    ground: &ServiceGround,
    entropy: &dyn Entropy,
) -> Result<Auth, AskError> {
    let calls = Calls::over(store);
    let ServiceWish { name, policy_name, policy_text, .. } = wish;
    // The policy first: an entity whose policy is not there has less power, never more.
    calls.write(&format!("sys/policies/acl/{policy_name}"), &json!({ "policy": policy_text })).await?;
    let entity = entity(&calls, wish).await?;

    let password = Password::generate(&mut |out| entropy.fill(out));
    let period = wish.period.as_seconds();
    let user = format!("auth/{}/users/{name}", ground.userpass);
    let body = Zeroizing::new(
        format!(r#"{{"password":"{}","token_period":"{period}s","token_policies":[]}}"#, password.expose())
            .into_bytes(),
    );
    calls.write_secret(&user, body).await?;
    let alias = json!({ "name": name, "canonical_id": entity, "mount_accessor": ground.accessor });
    calls.write("identity/entity-alias", &alias).await?;
    let role = json!({
        "client_id": wish.audience,
        "key": SIGNING_KEY,
        // By a JSON writer, not by hand: whatever the name is, it stays a name.
        "template": json!({ "name": name }).to_string(),
        "ttl": format!("{}s", wish.jwt_ttl.as_seconds()),
    });
    calls.write(&format!("identity/oidc/role/{name}"), &role).await?;
    let role = json!({
        "allowed_policies": [policy_name],
        "allowed_entity_aliases": [name],
        "renewable": true,
        "orphan": true,
    });
    calls.write(&format!("auth/token/roles/{name}"), &role).await?;

    let login = format!("auth/{}/login/{name}", ground.userpass);
    let body = Zeroizing::new(format!(r#"{{"password":"{}"}}"#, password.expose()).into_bytes());
    // Without the issuing token: a login is the service's own.
    Calls::over(store.anonymous()).exchange_for_token(&login, body).await
}

async fn entity<V: Vault>(calls: &Calls<'_, V>, wish: &ServiceWish) -> Result<String, AskError> {
    #[derive(Deserialize)]
    struct Entity {
        id: String,
    }
    let path = format!("identity/entity/name/{}", wish.name);
    let body = json!({ "metadata": { "name": wish.name }, "policies": [wish.policy_name] });
    calls.write(&path, &body).await?;
    // Only the first write answers with the id.
    let entity: Option<Entity> = calls.read(&path).await?;
    entity.map(|e| e.id).ok_or_else(|| AskError::answer(&path, "the entity that was made is not there"))
}

/// Another token for a service that is known, by the id of its entity.
#[derive(Clone, Debug)]
pub struct Regenerate {
    /// The service.
    pub name: String,
    entity: String,
    policies: Vec<String>,
}

impl Regenerate {
    /// Finds whose entity it is: the first alias is the service's name.
    ///
    /// # Errors
    /// [`AskError`] for an unknown id, and for an entity without alias.
    pub async fn find<V: Vault>(store: &Bearer<'_, V>, entity_id: &str) -> Result<Self, AskError> {
        #[derive(Deserialize)]
        struct Alias {
            name: String,
        }
        #[derive(Deserialize)]
        struct Entity {
            #[serde(default)]
            aliases: Option<Vec<Alias>>,
            #[serde(default)]
            policies: Option<Vec<String>>,
        }
        let plain = !entity_id.is_empty() && entity_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plain {
            return Err(AskError::answer("identity/entity/id", "the id that was asked for is no id"));
        }
        let path = format!("identity/entity/id/{entity_id}");
        let entity: Option<Entity> = Calls::over(store).read(&path).await?;
        let entity = entity.ok_or_else(|| AskError::answer(&path, "there is no such entity"))?;
        let name = entity.aliases.into_iter().flatten().next().map(|a| a.name);
        let name = name.ok_or_else(|| AskError::answer(&path, "the entity has no alias"))?;
        let policies =
            entity.policies.filter(|p| !p.is_empty()).unwrap_or_else(|| vec![format!("edgex-service-{name}")]);
        Ok(Self { name, entity: entity_id.to_owned(), policies })
    }
}

/// Makes the token. Nothing is written anywhere before there is one.
///
/// # Errors
/// [`AskError`].
pub async fn regenerate<V: Vault>(store: &Bearer<'_, V>, what: &Regenerate, period: Ttl) -> Result<Auth, AskError> {
    let name = &what.name;
    let ttl = format!("{}s", period.as_seconds());
    let body = json!({
        "display_name": format!("token-{name}"),
        "role_name": name,
        "entity_alias": name,
        "no_parent": true,
        "policies": what.policies,
        "meta": { "user": name },
        "ttl": ttl,
        "period": ttl,
        "renewable": true,
    });
    let calls = Calls::over(store);
    // A token of a role belongs to the alias on the mount of tokens. Without one the store would make another entity,
    // and the service another `sub` in its JSON Web Tokens.
    if let Some(mount) = logins(&calls).await?.remove("token/") {
        let alias = json!({ "name": name, "canonical_id": what.entity, "mount_accessor": mount.accessor });
        calls.write("identity/entity-alias", &alias).await?;
    }
    calls.write_for_token(&format!("auth/token/create/{name}"), &body).await
}

/// EdgeX's name.
const SIGNING_KEY: &str = "edgex-identity";
