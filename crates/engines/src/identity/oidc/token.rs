//! `oidc/token/:role` and `oidc/introspect`: statements about the bearer's entity, signed, and checked.

use api::{Reply, Status, Ttl};
use pipeline::{Authorized, EngineError, Operation, Txn};
use serde_json::{Value, json};
use store::StoreTime;

use super::jws::{self, Proven, Unproven};
use super::key::Key;
use super::role::Role;
use super::template::{Subject, SubjectAlias, Template};
use super::{STORE_EXPIRY, issuer};
use crate::identity::entity::Entity;
use crate::input::{Input, is_write};

/// `oidc/token/:role`.
pub(super) async fn issue(role_name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if request.operation() != Operation::Read {
        return Err(EngineError::unsupported_operation());
    }
    let missing = || EngineError::bad_request(format!("role {role_name:?} not found"));
    let role = Role::load(role_name, txn).await?.ok_or_else(missing)?;
    let nobody = || EngineError::bad_request("no entity associated with the request's token");
    let entity_id = request.actor().entity_id().ok_or_else(nobody)?.to_owned();
    let entity = Entity::by_id(&entity_id, txn).await?.ok_or_else(nobody)?;
    let lost = || EngineError::bad_request(format!("key {:?} not found", role.key));
    let mut key = Key::load(&role.key, txn).await?.ok_or_else(lost)?;
    if !key.allows(&role.client_id) {
        return Err(EngineError::bad_request(format!(
            "the key {:?} does not list the client ID of the role {role_name:?} as an allowed client ID",
            role.key
        )));
    }
    let subject = subject(&entity, txn);
    let template = Template::parse(&role.template).map_err(|e| EngineError::bad_request(e.to_string()))?;
    let mut claims = template.render(&subject).map_err(|e| EngineError::bad_request(e.to_string()))?;
    let ttl = Ttl::seconds(role.ttl.min(key.verification_ttl));
    let lifetime = i64::try_from(ttl.as_seconds()).unwrap_or(i64::MAX);
    // After the template, so that these are ours whatever it says.
    claims.extend([
        ("iss".to_owned(), json!(issuer(txn).await?)),
        ("sub".to_owned(), json!(entity.id)),
        ("aud".to_owned(), json!(role.client_id)),
        ("iat".to_owned(), json!(subject.now)),
        ("exp".to_owned(), json!(subject.now.saturating_add(lifetime))),
        ("namespace".to_owned(), json!("root")),
        (STORE_EXPIRY.to_owned(), json!(txn.now().plus(ttl.as_duration()).0)),
    ]);
    let (signer, kid) = key.signer(&role.key, txn).await?;
    let algorithm = key.algorithm;
    let token = jws::sign(algorithm, &kid, &signer, &claims).map_err(EngineError::internal)?;
    Ok(Reply::data(&json!({ "client_id": role.client_id, "token": token, "ttl": ttl.as_seconds() })))
}

/// `oidc/introspect`: always 200, without an envelope.
pub(super) async fn introspect(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if !is_write(request) {
        return Err(EngineError::unsupported_operation());
    }
    let input = Input::of(request.body())?;
    let token = input.secret("token")?.unwrap_or_default();
    let client_id = input.text("client_id")?;
    let verdict = match check(&token, client_id.as_deref(), txn).await? {
        Ok(()) => json!({ "active": true }),
        Err(why) => json!({ "active": false, "error": why }),
    };
    Ok(Reply::raw(Status::OK, &verdict))
}

/// Whether a token counts now. The outer error is ours, the inner one the token's.
async fn check(token: &str, client_id: Option<&str>, txn: &mut Txn) -> Result<Result<(), String>, EngineError> {
    let unproven = match Unproven::parse(token) {
        Ok(unproven) => unproven,
        Err(e) => return Ok(Err(e.to_string())),
    };
    let mut proven = None;
    for name in Key::names(txn).await? {
        let Some(key) = Key::load(&name, txn).await? else { continue };
        let now = txn.now();
        let signed_by = key.published(now).find(|p| p.kid == unproven.kid());
        if let Some(public) = signed_by {
            proven = Some(unproven.prove(public.algorithm, &public.point()));
            break;
        }
    }
    let claims = match proven {
        Some(Ok(claims)) => claims,
        Some(Err(e)) => return Ok(Err(e.to_string())),
        None => return Ok(Err("unable to validate the token signature".into())),
    };
    Ok(counts(&claims, client_id, txn).await?.map_err(str::to_owned))
}

async fn counts(
    claims: &Proven,
    client_id: Option<&str>,
    txn: &mut Txn,
) -> Result<Result<(), &'static str>, EngineError> {
    if claims.text("iss") != Some(issuer(txn).await?.as_str()) {
        return Ok(Err("error validating claims: invalid issuer claim (iss)"));
    }
    if client_id.is_some_and(|wanted| claims.text("aud") != Some(wanted)) {
        return Ok(Err("error validating claims: invalid audience claim (aud)"));
    }
    // `exp` is for verifiers elsewhere. Here the store's own time decides, which no step of the wall clock moves.
    if claims.number(STORE_EXPIRY).is_none_or(|until| StoreTime(until) <= txn.now()) {
        return Ok(Err("error validating claims: token is expired (exp)"));
    }
    let entity = match claims.text("sub") {
        Some(id) if super::segment(id).is_ok() => Entity::by_id(id, txn).await?,
        _ => None,
    };
    Ok(match entity {
        None => Err("entity was not found"),
        Some(entity) if entity.disabled => Err("entity is disabled"),
        Some(_) => Ok(()),
    })
}

fn subject(entity: &Entity, txn: &Txn) -> Subject {
    let alias = |a: &crate::identity::entity::EntityAlias| SubjectAlias {
        id: a.id.clone(),
        name: a.name.clone(),
        metadata: a.custom_metadata.clone(),
    };
    Subject {
        id: entity.id.clone(),
        name: entity.name.clone(),
        metadata: entity.metadata.clone().unwrap_or_default(),
        aliases: entity.aliases.iter().map(|a| (a.mount_accessor.clone(), alias(a))).collect(),
        now: txn.wall().unix_seconds(),
    }
}

/// `.well-known/keys`: every public key under which a token of ours may still be checked.
pub(super) async fn keys(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if request.operation() != Operation::Read {
        return Err(EngineError::unsupported_operation());
    }
    let mut all: Vec<Value> = Vec::new();
    for name in Key::names(txn).await? {
        let Some(key) = Key::load(&name, txn).await? else { continue };
        let now = txn.now();
        all.extend(key.published(now).filter_map(|p| jws::jwk(p.algorithm, &p.kid, &p.point())));
    }
    Ok(Reply::raw(Status::OK, &json!({ "keys": all })))
}

/// `.well-known/openid-configuration`.
pub(super) async fn discovery(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if request.operation() != Operation::Read {
        return Err(EngineError::unsupported_operation());
    }
    let issuer = issuer(txn).await?;
    Ok(Reply::raw(
        Status::OK,
        &json!({
            "issuer": issuer,
            "jwks_uri": format!("{issuer}/.well-known/keys"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "ES384"],
        }),
    ))
}
