//! `roles/<name>`: what tokens may be made for whom.

use api::{Reply, Ttl};
use pipeline::{Authorized, EngineError, Outcome, Txn};
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::glob::glob;
use crate::input::Input;
use crate::listing::listed;

/// A role as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Role {
    pub(super) allowed_policies: Vec<String>,
    pub(super) allowed_policies_glob: Vec<String>,
    pub(super) disallowed_policies: Vec<String>,
    pub(super) disallowed_policies_glob: Vec<String>,
    pub(super) allowed_entity_aliases: Vec<String>,
    pub(super) orphan: bool,
    pub(super) renewable: bool,
    pub(super) no_default_policy: bool,
    pub(super) path_suffix: String,
    /// Seconds.
    pub(super) period: u64,
    /// Seconds.
    pub(super) explicit_max_ttl: u64,
    pub(super) num_uses: u64,
}

impl Default for Role {
    fn default() -> Self {
        Self {
            allowed_policies: Vec::new(),
            allowed_policies_glob: Vec::new(),
            disallowed_policies: Vec::new(),
            disallowed_policies_glob: Vec::new(),
            allowed_entity_aliases: Vec::new(),
            orphan: false,
            renewable: true,
            no_default_policy: false,
            path_suffix: String::new(),
            period: 0,
            explicit_max_ttl: 0,
            num_uses: 0,
        }
    }
}

impl Role {
    /// Whether it forbids the policy.
    pub(super) fn forbids(&self, policy: &str) -> bool {
        self.disallowed_policies.iter().any(|p| p == policy)
            || self.disallowed_policies_glob.iter().any(|g| glob(g, policy))
    }

    /// Whether it says anything about policies.
    pub(super) fn restricts(&self) -> bool {
        [&self.allowed_policies, &self.allowed_policies_glob, &self.disallowed_policies, &self.disallowed_policies_glob]
            .iter()
            .any(|list| !list.is_empty())
    }
}

pub(super) async fn list(txn: &mut Txn) -> Result<Outcome, EngineError> {
    Ok(listed(txn.list("roles").await?)?.into())
}

pub(super) async fn find(name: &str, txn: &mut Txn) -> Result<Option<Role>, EngineError> {
    let Some(bytes) = txn.get(&place(name)).await? else { return Ok(None) };
    serde_json::from_slice(bytes.expose())
        .map(Some)
        .map_err(|e| EngineError::internal(format!("a token role cannot be read: {e}")))
}

pub(super) async fn read(name: &str, txn: &mut Txn) -> Result<Outcome, EngineError> {
    let role = find(name, txn).await?.ok_or_else(EngineError::absent)?;
    let aliases = (!role.allowed_entity_aliases.is_empty()).then_some(&role.allowed_entity_aliases);
    Ok(Reply::data(&json!({
        "allowed_entity_aliases": aliases,
        "allowed_policies": role.allowed_policies,
        "allowed_policies_glob": role.allowed_policies_glob,
        "disallowed_policies": role.disallowed_policies,
        "disallowed_policies_glob": role.disallowed_policies_glob,
        "explicit_max_ttl": role.explicit_max_ttl,
        "name": name,
        "orphan": role.orphan,
        "path_suffix": role.path_suffix,
        "period": role.period,
        "renewable": role.renewable,
        "token_explicit_max_ttl": role.explicit_max_ttl,
        "token_no_default_policy": role.no_default_policy,
        "token_num_uses": role.num_uses,
        "token_period": role.period,
        "token_type": "default-service",
    }))
    .into())
}

pub(super) async fn write(request: &Authorized<'_>, name: &str, txn: &mut Txn) -> Result<Outcome, EngineError> {
    let input = Input::of(request.body())?;
    let mut role = find(name, txn).await?.unwrap_or_default();
    if let Some(kind) = input.text("token_type")?.filter(|k| !SERVICE.contains(&k.as_str())) {
        return Err(EngineError::bad_request(format!("token_type {kind:?} is not supported; only \"service\" is"))
            .recorded_as("only tokens of type service are supported"));
    }
    // Kept as if it were enforced, an address bound would be a promise that nobody keeps.
    for field in ["token_bound_cidrs", "bound_cidrs"] {
        if input.list(field)?.is_some_and(|cidrs| !cidrs.is_empty()) {
            return Err(EngineError::bad_request(format!("{field} is not supported")));
        }
    }
    if let Some(suffix) = input.text("path_suffix")? {
        if !suffix.is_empty() && !is_suffix(&suffix) {
            let told = "given role path suffix contains invalid characters; must match \\w[\\w-.]+\\w";
            return Err(EngineError::bad_request(told));
        }
        role.path_suffix = suffix;
    }
    let lists = [
        ("allowed_policies", &mut role.allowed_policies),
        ("allowed_policies_glob", &mut role.allowed_policies_glob),
        ("disallowed_policies", &mut role.disallowed_policies),
        ("disallowed_policies_glob", &mut role.disallowed_policies_glob),
        ("allowed_entity_aliases", &mut role.allowed_entity_aliases),
    ];
    for (field, names) in lists {
        if let Some(given) = input.list(field)? {
            *names = given.into_iter().map(|n| n.to_lowercase()).collect();
            names.sort();
            names.dedup();
        }
    }
    let period = input.ttl("token_period")?.or(input.ttl("period")?);
    let explicit = input.ttl("token_explicit_max_ttl")?.or(input.ttl("explicit_max_ttl")?);
    role.period = period.map_or(role.period, Ttl::as_seconds);
    role.explicit_max_ttl = explicit.map_or(role.explicit_max_ttl, Ttl::as_seconds);
    role.orphan = input.flag("orphan")?.unwrap_or(role.orphan);
    role.renewable = input.flag("renewable")?.unwrap_or(role.renewable);
    role.no_default_policy = input.flag("token_no_default_policy")?.unwrap_or(role.no_default_policy);
    role.num_uses = input.number("token_num_uses")?.unwrap_or(role.num_uses);
    let bytes = serde_json::to_vec(&role).expect("a role of strings and numbers is JSON");
    txn.put(&place(name), SecretBytes::new(bytes))?;
    Ok(Reply::no_content().into())
}

pub(super) fn delete(name: &str, txn: &mut Txn) -> Result<Outcome, EngineError> {
    txn.delete(&place(name))?;
    Ok(Reply::no_content().into())
}

fn place(name: &str) -> String {
    format!("roles/{name}")
}

fn is_suffix(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() >= 3
        && text.len() <= 128
        && text.chars().all(|c| word(c) || c == '-' || c == '.')
        && text.starts_with(word)
        && text.ends_with(word)
}

const SERVICE: [&str; 3] = ["", "service", "default-service"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_suffix_cannot_leave_its_place() {
        assert!(is_suffix("suf"));
        for bad in ["a/../b", "..", ".ab", "ab.", "a b", ""] {
            assert!(!is_suffix(bad), "{bad}");
        }
    }
}
