//! One round of asking the parts of a combination.
//!
//! ```text
//! at will    no count, no PIN   all at once, each on a thread of its own; those that hang are left behind
//! with care  a count or a PIN   one by one, a PIN before a count, and only while what is still missing can be had
//! ```

use std::sync::Arc;
use std::sync::mpsc::channel;

use host::Clock;

use super::{CombinedSlot, NoAuth, Part};
use crate::slot::SourceKind;
use crate::source::{Auth, Deadline, Evidence, Released, Remedy, SourceError};

/// Parts as they are asked.
pub(super) struct Round<'a> {
    parts: &'a [Part],
    slot: &'a CombinedSlot,
    clock: &'a dyn Clock,
    deadline: Deadline,
    given: Vec<(usize, Released)>,
    faults: Vec<(usize, SourceError)>,
}

impl<'a> Round<'a> {
    pub(super) fn new(parts: &'a [Part], slot: &'a CombinedSlot, clock: &'a dyn Clock, deadline: Deadline) -> Self {
        Self { parts, slot, clock, deadline, given: Vec::new(), faults: Vec::new() }
    }

    fn missing(&self) -> usize {
        self.slot.needed().saturating_sub(self.given.len())
    }

    /// Whether asking this part uses something up: a release, or a try of a PIN.
    fn costs(&self, at: usize) -> bool {
        let part = &self.slot.parts[at];
        (part.pin || part.public.release_limit().is_some()) && host::in_force("limited-parts-last")
    }

    pub(super) fn ask_those_that_may_be_asked_at_will(&mut self) {
        let (answer, answers) = channel();
        let mut waiting = 0;
        let free: Vec<usize> = (0..self.parts.len()).filter(|at| !self.costs(*at)).collect();
        for at in free.iter().copied() {
            let part = &self.parts[at];
            let (source, public) = (Arc::clone(&part.source), self.slot.parts[at].public.clone());
            let (limit, answer, kind) =
                (part.deadline(self.deadline, 1, self.clock), answer.clone(), part.kind.to_string());
            let ask = move || {
                let released = match source.try_lock() {
                    Ok(mut source) => source.release(&public, &NoAuth, limit),
                    Err(_) => {
                        let defect = "its last call has not ended".into();
                        Err(SourceError::Unreachable { what: format!("the source `{kind}`"), defect })
                    }
                };
                // Nobody listens any more where enough others were faster; what it gave is wiped.
                drop(answer.send((at, released)));
            };
            match std::thread::Builder::new().name("part of a key".into()).spawn(ask) {
                Ok(_) => waiting += 1,
                Err(source) => self.faults.push((at, SourceError::Os { what: "a thread".into(), source })),
            }
        }
        drop(answer);
        while waiting > 0 && self.missing() > 0 {
            // A part that panicked has dropped its end; when all have, there is nothing more to come.
            let Ok((at, released)) = answers.recv_timeout(self.deadline.left(self.clock)) else { break };
            waiting -= 1;
            self.take(at, released);
        }
        for at in free {
            if self.missing() > 0 && !self.heard_of(at) {
                let what = format!("the source `{}`", self.parts[at].kind);
                self.faults.push((at, SourceError::TimedOut { what, limit: self.parts[at].limit }));
            }
        }
    }

    pub(super) fn ask_the_others(&mut self, auth: &dyn Auth) {
        let mut left: Vec<usize> = (0..self.parts.len()).filter(|at| self.costs(*at)).collect();
        left.sort_by_key(|at| self.slot.parts[*at].public.release_limit().is_some());
        // One that is not there is found out before another is made to spend anything.
        if self.missing() > 1 {
            left.retain(|at| {
                let part = &self.parts[*at];
                let limit = part.deadline(self.deadline, 1, self.clock);
                let public = &self.slot.parts[*at].public;
                match part.with(|source| source.foresee(public, limit)) {
                    Ok(_) => true,
                    Err(e) => {
                        self.faults.push((*at, e));
                        false
                    }
                }
            });
        }
        for (asked, at) in left.iter().copied().enumerate() {
            let missing = self.missing();
            if missing == 0 || missing > left.len() - asked {
                return;
            }
            let part = &self.parts[at];
            let limit = part.deadline(self.deadline, 1, self.clock);
            let public = &self.slot.parts[at].public;
            let released = part.with(|source| source.release(public, part.auth(auth), limit));
            self.take(at, released);
        }
    }

    fn take(&mut self, at: usize, released: Result<Released, SourceError>) {
        match released.and_then(|released| self.slot.fits(at, &released.ikm).map(|()| released)) {
            Ok(released) => self.given.push((at, released)),
            Err(e) => self.faults.push((at, e)),
        }
    }

    fn heard_of(&self, at: usize) -> bool {
        self.given.iter().any(|(i, _)| *i == at) || self.faults.iter().any(|(i, _)| *i == at)
    }

    /// How often the combination can still be had in this boot, where a part of it has counted this time. What has
    /// failed now is not hoped for; what was not asked is asked what it has left.
    pub(super) fn remaining(&self) -> Option<u8> {
        if self.given.iter().all(|(_, released)| released.remaining_this_boot.is_none()) {
            return None;
        }
        let left: Vec<Option<u8>> = (0..self.parts.len()).map(|at| self.left(at)).collect();
        releases_left(&left, self.slot.needed())
    }

