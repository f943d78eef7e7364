//! A set of capabilities, or `deny`, which is none of them and stays.

use api::Capability;

/// What a rule grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u8);

impl Capabilities {
    /// Nothing granted, and nothing forbidden to others of the same path.
    pub const NONE: Self = Self(0);
    /// `deny`: erases all others of the same path.
    pub const DENY: Self = Self(DENY_BIT);

    /// Whether it is `deny`.
    pub fn is_deny(self) -> bool {
        self.0 & DENY_BIT != 0
    }

    /// Whether `capability` is granted.
    pub fn contains(self, capability: Capability) -> bool {
        !self.is_deny() && self.0 & bit(capability) != 0
    }

    /// Both together; `deny` on either side is `deny`.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        if self.is_deny() || other.is_deny() { Self::DENY } else { Self(self.0 | other.0) }
    }

    /// With one more; `deny` stays `deny`.
    #[must_use]
    pub fn with(self, capability: Capability) -> Self {
        self.union(Self(bit(capability)))
    }

    /// The words of the policy language in alphabetical order; `deny` alone where nothing is granted.
    pub fn names(self) -> Vec<&'static str> {
        let names: Vec<_> = ALPHABETICAL.iter().filter(|c| self.contains(**c)).map(|c| c.as_str()).collect();
        if names.is_empty() { vec!["deny"] } else { names }
    }
}

fn bit(capability: Capability) -> u8 {
    match capability {
        Capability::Create => 1,
        Capability::Read => 2,
        Capability::Update => 4,
        Capability::Patch => 8,
        Capability::Delete => 16,
        Capability::List => 32,
        Capability::Sudo => 64,
    }
}

const DENY_BIT: u8 = 128;

const ALPHABETICAL: [Capability; 7] = [
    Capability::Create,
    Capability::Delete,
    Capability::List,
    Capability::Patch,
    Capability::Read,
    Capability::Sudo,
    Capability::Update,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_erases_and_stays() {
        let all = ALPHABETICAL.iter().fold(Capabilities::NONE, |set, c| set.with(*c));
        assert_eq!(all.names(), ["create", "delete", "list", "patch", "read", "sudo", "update"]);
        for set in
            [all.union(Capabilities::DENY), Capabilities::DENY.union(all), Capabilities::DENY.with(Capability::Read)]
        {
            assert!(ALPHABETICAL.iter().all(|c| !set.contains(*c)), "{set:?}");
            assert_eq!(set.names(), ["deny"]);
        }
        assert_eq!(Capabilities::NONE.names(), ["deny"]);
    }
}
