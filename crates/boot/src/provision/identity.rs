//! Who a service is: its policy, its entity with a user and an alias, and its role for JSON Web Tokens.

use std::collections::BTreeMap;

use api::Ttl;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::{AskError, Calls, Vault};
use host::Entropy;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use crate::plan::ServicePlan;
use crate::provision::{Ground, ProvisionError, SIGNING_KEY};

#[derive(Deserialize)]
struct Policy {
    policy: String,
}

#[derive(Deserialize)]
struct Entity {
    id: String,
    #[serde(default)]
    policies: Option<Vec<String>>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    aliases: Option<Vec<Alias>>,
}

#[derive(Deserialize)]
struct Alias {
    name: String,
    mount_accessor: String,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    token_period: u64,
    #[serde(default)]
    token_policies: Option<Vec<String>>,
}

#[derive(Deserialize, PartialEq, Eq)]
struct Role {
    client_id: String,
    key: String,
    template: String,
    ttl: u64,
}

/// Sees that the service is known as the plan wants it. Returns the entity's id.
///
/// # Errors
/// [`ProvisionError`].
pub async fn keep_identity<V: Vault>(
    vault: &V,
    service: &ServicePlan,
    ground: &Ground,
    entropy: &dyn Entropy,
) -> Result<String, ProvisionError> {
    let calls = Calls::over(vault);
    // The policy first: an entity that names a policy which is not there has less power, never more.
    keep_policy(&calls, service).await?;
    let entity = keep_entity(&calls, service).await?;
    keep_user(&calls, service, ground, entropy).await?;
    keep_alias(&calls, service, ground, &entity).await?;
    keep_role(&calls, service).await?;
    Ok(entity.id)
}

async fn keep_policy<V: Vault>(calls: &Calls<'_, V>, service: &ServicePlan) -> Result<(), AskError> {
    let path = format!("sys/policies/acl/{}", service.policy_name());
    let wanted = service.policy_text();
    match calls.read::<Policy>(&path).await? {
        Some(found) if found.policy == wanted => Ok(()),
        _ => calls.write(&path, &json!({ "policy": wanted })).await.map(drop),
    }
}

async fn keep_entity<V: Vault>(calls: &Calls<'_, V>, service: &ServicePlan) -> Result<Entity, AskError> {
    let path = format!("identity/entity/name/{}", service.name);
    let (policies, metadata) = (vec![service.policy_name()], json!({ "name": service.name.as_str() }));
    let fits = |e: &Entity| {
        let named = e.metadata.as_ref().is_some_and(|m| m.get("name").is_some_and(|n| n == service.name.as_str()));
        named && e.policies.as_ref() == Some(&policies)
    };
    if let Some(entity) = calls.read::<Entity>(&path).await?.filter(fits) {
        return Ok(entity);
    }
    calls.write(&path, &json!({ "policies": policies, "metadata": metadata })).await?;
    calls.read(&path).await?.ok_or_else(|| AskError::answer(&path, "the entity that was made is not there"))
}

/// The user lets a service log in by itself where that is wanted; its password is generated, and nobody knows it.
async fn keep_user<V: Vault>(
    calls: &Calls<'_, V>,
    service: &ServicePlan,
    ground: &Ground,
    entropy: &dyn Entropy,
) -> Result<(), AskError> {
    let path = format!("auth/{}/users/{}", ground.userpass, service.name);
    let period = service.token.period.as_seconds();
    let Some(user) = calls.read::<User>(&path).await? else {
        let mut random = Zeroizing::new([0u8; 33]);
        entropy.fill(&mut random[..]);
        let mut password = Zeroizing::new(String::with_capacity(44));
        STANDARD.encode_string(&random[..], &mut password);
        let body = Zeroizing::new(
            // The last field lets our own store keep the password as an HMAC: bcrypt is for passwords that people
            // chose.
            format!(
                r#"{{"password":"{}","token_period":{period},"token_policies":[],"edgekeep_generated":true}}"#,
                *password
            )
            .into_bytes(),
        );
        return calls.write_secret(&path, body).await.map(drop);
    };
    let no_policies = user.token_policies.is_none_or(|p| p.is_empty());
    if user.token_period == period && no_policies {
        return Ok(());
    }
    calls.write(&path, &json!({ "token_period": period, "token_policies": [] })).await.map(drop)
}

