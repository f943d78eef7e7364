//! A question to the policies of a token, and the two answers.

use std::fmt;
use std::sync::Arc;

use api::{Body, Capability, Ttl};

use crate::rule::Compound;

/// What a request does to its path, after the engine has told whether a write creates or updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A write to what is not there yet.
    Create,
    /// A read.
    Read,
    /// A write to what is there. Renewals and revocations count as updates.
    Update,
    /// A merge patch.
    Patch,
    /// A removal.
    Delete,
    /// Names below a path.
    List,
}

impl Action {
    /// The capability that a rule must grant for it.
    pub fn capability(self) -> Capability {
        match self {
            Self::Create => Capability::Create,
            Self::Read => Capability::Read,
            Self::Update => Capability::Update,
            Self::Patch => Capability::Patch,
            Self::Delete => Capability::Delete,
            Self::List => Capability::List,
        }
    }

    /// Create or update: which of the two a write is depends on what is there.
    pub fn is_write(self) -> bool {
        matches!(self, Self::Create | Self::Update)
    }

    /// Whether rules about parameters apply. A removal and a list have none to speak of.
    pub(crate) fn has_parameters(self) -> bool {
        matches!(self, Self::Create | Self::Read | Self::Update | Self::Patch)
    }
}

/// One request, as far as policies look at it.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The whole path below `/v1/`, with mount; for a list it ends in a slash.
    pub path: &'a str,
    /// What is to be done.
    pub action: Action,
    /// The body, looked into only when the deciding rule speaks of parameters.
    pub body: &'a Body,
    /// Query parameters: the parameters of a read.
    pub query: &'a [(String, String)],
    /// Whether the path is root-protected, so that the rule must grant `sudo` besides the ordinary capability.
    pub sudo_needed: bool,
    /// The time to live of the wrapping that the caller asks for, if any.
    pub wrap_ttl: Option<Ttl>,
}

/// The proof that a request is allowed, and by what. Only [`Compiled::decide`](crate::Compiled::decide) makes one.
#[derive(Clone)]
pub struct Granted {
    /// `None`: the root policy.
    rule: Option<Arc<Compound>>,
    action: Action,
}

impl Granted {
    pub(crate) fn by_root(action: Action) -> Self {
        Self { rule: None, action }
    }

    pub(crate) fn by_rule(rule: &Arc<Compound>, action: Action) -> Self {
        Self { rule: Some(Arc::clone(rule)), action }
    }

    /// What was allowed.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The pattern of the rule as written, `*` for the root policy.
    pub fn rule_path(&self) -> &str {
        self.rule.as_ref().map_or("*", |r| r.path())
    }

    /// Whether the root policy allowed it.
    pub fn is_root(&self) -> bool {
        self.rule.is_none()
    }

    /// Whether the same rule also grants `sudo`, as the root policy does.
    pub fn has_sudo(&self) -> bool {
        self.rule.as_ref().is_none_or(|r| r.capabilities().contains(Capability::Sudo))
    }

    /// The names of the policies whose blocks grant this action, in the order of merging.
    pub fn policies(&self) -> impl Iterator<Item = &str> {
        let wanted = self.action.capability();
        let of_rule = self.rule.iter().flat_map(move |r| r.granted_by(wanted));
        self.rule.is_none().then_some(crate::ROOT_NAME).into_iter().chain(of_rule)
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Granted({} on {:?})", self.action.capability(), self.rule_path())
    }
}

/// No: with the reason for the log. The caller is told `permission denied` and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}{}", self.on())]
pub struct Denied {
    /// The pattern of the rule that decided, if any fits.
    pub rule_path: Option<Arc<str>>,
    /// What it lacks.
    pub why: DeniedWhy,
}

impl Denied {
    pub(crate) fn no_rule() -> Self {
        Self { rule_path: None, why: DeniedWhy::NoRule }
    }

    pub(crate) fn by(rule: &Compound, why: DeniedWhy) -> Self {
        Self { rule_path: Some(Arc::clone(rule.shared_path())), why }
    }

    fn on(&self) -> String {
        self.rule_path.as_ref().map_or_else(String::new, |p| format!(" (rule {p:?})"))
    }
}

/// What stood in the way. Names of parameters may be told to the log, their values never.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeniedWhy {
    /// No rule fits the path.
    #[error("no rule fits the path")]
    NoRule,
    /// The rule says `deny`.
    #[error("the rule denies everything")]
    DenyRule,
    /// The rule lacks the capability of the action.
    #[error("the rule does not grant {0}")]
    Lacks(Capability),
    /// The path is root-protected and the rule does not grant `sudo`.
    #[error("the path is root-protected and the rule does not grant sudo")]
    LacksSudo,
    /// The reply would not be wrapped as the rule demands.
    #[error("the rule bounds the time to live of a wrapped reply, and the request does not keep it")]
    Wrapping,
    /// A required parameter is absent.
    #[error("the required parameter {0:?} is absent")]
    ParameterAbsent(String),
    /// A parameter, or its value, is on the list of denied ones.
    #[error("a parameter is denied")]
    ParameterDenied,
    /// A parameter, or its value, is not on the list of allowed ones.
    #[error("a parameter is not among the allowed ones")]
    ParameterNotAllowed,
    /// The rule speaks of parameters and the body cannot be read.
    #[error("the parameters cannot be read")]
    ParametersUnreadable,
}
