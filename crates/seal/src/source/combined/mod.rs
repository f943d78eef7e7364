//! Several sources as one: `all` of them, or any `threshold` of them.
//!
//! ```text
//! provision   each part under its policy ─> its items and its key material ─┬─ all        HKDF of all, each behind its length
//!                                                                           └─ threshold  random key; a share under each part's
//! release     parts that may be asked at will, all at once ─> enough? reachable? ─> parts that count or want a PIN, one by one
//! ```
//! A TPM with the servers of a site: who carries the device off lacks the servers, who copies the disk lacks the TPM.
//! What can be had again at any time is asked first, so that a network which is away uses no release up, and no try of
//! a PIN. Combinations are not made of combinations.

mod policy;
mod predict;
mod round;
mod setup;
mod slot;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::tpm::PcrValues;
use host::{Clock, Entropy};

use super::evidence::LEFT_OUT;
use super::{
    Auth, Board, Capabilities, Closed, Deadline, Evidence, Fit, KeySource, Left, NoAuth, PolicyRequest, Provisioned,
    Released, Remedy, SourceError, Unkept, Wanted,
};
use crate::ikm::Ikm;
use crate::slot::{SlotPublic, SourceKind};
pub(super) use predict::differ_in_values_alone;
pub use setup::{CombinedSetupError, MAX_PARTS, check_parts};
use slot::{CombinedSlot, SlotPart};

/// One source of a combination.
pub struct Part {
    /// Shared with the thread that asks it: a part that is given up may still be at it.
    source: Arc<Mutex<Box<dyn KeySource>>>,
    kind: SourceKind,
    can: Capabilities,
    policy: PolicyRequest,
    auth: Option<Box<dyn Auth>>,
    limit: Duration,
}

impl Part {
    /// A part, each call of which may take `limit`.
    pub fn new(source: Box<dyn KeySource>, limit: Duration) -> Self {
        let (kind, can) = (source.kind(), source.capabilities());
        let policy = PolicyRequest::default();
        Self { source: Arc::new(Mutex::new(source)), kind, can, policy, auth: None, limit }
    }

    /// What this part is to enforce in a new slot, besides what the combination is asked for.
    #[must_use]
    pub fn under(mut self, policy: PolicyRequest) -> Self {
        self.policy = policy;
        self
    }

    /// Who has this part's PIN; otherwise the one who asks the combination is asked.
    #[must_use]
    pub fn with_auth(mut self, auth: Box<dyn Auth>) -> Self {
        self.auth = Some(auth);
        self
    }

    fn auth<'a>(&'a self, caller: &'a dyn Auth) -> &'a dyn Auth {
        self.auth.as_deref().unwrap_or(caller)
    }

    /// The time that this call may take: what is left of the whole, and no more than the part's own.
    fn deadline(&self, whole: Deadline, times: u32, clock: &dyn Clock) -> Deadline {
        Deadline::after_each(clock, self.limit, times).min(whole)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut dyn KeySource) -> Result<T, SourceError>) -> Result<T, SourceError> {
        match self.source.try_lock() {
            Ok(mut source) => ask(&mut **source),
            Err(std::sync::TryLockError::Poisoned(e)) => ask(&mut **PoisonError::into_inner(e)),
            Err(std::sync::TryLockError::WouldBlock) => {
                let defect = "the last call of it has not ended".into();
                Err(SourceError::Unreachable { what: format!("the source `{}`", self.kind), defect })
            }
        }
    }
}

/// How many parts are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    All,
    Threshold(u8),
}

