//! `create`, `create-orphan`, `create/<role>`: who may make which token.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::{Logical, Reply, Ttl};
use pipeline::{Actor, Alias, Authorized, EngineError, NewToken, Outcome, TokenEntry, TtlRules, Txn, sanitized};
use secret::Token;
use zeroize::Zeroizing;

use super::TokenEngine;
use super::roles::{self, Role};
use crate::glob::glob;
use crate::input::Input;

/// By which of the three paths.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Child,
    Orphan,
    Role(&'a str),
}

struct Body {
    id: Option<Zeroizing<String>>,
    policies: Vec<String>,
    meta: Option<BTreeMap<String, String>>,
    no_parent: bool,
    no_default_policy: bool,
    renewable: bool,
    ttl: Ttl,
    explicit_max_ttl: Ttl,
    period: Ttl,
    display_name: Option<String>,
    num_uses: u64,
    kind: Option<String>,
    entity_alias: Option<String>,
    /// For the unattended start alone, which makes tokens for entities that it has made.
    entity_id: Option<String>,
}

impl Body {
    fn of(input: &Input<'_>) -> Result<Self, EngineError> {
        Ok(Self {
            id: input.secret("id")?.filter(|id| !id.is_empty()),
            policies: sanitized(input.elements("policies")?.unwrap_or_default(), false),
            meta: input.map("meta")?.filter(|m| !m.is_empty()),
            no_parent: input.flag("no_parent")?.unwrap_or(false),
            no_default_policy: input.flag("no_default_policy")?.unwrap_or(false),
            renewable: input.flag("renewable")?.unwrap_or(true),
            ttl: input.ttl("ttl")?.or(input.ttl("lease")?).unwrap_or_default(),
            explicit_max_ttl: input.ttl("explicit_max_ttl")?.unwrap_or_default(),
            period: input.ttl("period")?.unwrap_or_default(),
            display_name: input.text("display_name")?,
            num_uses: input.number("num_uses")?.unwrap_or(0),
            kind: input.text("type")?,
            entity_alias: input.text("entity_alias")?.filter(|a| !a.is_empty()),
            entity_id: input.text("entity_id")?.filter(|id| !id.is_empty()),
        })
    }
}

pub(super) async fn create(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    kind: Kind<'_>,
    txn: &mut Txn,
) -> Result<Outcome, EngineError> {
    let body = Body::of(&Input::of(request.body())?)?;
    let parent = Parent::of(request)?;
    match body.kind.as_deref() {
        None | Some("" | "service") => {}
        Some("batch") => return Err(refused("batch tokens are not supported; leave type out, or ask for \"service\"")),
        Some(_) => return Err(refused("invalid 'token_type' value")),
    }
    let role = match kind {
        Kind::Role(name) => {
            let role = roles::find(name, txn).await?;
            Some((name, role.ok_or_else(|| refused(format!("unknown role {name}")))?))
        }
        Kind::Child | Kind::Orphan => None,
    };
    let role_rules = role.as_ref().map(|(_, role)| role);
    let times = Times::of(&body, role_rules, &parent)?;
    let mut warnings = Vec::new();
    let chosen = body.id.map(|id| chosen(&id, &parent, &mut warnings)).transpose()?;
    let policies = granted(body.policies, body.no_default_policy, role_rules, &parent, &mut warnings)?;
    if body.no_parent && !parent.sudo {
        return Err(refused("root or sudo privileges required to create orphan token"));
    }
    let orphan =
        body.no_parent || matches!(kind, Kind::Orphan) || role_rules.is_some_and(|r| r.orphan) || parent.is_boot;
    let is_root = policies.iter().any(|p| p == policy::ROOT_NAME);
    let for_ever =
        is_root && times.ttl.is_zero() && times.rules.period.is_zero() && times.rules.explicit_max_ttl.is_zero();
    if for_ever && parent.expires {
        return Err(refused("expiring root tokens cannot create non-expiring root tokens"));
    }
    let entity_id = match (body.entity_alias.as_deref(), body.entity_id) {
        (Some(alias), _) => aliased(engine, request, alias, role_rules, txn).await?,
        (_, Some(id)) if parent.is_boot => entity(engine, id, txn).await?,
        (_, Some(_)) => return Err(refused("entity_id cannot be chosen; use entity_alias with a role")),
        // An orphan speaks for nobody; a child speaks for whom its parent does.
        _ if orphan => String::new(),
        _ => parent.entity_id.clone(),
    };
    for name in &policies {
        if engine.services.policies.read(name, txn).await?.is_none() {
            warnings.push(format!("Policy \"{name}\" does not exist"));
        }
    }
    let suffix = role_rules.map(|r| r.path_suffix.as_str()).filter(|s| !s.is_empty());
    let new = NewToken {
        chosen,
        parent: if orphan { None } else { parent.id },
        policies,
        path: suffix.map_or_else(|| request.full_path().to_owned(), |s| format!("{}/{s}", request.full_path())),
        display_name: display_name(body.display_name.as_deref()),
        meta: body.meta,
        entity_id,
        mount: None,
        role: role.as_ref().map(|(name, _)| (*name).to_owned()),
        num_uses: match role_rules.map_or(0, |r| r.num_uses) {
            0 => body.num_uses,
            limit if body.num_uses == 0 => limit,
            limit => limit.min(body.num_uses),
        },
        renewable: body.renewable && role_rules.is_none_or(|r| r.renewable),
        rules: times.rules.within(request.mount()),
        ttl: times.ttl,
        for_ever,
        // What the unattended start hands out is good for this kernel boot: the next one issues anew.
        this_boot_only: parent.is_boot,
    };
    let issued = engine.services.tokens.create(new, txn).await?;
    let mut of_entity = Vec::new();
    if !issued.entry.entity_id.is_empty()
        && let Some(standing) = engine.services.entity(&issued.entry.entity_id, txn).await?
    {
        of_entity = pipeline::added(standing.policies, &issued.entry.policies);
    }
    let (auth, mut all) = issued.into_auth(of_entity);
    all.append(&mut warnings);
    Ok(Reply::logical(Logical { auth: Some(auth), warnings: all, ..Logical::default() }).into())
}

