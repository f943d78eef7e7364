//! From text to rules.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{Capability, Ttl};

use crate::hcl::{self, Item, Value};
use crate::pattern::Pattern;
use crate::rule::{ParameterValues, Rule, RulePath, Terms};
use crate::template::Template;
use crate::{Capabilities, PolicyError, ROOT_NAME};

/// Longest text of a policy: EdgeX's longest has 3 KiB.
pub const MAX_POLICY_BYTES: usize = 128 * 1024;

/// A parsed policy.
#[derive(Clone, Debug)]
pub struct Policy {
    name: Arc<str>,
    rules: Vec<Rule>,
    root: bool,
}

impl Policy {
    /// Parses HCL 1 or JSON. The name is the caller's affair; a `name` in the text is only a comment, as in Vault.
    ///
    /// # Errors
    /// [`PolicyError`] for the first fault. Nothing of a faulty text takes effect.
    pub fn parse(name: &str, text: &str) -> Result<Self, PolicyError> {
        if text.is_empty() {
            return Err(PolicyError::Empty);
        }
        if text.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLong { bytes: text.len() });
        }
        let items = hcl::document(text).map_err(|e| PolicyError::Syntax { line: e.line, problem: e.problem })?;
        let mut rules = Vec::new();
        for item in &items {
            match item.keys.first().map(String::as_str) {
                Some("path") => read_paths(item, &mut rules)?,
                Some("name") if item.keys.len() == 1 => {}
                key => {
                    return Err(PolicyError::InvalidTopKey {
                        key: key.unwrap_or_default().to_owned(),
                        line: item.line,
                    });
                }
            }
        }
        Ok(Self { name: name.into(), rules, root: false })
    }

    /// The policy that allows everything. It must stand alone.
    pub fn root() -> Self {
        Self { name: ROOT_NAME.into(), rules: Vec::new(), root: true }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it allows everything. No text does: only [`Policy::root`], whatever a parsed policy is called.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// Whether some path depends on who asks, so that what was merged for one caller serves no other.
    pub fn is_templated(&self) -> bool {
        self.rules.iter().any(|r| matches!(r.path, RulePath::Templated(_)))
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// `path "x" {...}`; in JSON `"path": {"x": {...}}`, or a list of such objects.
fn read_paths(item: &Item, rules: &mut Vec<Rule>) -> Result<(), PolicyError> {
    let no_path = || PolicyError::NoPath { line: item.line };
    match (item.keys.as_slice(), &item.value) {
        ([_, path], Value::Object(block)) => rules.push(read_block(path, block)?),
        ([_], Value::Object(blocks)) => read_json_blocks(blocks, rules).ok_or_else(no_path)??,
        ([_], Value::List(list)) => {
            for object in list {
                let Value::Object(blocks) = object else { return Err(no_path()) };
                read_json_blocks(blocks, rules).ok_or_else(no_path)??;
            }
        }
        _ => return Err(no_path()),
    }
    Ok(())
}

/// `None` where the entries are no blocks with a path.
fn read_json_blocks(blocks: &[Item], rules: &mut Vec<Rule>) -> Option<Result<(), PolicyError>> {
    for entry in blocks {
        let ([path], Value::Object(block)) = (entry.keys.as_slice(), &entry.value) else { return None };
        match read_block(path, block) {
            Ok(rule) => rules.push(rule),
            Err(e) => return Some(Err(e)),
        }
    }
    Some(Ok(()))
}

fn read_block(path: &str, block: &[Item]) -> Result<Rule, PolicyError> {
    let mut terms = Terms::default();
    let mut seen = BTreeSet::new();
    for item in block {
        let [key] = item.keys.as_slice() else {
            let key = item.keys.join(" ");
            return Err(PolicyError::InvalidKey { path: path.to_owned(), key, line: item.line });
        };
        let field = Field { path, key, line: item.line, value: &item.value };
        if !seen.insert(key.as_str()) {
            return Err(PolicyError::RepeatedKey { path: path.to_owned(), key: key.clone(), line: item.line });
        }
        match key.as_str() {
            "comment" => {
                field.text()?;
            }
            "policy" => terms.capabilities = terms.capabilities.union(field.old_policy()?),
            "capabilities" => terms.capabilities = terms.capabilities.union(field.capabilities()?),
            "min_wrapping_ttl" => terms.min_wrapping = field.ttl()?,
            "max_wrapping_ttl" => terms.max_wrapping = field.ttl()?,
            "allowed_parameters" => terms.allowed = field.parameter_values()?,
            "denied_parameters" => terms.denied = field.parameter_values()?,
            "required_parameters" => terms.required = field.texts()?.iter().map(|t| t.to_lowercase()).collect(),
            key if NOT_ENFORCED.contains(&key) => {
                return Err(PolicyError::NotEnforced { path: path.to_owned(), key: key.to_owned(), line: item.line });
            }
            key => return Err(PolicyError::InvalidKey { path: path.to_owned(), key: key.to_owned(), line: item.line }),
        }
    }
    if !terms.min_wrapping.is_zero() && !terms.max_wrapping.is_zero() && terms.max_wrapping < terms.min_wrapping {
        return Err(PolicyError::WrappingBounds { path: path.to_owned() });
    }
    if terms.capabilities.is_deny() {
        terms = Terms::deny();
    }
    Ok(Rule { path: read_path(path)?, terms })
}

fn read_path(written: &str) -> Result<RulePath, PolicyError> {
    let path = written.strip_prefix('/').unwrap_or(written);
    let pattern = Pattern::parse(path).ok_or_else(|| PolicyError::Wildcards { path: written.to_owned() })?;
    Ok(match Template::parse(path)? {
        Some(template) => RulePath::Templated(template),
        None => RulePath::Fixed(pattern),
    })
}

/// One key of a path block, with what its errors name.
struct Field<'a> {
    path: &'a str,
    key: &'a str,
    line: u32,
    value: &'a Value,
}

impl Field<'_> {
    fn wrong_kind(&self, wanted: &'static str) -> PolicyError {
        PolicyError::WrongKind { path: self.path.to_owned(), key: self.key.to_owned(), line: self.line, wanted }
    }

    fn text(&self) -> Result<&str, PolicyError> {
        match self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.wrong_kind("a text in quotes")),
        }
    }

    fn texts(&self) -> Result<Vec<&str>, PolicyError> {
        let wrong = || self.wrong_kind("a list of texts");
        let Value::List(list) = self.value else { return Err(wrong()) };
        list.iter().map(|v| if let Value::Text(text) = v { Ok(text.as_str()) } else { Err(wrong()) }).collect()
    }

    fn capabilities(&self) -> Result<Capabilities, PolicyError> {
        let mut set = Capabilities::NONE;
        for word in self.texts()? {
            set = match word {
                "deny" => Capabilities::DENY,
                // An operation of OpenBao that this store does not have: it grants nothing.
                "scan" => set,
                word => set.with(capability(word).ok_or_else(|| PolicyError::InvalidCapability {
                    path: self.path.to_owned(),
                    capability: word.to_owned(),
                    line: self.line,
                })?),
            };
        }
        Ok(set)
    }

    /// The notation before capabilities.
    fn old_policy(&self) -> Result<Capabilities, PolicyError> {
        use Capability::{Create, Delete, List, Read, Sudo, Update};
        let words: &[Capability] = match self.text()? {
            "deny" => return Ok(Capabilities::DENY),
            "read" => &[Read, List],
            "write" => &[Create, Read, Update, Delete, List],
            "sudo" => &[Create, Read, Update, Delete, List, Sudo],
            word => {
                let (path, word) = (self.path.to_owned(), word.to_owned());
                return Err(PolicyError::InvalidOldPolicy { path, word, line: self.line });
            }
        };
        Ok(words.iter().fold(Capabilities::NONE, |set, c| set.with(*c)))
    }

    fn ttl(&self) -> Result<Ttl, PolicyError> {
        let text = match self.value {
            Value::Text(text) => text.as_str(),
            Value::Number(text) => text.as_str(),
            _ => return Err(self.wrong_kind("a duration")),
        };
        Ttl::parse(text).map_err(|cause| PolicyError::Duration {
            path: self.path.to_owned(),
            key: self.key.to_owned(),
            cause,
        })
    }

    fn parameter_values(&self) -> Result<ParameterValues, PolicyError> {
        let wrong = || self.wrong_kind("an object of lists, such as { \"ttl\" = [\"1h\"] }");
        let Value::Object(items) = self.value else { return Err(wrong()) };
        let mut all = ParameterValues::new();
        for item in items {
            let ([name], Value::List(values)) = (item.keys.as_slice(), &item.value) else { return Err(wrong()) };
            if all.insert(name.to_lowercase(), values.clone()).is_some() {
                let (path, key) = (self.path.to_owned(), name.clone());
                return Err(PolicyError::RepeatedKey { path, key, line: item.line });
            }
        }
        Ok(all)
    }
}

