//! What the driver tells. Each event that proves something is sent only when what it proves is durable.

use std::path::PathBuf;

use crate::machine::{Epoch, Halt, Remains};
use crate::plan::{GateName, Profile, ServiceName};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The process is up and holds the data directory's lock.
    Started,
    /// What stands on the disk.
    Looked(Remains),
    /// Nothing is left of the state, and the receipt is synced.
    Erased {
        /// Where it is.
        receipt: PathBuf,
    },
    /// `data.new` holds slots, store and audit ring, all synced; the recovery key is where it was wanted.
    Made,
    /// `data` is there, and its directory synced.
    Published,
    /// The source gave key material.
    Released,
    /// The source gave none, for a reason that may pass.
    SourceBusy,
    /// The source is not asked yet: starts before this one have asked it and come to nothing.
    Rested {
        /// Failed attempts so far, all these starts together.
        failed: u32,
        /// What is left of the pause after the last.
        rest: std::time::Duration,
    },
    /// A slot is open: the set is authentic.
    Unlocked {
        /// The profile in the slot.
        profile: Profile,
        /// One of the copies must be healed.
        heal: bool,
    },
    /// A store in another process serves, and our token is good there.
    Reached {
        /// SHA-256 of the certificate of the CA that it is believed by.
        ca: [u8; 32],
    },
    /// It does not, for a reason that may pass.
    NotReached,
    /// It waits for its owner: sealed, not made yet, or we have no token.
    FoundShut,
    /// Its owner has done what it waited for.
    Unsealed,
    /// It served, and does no longer.
    Lost,
    /// The store is open, its head is whole and agrees with the slot set.
    Opened {
        /// The profile in the head.
        profile: Profile,
        /// Whether the kernel has started anew since the head was written.
        epoch: Epoch,
    },
    /// CA and server certificate are in the store.
    Certified {
        /// SHA-256 of the CA's certificate.
        ca: [u8; 32],
    },
    /// Mounts and signing keys are there.
    GroundLaid,
    /// They are not, for a reason that may pass.
    NoGround,
    /// All credentials and copies are committed.
    CredentialsKept,
    /// They are not, for a reason that may pass.
    CredentialsLacking,
    /// A service's token is delivered, and its receipt committed.
    Provided {
        /// Which.
        service: ServiceName,
        /// SHA-256 of the receipt.
        receipt: [u8; 32],
    },
    /// It is not, for a reason that may pass.
    NotProvided {
        /// Which.
        service: ServiceName,
    },
    /// A service's token has died, or its file was changed.
    Lapsed {
        /// Which.
        service: ServiceName,
    },
    /// Something outside is ready.
    ProbePassed {
        /// For which gate.
        gate: GateName,
        /// Which of its needs.
        at: usize,
    },
    /// It no longer is.
    ProbeLapsed {
        /// For which gate.
        gate: GateName,
        /// Which of its needs.
        at: usize,
    },
    /// Somebody with the right to it asks to seal.
    SealAsked,
    /// Somebody with the right to it asks to unseal from the sources.
    UnsealAsked,
    /// Something only an operator can put right.
    Failed(Halt),
}