/// The caller, as far as its children depend on it.
struct Parent {
    id: Option<pipeline::TokenId>,
    policies: Vec<String>,
    entity_id: String,
    expires: bool,
    /// `sudo` on the path that it called, or root.
    sudo: bool,
    is_boot: bool,
}

impl Parent {
    fn of(request: &Authorized<'_>) -> Result<Self, EngineError> {
        let sudo = request.has_sudo();
        match request.actor() {
            Actor::Token(live) => {
                let TokenEntry { policies, entity_id, uses_left, .. } = live.entry().clone();
                if uses_left.is_some() {
                    return Err(refused("restricted use token cannot generate child tokens"));
                }
                let expires = live.expires().is_some();
                Ok(Self { id: Some(live.id()), policies, entity_id, expires, sudo, is_boot: false })
            }
            Actor::Boot(_) => Ok(Self {
                id: None,
                policies: Vec::new(),
                entity_id: String::new(),
                expires: true,
                sudo,
                is_boot: true,
            }),
            Actor::Anonymous => Err(refused("parent token lookup failed: no parent found")),
        }
    }

    fn is_root(&self) -> bool {
        self.policies.iter().any(|p| p == policy::ROOT_NAME)
    }
}

/// What body and role say about time.
struct Times {
    rules: TtlRules,
    ttl: Ttl,
}

impl Times {
    fn of(body: &Body, role: Option<&Role>, parent: &Parent) -> Result<Self, EngineError> {
        if !body.period.is_zero() && !parent.sudo {
            return Err(refused("root or sudo privileges required to create periodic token"));
        }
        let of_role = |pick: fn(&Role) -> u64| Ttl::seconds(role.map_or(0, pick));
        let rules = TtlRules {
            period: of_role(|r| r.period).or_less(body.period),
            explicit_max_ttl: of_role(|r| r.explicit_max_ttl).or_less(body.explicit_max_ttl),
            ..TtlRules::default()
        };
        Ok(Self { rules, ttl: body.ttl })
    }
}

