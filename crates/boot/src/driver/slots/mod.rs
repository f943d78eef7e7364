//! The life of the key slots, while the store is open: what an operator asks for at the admin socket.
//!
//! ```text
//! add      provision -> it opens? -> KEK under the barrier -> slots.a, slots.b -> head                     root key as before
//! remove   another slot has opened? -> slots.a -> keyring and head in one commit -> slots.b                root key and term new
//! reseal   add, then remove                            predict, commit: the same, with a restart between them
//! ```
//! At each moment the slot files hold a set that the store opens with; a power cut steps back or forward (`change`). A
//! slot goes only when another one is *known* to open ([`Tested`]): it has opened the store at this start, or has been
//! tried since. Copies of the data directory from before a removal open as they did: with the slot that is gone now
//! here.

mod change;
mod list;
mod predict;
mod recovered;
mod report;

use std::collections::BTreeMap;

use api::PeerAddress;
use seal::{
    Board, Evidence, NewSlot, Provisioned, Slot, SlotFiles, SlotId, SlotPublic, SlotSet, SourceKind, Unkept, Wanted,
    may_count,
};

use super::keys::{of_source, refused};
use super::running::Running;
use super::{asking, source};
use crate::machine::Halt;
use crate::plan::{Plan, SourceSpec};

pub use report::{SlotChange, SlotList, SlotReport, SlotTest, Verdict};

/// Proof that a slot opens on this device: with it another one may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tested(SlotId);

impl Tested {
    /// Whether the slot that was tested is among those that go.
    fn is_among(self, going: &[SlotId]) -> bool {
        going.contains(&self.0)
    }
}

/// Slots that have been seen to open since the store was opened, and what their sources said at the last time.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<SlotId, Evidence>);

impl Seen {
    /// `slot` has opened: the store itself, or its own wrap after its source gave what fits.
    pub(super) fn opened(&mut self, slot: SlotId, evidence: &Evidence) {
        self.0.insert(slot, evidence.clone());
    }

    fn has(&self, slot: SlotId) -> Option<Tested> {
        self.0.contains_key(&slot).then_some(Tested(slot))
    }

    /// Which TPM a slot has opened without, if it did.
    fn left_out(&self, slot: SlotId) -> Option<&str> {
        self.0.get(&slot).and_then(Evidence::left_out)
    }
}

impl Running {
    /// Takes the key sources of a configuration that was read anew: so that a source is added without a restart, which
    /// would use a release up. Everything else of a plan stays as it was at the start.
    pub fn adopt_sources(&mut self, newer: &Plan) {
        let mut plan = (*self.plan).clone();
        plan.sources.clone_from(&newer.sources);
        plan.sources.iter_mut().for_each(|spec| spec.keep_pins_of(&self.plan.sources));
        plan.dangers.short_ikm = newer.dangers.short_ikm;
        self.set_plan(plan);
    }

    /// Makes a slot for each source of the plan that has none; for the one that is `named` (its number in the
    /// configuration, from 1, or its kind) alone.
    ///
    /// # Errors
    /// A [`Halt`] that says why; nothing was changed, or the slot is there and could not be recorded.
    pub async fn add_slots(&mut self, named: Option<&str>, by: PeerAddress) -> Result<SlotChange, Halt> {
        let set = self.vouched()?;
        let without: Vec<usize> = self.without_slot(&set);
        let wanted: Vec<usize> = match named {
            None => without,
            Some(name) => vec![self.find_source(name, &without)?],
        };
        if wanted.is_empty() {
            let hint =
                "write a further [[source]] into edgekeep.toml first; `edgekeep seal slots reseal` makes a slot anew"
                    .into();
            return Err(Halt::Refused { fact: "every source of the configuration has its slot".into(), hint });
        }
        let act = self.announce("admin/slots/add", by).await?;
        let mut change = SlotChange::default();
        let mut outcome = Ok(None);
        for index in wanted {
            match self.add(index, None).await {
                Ok((slot, sequence)) => {
                    change.added.push(slot.0);
                    outcome = Ok(sequence);
                }
                Err(halt) => {
                    outcome = Err(halt);
                    break;
                }
            }
        }
        self.conclude(act, outcome).await?;
        Ok(change)
    }

