//! The policies of one caller, merged and ready to decide.
//!
//! Three stores, searched in this order:
//!
//! 1. `exact`: the path itself; for a list also the path without its slash;
//! 2. `prefixes` and `segments` together: the longest prefix and every fitting `+` pattern, the closest of which decides; for a
//!    list once more without the slash.
//!
//! All three are sorted when they are built, so that a decision searches and allocates nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Capability;

use crate::pattern::{Pattern, Rank, Segments};
use crate::rule::{Compound, RulePath};
use crate::{Action, Denied, DeniedWhy, Granted, Identity, Policy, Query, ROOT_NAME, parameters};

/// Merged policies.
#[derive(Debug)]
pub struct Compiled {
    root: bool,
    exact: Vec<(Box<str>, Arc<Compound>)>,
    prefixes: Vec<Prefix>,
    /// The closest first.
    segments: Vec<(Segments, Arc<Compound>)>,
}

/// A prefix rule. The rules are sorted by text, so the prefixes of a rule stand before it.
#[derive(Debug)]
struct Prefix {
    text: Box<str>,
    /// Index of the longest other rule that is a prefix of this one.
    parent: Option<usize>,
    rule: Arc<Compound>,
}

/// Policies that cannot stand together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// `root` and others: a token with both was made by a mistake, and which of them was meant cannot be told.
    #[error("other policies present along with root")]
    RootNotAlone,
}