/// The policies that the token gets.
fn granted(
    asked: Vec<String>,
    no_default: bool,
    role: Option<&Role>,
    parent: &Parent,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, EngineError> {
    let no_default = no_default || role.is_some_and(|r| r.no_default_policy);
    let policies = match role.filter(|r| r.restricts()) {
        Some(role) => by_role(asked, !no_default, role, parent, warnings)?,
        None if asked.is_empty() => inherited(!no_default, parent, warnings),
        None => {
            // Nobody can give what he has not; `sudo` on this path is the right to.
            if !parent.sudo && !asked.iter().all(|p| parent.policies.contains(p)) {
                return Err(refused("child policies must be subset of parent"));
            }
            let default = !no_default && (parent.sudo || parent.policies.iter().any(|p| p == policy::DEFAULT_NAME));
            sanitized(asked, default)
        }
    };
    if policies.iter().any(|p| p == policy::ROOT_NAME) && !parent.is_root() {
        return Err(refused("root tokens may not be created without parent token being root"));
    }
    Ok(policies)
}

fn inherited(default: bool, parent: &Parent, warnings: &mut Vec<String>) -> Vec<String> {
    if parent.is_root() {
        warnings.push("\"root\" is not inherited; name it in policies to get it".to_owned());
        return sanitized([], default);
    }
    let default = default && (parent.is_boot || parent.policies.iter().any(|p| p == policy::DEFAULT_NAME));
    sanitized(parent.policies.iter().filter(|p| default || *p != policy::DEFAULT_NAME).cloned(), default)
}

fn by_role(
    asked: Vec<String>,
    default: bool,
    role: &Role,
    parent: &Parent,
    warnings: &mut Vec<String>,
) -> Result<Vec<String>, EngineError> {
    // Nobody asked for it: a role that forbids it is no reason to refuse.
    let default = default && !role.forbids(policy::DEFAULT_NAME);
    let has_allowed = !role.allowed_policies.is_empty() || !role.allowed_policies_glob.is_empty();
    let policies = match (asked.is_empty(), has_allowed) {
        (true, true) => sanitized(role.allowed_policies.iter().cloned(), default),
        (true, false) => inherited(default, parent, warnings),
        (false, _) => sanitized(asked, default),
    };
    let allowed = |p: &String| {
        role.allowed_policies.contains(p)
            || p == policy::DEFAULT_NAME
            || role.allowed_policies_glob.iter().any(|g| glob(g, p))
    };
    if has_allowed && !policies.iter().all(allowed) {
        let of_role = sanitized(role.allowed_policies.iter().cloned(), default);
        let (policies, of_role, globs) = (go(&policies), go(&of_role), go(&role.allowed_policies_glob));
        let told = format!(
            "token policies ({policies}) must be subset of the role's allowed policies ({of_role}) or glob policies ({globs})"
        );
        return Err(refused(told).recorded_as("a policy is not among those that the role allows"));
    }
    match policies.iter().find(|p| role.forbids(p)) {
        Some(name) => Err(refused(format!("token policy \"{name}\" is disallowed by this role"))
            .recorded_as("a policy is disallowed by the role")),
        None => Ok(policies),
    }
}

async fn aliased(
    engine: &TokenEngine,
    request: &Authorized<'_>,
    alias: &str,
    role: Option<&Role>,
    txn: &mut Txn,
) -> Result<String, EngineError> {
    let role = role.ok_or_else(|| refused("'entity_alias' is only allowed in combination with token role"))?;
    let name = alias.to_lowercase();
    if !role.allowed_entity_aliases.iter().any(|g| glob(g, &name)) {
        return Err(refused("invalid 'entity_alias' value"));
    }
    let mount = request.mount();
    let (mount_accessor, mount_kind, mount_path) = (&*mount.accessor, &*mount.kind, &*mount.path);
    let id = engine.services.resolve(&Alias { mount_accessor, mount_kind, mount_path, name: alias }, txn).await?;
    entity(engine, id, txn).await
}

async fn entity(engine: &TokenEngine, id: String, txn: &mut Txn) -> Result<String, EngineError> {
    match engine.services.entity(&id, txn).await? {
        Some(_) => Ok(id),
        None => Err(refused(format!("there is no entity {id}, or it is disabled"))),
    }
}

fn chosen(id: &str, parent: &Parent, warnings: &mut Vec<String>) -> Result<Token, EngineError> {
    if !parent.sudo {
        return Err(refused("root or sudo privileges required to specify token id"));
    }
    // Below 128 bits it can be found by trying.
    if id.len() < SHORT_CHOSEN_BYTES {
        warnings.push("a short token can be guessed; leave id out to get a random one".to_owned());
    }
    if id.starts_with("s.") {
        return Err(refused("custom token ID cannot have the 's.' prefix"));
    }
    if id.contains('.') {
        return Err(refused("custom token ID cannot have a '.' in the value"));
    }
    Token::parse(id).map_err(|e| refused(e.to_string()))
}

/// `token`, or `token-` and the name with what is neither letter, digit nor dash made a dash.
fn display_name(name: Option<&str>) -> String {
    let clean: String = name
        .unwrap_or_default()
        .chars()
        .take(MAX_DISPLAY_NAME)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .collect();
    let clean = clean.trim_end_matches('-');
    if clean.is_empty() { "token".to_owned() } else { format!("token-{clean}") }
}

/// A list as Go prints it, which Vault's clients know: `["a" "b"]`.
fn go(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn refused(told: impl Into<Cow<'static, str>>) -> EngineError {
    EngineError::bad_request(told)
}

/// 22 characters of base64 carry 128 bits.
const SHORT_CHOSEN_BYTES: usize = 22;
const MAX_DISPLAY_NAME: usize = 128;
