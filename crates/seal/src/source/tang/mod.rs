//! Key material that can be had only where certain other machines answer: Tang servers, any `threshold` of them.
//!
//! ```text
//! provision  GET /adv of every server, proven against its pinned key -> bindings; random key material, a share for each
//! release    POST /rec/<key> to all at once -> shares; as soon as `threshold` of them have opened, the key material
//! ```
//! A device that is carried off stays sealed, and one that is switched on while the network is away unseals by itself
//! when it is back: whatever comes over an unauthenticated network, be it nothing, a refusal or a lie, may be other in
//! a minute, and must not be able to stop a device for good. So every failure to reach the threshold is told with each
//! server's part in it, and is asked again.

mod ask;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::Origin;
use host::{Clock, Entropy};
use tang::{Advertisement, Binding, Thumbprint};

use super::{
    Auth, Capabilities, Closed, Deadline, Evidence, Fit, KeySource, PolicyRequest, Provisioned, Released, SourceError,
};
use crate::ikm::Ikm;
use crate::slot::{SlotPublic, SourceKind};
use ask::Fault;
use slot::{Entries, Entry, MAX_SERVERS, Share};

/// One server: where it is, and the key that must have signed its advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TangServer {
    /// Its address.
    pub origin: Origin,
    /// The thumbprint of its signing key, as `tang-show-keys` prints it on the server.
    pub pinned: Thumbprint,
}

/// Servers, and how many of them are needed: a set that goes together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TangServers {
    all: Vec<TangServer>,
    threshold: u8,
}

impl TangServers {
    /// Any `threshold` of `servers`.
    ///
    /// # Errors
    /// [`TangSetupError`].
    pub fn new(all: Vec<TangServer>, threshold: u8) -> Result<Self, TangSetupError> {
        let count = all.len();
        if count == 0 || count > MAX_SERVERS {
            return Err(TangSetupError::Servers { count });
        }
        if threshold == 0 || usize::from(threshold) > count {
            return Err(TangSetupError::Threshold { threshold, count });
        }
        // Two names of one server would be two shares in one hand.
        let twice = |s: &TangServer| all.iter().filter(|other| other.pinned == s.pinned).count() > 1;
        if let Some(server) = all.iter().find(|s| twice(s)) {
            return Err(TangSetupError::Twice { pinned: server.pinned });
        }
        Ok(Self { all, threshold })
    }

    /// The servers.
    pub fn all(&self) -> &[TangServer] {
        &self.all
    }

    /// How many are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }
}

/// The source `tang`.
pub struct TangSource {
    servers: Vec<TangServer>,
    threshold: u8,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl TangSource {
    /// Any `threshold` of `servers`.
    pub fn new(servers: TangServers, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let TangServers { all, threshold } = servers;
        Self { servers: all, threshold, clock, entropy }
    }

    /// Asks every server for its keys; the outcomes in the order of the servers.
    fn advertisements(&self, deadline: Deadline) -> Result<Vec<Result<Advertisement, Fault>>, SourceError> {
        let limit = deadline.left(&*self.clock);
        let asked = self.servers.iter().cloned().enumerate().map(|(i, server)| async move {
            let bytes = ask::advertisement(server.origin, limit).await;
            (i, bytes.and_then(|bytes| Ok(Advertisement::verify(&bytes, &server.pinned)?)))
        });
        let mut found: Vec<Option<_>> = self.servers.iter().map(|_| None).collect();
        ask::race(asked.collect(), |(i, outcome): (usize, _)| {
            found[i] = Some(outcome);
            false
        })
        .map_err(os)?;
        Ok(found.into_iter().map(|f| f.unwrap_or(Err(Fault::GivenUp))).collect())
    }

    /// Does the exchange for `entries` with whoever may hold their keys, until `needed` shares are there.
    fn shares(&self, entries: &Entries, needed: usize, deadline: Deadline) -> Result<Shares, SourceError> {
        let limit = deadline.left(&*self.clock);
        let mut asked = Vec::new();
        for (at, entry) in entries.all.iter().enumerate() {
            for server in self.candidates(entry, entries) {
                let (origin, recovery) = (server.origin.clone(), entry.binding.recover(&*self.entropy));
                asked.push(async move {
                    let outcome = ask::recover(origin.clone(), recovery, limit).await;
                    (at, origin, outcome)
                });
            }
        }
        let mut found = Shares { opened: Vec::new(), from: Vec::new(), faults: Vec::new() };
        ask::race(asked, |(at, origin, outcome): (usize, Origin, _)| {
            let entry = &entries.all[at];
            let opened = outcome.and_then(|shared| entry.open(shared).ok_or(Fault::Lies));
            match opened {
                // The same share twice would be counted as two.
                Ok(share) if found.opened.iter().any(|s: &Share| s.point == share.point) => {}
                Ok(share) => {
                    found.opened.push(share);
                    found.from.push(origin);
                }
                Err(fault) => found.faults.push((origin, fault)),
            }
            found.opened.len() >= needed
        })
        .map_err(os)?;
        Ok(found)
    }

    /// Whom to ask for an entry: the server with the key that was pinned then; where the configuration names none,
    /// because its pins were renewed after a rotation, every server that no other entry claims.
    fn candidates(&self, entry: &Entry, entries: &Entries) -> Vec<&TangServer> {
        let claimed = |s: &&TangServer| entries.all.iter().any(|e| e.pinned == s.pinned);
        match self.servers.iter().find(|s| s.pinned == entry.pinned) {
            Some(server) => vec![server],
            None => self.servers.iter().filter(|s| !claimed(s)).collect(),
        }
    }

    fn names(&self) -> String {
        self.servers.iter().map(|s| s.origin.to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// What a round of asking has brought.
struct Shares {
    opened: Vec<Share>,
    from: Vec<Origin>,
    faults: Vec<(Origin, Fault)>,
}

impl Shares {
    fn too_few(&self, needed: usize) -> SourceError {
        SourceError::TooFew { needed, answered: self.opened.len(), faults: told(&self.faults) }
    }
}

impl std::fmt::Debug for TangSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TangSource({} of {})", self.threshold, self.names())
    }
}

impl KeySource for TangSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Tang
    }

