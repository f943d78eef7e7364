//! Looking at slots, and trying them. Neither uses a release up.

use api::PeerAddress;
use seal::{Released, Slot, SlotId, SlotSet, SourceKind, may_count};

use super::super::asking;
use super::super::kept_keks;
use super::super::running::Running;
use super::super::source;
use super::{SlotList, SlotReport, SlotTest, Verdict, find};
use crate::machine::Halt;
use crate::plan::SourceSpec;

impl Running {
    /// All slots, with what is missing here; no release is used up, and nothing is changed.
    ///
    /// # Errors
    /// A [`Halt`] if the store is sealed, or the slot files are not those that it has recorded.
    pub async fn slots(&mut self) -> Result<SlotList, Halt> {
        let set = self.vouched()?;
        let due = kept_keks::due(&self.hands.store.clone().ok_or_else(super::not_open)?).await?;
        let mut slots = Vec::new();
        for slot in set.slots() {
            let spec = self.source_of(&set, slot.id());
            let mut report = self.report(slot, spec.as_ref()).await;
            if due.contains(&slot.id()) {
                report.facts.push(("older copies".into(), known(slot).into()));
            }
            slots.push(report);
        }
        let without = self.without_slot(&set).into_iter();
        let without_slot = without.filter_map(|i| Some(format!("{}: {}", i + 1, self.plan.sources.get(i)?))).collect();
        Ok(SlotList { store: set.header().store.to_string(), generation: set.generation(), slots, without_slot })
    }

    /// Tries one slot, or all. A source that counts its releases is not asked for one.
    ///
    /// # Errors
    /// As [`Running::slots`]; a slot that does not open is no error.
    pub async fn test_slots(&mut self, id: Option<u16>, by: PeerAddress) -> Result<Vec<SlotTest>, Halt> {
        let set = self.vouched()?;
        let wanted: Vec<&Slot> = match id {
            Some(id) => vec![find(&set, SlotId(id))?],
            None => set.slots().iter().filter(|s| s.public().kind() != SourceKind::Recovery).collect(),
        };
        let act = self.announce("admin/slots/test", by).await?;
        let mut tests = Vec::new();
        for slot in wanted {
            tests.push(self.try_slot(&set, slot).await);
        }
        self.conclude(act, Ok(None)).await?;
        Ok(tests)
    }

    /// Tries a slot with its source, and notes whether it opened.
    pub(super) async fn try_slot(&mut self, set: &SlotSet, slot: &Slot) -> SlotTest {
        let (id, kind) = (slot.id().0, slot.public().kind());
        let test = |verdict, told: String| SlotTest { id, kind: kind.to_string(), verdict, told };
        let Some(spec) = self.source_of(set, slot.id()) else {
            let told = match kind {
                SourceKind::Recovery => "its key is with its keeper; edgekeep recover uses it, and replaces it",
                _ => "no source of the configuration goes with it",
            };
            return test(Verdict::NoSource, told.into());
        };
        if may_count(slot.public()) && host::in_force("tests-spend-nothing") {
            return match self.foresee(&spec, slot.public()).await {
                Ok(_) => test(
                    Verdict::NotAsked,
                    "its source counts releases and was not asked for one; nothing speaks against it".into(),
                ),
                Err(e) => test(Verdict::Refuses, host::with_causes(&e)),
            };
        }
        match source::release(&spec, &self.plan, &self.env, slot.public().clone(), set.slots()).await {
            // The wrap too: only that shows that nobody has changed the slot.
            Ok(released) if !set.fits(slot.id(), &released.ikm) => {
                test(Verdict::Refuses, "its source gives other key material than it was made with".into())
            }
            Ok(Released { ikm, evidence, .. }) => match set.unlock(kind, ikm) {
                Ok(_) => {
                    self.hands.seen.opened(slot.id(), &evidence);
                    test(Verdict::Opens, "its source has released, and it opens".into())
                }
                Err(e) => test(Verdict::Refuses, e.to_string()),
            },
            Err(e) => test(Verdict::Refuses, host::with_causes(&e)),
        }
    }

    async fn report(&self, slot: &Slot, spec: Option<&SourceSpec>) -> SlotReport {
        let public = slot.public();
        let mut report = SlotReport {
            id: slot.id().0,
            kind: public.kind().to_string(),
            source: spec.map(ToString::to_string),
            releases_per_boot: public.release_limit().map(std::num::NonZeroU8::get),
            opened: self.hands.seen.has(slot.id()).is_some(),
            ..SlotReport::default()
        };
        if let Some(name) = public.recovery_name() {
            report.facts.push(("key".into(), name));
            return report;
        }
        let Some(spec) = spec else {
            report.missing = Some("no source of the configuration goes with it".into());
            return report;
        };
        match self.foresee(spec, public).await {
            Ok(evidence) => report.facts = evidence.0.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            Err(e) => report.missing = Some(host::with_causes(&e)),
        }
        report
    }

    /// The source whose slot it is; or one that opens it besides its own, as for another image.
    pub(super) fn source_of(&self, set: &SlotSet, slot: SlotId) -> Option<SourceSpec> {
        let own = self.owned(set).into_iter().find(|(_, s)| *s == slot).map(|(source, _)| source);
        let besides =
            || asking::pairs(&self.plan, &self.env, set).into_iter().find(|p| p.slot == slot).map(|p| p.source);
        self.plan.sources.get(own.or_else(besides)?).cloned()
    }
}

/// What is to be said of a slot that is due to have another KEK.
fn known(slot: &Slot) -> &'static str {
    match slot.public().kind() {
        SourceKind::Recovery => {
            "a copy of the data directory tells its key to whoever could open the store then: edgekeep operator rekey"
        }
        _ => {
            "a copy of the data directory tells its key to whoever could open the store then, until its source opens the store again"
        }
    }
}