    fn left(&self, at: usize) -> Option<u8> {
        if let Some((_, released)) = self.given.iter().find(|(gave, _)| *gave == at) {
            return released.remaining_this_boot;
        }
        if self.heard_of(at) {
            return Some(0);
        }
        let public = &self.slot.parts[at].public;
        public.release_limit()?;
        let limit = self.parts[at].deadline(self.deadline, 1, self.clock);
        match self.parts[at].with(|source| source.foresee(public, limit)) {
            Ok(evidence) => evidence.releases_left(),
            Err(_) => Some(0),
        }
    }

    /// What the parts gave, in their order, where it is enough.
    pub(super) fn end(mut self) -> Result<Vec<(usize, Released)>, TooFew> {
        if self.missing() == 0 {
            self.given.sort_by_key(|(at, _)| *at);
            return Ok(self.given);
        }
        let unasked = (0..self.parts.len()).filter(|at| !self.heard_of(*at)).count();
        self.faults.sort_by_key(|(at, _)| *at);
        let kinds = self.parts.iter().map(|p| p.kind).collect();
        Err(TooFew { given: self.given.len(), unasked, faults: self.faults, kinds })
    }
}

/// A round that has not brought enough.
pub(super) struct TooFew {
    given: usize,
    unasked: usize,
    faults: Vec<(usize, SourceError)>,
    kinds: Vec<SourceKind>,
}

impl TooFew {
    /// It is asked again only where that could do, and where it costs no try of a PIN that is known to be in
    /// vain, nor a release before it.
    pub(super) fn into_error(mut self, needed: usize) -> SourceError {
        let may_pass = self.faults.iter().filter(|(_, e)| e.remedy() == Remedy::Retry).count();
        let wrong_pin = self.faults.iter().position(|(_, e)| e.is_of_pin());
        if wrong_pin.is_none() && self.given + self.unasked + may_pass >= needed {
            let faults = self
                .faults
                .iter()
                .map(|(at, e)| format!("part {} ({}): {}", at + 1, self.kinds[*at], host::with_causes(e)));
            let faults = faults.collect::<Vec<_>>().join("; ");
            return SourceError::TooFewParts { needed, answered: self.given, faults };
        }
        let worst = wrong_pin.or_else(|| (0..self.faults.len()).max_by_key(|i| severity(&self.faults[*i].1)));
        match worst {
            Some(i) => {
                let (at, e) = self.faults.swap_remove(i);
                SourceError::Part { number: at + 1, kind: self.kinds[at], source: Box::new(e) }
            }
            // No part has failed and too few have given: there are fewer parts than are needed, which the slot's reader
            // refuses.
            None => SourceError::TooFewParts { needed, answered: self.given, faults: "no part has failed".into() },
        }
    }
}

fn severity(e: &SourceError) -> u8 {
    match e.remedy() {
        Remedy::Retry => 0,
        Remedy::Reboot => 1,
        Remedy::Operator => 2,
        Remedy::Alarm => 3,
    }
}

/// How often `needed` parts can still be had, by what each has left; `None` where those that count nothing are enough.
/// Parts that may be asked at will go first in each round, and the others by their order.
pub(super) fn releases_left(left: &[Option<u8>], needed: usize) -> Option<u8> {
    let mut counted: Vec<u8> = left.iter().flatten().copied().collect();
    let of_counted = needed.saturating_sub(left.len() - counted.len());
    if of_counted == 0 {
        return None;
    }
    let mut rounds = 0_u8;
    while counted.iter().filter(|n| **n > 0).count() >= of_counted {
        counted.iter_mut().filter(|n| **n > 0).take(of_counted).for_each(|n| *n -= 1);
        rounds = rounds.saturating_add(1);
    }
    Some(rounds)
}

/// A part's facts, each with the part's number.
pub(super) fn numbered(
    at: usize,
    kind: SourceKind,
    evidence: Evidence,
) -> impl Iterator<Item = (&'static str, String)> {
    let fact = move |(name, value): (&'static str, String)| (name, format!("part {} ({kind}): {value}", at + 1));
    evidence.0.into_iter().map(fact)
}

#[cfg(test)]
mod tests {
    use super::releases_left;

    #[test]
    fn what_several_parts_have_left_together() {
        for (left, needed, expected) in [
            (&[None, None][..], 2, None),
            (&[Some(3), None], 2, Some(3)),
            (&[Some(3), Some(2)], 2, Some(2)),
            (&[Some(3), None], 1, None),
            (&[Some(1), Some(1), Some(1)], 2, Some(1)),
            (&[Some(2), Some(2), Some(2)], 2, Some(2)),
            (&[Some(1), Some(2), Some(1)], 2, Some(2)),
            (&[Some(1), Some(1), Some(2)], 2, Some(1)),
            (&[Some(2), Some(0), None], 2, Some(2)),
            (&[Some(0), Some(0), None], 2, Some(0)),
        ] {
            assert_eq!(releases_left(left, needed), expected, "{left:?}, {needed} needed");
        }
    }
}
