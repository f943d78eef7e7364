//! A rule as one block writes it, and as several blocks of the same pattern make it together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Capability, Ttl};

use crate::Capabilities;
use crate::hcl::Value;
use crate::pattern::Pattern;
use crate::template::Template;

/// Names of parameters, in lower case, with the values in question; none means any value.
pub(crate) type ParameterValues = BTreeMap<String, Vec<Value>>;

/// What one path block of one policy says.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) path: RulePath,
    pub(crate) terms: Terms,
}

/// Where a rule applies.
#[derive(Clone, Debug)]
pub(crate) enum RulePath {
    /// The same for every caller.
    Fixed(Pattern),
    /// Another for each.
    Templated(Template),
}

/// What a rule grants, and on what conditions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) capabilities: Capabilities,
    /// Zero: none.
    pub(crate) min_wrapping: Ttl,
    /// Zero: none.
    pub(crate) max_wrapping: Ttl,
    pub(crate) allowed: ParameterValues,
    pub(crate) denied: ParameterValues,
    pub(crate) required: BTreeSet<String>,
}

impl Terms {
    /// Nothing at all, and nothing besides.
    pub(crate) fn deny() -> Self {
        Self { capabilities: Capabilities::DENY, ..Self::default() }
    }

    /// Joins the terms of another block of the same pattern. The order of blocks does not matter, but for that of
    /// values within a list, which means nothing.
    fn join(&mut self, other: &Self) {
        if self.capabilities.is_deny() {
            return;
        }
        if other.capabilities.is_deny() {
            *self = Self::deny();
            return;
        }
        self.capabilities = self.capabilities.union(other.capabilities);
        self.min_wrapping = lesser_positive(self.min_wrapping, other.min_wrapping);
        self.max_wrapping = lesser_positive(self.max_wrapping, other.max_wrapping);
        join_values(&mut self.allowed, &other.allowed);
        join_values(&mut self.denied, &other.denied);
        self.required.extend(other.required.iter().cloned());
    }
}

/// All that the policies of a token say about one pattern.
#[derive(Clone, Debug)]
pub(crate) struct Compound {
    path: Arc<str>,
    terms: Terms,
    /// Which policy granted what, in the order of merging.
    sources: Vec<(Arc<str>, Capabilities)>,
}

impl Compound {
    pub(crate) fn new(pattern: &Pattern, policy: &Arc<str>, terms: &Terms) -> Self {
        let sources = vec![(Arc::clone(policy), terms.capabilities)];
        Self { path: pattern.to_text().into(), terms: terms.clone(), sources }
    }

    pub(crate) fn join(&mut self, policy: &Arc<str>, terms: &Terms) {
        self.terms.join(terms);
        self.sources.push((Arc::clone(policy), terms.capabilities));
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn shared_path(&self) -> &Arc<str> {
        &self.path
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.terms.capabilities
    }

    pub(crate) fn granted_by(&self, wanted: Capability) -> impl Iterator<Item = &str> {
        self.sources.iter().filter(move |(_, c)| c.contains(wanted)).map(|(name, _)| &**name)
    }
}

fn lesser_positive(a: Ttl, b: Ttl) -> Ttl {
    match (a.is_zero(), b.is_zero()) {
        (true, _) => b,
        (_, true) => a,
        _ => a.min(b),
    }
}

/// Lists of the same parameter are joined, but an empty one, "any value", swallows the other.
fn join_values(into: &mut ParameterValues, from: &ParameterValues) {
    for (key, values) in from {
        match into.get_mut(key) {
            None => {
                into.insert(key.clone(), values.clone());
            }
            Some(mine) if mine.is_empty() || values.is_empty() => mine.clear(),
            Some(mine) => mine.extend(values.iter().cloned()),
        }
    }
}
