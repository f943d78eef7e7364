//! A combination for the next image: the TPMs among its parts are made anew for the values that their registers will
//! have, every other part stays as it is.
//!
//! ```text
//! values for every TPM? counted parts have two left? ─> parts at will: released ─> TPMs: predicted ─> the others: released, once
//! ```
//! The key of a slot comes of all its parts, so each has to give its own once more; a TPM does not, whose new octets
//! are at hand when they are sealed. The others are kept and not made anew: a key file is made but once, a token would
//! have one key more for each prediction, and a Tang server that is away now would be lost to the new slot. What costs
//! something comes last, when nothing else can fail any more.

use ::tpm::PcrValues;

use super::slot::joined;
use super::{CombinedSlot, CombinedSource, SlotPart, slot_and_parts};
use crate::ikm::Ikm;
use crate::slot::SlotPublic;
use crate::source::tpm::lacking;
use crate::source::{Auth, Deadline, Provisioned, SourceError, Unkept, differ_in_values_alone as differ};

impl CombinedSource {
    /// As [`super::KeySource::predict`].
    pub(super) fn make_for(
        &self,
        slot: &SlotPublic,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        let used = self.read(slot)?;
        self.may_be_made_for(&used, values, deadline)?;
        let mut unkept = Unkept::default();
        let made = self.make_parts_for(&used, slot, values, auth, deadline, &mut unkept);
        self.kept_or_taken_back(made, unkept, Some(&used), auth)
    }

    fn make_parts_for(
        &self,
        used: &CombinedSlot,
        slot: &SlotPublic,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
        unkept: &mut Unkept<usize>,
    ) -> Result<Provisioned, SourceError> {
        let mut made: Vec<Option<(SlotPart, Ikm)>> = used.parts.iter().map(|_| None).collect();
        for at in order(used) {
            let (part, ikm) = self.part_for(used, at, values, auth, deadline).map_err(|e| self.fault(at, e))?;
            if is_tpm(&part.public) {
                unkept.note(at, &part.public);
            }
            made[at] = Some((part, ikm));
        }
        self.put_together(used, slot, made.iter().flatten())
    }

    /// What can be refused before anybody is asked for anything.
    fn may_be_made_for(&self, used: &CombinedSlot, values: &PcrValues, deadline: Deadline) -> Result<(), SourceError> {
        for (at, part) in used.parts.iter().enumerate() {
            let public = &part.public;
            let may = match is_tpm(public) {
                true => lacking(public, values),
                false if public.release_limit().is_some() => self.leaves_another(at, public, deadline),
                false => Ok(()),
            };
            may.map_err(|e| self.fault(at, e))?;
        }
        Ok(())
    }

    /// The last release of a boot is for a start of edgekeep.
    fn leaves_another(&self, at: usize, public: &SlotPublic, deadline: Deadline) -> Result<(), SourceError> {
        let part = &self.parts[at];
        let limit = part.deadline(deadline, 1, &*self.clock);
        let left = part.with(|source| source.foresee(public, limit))?.releases_left();
        if left.is_some_and(|left| left >= 2) || !host::in_force("last-release-kept") {
            return Ok(());
        }
        let defect = "it counts its releases, and the last of a boot is not spent on another image".into();
        Err(SourceError::Exhausted { what: format!("the source `{}`", part.kind), defect })
    }

    fn part_for(
        &self,
        used: &CombinedSlot,
        at: usize,
        values: &PcrValues,
        auth: &dyn Auth,
        deadline: Deadline,
    ) -> Result<(SlotPart, Ikm), SourceError> {
        let (part, theirs) = (&self.parts[at], &used.parts[at]);
        let (limit, auth) = (part.deadline(deadline, 1, &*self.clock), part.auth(auth));
        if is_tpm(&theirs.public) {
            let made = part.with(|source| source.predict(&theirs.public, values, auth, limit))?;
            return Ok((SlotPart { public: made.public, pin: theirs.pin }, made.ikm));
        }
        let ikm = part.with(|source| source.release(&theirs.public, auth, limit))?.ikm;
        used.fits(at, &ikm)?;
        Ok((theirs.clone(), ikm))
    }

    /// As the slot in use is put together, whatever the configuration says by now.
    fn put_together<'a>(
        &self,
        used: &CombinedSlot,
        slot: &SlotPublic,
        made: impl Iterator<Item = &'a (SlotPart, Ikm)>,
    ) -> Result<Provisioned, SourceError> {
        let (parts, ikms): (Vec<SlotPart>, Vec<&Ikm>) = made.map(|(part, ikm)| (part.clone(), ikm)).unzip();
        let (next, ikm) = match used.threshold() {
            None => (CombinedSlot::all(parts), joined(&ikms)?),
            Some(threshold) => CombinedSlot::shared(threshold, parts, &ikms, &*self.entropy)?,
        };
        Ok(Provisioned { public: next.write(slot.release_limit())?, ikm })
    }
}

/// What can be had at any time, then what a TPM makes without a release, then what wants a PIN, then what is counted.
fn order(used: &CombinedSlot) -> Vec<usize> {
    let mut order: Vec<usize> = (0..used.parts.len()).collect();
    order.sort_by_key(|at| {
        let part = &used.parts[*at];
        match (is_tpm(&part.public), part.public.release_limit()) {
            (true, _) => 1,
            (false, Some(_)) => 3,
            (false, None) if part.pin => 2,
            (false, None) => 0,
        }
    });
    order
}

fn is_tpm(part: &SlotPublic) -> bool {
    part.kind().is_of_tpm()
}

/// Whether two slots are of the same parts, but for the values of their registers.
pub(in crate::source) fn differ_in_values_alone(a: &SlotPublic, b: &SlotPublic) -> bool {
    let (Some(one), Some(other)) = (CombinedSlot::read(a), CombinedSlot::read(b)) else { return false };
    let alike = |(one, other): (&SlotPart, &SlotPart)| {
        let same = if is_tpm(&one.public) { differ(&one.public, &other.public) } else { one.public == other.public };
        one.pin == other.pin && same
    };
    a.kind() == b.kind()
        && a.release_limit() == b.release_limit()
        && (one.needed(), one.parts.len()) == (other.needed(), other.parts.len())
        && slot_and_parts(a).iter().any(is_tpm)
        && one.parts.iter().zip(&other.parts).all(alike)
}