/// The source `all` or `threshold`.
pub struct CombinedSource {
    rule: Rule,
    parts: Vec<Part>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl CombinedSource {
    /// All of `parts`.
    ///
    /// # Errors
    /// [`CombinedSetupError`].
    pub fn all(parts: Vec<Part>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Self, CombinedSetupError> {
        Self::new(Rule::All, parts, clock, entropy)
    }

    /// Any `threshold` of `parts`.
    ///
    /// # Errors
    /// [`CombinedSetupError`].
    pub fn threshold(
        threshold: u8,
        parts: Vec<Part>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, CombinedSetupError> {
        Self::new(Rule::Threshold(threshold), parts, clock, entropy)
    }

    fn new(
        rule: Rule,
        parts: Vec<Part>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, CombinedSetupError> {
        let kinds: Vec<SourceKind> = parts.iter().map(|p| p.kind).collect();
        check_parts(&kinds, if let Rule::Threshold(t) = rule { Some(t) } else { None })?;
        Ok(Self { rule, parts, clock, entropy })
    }

    /// How many parts are needed.
    fn needed(&self) -> usize {
        match self.rule {
            Rule::All => self.parts.len(),
            Rule::Threshold(t) => usize::from(t),
        }
    }

    /// The slot's parts, each with the source that stands in its place.
    fn read(&self, slot: &SlotPublic) -> Result<CombinedSlot, SourceError> {
        let other = || SourceError::OtherSlot { kind: self.kind() };
        let read = CombinedSlot::read(slot).ok_or_else(other)?;
        let same = read.parts.len() == self.parts.len()
            && read.parts.iter().zip(&self.parts).all(|(theirs, ours)| theirs.public.kind() == ours.kind);
        if slot.kind() != self.kind() || !same {
            return Err(other());
        }
        Ok(read)
    }

    /// In this order parts are made: servers first, for they are the likeliest to be away; what leaves a file behind
    /// last.
    fn order_of_making(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.parts.len()).collect();
        order.sort_by_key(|i| (!self.parts[*i].can.needs_network, self.parts[*i].kind == SourceKind::Software));
        order
    }

    /// Makes every part, beside those of a slot that is in use where there is one; or none, and the parts that were
    /// made are taken back.
    fn make(
        &self,
        used: Option<(&CombinedSlot, Board)>,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(self.kind(), &self.capabilities())?;
        let mut unkept = Unkept::default();
        let made = self.make_parts(used, policy, auth, deadline, &mut unkept);
        self.kept_or_taken_back(made, unkept, used.map(|(used, _)| used), auth)
    }

    /// What parts have made goes with the whole, and where that has failed it is taken back; what they share with those
    /// of a slot that is in use stays. That has a time of its own: the whole may have failed because its was over.
    fn kept_or_taken_back(
        &self,
        made: Result<Provisioned, SourceError>,
        unkept: Unkept<usize>,
        used: Option<&CombinedSlot>,
        auth: &dyn Auth,
    ) -> Result<Provisioned, SourceError> {
        if made.is_ok() {
            unkept.kept();
            return made;
        }
        let kept: Vec<&SlotPublic> = used.iter().flat_map(|used| &used.parts).map(|part| &part.public).collect();
        // What stays is in the log.
        drop(unkept.take_back(|at: usize, made| {
            let part = &self.parts[at];
            let limit = Deadline::after(&*self.clock, part.limit);
            part.with(|source| source.discard(made, &kept, part.auth(auth), limit))
        }));
        made
    }

    fn make_parts(
        &self,
        used: Option<(&CombinedSlot, Board)>,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
        unkept: &mut Unkept<usize>,
    ) -> Result<Provisioned, SourceError> {
        let mut made: Vec<Option<(SlotPart, Ikm)>> = self.parts.iter().map(|_| None).collect();
        for at in self.order_of_making() {
            let part = &self.parts[at];
            let wish = policy::share(policy, &part.policy, &part.can);
            let limit = part.deadline(deadline, 2, &*self.clock);
            let done = part.with(|source| match used {
                Some((used, board)) => {
                    source.provision_beside(&used.parts[at].public, board, &wish, part.auth(auth), limit)
                }
                None => source.provision(&wish, part.auth(auth), limit),
            });
            let Provisioned { public, ikm } = done.map_err(|e| self.fault(at, e))?;
            unkept.note(at, &public);
            // One source under two names would be two parts in one hand.
            let twin = made.iter().position(|m| m.as_ref().is_some_and(|(_, other)| other.ct_eq(&ikm)));
            if let Some(twin) = twin
                && host::in_force("parts-differ")
            {
                let defect = format!("parts {} and {} give the same key material: they are one", at + 1, twin + 1);
                return Err(SourceError::PolicyEmpty { defect });
            }
            made[at] = Some((SlotPart { public, pin: wish.pin }, ikm));
        }
        let (parts, ikms): (Vec<SlotPart>, Vec<Ikm>) = made.into_iter().flatten().unzip();
        // What one part counts, all of them together have no more of.
        let counted = || parts.iter().filter_map(|part| part.public.release_limit()).min();
        let limit = if self.rule == Rule::All { counted() } else { None };
        let (slot, ikm) = match self.rule {
            Rule::All => (CombinedSlot::all(parts), slot::joined(&ikms)?),
            Rule::Threshold(t) => CombinedSlot::shared(t, parts, &ikms, &*self.entropy)?,
        };
        Ok(Provisioned { public: slot.write(limit)?, ikm })
    }

    /// Asks each part something that uses nothing up.
    fn ask_each(
        &self,
        deadline: Deadline,
        ask: impl Fn(usize, &mut dyn KeySource, Deadline) -> Result<Evidence, SourceError>,
    ) -> Result<Evidence, SourceError> {
        let mut facts = vec![("parts needed", format!("{} of {}", self.needed(), self.parts.len()))];
        let (mut faults, mut left) = (Vec::new(), Vec::new());
        for (at, part) in self.parts.iter().enumerate() {
            let limit = part.deadline(deadline, 1, &*self.clock);
            match part.with(|source| ask(at, source, limit)) {
                Ok(evidence) => {
                    left.push(evidence.releases_left());
                    facts.extend(round::numbered(at, part.kind, evidence));
                }
                Err(e) => {
                    left.push(Some(0));
                    // A TPM says that it gives nothing more in this boot where the device is in its state.
                    let left_out = part.kind.is_of_tpm() && e.remedy() != Remedy::Reboot;
                    let name = if left_out { LEFT_OUT } else { "part" };
                    facts.push((name, format!("{} ({}): {}", at + 1, part.kind, host::with_causes(&e))));
                    faults.push((at, e));
                }
            }
        }
        if self.parts.len() - faults.len() < self.needed() && !faults.is_empty() {
            let (at, e) = faults.swap_remove(0);
            return Err(self.fault(at, e));
        }
        let mut evidence = Evidence(facts);
        round::releases_left(&left, self.needed()).into_iter().for_each(|left| evidence.add_releases_left(left));
        Ok(evidence)
    }

    fn fault(&self, at: usize, source: SourceError) -> SourceError {
        SourceError::Part { number: at + 1, kind: self.parts[at].kind, source: Box::new(source) }
    }
}

impl std::fmt::Debug for CombinedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds: Vec<String> = self.parts.iter().map(|p| p.kind.to_string()).collect();
        write!(f, "CombinedSource({} of {})", self.needed(), kinds.join(", "))
    }
}

impl KeySource for CombinedSource {
    fn kind(&self) -> SourceKind {
        match self.rule {
            Rule::All => SourceKind::All,
            Rule::Threshold(_) => SourceKind::Threshold,
        }
    }