    /// Takes a slot away, and puts a new root key and a new data key in the place of those that it could open.
    ///
    /// # Errors
    /// A [`Halt`]: the slot is the last one that is known to open, or does not exist, or the disk failed.
    pub async fn remove_slot(&mut self, id: u16, by: PeerAddress) -> Result<SlotChange, Halt> {
        let id = SlotId(id);
        let set = self.vouched()?;
        let slot = find(&set, id)?;
        if slot.public().kind() == SourceKind::Recovery && self.plan.recovery != Some(crate::plan::RecoverySpec::None) {
            let fact = format!("slot {id} is the recovery key's, and [recovery] names who holds it");
            return Err(Halt::Refused {
                fact,
                hint: "it is replaced by its use; to have none, set none = true in [recovery]".into(),
            });
        }
        let act = self.announce("admin/slots/remove", by).await?;
        let outcome = match self.another_that_opens(&set, id).await {
            Ok(tested) => self.remove(&[id], tested).await,
            Err(halt) => Err(halt),
        };
        self.conclude(act, outcome).await?;
        Ok(SlotChange { removed: vec![id.0], ..SlotChange::default() })
    }

    /// Makes a slot anew with its own source, under the policy of the configuration and the state that the device is in
    /// now; the old one goes when the new one has opened. Without an id, every slot that has a source in the
    /// configuration.
    ///
    /// # Errors
    /// A [`Halt`]; the old slot is there still.
    pub async fn reseal_slots(&mut self, id: Option<u16>, by: PeerAddress) -> Result<SlotChange, Halt> {
        let set = self.vouched()?;
        let owned = self.owned(&set);
        let wanted: Vec<(usize, SlotId)> = match id {
            None => owned,
            Some(id) => {
                find(&set, SlotId(id))?;
                owned.into_iter().filter(|(_, slot)| slot.0 == id).collect()
            }
        };
        if wanted.is_empty() {
            let fact = "no source of the configuration goes with that slot".to_owned();
            return Err(Halt::Refused {
                fact,
                hint: "write its [[source]] into edgekeep.toml; see edgekeep seal slots list".into(),
            });
        }
        for (_, old) in &wanted {
            self.is_no_update_waiting(&set, *old)?;
        }
        let act = self.announce("admin/slots/reseal", by).await?;
        let mut change = SlotChange::default();
        let mut outcome = Ok(None);
        for (index, old) in wanted {
            match self.replace_slots(index, &[old], Board::Same, &mut change).await {
                Ok(sequence) => outcome = Ok(sequence),
                Err(halt) => {
                    outcome = Err(halt);
                    break;
                }
            }
        }
        self.conclude(act, outcome).await?;
        Ok(change)
    }

    /// A new slot for a source in the place of `old` ones, which stay where the new one cannot be tried in this boot.
    async fn replace_slots(
        &mut self,
        index: usize,
        old: &[SlotId],
        board: Board,
        change: &mut SlotChange,
    ) -> Result<Option<u64>, Halt> {
        let set = self.vouched()?;
        let beside = old.first().and_then(|id| find(&set, *id).ok()).map(|slot| slot.public().clone());
        let (slot, sequence) = self.add(index, beside.clone().map(|slot| (slot, board))).await?;
        change.added.push(slot.0);
        if let Some(moved) = beside.and_then(|old| report::moved(&old, find(&self.vouched().ok()?, slot).ok()?)) {
            self.alarm(moved.clone());
            change.moved.push(moved);
        }
        match self.hands.seen.has(slot) {
            Some(tested) => {
                let sequence = self.remove(old, tested).await?;
                change.removed.extend(old.iter().map(|id| id.0));
                Ok(sequence)
            }
            None => {
                change.kept.extend(old.iter().map(|id| id.0));
                Ok(sequence)
            }
        }
    }

    /// Provisions a source of the plan, tries what it gave, and puts the slot into the set. What it shares with a slot
    /// `beside`, such as the count of its releases, is taken from there.
    async fn add(&mut self, index: usize, beside: Option<(SlotPublic, Board)>) -> Result<(SlotId, Option<u64>), Halt> {
        let plan = std::sync::Arc::clone(&self.plan);
        let spec = plan.sources.get(index).ok_or_else(|| internal("a source that is not in the plan"))?;
        let made = match beside {
            Some((slot, board)) => source::provision_beside(spec, &plan, &self.env, slot, board).await,
            None => source::provision(spec, &plan, &self.env).await,
        };
        let made = made.map_err(|e| of_source(spec, &plan, &e, e.hint_for(Wanted::Provision)))?;
        self.add_provisioned(spec, made).await
    }

