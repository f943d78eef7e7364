//! Why a text is no policy.

use crate::parse::MAX_POLICY_BYTES;

/// The text is refused as a whole: no rule of it takes effect. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No text at all.
    #[error("'policy' parameter not supplied or empty")]
    Empty,
    /// Over [`MAX_POLICY_BYTES`].
    #[error("the policy has {bytes} bytes; at most {MAX_POLICY_BYTES} are taken")]
    TooLong {
        /// How many bytes it has.
        bytes: usize,
    },
    /// Neither HCL 1 nor JSON.
    #[error("{problem} on line {line}")]
    Syntax {
        /// The line of the fault.
        line: u32,
        /// What was expected.
        problem: &'static str,
    },
    /// A key at the top that is neither `path` nor `name`.
    #[error("invalid key {key:?} on line {line}")]
    InvalidTopKey {
        /// The key.
        key: String,
        /// Where it is.
        line: u32,
    },
    /// A key that a path block does not know.
    #[error("path {path:?}: invalid key {key:?} on line {line}")]
    InvalidKey {
        /// The block's path.
        path: String,
        /// The key.
        key: String,
        /// Where it is.
        line: u32,
    },
    /// The same key twice in one block: which of the two counts would be a guess.
    #[error("path {path:?}: key {key:?} again on line {line}; write it once")]
    RepeatedKey {
        /// The block's path.
        path: String,
        /// The key.
        key: String,
        /// Where the second one is.
        line: u32,
    },
    /// A restriction of other products that is not enforced here. To ignore it would grant more than its author meant.
    #[error("path {path:?}: {key:?} on line {line} is a restriction that this store does not enforce; leave it out")]
    NotEnforced {
        /// The block's path.
        path: String,
        /// The key.
        key: String,
        /// Where it is.
        line: u32,
    },
    /// A word that is no capability.
    #[error("path {path:?}: invalid capability {capability:?} on line {line}")]
    InvalidCapability {
        /// The block's path.
        path: String,
        /// The word.
        capability: String,
        /// Where it is.
        line: u32,
    },
    /// `policy = "..."` with a word other than deny, read, write and sudo.
    #[error("path {path:?}: invalid policy {word:?} on line {line}")]
    InvalidOldPolicy {
        /// The block's path.
        path: String,
        /// The word.
        word: String,
        /// Where it is.
        line: u32,
    },
    /// A value of the wrong kind.
    #[error("path {path:?}: {key} on line {line} must be {wanted}")]
    WrongKind {
        /// The block's path.
        path: String,
        /// The key.
        key: String,
        /// Where it is.
        line: u32,
        /// What it must be.
        wanted: &'static str,
    },
    /// A wrapping TTL that is no duration.
    #[error("path {path:?}: error parsing {key}: {cause}")]
    Duration {
        /// The block's path.
        path: String,
        /// The key.
        key: String,
        /// Why not.
        cause: api::DurationError,
    },
    /// Bounds that no wrapping can keep.
    #[error("path {path:?}: max_wrapping_ttl cannot be less than min_wrapping_ttl")]
    WrappingBounds {
        /// The block's path.
        path: String,
    },
    /// `+*`.
    #[error("path {path:?}: invalid use of wildcards ('+*' is forbidden)")]
    Wildcards {
        /// The block's path.
        path: String,
    },
    /// A `path` block without its path.
    #[error("a path block without a path on line {line}; write path \"secret/...\" {{ ... }}")]
    NoPath {
        /// Where it is.
        line: u32,
    },
    /// `{{` without `}}`, or the reverse.
    #[error("path {path:?}: failed to validate policy templating: unbalanced templating characters")]
    TemplateUnbalanced {
        /// The block's path.
        path: String,
    },
    /// A template that names nothing known.
    #[error(
        "path {path:?}: failed to validate policy templating: {selector:?} is not of identity.entity or identity.groups"
    )]
    TemplateUnknown {
        /// The block's path.
        path: String,
        /// What stands between the braces.
        selector: String,
    },
}