    /// All parts where they are to be made; otherwise so many as are needed.
    fn look(&self, wish: Wanted, auth: &dyn Auth) -> Result<(), SourceError> {
        let look = |at: usize| {
            let part = &self.parts[at];
            part.with(|source| source.look(wish, part.auth(auth))).map_err(|e| self.fault(at, e))
        };
        let mut faults: Vec<SourceError> = self.order_of_making().into_iter().filter_map(|at| look(at).err()).collect();
        let needed = if wish == Wanted::Provision { self.parts.len() } else { self.needed() };
        let lacking = needed.saturating_sub(self.parts.len() - faults.len());
        if lacking == 0 {
            return Ok(());
        }
        // Where those that may still come are enough, one of them is what is waited for.
        let may_pass = |e: &SourceError| e.remedy() == Remedy::Retry;
        let comes = faults.iter().filter(|e| may_pass(e)).count() >= lacking;
        let told = faults.iter().position(|e| may_pass(e) == comes).unwrap_or_default();
        Err(faults.swap_remove(told))
    }

    /// If every part may have made its own.
    fn fits(&self, slot: &SlotPublic) -> Fit {
        let Ok(read) = self.read(slot) else { return Fit::No };
        let of =
            |(part, theirs): (&Part, &SlotPart)| part.source.try_lock().map_or(Fit::Maybe, |s| s.fits(&theirs.public));
        self.parts.iter().zip(&read.parts).map(of).min().unwrap_or(Fit::No)
    }

    /// If any part does.
    fn tries_pin(&self, slot: &SlotPublic) -> bool {
        self.read(slot).is_ok_and(|read| read.parts.iter().any(|part| part.pin))
    }

    fn capabilities(&self) -> Capabilities {
        policy::joint(&self.parts, self.needed())
    }

    /// Asks each part. That some cannot say anything is a fact, as long as the others would do.
    fn probe(&mut self, deadline: Deadline) -> Result<Evidence, SourceError> {
        self.ask_each(deadline, |_, source, limit| source.probe(limit))
    }

    fn foresee(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Evidence, SourceError> {
        let read = self.read(slot)?;
        self.ask_each(deadline, |at, source, limit| source.foresee(&read.parts[at].public, limit))
    }

    /// Needs every part once: what could not be made now would be missing for good.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        self.make(None, policy, auth, deadline)
    }

    fn provision_beside(
        &mut self,
        slot: &SlotPublic,
        board: Board,
        policy: &PolicyRequest,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let used = self.read(slot)?;
        self.make(Some((&used, board)), policy, auth, deadline)
    }

    fn predict(
        &mut self,
        slot: &SlotPublic,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        self.make_for(slot, values, auth, deadline)
    }

    /// If any part was.
    fn released_when_made(&self, slot: &SlotPublic) -> bool {
        let was = |(part, theirs): (&Part, &SlotPart)| {
            matches!(part.with(|source| Ok(source.released_when_made(&theirs.public))), Ok(true))
        };
        self.read(slot).is_ok_and(|read| self.parts.iter().zip(&read.parts).any(was))
    }