    /// Puts a slot into the set for what a source has made, and notes whether it was seen to open. If it cannot be put
    /// there, it is taken back.
    pub(super) async fn add_provisioned(
        &mut self,
        spec: &SourceSpec,
        made: Provisioned,
    ) -> Result<(SlotId, Option<u64>), Halt> {
        if let Some(weakly) = spec.counts_weakly(&made.public) {
            self.warn(weakly);
        }
        let unkept = noted(spec, &made.public);
        let public = made.public.clone();
        let added = self.try_to_add(spec, made).await;
        self.kept_or_taken_back(added, unkept, &public).await
    }

    /// What a source has made for a slot goes with the slot; where that did not come about, it is taken back.
    async fn kept_or_taken_back<T>(
        &mut self,
        added: Result<T, Halt>,
        unkept: Unkept<SourceSpec>,
        public: &SlotPublic,
    ) -> Result<T, Halt> {
        if added.is_ok() {
            unkept.kept();
            return added;
        }
        match self.slots_without(public) {
            Some(others) => self.take_back(unkept, others).await,
            None => {
                self.warn("what was made for a slot stays in its source: the slot may be on the disk".into());
                unkept.kept();
            }
        }
        added
    }

    /// The slots that the disk has, if it is certain that this one is not among them.
    fn slots_without(&self, public: &SlotPublic) -> Option<Vec<SlotPublic>> {
        let found = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read().ok()?;
        let sets = std::iter::once(&found.set).chain(&found.older);
        let all: Vec<SlotPublic> = sets.flat_map(SlotSet::slots).map(|slot| slot.public().clone()).collect();
        (found.heal.is_none() && !all.contains(public)).then_some(all)
    }

    async fn try_to_add(&mut self, spec: &SourceSpec, made: Provisioned) -> Result<(SlotId, Option<u64>), Halt> {
        let Provisioned { public, ikm } = made;
        let ground = self.ground().await?;
        let (next, added) = ground.with(NewSlot { public: public.clone(), ikm }, &*self.env.entropy)?;
        let id = added.slot;
        // Before anything is written: a slot that does not come back is none. A source that counts has shown it at
        // provisioning, and is not asked to count one now.
        let seen = if may_count(&public) {
            self.foresee(spec, &public).await.ok().filter(|_| next.opens(id, &added.kek))
        } else {
            let released = source::release(spec, &self.plan, &self.env, public, next.slots()).await;
            let released = released.map_err(|e| of_source(spec, &self.plan, &e, e.hint()))?;
            if !next.fits(id, &released.ikm) {
                let fact = format!("{spec} gives other key material than it was provisioned with");
                return Err(Halt::Refused { fact, hint: "nothing was changed; see docs/hardware.md".into() });
            }
            Some(released.evidence)
        };
        let sequence = self.put(&ground, &next, &added).await?;
        if let Some(evidence) = seen {
            self.hands.seen.opened(id, &evidence);
        }
        Ok((id, sequence))
    }

    /// A slot besides `going` that is known to open the store: from this start, or tried now where that costs nothing.
    async fn another_that_opens(&mut self, set: &SlotSet, going: SlotId) -> Result<Tested, Halt> {
        let others = || set.slots().iter().filter(|s| s.id() != going && s.public().kind() != SourceKind::Recovery);
        if let Some(tested) = others().find_map(|s| self.hands.seen.has(s.id())) {
            return Ok(tested);
        }
        let mut why = Vec::new();
        for slot in others() {
            let report = self.try_slot(set, slot).await;
            if let Some(tested) = self.hands.seen.has(slot.id()) {
                return Ok(tested);
            }
            why.push(format!("slot {}: {}", slot.id(), report.told));
        }
        if !host::in_force("last-slot-stays") {
            return Ok(Tested(SlotId(0)));
        }
        if why.is_empty() {
            let hint = "add another slot first: edgekeep seal slots add";
            return Err(Halt::Refused {
                fact: format!("slot {going} is the last that opens the store"),
                hint: hint.into(),
            });
        }
        let fact = format!("no other slot than {going} is known to open the store: {}", why.join("; "));
        let hint =
            "see that another source works, or restart the device so that it opens by another slot, and ask again";
        Err(Halt::Refused { fact, hint: hint.into() })
    }

    /// Which slot is which source's: (source, slot). Each slot has one source at most; one without is left alone.
    fn owned(&self, set: &SlotSet) -> Vec<(usize, SlotId)> {
        let mut owned: Vec<(usize, SlotId)> = Vec::new();
        let mut pairs = asking::pairs(&self.plan, &self.env, set);
        // The slots in the order in which they came: so it stays the same whatever is asked first.
        pairs.sort_by_key(|p| (p.source, p.slot));
        for pair in pairs {
            if !owned.iter().any(|(source, slot)| *source == pair.source || *slot == pair.slot) {
                owned.push((pair.source, pair.slot));
            }
        }
        owned
    }

