//! What the driver is told to do.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::gate::Evidence;
use crate::machine::Halt;
use crate::plan::{GateName, ServiceName};

/// Whether tokens of before may still live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// The same kernel boot: edgekeep was restarted, every live token stays alive.
    Same,
    /// Another kernel boot: every older token of a service is refused, and issued anew.
    New,
}

/// One thing to do. Beside each, the events that answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look which parts of the state exist, changing nothing. [`Looked`](crate::machine::Event::Looked).
    Look,
    /// Go on with an erasure that was cut short. [`Erased`](crate::machine::Event::Erased).
    FinishErasing,
    /// Remove `data.new` and what its making left outside. No answer; a failure is
    /// [`Failed`](crate::machine::Event::Failed).
    ClearLeftover,
    /// Make recovery, slots and store in `data.new`, all of it synced. [`Made`](crate::machine::Event::Made).
    Make,
    /// Rename `data.new` to `data` without displacing anything, and sync.
    /// [`Published`](crate::machine::Event::Published).
    Publish,
    /// Ask the source, after a pause. [`Released`](crate::machine::Event::Released),
    /// [`SourceBusy`](crate::machine::Event::SourceBusy), or [`Rested`](crate::machine::Event::Rested) to be told
    /// again.
    Release {
        /// The pause.
        after: Duration,
    },
    /// See whether a store in another process serves, and has us. [`Reached`](crate::machine::Event::Reached),
    /// [`NotReached`](crate::machine::Event::NotReached) or [`FoundShut`](crate::machine::Event::FoundShut).
    Reach {
        /// The pause before.
        after: Duration,
    },
    /// Open a slot. [`Unlocked`](crate::machine::Event::Unlocked).
    Unlock,
    /// Open the store, check the slot set against its head, note the boot. [`Opened`](crate::machine::Event::Opened).
    /// For a store in another process: have it made, unseal it, get our token there.
    /// [`Unsealed`](crate::machine::Event::Unsealed) or [`NotReached`](crate::machine::Event::NotReached).
    OpenStore,
    /// Write the damaged or missing slot copy from the other. No answer.
    HealSlots,
    /// See that the CA is there and the server certificate fits. [`Certified`](crate::machine::Event::Certified).
    EnsureCertificate,
    /// The server may take connections. No answer.
    Serve,
    /// See that mounts and signing keys are there. [`GroundLaid`](crate::machine::Event::GroundLaid) or
    /// [`NoGround`](crate::machine::Event::NoGround).
    LayGround {
        /// The pause before.
        after: Duration,
    },
    /// See that all credentials and their copies are there. [`CredentialsKept`](crate::machine::Event::CredentialsKept)
    /// or [`CredentialsLacking`](crate::machine::Event::CredentialsLacking).
    KeepCredentials {
        /// The pause before.
        after: Duration,
    },
    /// See that a service has policy, identity and a token. [`Provided`](crate::machine::Event::Provided) or
    /// [`NotProvided`](crate::machine::Event::NotProvided).
    Provide {
        /// Which.
        service: ServiceName,
        /// Issue a token even if the one in place looks alive.
        anew: bool,
        /// The pause before.
        after: Duration,
    },
    /// Begin to probe for a gate, and go on for as long as the store is open.
    /// [`ProbePassed`](crate::machine::Event::ProbePassed), [`ProbeLapsed`](crate::machine::Event::ProbeLapsed).
    Probe {
        /// The gate.
        gate: GateName,
        /// Which of its needs.
        at: usize,
    },
    /// Publish: exactly these gates are open, by this evidence.
    SetGates {
        /// The open ones.
        open: BTreeSet<GateName>,
        /// What makes them believable.
        evidence: Evidence,
    },
    /// Publish: no gate is open.
    ShutGates,
    /// Drop every key; the server answers as sealed. No answer.
    CloseStore,
    /// Tell people.
    Tell(Halt),
}