impl Compiled {
    /// Merges policies for a caller. Templated rules that `identity` cannot fill in are left out.
    ///
    /// # Errors
    /// [`MergeError`] when `root` is not alone.
    pub fn merge<'a>(policies: impl IntoIterator<Item = &'a Policy>, identity: &Identity) -> Result<Self, MergeError> {
        let mut rules: BTreeMap<Pattern, Compound> = BTreeMap::new();
        let (mut root, mut count) = (false, 0_usize);
        for policy in policies {
            count += 1;
            root |= policy.is_root();
            for rule in policy.rules() {
                let filled = match &rule.path {
                    RulePath::Fixed(pattern) => Some(pattern.clone()),
                    RulePath::Templated(template) => template.fill(identity).as_deref().and_then(Pattern::parse),
                };
                let Some(pattern) = filled else { continue };
                match rules.get_mut(&pattern) {
                    Some(there) => there.join(policy.shared_name(), &rule.terms),
                    None => {
                        let compound = Compound::new(&pattern, policy.shared_name(), &rule.terms);
                        rules.insert(pattern, compound);
                    }
                }
            }
        }
        if root && count > 1 {
            return Err(MergeError::RootNotAlone);
        }
        Ok(Self::of_rules(root, rules))
    }

    fn of_rules(root: bool, rules: BTreeMap<Pattern, Compound>) -> Self {
        let mut compiled = Self { root, exact: Vec::new(), prefixes: Vec::new(), segments: Vec::new() };
        // The map hands them out sorted, each kind by its text.
        for (pattern, rule) in rules {
            let rule = Arc::new(rule);
            match pattern {
                Pattern::Exact(text) => compiled.exact.push((text.into(), rule)),
                Pattern::Prefix(text) => {
                    let parent = compiled.longest_prefix(&text);
                    compiled.prefixes.push(Prefix { text: text.into(), parent, rule });
                }
                Pattern::Segments(segments) => compiled.segments.push((segments, rule)),
            }
        }
        compiled.segments.sort_by(|(a, _), (b, _)| Rank::closest_first(&a.rank(), &b.rank()));
        compiled
    }

    /// Whether these are the root policy.
    pub fn is_root(&self) -> bool {
        self.root
    }

    /// Decides a request.
    ///
    /// # Errors
    /// [`Denied`] with the reason for the log.
    pub fn decide(&self, query: &Query<'_>) -> Result<Granted, Denied> {
        if self.root {
            return Ok(Granted::by_root(query.action));
        }
        let rule = self.deciding(query.path, query.action == Action::List).ok_or_else(Denied::no_rule)?;
        let denied = |why| Err(Denied::by(rule, why));
        let capabilities = rule.capabilities();
        if capabilities.is_deny() {
            return denied(DeniedWhy::DenyRule);
        }
        let wanted = query.action.capability();
        if !capabilities.contains(wanted) {
            return denied(DeniedWhy::Lacks(wanted));
        }
        if query.sudo_needed && !capabilities.contains(Capability::Sudo) {
            return denied(DeniedWhy::LacksSudo);
        }
        let terms = rule.terms();
        if !parameters::wrapping_fits(terms, query.wrap_ttl) {
            return denied(DeniedWhy::Wrapping);
        }
        match parameters::check(terms, query) {
            Ok(()) => Ok(Granted::by_rule(rule, query.action)),
            Err(why) => denied(why),
        }
    }

    /// What the caller may do with a path, in alphabetical order: `["root"]`, `["deny"]`, or capabilities.
    ///
    /// A path is looked up as for a list, so that a folder's capabilities are found with and without its slash.
    pub fn capabilities(&self, path: &str) -> Vec<&'static str> {
        if self.root {
            return vec![ROOT_NAME];
        }
        self.deciding(path, true).map_or_else(|| vec!["deny"], |rule| rule.capabilities().names())
    }

    /// Whether some rule grants anything at or below `folder` (which ends in `/`): whether the caller may know that it
    /// is there.
    pub fn reaches(&self, folder: &str) -> bool {
        let meets = |fixed: &str| fixed.starts_with(folder) || folder.starts_with(fixed);
        let grants = |rule: &Compound| !rule.capabilities().is_deny();
        self.root
            || self.exact.iter().any(|(text, rule)| text.starts_with(folder) && grants(rule))
            || self.prefixes.iter().any(|p| meets(&p.text) && grants(&p.rule))
            || self.segments.iter().any(|(s, rule)| meets(s.fixed()) && grants(rule))
    }

    /// The one rule that decides about `path`.
    fn deciding(&self, path: &str, list: bool) -> Option<&Arc<Compound>> {
        let path = path.trim_start_matches('/');
        let folderless = path.strip_suffix('/').filter(|_| list);
        self.exact(path)
            .or_else(|| self.exact(folderless?))
            .or_else(|| self.closest(path))
            .or_else(|| self.closest(folderless?))
    }

    fn exact(&self, path: &str) -> Option<&Arc<Compound>> {
        let at = self.exact.binary_search_by(|(text, _)| (**text).cmp(path)).ok()?;
        self.exact.get(at).map(|(_, rule)| rule)
    }

    fn closest(&self, path: &str) -> Option<&Arc<Compound>> {
        let prefix = self.longest_prefix(path).and_then(|at| self.prefixes.get(at));
        // Sorted: the first that fits is the closest of its kind.
        let segments = self.segments.iter().find(|(s, _)| s.fits(path));
        match (prefix, segments) {
            (Some(p), Some((s, rule))) => Some(if Rank::of_prefix(&p.text) > s.rank() { &p.rule } else { rule }),
            (Some(p), None) => Some(&p.rule),
            (None, Some((_, rule))) => Some(rule),
            (None, None) => None,
        }
    }

    /// Index of the longest prefix rule that `path` begins with.
    ///
    /// Whatever sorts between a prefix of `path` and `path` itself begins with that prefix too. So the greatest rule up
    /// to `path`, its parent, that one's parent ... are all the candidates there are, longest first.
    fn longest_prefix(&self, path: &str) -> Option<usize> {
        let mut at = self.prefixes.partition_point(|p| *p.text <= *path).checked_sub(1);
        while let Some(prefix) = at.and_then(|i| self.prefixes.get(i)) {
            if path.starts_with(&*prefix.text) {
                return at;
            }
            at = prefix.parent;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use api::{Body, Ttl};

    use super::*;
    use crate::{Entity, Group};

    fn policy(name: &str, text: &str) -> Policy {
        Policy::parse(name, text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn merged(text: &str) -> Compiled {
        Compiled::merge([&policy("t", text)], &Identity::default()).unwrap()
    }

    /// `"secret/* read,list"` and so on: one rule a line.
    fn rules(lines: &[&str]) -> Compiled {
        let block = |line: &&str| {
            let (path, words) = line.split_once(' ').unwrap();
            let words: Vec<_> = words.split(',').collect();
            format!("path {path:?} {{ capabilities = {words:?} }}\n")
        };
        merged(&lines.iter().map(block).collect::<String>())
    }

    #[test]
    fn a_folder_is_reached_by_a_rule_at_or_below_it() {
        let compiled = rules(&["secret/edgex/a/* read", "kv/x read", "auth/+/login update", "hidden/* deny"]);
        for (folder, known) in
            [("secret/", true), ("kv/", true), ("auth/userpass/", true), ("hidden/", false), ("sys/", false)]
        {
            assert_eq!(compiled.reaches(folder), known, "{folder}");
        }
    }

    fn ask(compiled: &Compiled, action: Action, path: &str) -> Result<Granted, Denied> {
        let body = Body::empty();
        compiled.decide(&Query { path, action, body: &body, query: &[], sudo_needed: false, wrap_ttl: None })
    }

    /// The pattern of the rule that decides.
    fn decider(compiled: &Compiled, action: Action, path: &str) -> Option<String> {
        match ask(compiled, action, path) {
            Ok(granted) => Some(granted.rule_path().to_owned()),
            Err(denied) => denied.rule_path.map(|p| p.to_string()),
        }
    }

    #[test]
    fn an_exact_rule_comes_before_all_patterns() {
        let c = rules(&["a/b deny", "a/b* read", "a/+ read", "* read"]);
        assert_eq!(decider(&c, Action::Read, "a/b").as_deref(), Some("a/b"));
        assert_eq!(decider(&c, Action::Read, "a/bc").as_deref(), Some("a/b*"));
        assert_eq!(decider(&c, Action::Read, "a/c").as_deref(), Some("a/+"));
        assert_eq!(decider(&c, Action::Read, "c").as_deref(), Some("*"));
        assert_eq!(decider(&rules(&["a read"]), Action::Read, "b"), None);
    }

    #[test]
    fn a_list_falls_back_to_the_path_without_its_slash() {
        let c = rules(&["a/b list", "a/b/* list", "a/c+ list", "d* list"]);
        // Exact without slash comes before a pattern that fits with it.
        assert_eq!(decider(&c, Action::List, "a/b/").as_deref(), Some("a/b"));
        assert_eq!(decider(&c, Action::Read, "a/b/").as_deref(), Some("a/b/*"));
        assert_eq!(decider(&rules(&["a/+ list"]), Action::List, "a/b/").as_deref(), Some("a/+"));
        assert_eq!(decider(&rules(&["a/+ read"]), Action::Read, "a/b/"), None);
        assert_eq!(decider(&rules(&["a/+/ list", "a/+ list"]), Action::List, "a/b/").as_deref(), Some("a/+/"));
    }

    #[test]
    fn the_closest_of_several_patterns_decides_alone() {
        for (lines, path, winner) in [
            // Later first wildcard.
            (&["a/b* read", "a/+/c read"][..], "a/b/c", "a/b*"),
            (&["a/b/* read", "a/b/+ read", "a/+/c read"], "a/b/c", "a/b/+"),
            // Not ending in a star.
            (&["a/+/c* read", "a/+/c read"], "a/b/c", "a/+/c"),
            (&["a/* read", "a/+ read"], "a/b", "a/+"),
            // Fewer plus segments.
            (&["a/+/+ read", "a/+/c read"], "a/b/c", "a/+/c"),
            (&["a/+/c* read", "a/* read"], "a/b/cd", "a/*"),
            // Longer.
            (&["a/+/c/* read", "a/+/* read"], "a/b/c/d", "a/+/c/*"),
            // The longest prefix of several.
            (&["* read", "a* read", "a/b* read", "a/bcd* read", "a/x* read"], "a/bc", "a/b*"),
        ] {
            assert_eq!(decider(&rules(lines), Action::Read, path).as_deref(), Some(winner), "{lines:?}");
        }
    }

    #[test]
    fn a_narrow_allowance_beats_a_broad_denial_and_the_reverse() {
        let c = rules(&["secret/* deny", "secret/mine read", "secret/mine/* read", "secret/mine/not deny"]);
        assert!(ask(&c, Action::Read, "secret/mine").is_ok());
        assert!(ask(&c, Action::Read, "secret/mine/x").is_ok());
        assert_eq!(ask(&c, Action::Read, "secret/mine/not").unwrap_err().why, DeniedWhy::DenyRule);
        assert_eq!(ask(&c, Action::Read, "secret/yours").unwrap_err().why, DeniedWhy::DenyRule);
    }

    #[test]
    fn capabilities_of_different_patterns_are_never_joined() {
        let c = rules(&["secret/* read,list", "secret/a/* update"]);
        assert_eq!(ask(&c, Action::Read, "secret/a/x").unwrap_err().why, DeniedWhy::Lacks(Capability::Read));
        assert_eq!(c.capabilities("secret/a/x"), ["update"]);
    }

    #[test]
    fn blocks_of_the_same_pattern_are_joined_and_deny_wins() {
        let a = policy("a", r#"path "s/*" { capabilities = ["read"] } path "s/d" { capabilities = ["deny"] }"#);
        let b = policy("b", r#"path "/s/*" { capabilities = ["list", "update"] } path "s/d" { policy = "write" }"#);
        for order in [[&a, &b], [&b, &a]] {
            let c = Compiled::merge(order, &Identity::default()).unwrap();
            assert_eq!(c.capabilities("s/x"), ["list", "read", "update"]);
            assert_eq!(c.capabilities("s/d"), ["deny"]);
            let granted = ask(&c, Action::Update, "s/x").unwrap();
            assert_eq!((granted.policies().collect::<Vec<_>>(), granted.rule_path()), (vec!["b"], "s/*"));
        }
    }

    #[test]
    fn a_denied_block_erases_parameter_rules_too() {
        let terms = r#"capabilities = ["update"] required_parameters = ["a"] max_wrapping_ttl = "1m""#;
        let c = merged(&format!(r#"path "s" {{ {terms} }} path "s" {{ capabilities = ["deny", "read"] }}"#));
        assert_eq!(ask(&c, Action::Update, "s").unwrap_err().why, DeniedWhy::DenyRule);
    }

    #[test]
    fn joined_blocks_add_their_parameters_and_keep_the_shorter_wrappings() {
        let c = merged(
            r#"
            path "s" { capabilities = ["update"] allowed_parameters = { "a" = ["1"], "b" = ["1"] } max_wrapping_ttl = "5m" }
            path "s" { capabilities = ["update"] allowed_parameters = { "a" = ["2"], "b" = [] } max_wrapping_ttl = "3m" }
            path "s" { capabilities = ["read"] required_parameters = ["a"] }
            "#,
        );
        let write = |json: &str, ttl| {
            let body = Body::new(json.as_bytes().to_vec().into());
            let wrap_ttl = Some(Ttl::seconds(ttl));
            let action = Action::Update;
            let query = Query { path: "s", action, body: &body, query: &[], sudo_needed: false, wrap_ttl };
            c.decide(&query).map(|_| ()).map_err(|d| d.why)
        };
        assert_eq!(write(r#"{"a":"1","b":"any"}"#, 180), Ok(()));
        assert_eq!(write(r#"{"a":"2"}"#, 180), Ok(()));
        assert_eq!(write(r#"{"a":"3"}"#, 180), Err(DeniedWhy::ParameterNotAllowed));
        assert_eq!(write(r#"{"a":"1"}"#, 181), Err(DeniedWhy::Wrapping));
        // A block that speaks of no allowed parameters widens nothing, and one more block can restrict.
        assert_eq!(write(r#"{"b":"1"}"#, 180), Err(DeniedWhy::ParameterAbsent("a".into())));
        assert_eq!(write(r#"{"a":"1","c":"1"}"#, 180), Err(DeniedWhy::ParameterNotAllowed));
    }

    #[test]
    fn each_action_needs_its_own_capability() {
        use Action::{Create, Delete, List, Patch, Read, Update};
        let all = [Create, Read, Update, Patch, Delete, List];
        for granted in all {
            let c = rules(&[&format!("s {}", granted.capability())]);
            for asked in all {
                assert_eq!(ask(&c, asked, "s").is_ok(), asked == granted, "{asked:?} with {granted:?}");
            }
        }
    }

    #[test]
    fn a_root_protected_path_needs_sudo_on_the_same_rule() {
        let c = rules(&["sys/seal update", "sys/rotate update,sudo", "sys/* sudo", "sys/raw sudo"]);
        let body = Body::empty();
        let seal = |path, sudo_needed| {
            let action = Action::Update;
            c.decide(&Query { path, action, body: &body, query: &[], sudo_needed, wrap_ttl: None })
        };
        assert_eq!(seal("sys/seal", true).unwrap_err().why, DeniedWhy::LacksSudo);
        assert!(seal("sys/seal", false).is_ok_and(|g| !g.has_sudo()));
        assert!(seal("sys/rotate", true).is_ok_and(|g| g.has_sudo()));
        assert_eq!(seal("sys/raw", true).unwrap_err().why, DeniedWhy::Lacks(Capability::Update));
    }

    #[test]
    fn root_allows_everything_and_stands_alone() {
        let c = Compiled::merge([&Policy::root()], &Identity::default()).unwrap();
        let body = Body::empty();
        let query =
            Query { path: "x", action: Action::Delete, body: &body, query: &[], sudo_needed: true, wrap_ttl: None };
        let granted = c.decide(&query).unwrap();
        assert!(granted.is_root() && granted.has_sudo() && c.is_root());
        assert_eq!(granted.policies().collect::<Vec<_>>(), ["root"]);
        assert_eq!(c.capabilities("x"), ["root"]);
        let other = policy("p", "# nothing");
        assert_eq!(
            Compiled::merge([&Policy::root(), &other], &Identity::default()).unwrap_err(),
            MergeError::RootNotAlone
        );
        // The name alone is nothing.
        let named = policy("root", "# nothing");
        let c = Compiled::merge([&named], &Identity::default()).unwrap();
        assert_eq!(ask(&c, Action::Read, "x").unwrap_err().why, DeniedWhy::NoRule);
    }

    #[test]
    fn no_policies_allow_nothing() {
        let c = Compiled::merge([], &Identity::default()).unwrap();
        assert_eq!(c.capabilities("sys/health"), ["deny"]);
        assert_eq!(ask(&c, Action::Read, "x").unwrap_err().to_string(), "no rule fits the path");
    }

    #[test]
    fn templated_rules_follow_the_caller_and_vanish_for_others() {
        let p = policy(
            "t",
            r#"path "s/{{identity.entity.name}}/*" { capabilities = ["read"] }
               path "s/{{identity.groups.names.ops.id}}" { capabilities = ["list"] }
               path "s/fixed" { capabilities = ["read"] }"#,
        );
        assert!(p.is_templated());
        let caller = |name: &str| Identity {
            entity: Some(Entity { name: name.into(), metadata: BTreeMap::new(), ..Entity::default() }),
            groups: vec![Group { id: "g1".into(), name: "ops".into(), metadata: BTreeMap::new() }],
        };
        let c = Compiled::merge([&p], &caller("cam")).unwrap();
        assert_eq!(c.capabilities("s/cam/x"), ["read"]);
        assert_eq!(c.capabilities("s/g1"), ["list"]);
        assert_eq!(c.capabilities("s/other/x"), ["deny"]);
        for hostile in ["+", "*", "a/b", ""] {
            let c = Compiled::merge([&p], &caller(hostile)).unwrap();
            assert_eq!(c.capabilities("s/other/x"), ["deny"], "{hostile:?}");
            assert_eq!(c.capabilities("s/fixed"), ["read"]);
        }
        assert_eq!(Compiled::merge([&p], &Identity::default()).unwrap().capabilities("s/g1"), ["deny"]);
    }
}