    fn without_slot(&self, set: &SlotSet) -> Vec<usize> {
        let owned = self.owned(set);
        (0..self.plan.sources.len()).filter(|i| !owned.iter().any(|(source, _)| source == i)).collect()
    }

    /// A source of the plan by its number or kind, among those without a slot.
    fn find_source(&self, name: &str, without: &[usize]) -> Result<usize, Halt> {
        let is = |(i, spec): (usize, &SourceSpec)| {
            (name == (i + 1).to_string() || name == spec.kind().to_string()).then_some(i)
        };
        let named: Vec<usize> = self.plan.sources.iter().enumerate().filter_map(is).collect();
        let free: Vec<usize> = named.iter().copied().filter(|i| without.contains(i)).collect();
        let refuse = |fact: String, hint: &str| Err(Halt::Refused { fact, hint: hint.into() });
        match (&named[..], &free[..]) {
            ([], _) => refuse(
                format!("the configuration has no source {}", name.escape_default().take(64).collect::<String>()),
                "name it by its number among the [[source]]s, or by its kind",
            ),
            (_, [one]) => Ok(*one),
            (_, []) => refuse(format!("source {name} has its slot"), "edgekeep seal slots reseal makes it anew"),
            (..) => refuse(format!("several sources of kind {name} have no slot"), "name one by its number"),
        }
    }
}

fn find(set: &SlotSet, id: SlotId) -> Result<&Slot, Halt> {
    set.slots().iter().find(|s| s.id() == id).ok_or_else(|| Halt::Refused {
        fact: format!("the store has no slot {id}"),
        hint: "see edgekeep seal slots list".into(),
    })
}

fn noted(spec: &SourceSpec, made: &SlotPublic) -> Unkept<SourceSpec> {
    let mut unkept = Unkept::default();
    unkept.note(spec.clone(), made);
    unkept
}

pub(super) fn internal(what: &str) -> Halt {
    Halt::Refused { fact: format!("internal fault: {what}"), hint: "please report this".into() }
}

/// A source's facts for a slot, or why it would not open.
type Foreseen = Result<seal::Evidence, seal::SourceError>;

impl Running {
    /// Whether to ask `spec` for `slot` would try a PIN once more that was refused since the start.
    fn pin_was_refused(&self, spec: &SourceSpec, slot: &SlotPublic) -> bool {
        self.pins_refused.iter().any(|before| before == spec || before.shares_tries(spec))
            && source::source(spec, &self.plan, &self.env).tries_pin(slot)
            && host::in_force("wrong-pin-tried-once")
    }

    /// What a release would say, as far as it can be told without one.
    async fn foresee(&self, spec: &SourceSpec, slot: &SlotPublic) -> Foreseen {
        source::foresee(spec, &self.plan, &self.env, slot.clone()).await
    }

    pub(in crate::driver) async fn announce(
        &mut self,
        path: &'static str,
        by: PeerAddress,
    ) -> Result<pipeline::LocalAct, Halt> {
        let core = self.hands.core.clone().ok_or_else(not_open)?;
        core.announce_admin(path, by).await.map_err(|e| Halt::Refused {
            fact: format!("it cannot be recorded, and so is not done: {}", e.logged()),
            hint: "see whether the disk of the audit ring works".into(),
        })
    }

    pub(in crate::driver) async fn conclude(
        &mut self,
        act: pipeline::LocalAct,
        outcome: Result<Option<u64>, Halt>,
    ) -> Result<(), Halt> {
        let told = outcome.as_ref().copied().map_err(ToString::to_string);
        if let Some(core) = self.hands.core.clone()
            && let Err(e) = core.conclude_local(act, told.as_ref().copied().map_err(String::as_str)).await
        {
            self.alarm(format!("the audit has the change of the key slots, and not its outcome: {}", e.logged()));
        }
        outcome.map(drop)
    }
}

fn not_open() -> Halt {
    Halt::Refused {
        fact: "the store is sealed, and key slots are changed while it is open".into(),
        hint: "open it first: restart edgekeep, or edgekeep recover".into(),
    }
}

const FULL: &str = "see whether the disk is full";

/// An error and its causes, for what happens to the disk here.
fn disk_fault(error: &dyn std::error::Error) -> Halt {
    refused(error, FULL)
}
