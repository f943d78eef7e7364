//! What a request wants to do, and what a policy may allow.

use std::fmt;

/// The verb of a request. POST and PUT are one verb; which of create and update it is, the store tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// GET.
    Read,
    /// LIST, or GET with `list=true`.
    List,
    /// POST or PUT.
    Write,
    /// DELETE.
    Delete,
    /// PATCH (`application/merge-patch+json`).
    Patch,
}

/// What a policy grants on a path. `Deny` is not here: it is the absence of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Capability {
    /// A write to what is not there yet.
    Create,
    /// A read.
    Read,
    /// A write to what is there.
    Update,
    /// A merge patch.
    Patch,
    /// A removal.
    Delete,
    /// Names below a path.
    List,
    /// Root-protected paths, besides the ordinary capability.
    Sudo,
}

impl Capability {
    /// The word of the policy language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Sudo => "sudo",
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
