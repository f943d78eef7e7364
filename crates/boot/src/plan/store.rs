//! Which store is kept: our own, or one that somebody else runs and that is reached over TLS.

use std::path::PathBuf;
use std::time::Duration;

use client::Address;
pub use external::{Access, Reunseal, ShareCounts};

/// Where the services' secrets are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreSpec {
    /// In this process, under our own barrier.
    #[default]
    Ours,
    /// In a Vault or OpenBao.
    External(ExternalStore),
}

/// A Vault or OpenBao.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalStore {
    /// A name or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The file with the authorities that its certificate is believed by; no others are.
    pub ca: PathBuf,
    /// The name in its certificate, where that is not the host.
    pub server_name: Option<String>,
    /// On which terms we are there.
    pub terms: Terms,
}

/// On which terms we are in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Terms {
    /// As a guest: with a token that may do our work, and nothing that opens the store.
    Guest(Access),
    /// As its owner: made and unsealed by us, its key shares under our key slots.
    Owner {
        /// For a store that is not made yet.
        counts: ShareCounts,
        /// How often it is unsealed.
        reunseal: Reunseal,
    },
}

impl StoreSpec {
    /// The store, if it is not in this process.
    pub fn external(&self) -> Option<&ExternalStore> {
        match self {
            Self::Ours => None,
            Self::External(store) => Some(store),
        }
    }

    /// Whether key slots of ours open it.
    pub fn has_slots(&self) -> bool {
        self.external().is_none_or(ExternalStore::is_kept)
    }
}

impl ExternalStore {
    /// Its address.
    pub fn address(&self) -> Address {
        Address::Https { host: self.host.clone(), port: self.port }
    }

    /// Whether it is made and unsealed by us.
    pub fn is_kept(&self) -> bool {
        matches!(self.terms, Terms::Owner { .. })
    }

    /// The first pause between two looks at it while it is away, and the longest: one that waits for us is opened
    /// within a tenth of a second of its answering; one that somebody else opens is not pressed.
    pub fn pauses(&self) -> (Duration, Duration) {
        match self.terms {
            Terms::Owner { .. } => (Duration::from_millis(25), Duration::from_millis(25)),
            Terms::Guest(_) => (Duration::from_millis(250), Duration::from_secs(5)),
        }
    }
}