    fn release(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Released, SourceError> {
        let read = self.read(slot)?;
        let needed = read.needed();
        let mut round = round::Round::new(&self.parts, &read, &*self.clock, deadline);
        round.ask_those_that_may_be_asked_at_will();
        round.ask_the_others(auth);
        let remaining_this_boot = round.remaining();
        let given = round.end().map_err(|refused| refused.into_error(needed))?;
        let ikm = read.join(&given).map_err(|(at, e)| self.fault(at, e))?;
        let mut facts = vec![("parts needed", format!("{needed} of {}", self.parts.len()))];
        for (at, part) in self.parts.iter().enumerate() {
            if part.kind.is_of_tpm() && given.iter().all(|(gave, _)| *gave != at) {
                facts.push((LEFT_OUT, format!("{} ({})", at + 1, part.kind)));
            }
        }
        for (at, released) in given {
            facts.extend(round::numbered(at, self.parts[at].kind, released.evidence));
        }
        Ok(Released { ikm, evidence: Evidence(facts), remaining_this_boot })
    }

    /// Closes each part. Nothing more is released when too few are left that go on.
    fn close(&mut self, slot: &SlotPublic, deadline: Deadline) -> Result<Closed, SourceError> {
        let read = self.read(slot)?;
        let (mut open, mut failed) = (0, None);
        for (at, (part, theirs)) in self.parts.iter().zip(&read.parts).enumerate() {
            let limit = part.deadline(deadline, 1, &*self.clock);
            match part.with(|source| source.close(&theirs.public, limit)) {
                Ok(closed) => open += usize::from(!closed.is_until_reboot()),
                // The others are closed all the same.
                Err(e) => failed = failed.or(Some((at, e))),
            }
        }
        match failed {
            Some((at, e)) => Err(self.fault(at, e)),
            None if open < read.needed() => Ok(Closed::until_reboot()),
            None => Ok(Closed::releases_on()),
        }
    }

    /// Each part destroys its own, unless a slot that stays, or a part of one, needs it.
    fn discard(
        &mut self,
        slot: &SlotPublic,
        kept: &[&SlotPublic],
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<(), SourceError> {
        let read = self.read(slot)?;
        let kept: Vec<SlotPublic> = kept.iter().flat_map(|slot| slot_and_parts(slot)).collect();
        let kept: Vec<&SlotPublic> = kept.iter().collect();
        let mut failed = None;
        for (at, (part, theirs)) in self.parts.iter().zip(&read.parts).enumerate() {
            let limit = part.deadline(deadline, 1, &*self.clock);
            if let Err(e) = part.with(|source| source.discard(&theirs.public, &kept, part.auth(auth), limit)) {
                // The others are destroyed all the same.
                failed = failed.or(Some((at, e)));
            }
        }
        failed.map_or(Ok(()), |(at, e)| Err(self.fault(at, e)))
    }

    /// Nothing, when too few parts give theirs on.
    fn left_of(&mut self, slot: &SlotPublic, auth: &dyn Auth, deadline: Deadline) -> Result<Left, SourceError> {
        let read = self.read(slot)?;
        let (mut gone, mut there) = (Vec::new(), Vec::new());
        for (at, (part, theirs)) in self.parts.iter().zip(&read.parts).enumerate() {
            let limit = part.deadline(deadline, 1, &*self.clock);
            match part
                .with(|source| source.left_of(&theirs.public, part.auth(auth), limit))
                .map_err(|e| self.fault(at, e))?
            {
                Left::Nothing(how) => gone.push(how),
                Left::Copies(what) => there.push(what),
            }
        }
        Ok(if there.len() < read.needed() { Left::Nothing(gone.join("; ")) } else { Left::Copies(there.join("; ")) })
    }
}

/// For fuzzers: what is read is written as the same slot.
pub(super) fn fuzz(slot: &SlotPublic) {
    if let Some(read) = CombinedSlot::read(slot) {
        assert!(read.write(slot.release_limit()).is_ok_and(|written| written == *slot));
    }
}

/// Whether to open a slot may spend a release of this boot: itself, or one of its parts, counts them. Of `threshold` it
/// depends on who is there.
pub fn may_count(slot: &SlotPublic) -> bool {
    slot_and_parts(slot).iter().any(|part| part.release_limit().is_some())
}

/// A slot, and the slots of its parts: what a source of any of their kinds may have made.
pub fn slot_and_parts(slot: &SlotPublic) -> Vec<SlotPublic> {
    let parts = CombinedSlot::read(slot).map_or_else(Vec::new, |read| read.parts);
    std::iter::once(slot.clone()).chain(parts.into_iter().map(|part| part.public)).collect()
}
