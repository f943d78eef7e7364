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
    /// Whatever sorts between a prefix of `path` and `path` itself begins with that prefix too. So the greatest rule up to
    /// `path`, its parent, that one's parent ... are all the candidates there are, longest first.
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