fn capability(word: &str) -> Option<Capability> {
    Some(match word {
        "create" => Capability::Create,
        "read" => Capability::Read,
        "update" => Capability::Update,
        "patch" => Capability::Patch,
        "delete" => Capability::Delete,
        "list" => Capability::List,
        "sudo" => Capability::Sudo,
        _ => return None,
    })
}

/// Keys that other products know and that restrict what a block grants.
const NOT_ENFORCED: [&str; 5] =
    ["control_group", "expiration", "list_scan_response_keys_filter_path", "mfa_methods", "pagination_limit"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Compiled, Identity};

    fn refusal(text: &str) -> String {
        Policy::parse("t", text).map(|_| ()).unwrap_err().to_string()
    }

    fn capabilities(text: &str, path: &str) -> Vec<&'static str> {
        let policy = Policy::parse("t", text).unwrap_or_else(|e| panic!("{text}: {e}"));
        Compiled::merge([&policy], &Identity::default()).unwrap().capabilities(path)
    }

    #[test]
    fn hcl_and_both_json_forms_say_the_same() {
        for text in [
            r#"path "a/*" { capabilities = ["read", "list"] }"#,
            r#"path = { "a/*" { capabilities = ["read", "list"] } }"#,
            r#" {"path": {"a/*": {"capabilities": ["read", "list"]}}}"#,
            r#"{"name": "x", "path": [{"b": {"policy": "deny"}}, {"a/*": {"comment": "c", "policy": "read"}}]}"#,
        ] {
            assert_eq!(capabilities(text, "a/b"), ["list", "read"], "{text}");
        }
    }

    #[test]
    fn the_old_words_grant_what_they_did() {
        for (word, granted) in [
            ("deny", &["deny"][..]),
            ("read", &["list", "read"]),
            ("write", &["create", "delete", "list", "read", "update"]),
            ("sudo", &["create", "delete", "list", "read", "sudo", "update"]),
        ] {
            assert_eq!(capabilities(&format!("path \"a\" {{ policy = {word:?} }}"), "a"), granted);
        }
        assert_eq!(
            capabilities(r#"path "a" { policy = "read" capabilities = ["patch"] }"#, "a"),
            ["list", "patch", "read"]
        );
        assert_eq!(capabilities(r#"path "a" { capabilities = ["scan"] }"#, "a"), ["deny"]);
    }

    #[test]
    fn a_text_without_rules_is_a_policy_that_grants_nothing() {
        for text in [" ", "# only words", "{}", "name = \"x\"", "path \"a\" {}"] {
            assert_eq!(capabilities(text, "a"), ["deny"], "{text}");
        }
    }

    #[test]
    fn refusals_are_worded_as_clients_know_them_and_name_the_line() {
        for (text, says) in [
            ("", "'policy' parameter not supplied or empty"),
            ("path \"x\" {\n bogus = 1 }", "path \"x\": invalid key \"bogus\" on line 2"),
            ("\npth \"x\" {}", "invalid key \"pth\" on line 2"),
            ("path \"x\" { capabilities = [\"fly\"] }", "path \"x\": invalid capability \"fly\" on line 1"),
            ("path \"x\" { capabilities = [\"deny\", \"fly\"] }", "path \"x\": invalid capability \"fly\" on line 1"),
            ("path \"x\" { capabilities = [\"READ\"] }", "path \"x\": invalid capability \"READ\" on line 1"),
            ("path \"x\" { policy = \"w\" }", "path \"x\": invalid policy \"w\" on line 1"),
            ("path \"x\" { capabilities = \"read\" }", "path \"x\": capabilities on line 1 must be a list of texts"),
            ("path \"/x+*\" {}", "path \"/x+*\": invalid use of wildcards ('+*' is forbidden)"),
            (
                "path \"x\" { min_wrapping_ttl = \"2h\" max_wrapping_ttl = \"1h\" }",
                "path \"x\": max_wrapping_ttl cannot be less than min_wrapping_ttl",
            ),
            (
                "path \"x\" { min_wrapping_ttl = \"zz\" }",
                "path \"x\": error parsing min_wrapping_ttl: \"zz\" is not a duration; write seconds (3600) or units (1h, 90m, 7d)",
            ),
            (
                "path \"x\" { capabilities = [\"read\"]\ncapabilities = [\"list\"] }",
                "path \"x\": key \"capabilities\" again on line 2; write it once",
            ),
            (
                "path \"x\" { denied_parameters = { a = [1], A = [2] } }",
                "path \"x\": key \"A\" again on line 1; write it once",
            ),
            (
                "path \"x\" { allowed_parameters = { a = \"b\" } }",
                "path \"x\": allowed_parameters on line 1 must be an object of lists, such as { \"ttl\" = [\"1h\"] }",
            ),
            (
                "path \"x\" { control_group = {} }",
                "path \"x\": \"control_group\" on line 1 is a restriction that this store does not enforce; leave it out",
            ),
            (
                "path { capabilities = [\"read\"] }",
                "a path block without a path on line 1; write path \"secret/...\" { ... }",
            ),
            ("{\"path\": {\"x\": 1}}", "a path block without a path on line 1; write path \"secret/...\" { ... }"),
            (
                "path \"{{identity.entity.id\" {}",
                "path \"{{identity.entity.id\": failed to validate policy templating: unbalanced templating characters",
            ),
            ("path \"x\" {", "expected '}', and the text ends on line 1"),
        ] {
            assert_eq!(refusal(text), says, "{text}");
        }
    }

    #[test]
    fn every_restriction_that_is_not_enforced_is_refused() {
        for key in NOT_ENFORCED {
            let text = format!("path \"x\" {{ capabilities = [\"read\"] {key} = \"1\" }}");
            assert!(matches!(Policy::parse("t", &text), Err(PolicyError::NotEnforced { .. })), "{key}");
        }
    }

    #[test]
    fn one_byte_over_the_limit_is_refused() {
        let text = |n: usize| "#".repeat(n);
        assert!(Policy::parse("t", &text(MAX_POLICY_BYTES)).is_ok());
        let bytes = MAX_POLICY_BYTES + 1;
        assert_eq!(Policy::parse("t", &text(bytes)).map(|_| ()).unwrap_err(), PolicyError::TooLong { bytes });
    }
}