async fn keep_alias<V: Vault>(
    calls: &Calls<'_, V>,
    service: &ServicePlan,
    ground: &Ground,
    entity: &Entity,
) -> Result<(), AskError> {
    let bound = |a: &Alias| a.name == service.name.as_str() && a.mount_accessor == ground.userpass_accessor;
    if entity.aliases.iter().flatten().any(bound) {
        return Ok(());
    }
    let body = json!({
        "name": service.name.as_str(),
        "canonical_id": entity.id,
        "mount_accessor": ground.userpass_accessor,
    });
    calls.write("identity/entity-alias", &body).await.map(drop)
}

async fn keep_role<V: Vault>(calls: &Calls<'_, V>, service: &ServicePlan) -> Result<(), AskError> {
    let path = format!("identity/oidc/role/{}", service.name);
    let wanted = Role {
        client_id: service.jwt.audience.clone(),
        key: SIGNING_KEY.into(),
        template: json!({ "name": service.name.as_str() }).to_string(),
        ttl: service.jwt.ttl.as_seconds(),
    };
    if calls.read::<Role>(&path).await?.as_ref() == Some(&wanted) {
        return Ok(());
    }
    let Role { client_id, key, template, ttl } = wanted;
    let ttl = Ttl::seconds(ttl).to_go();
    calls.write(&path, &json!({ "client_id": client_id, "key": key, "template": template, "ttl": ttl })).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::fake::FakeVault;
    use crate::provision::lay_ground;
    use crate::testing::{Counting, demo_plan};

    #[tokio::test]
    async fn the_second_run_writes_nothing() {
        let vault = FakeVault::default();
        let plan = demo_plan("/d".as_ref(), "/r".as_ref());
        let ground = lay_ground(&vault, &plan).await.unwrap();
        let id = keep_identity(&vault, &plan.services[0], &ground, &Counting::default()).await.unwrap();
        let writes = vault.writes();
        assert!(writes > 0);
        assert_eq!(lay_ground(&vault, &plan).await.unwrap(), ground);
        assert_eq!(keep_identity(&vault, &plan.services[0], &ground, &Counting::default()).await.unwrap(), id);
        assert_eq!(vault.writes(), writes);
    }

    #[tokio::test]
    async fn a_run_cut_at_any_write_is_finished_by_the_next() {
        let plan = demo_plan("/d".as_ref(), "/r".as_ref());
        let whole = FakeVault::default();
        let ground = lay_ground(&whole, &plan).await.unwrap();
        keep_identity(&whole, &plan.services[0], &ground, &Counting::default()).await.unwrap();
        for cut in 0..whole.writes() {
            let vault = FakeVault::default();
            vault.fail_after_writes(cut);
            let first = async {
                let ground = lay_ground(&vault, &plan).await?;
                keep_identity(&vault, &plan.services[0], &ground, &Counting::default()).await
            };
            first.await.unwrap_err();
            vault.heal();
            let ground = lay_ground(&vault, &plan).await.unwrap();
            keep_identity(&vault, &plan.services[0], &ground, &Counting::default()).await.unwrap();
            assert_eq!(vault.paths(), whole.paths());
        }
    }

    #[tokio::test]
    async fn a_changed_plan_changes_policy_period_and_role_and_keeps_the_entity() {
        let vault = FakeVault::default();
        let mut plan = demo_plan("/d".as_ref(), "/r".as_ref());
        let ground = lay_ground(&vault, &plan).await.unwrap();
        let id = keep_identity(&vault, &plan.services[0], &ground, &Counting::default()).await.unwrap();
        plan.services[0].policy.defaults = false;
        plan.services[0].token.period = Ttl::seconds(7200);
        plan.services[0].jwt.audience = "other".into();
        assert_eq!(keep_identity(&vault, &plan.services[0], &ground, &Counting::default()).await.unwrap(), id);
        assert_eq!(vault.stored("sys/policies/acl/edgex-service-sensor").unwrap()["policy"], r#"{"path":{}}"#);
        assert_eq!(vault.stored("auth/userpass/users/sensor").unwrap()["token_period"], 7200);
        assert_eq!(vault.stored("identity/oidc/role/sensor").unwrap()["client_id"], "other");
    }

    #[tokio::test]
    async fn a_mount_of_another_kind_is_not_displaced() {
        let vault = FakeVault::default();
        vault.put("sys/mounts/secret", json!({ "type": "kv", "options": { "version": "2" } }));
        let refused = lay_ground(&vault, &demo_plan("/d".as_ref(), "/r".as_ref())).await.unwrap_err();
        assert_eq!(refused.to_string(), "secret is mounted as kv version 2, and kv version 1 is wanted");
    }
}
