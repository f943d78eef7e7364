//! What an engine gives back: a reply, and what the pipeline is to do with it.

use std::collections::BTreeMap;

use api::{Reply, Ttl};

/// The result of an engine's work.
#[derive(Debug)]
pub struct Outcome {
    /// The reply. For a login its `auth` is filled in by the pipeline.
    pub reply: Reply,
    /// A login succeeded: the pipeline makes the token, in the same commit as the engine's own writes.
    pub grant: Option<Grant>,
    /// Something that happens once the reply is recorded.
    pub after: Option<After>,
}

impl Outcome {
    /// A login: the reply is the `auth` block that the pipeline makes of `grant`.
    pub fn login(grant: Grant) -> Self {
        Self { reply: Reply::logical(api::Logical::default()), grant: Some(grant), after: None }
    }
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self { reply, grant: None, after: None }
    }
}

/// What follows a recorded reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Seal the store: the core refuses everything from here on; the driver drops the keys.
    Seal,
}

/// What a login proved, and the token that it earns. Zero for a time means the default of the mount.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// For `display_name`: the mount's name and this, as in `userpass-alice`.
    pub display_name: String,
    /// Policies of the token; `default` is added unless [`Grant::no_default_policy`].
    pub policies: Vec<String>,
    /// Whether `default` stays away.
    pub no_default_policy: bool,
    /// Time to live.
    pub ttl: Ttl,
    /// Limit of renewals.
    pub max_ttl: Ttl,
    /// Each renewal lasts this long, without limit in all.
    pub period: Ttl,
    /// A limit that holds for periodic tokens too.
    pub explicit_max_ttl: Ttl,
    /// How often the token may be used; zero is no limit.
    pub num_uses: u64,
    /// Metadata of the token.
    pub metadata: BTreeMap<String, String>,
    /// The name under which this mount knows the caller: names (or makes) the entity. `None` for no entity.
    pub alias: Option<String>,
}
