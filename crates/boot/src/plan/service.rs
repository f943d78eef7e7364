//! A service: what it may do, how long its token lives, and who may read the file.

use std::collections::BTreeMap;

use api::Ttl;
use host::Owner;
use serde_json::{Map, Value, json};

use super::ServiceName;

/// One service.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Its name.
    pub name: ServiceName,
    /// What it may do.
    pub policy: PolicyPlan,
    /// Its token.
    pub token: TokenPlan,
    /// Its JSON Web Tokens.
    pub jwt: JwtPlan,
    /// Owner of the token's directory and file; `None` is the user that edgekeep runs as.
    pub owner: Option<Owner>,
    /// Mode of the token's file.
    pub mode: FileMode,
}

impl ServicePlan {
    /// A service with EdgeX's defaults.
    pub fn usual(name: ServiceName) -> Self {
        Self {
            name,
            policy: PolicyPlan { defaults: true, custom: BTreeMap::new() },
            token: TokenPlan::default(),
            jwt: JwtPlan::default(),
            owner: None,
            mode: FileMode::default(),
        }
    }

    /// `edgex-service-<service>`, the name that EdgeX gives the policy.
    pub fn policy_name(&self) -> String {
        format!("edgex-service-{}", self.name)
    }

    /// The policy's text, in the JSON form of the policy language; keys sorted, so equal plans give equal texts.
    pub fn policy_text(&self) -> String {
        let mut paths: BTreeMap<String, Value> = BTreeMap::new();
        if self.policy.defaults {
            let name = &self.name;
            let mut rule = |path: String, capabilities: &[&str]| {
                paths.insert(path, json!({ "capabilities": capabilities }));
            };
            rule(format!("secret/edgex/{name}/*"), &["create", "update", "delete", "list", "read"]);
            rule(format!("identity/oidc/token/{name}"), &["read"]);
            rule("identity/oidc/introspect".into(), &["create", "update"]);
        }
        // Replaced key by key, not united: EdgeX's rule, and the only one with which a custom policy can take away.
        for (path, rule) in &self.policy.custom {
            paths.insert(path.clone(), Value::Object(rule.0.clone()));
        }
        json!({ "path": paths }).to_string()
    }
}

/// What a service may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyPlan {
    /// EdgeX's default policy: its own secrets, its own JWT, introspection.
    pub defaults: bool,
    /// Rules by path; each replaces the default rule of the same path.
    pub custom: BTreeMap<String, PathRule>,
}

/// The rule of one path, in the JSON form of the policy language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule(Map<String, Value>);

impl PathRule {
    /// Takes a rule as EdgeX's `custom_policy` has it.
    ///
    /// # Errors
    /// [`PathRuleError`]: no object, or `capabilities` missing, empty or unknown. Parameters are left to the store's own check.
    pub fn parse(value: &Value) -> Result<Self, PathRuleError> {
        let rule = value.as_object().ok_or(PathRuleError::NoObject)?;
        let list = rule.get("capabilities").and_then(Value::as_array).ok_or(PathRuleError::NoCapabilities)?;
        if list.is_empty() {
            return Err(PathRuleError::NoCapabilities);
        }
        for item in list {
            let known = item.as_str().is_some_and(|c| CAPABILITIES.contains(&c));
            if !known {
                return Err(PathRuleError::Unknown { capability: item.to_string().chars().take(64).collect() });
            }
        }
        Ok(Self(rule.clone()))
    }

    /// The capabilities, as they were written.
    pub fn capabilities(&self) -> Vec<&str> {
        let list = self.0.get("capabilities").and_then(Value::as_array);
        list.map(|l| l.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
    }
}

const CAPABILITIES: [&str; 8] = ["create", "read", "update", "patch", "delete", "list", "sudo", "deny"];

/// Why a rule is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRuleError {
    /// Not an object.
    #[error("the rule is no JSON object")]
    NoObject,
    /// Without capabilities it would grant nothing.
    #[error("the rule has no list \"capabilities\"")]
    NoCapabilities,
    /// A word that no policy knows.
    #[error("unknown capability {capability}; known are create, read, update, patch, delete, list, sudo, deny")]
    Unknown {
        /// The word.
        capability: String,
    },
}

/// How long a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPlan {
    /// Its period: each renewal gives that much again, without end.
    pub period: Ttl,
}

impl Default for TokenPlan {
    fn default() -> Self {
        Self { period: Ttl::seconds(3600) }
    }
}

/// How long a JSON Web Token of the service lives, and for whom it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtPlan {
    /// Its life.
    pub ttl: Ttl,
    /// Its audience (`aud`, and the role's `client_id`).
    pub audience: String,
}