    /// If enough of the slot's servers are among its own.
    fn fits(&self, slot: &SlotPublic) -> Fit {
        let known = |e: &Entry| self.servers.iter().any(|s| s.pinned == e.pinned);
        let enough = |e: Entries| e.all.iter().filter(|e| known(e)).count() >= usize::from(e.threshold);
        Fit::by_name(Entries::from_slot(slot).is_ok_and(enough))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            revocable_remotely: true,
            needs_network: true,
            // Blinded: whoever listens sees random points.
            bus_encrypted: true,
            ..Capabilities::default()
        }
    }

    /// Asks each server for its keys. That some do not answer is a fact and no error.
    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError> {
        let limit = Deadline::after(&*self.clock, PROBE_LIMIT).min(deadline);
        let mut facts = vec![("threshold", format!("{} of {}", self.threshold, self.servers.len()))];
        for (server, outcome) in self.servers.iter().zip(self.advertisements(limit)?) {
            let state = outcome.map_or_else(|fault| fault.told(), |_| "answers with the pinned key".into());
            facts.push(("server", format!("{}: {state}", server.origin)));
        }
        Ok(Evidence(facts))
    }

    /// With the servers that answer, if they are enough: one that is away gets no share, and none later, until the slot
    /// is made anew. Then sees that each gives its share back.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        _auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(SourceKind::Tang, &self.capabilities())?;
        let (mut made, mut faults) = (Vec::new(), Vec::new());
        // One that hangs must leave the others time for the exchange.
        let half = deadline.half(&*self.clock);
        for (server, outcome) in self.servers.iter().zip(self.advertisements(half)?) {
            match outcome {
                Ok(advertisement) => {
                    let (binding, shared) = Binding::provision(advertisement.exchange_key(), &*self.entropy);
                    made.push((server.pinned, binding, shared));
                }
                Err(fault) => faults.push((server.origin.clone(), fault)),
            }
        }
        let enough = usize::from(self.threshold);
        if made.len() < enough {
            return Err(SourceError::TooFew { needed: enough, answered: made.len(), faults: told(&faults) });
        }
        if !faults.is_empty() {
            let missing = told(&faults);
            tracing::warn!(
                missing,
                "Tang servers have no share until the slot is made anew: `edgekeep seal slots reseal`"
            );
        }
        let needed = made.len();
        let (entries, secret) = Entries::make(self.threshold, made, &*self.entropy);
        let shares = self.shares(&entries, needed, deadline)?;
        if shares.opened.len() < needed {
            return Err(shares.too_few(needed));
        }
        let ikm = slot::ikm(&secret).ok_or_else(constant)?;
        match entries.join(&shares.opened) {
            Some(back) if back.ct_eq(&ikm) => Ok(Provisioned { public: entries.to_slot(), ikm }),
            _ => Err(SourceError::Drifts { what: self.names() }),
        }
    }

    fn release(&mut self, slot: &SlotPublic, _auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let entries = Entries::from_slot(slot)?;
        let needed = usize::from(entries.threshold);
        let shares = self.shares(&entries, needed, deadline)?;
        let ikm: Ikm = entries.join(&shares.opened).ok_or_else(|| shares.too_few(needed))?;
        let from = shares.from.iter().map(|origin| ("server", origin.to_string()));
        let mut facts = vec![("threshold", format!("{needed} of {}", entries.all.len()))];
        facts.extend(from);
        for (origin, fault) in &shares.faults {
            facts.push(("no help from", format!("{origin}: {}", fault.told())));
        }
        Ok(Released { ikm, evidence: Evidence(facts), remaining_this_boot: None })
    }

    /// The servers answer whoever asks.
    fn close(&mut self, _slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        Ok(Closed::releases_on())
    }
}

/// Servers and threshold that do not go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TangSetupError {
    /// None, or more than a slot has room for.
    #[error("{count} Tang servers; 1 to {MAX_SERVERS} are taken")]
    Servers {
        /// How many were named.
        count: usize,
    },
    /// Zero, or more than there are servers.
    #[error("a threshold of {threshold} with {count} Tang servers")]
    Threshold {
        /// The threshold.
        threshold: u8,
        /// How many servers there are.
        count: usize,
    },
    /// The same signing key under two addresses.
    #[error("two Tang servers with the same key {pinned}: they are one")]
    Twice {
        /// The thumbprint.
        pinned: Thumbprint,
    },
}

fn told(faults: &[(Origin, Fault)]) -> String {
    let texts: Vec<String> = faults.iter().map(|(origin, fault)| format!("{origin}: {}", fault.told())).collect();
    texts.join("; ")
}

fn os(source: std::io::Error) -> SourceError {
    SourceError::Os { what: "asking the Tang servers".into(), source }
}

fn constant() -> SourceError {
    SourceError::Ikm { what: "the random generator".into(), source: crate::ikm::IkmError::Constant }
}

/// How long a probe waits for servers that do not answer.
const PROBE_LIMIT: Duration = Duration::from_secs(3);