impl Default for JwtPlan {
    fn default() -> Self {
        Self { ttl: Ttl::seconds(900), audience: "edgex".into() }
    }
}

/// Permission bits of a token's file: at least its owner may read, nobody may execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// From a number such as `0o600`.
    ///
    /// # Errors
    /// [`FileModeError`] for execute, set-id or sticky bits, for a file its owner cannot read, and for one that others
    /// can write.
    pub fn new(mode: u32) -> Result<Self, FileModeError> {
        if mode & !0o666 != 0 {
            return Err(FileModeError::Bits { mode });
        }
        if mode & 0o400 == 0 {
            return Err(FileModeError::Unreadable { mode });
        }
        if mode & 0o022 != 0 {
            return Err(FileModeError::Writable { mode });
        }
        Ok(Self(mode))
    }

    /// From octal text such as `"0600"`.
    ///
    /// # Errors
    /// As [`FileMode::new`], and for text that is not octal.
    pub fn parse(text: &str) -> Result<Self, FileModeError> {
        let digits = text.strip_prefix("0o").unwrap_or(text);
        let octal = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
        if !octal {
            return Err(FileModeError::NotOctal { text: text.chars().take(32).collect() });
        }
        let mode = u32::from_str_radix(digits, 8).expect("five octal digits fit 32 bits");
        Self::new(mode)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether users beside owner and group can read: needs `danger_readable_tokens`.
    pub fn is_readable_by_all(self) -> bool {
        self.0 & 0o004 != 0
    }
}

impl Default for FileMode {
    fn default() -> Self {
        Self(0o400)
    }
}

/// Why a mode is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileModeError {
    /// No number in base 8.
    #[error("{text:?} is no file mode; write it in octal, such as \"0400\"")]
    NotOctal {
        /// What was written.
        text: String,
    },
    /// Execute, set-id or sticky.
    #[error("mode {mode:04o} has bits that a token file must not have")]
    Bits {
        /// The mode.
        mode: u32,
    },
    /// The service could not read its own token.
    #[error("mode {mode:04o} does not let the owner read")]
    Unreadable {
        /// The mode.
        mode: u32,
    },
    /// Somebody else could put another token there.
    #[error("mode {mode:04o} lets others write")]
    Writable {
        /// The mode.
        mode: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServicePlan {
        ServicePlan::usual("core-data".parse().unwrap())
    }

    #[test]
    fn the_default_policy_is_edgexs() {
        assert_eq!(
            service().policy_text(),
            concat!(
                r#"{"path":{"identity/oidc/introspect":{"capabilities":["create","update"]},"#,
                r#""identity/oidc/token/core-data":{"capabilities":["read"]},"#,
                r#""secret/edgex/core-data/*":{"capabilities":["create","update","delete","list","read"]}}}"#
            )
        );
    }

    #[test]
    fn a_custom_rule_replaces_the_default_of_its_path() {
        let mut s = service();
        let rule = PathRule::parse(&json!({"capabilities": ["read"]})).unwrap();
        s.policy.custom.insert("secret/edgex/core-data/*".into(), rule);
        let text: Value = serde_json::from_str(&s.policy_text()).unwrap();
        assert_eq!(text["path"]["secret/edgex/core-data/*"]["capabilities"], json!(["read"]));
        assert_eq!(text["path"].as_object().unwrap().len(), 3);
    }

    #[test]
    fn a_rule_must_say_what_it_grants() {
        assert_eq!(PathRule::parse(&json!([])), Err(PathRuleError::NoObject));
        assert_eq!(PathRule::parse(&json!({"capabilities": []})), Err(PathRuleError::NoCapabilities));
        assert!(matches!(PathRule::parse(&json!({"capabilities": ["reed"]})), Err(PathRuleError::Unknown { .. })));
    }

    #[test]
    fn modes_that_give_the_token_away_are_refused() {
        assert_eq!(FileMode::parse("0600").unwrap().bits(), 0o600);
        assert_eq!(FileMode::parse("0o440").unwrap().bits(), 0o440);
        assert!(FileMode::parse("0444").unwrap().is_readable_by_all());
        assert!(matches!(FileMode::parse("0666"), Err(FileModeError::Writable { .. })));
        assert!(matches!(FileMode::parse("7777"), Err(FileModeError::Bits { .. })));
        assert!(matches!(FileMode::parse("0700"), Err(FileModeError::Bits { .. })));
        assert!(matches!(FileMode::parse("0040"), Err(FileModeError::Unreadable { .. })));
        for bad in ["", "rw", "0o", "8", "-1", "777777"] {
            assert!(matches!(FileMode::parse(bad), Err(FileModeError::NotOctal { .. })), "{bad}");
        }
    }
}
