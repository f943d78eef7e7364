//! Which source is asked for which slot, in what order, and who is not asked again.
//!
//! ```text
//! every (source, slot) that fit each other:   as often as they like, in the order of the plan, newest slot first
//!                                             then those that count their releases: a release is not spent where none is needed
//! opens -> the rest is not asked      may pass -> asked again in the next round      refused -> not asked again before a new start
//! ```
//! A PIN is tried once at each start: where one was refused, no other slot of the same device that asks for one is tried,
//! which would spend another try of few, and a release before it.
//!
//! A slot whose source is not in the plan is left alone. Every refusal is told, also where another source opens the
//! store. A plan may get other sources while somebody is waited for ([`Running::adopt_sources`]): what was refused is
//! remembered of the source itself, and not of its place. One whose settings were changed is another, but for its PIN.
//!
//! [`Running::adopt_sources`]: super::running::Running::adopt_sources

use seal::{
    Evidence, Fit, FoundSlots, Ikm, Released, Remedy, Slot, SlotFiles, SlotId, SlotPublic, SlotSet, SourceError,
    SourceKind, UnlockError, Wanted,
};

use super::environment::Environment;
use super::keys::refused;
use super::source;
use crate::machine::Halt;
use crate::plan::{Plan, SourceSpec};

/// What was asked since the start and is not asked again.
#[derive(Default)]
pub(super) struct Asking {
    refused: Vec<Refused>,
}

/// Who did not open what, and why.
struct Refused {
    source: SourceSpec,
    slot: SlotId,
    why: Refusal,
}

/// A source that may open a slot, by its place in a plan that does not change meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) source: usize,
    pub(super) slot: SlotId,
}

/// Why a source does not open a slot.
#[derive(Debug)]
enum Refusal {
    Source(SourceError),
    Unlock(UnlockError),
    /// It was not asked.
    Spared(PinSpared),
}

/// A wrong PIN is not tried once more.
#[derive(Debug, thiserror::Error)]
#[error("not asked: a PIN was refused by the same device")]
struct PinSpared;

/// Key material that fits a slot.
pub(super) struct Given {
    pub(super) found: FoundSlots,
    pub(super) kind: SourceKind,
    pub(super) ikm: Ikm,
    /// The source gives nothing more in this boot.
    pub(super) last: bool,
    pub(super) evidence: Evidence,
}

/// What a round of asking came to.
pub(super) struct Round {
    pub(super) end: End,
    /// For people: what did not go as it should, and whether it looks like an attack.
    pub(super) told: Vec<(Remedy, String)>,
}

/// How it ended.
pub(super) enum End {
    Given(Box<Given>),
    /// Somebody may answer later.
    Later,
    Never(Halt),
}

impl Asking {
    /// Asks everybody who was not refused yet, until one gives what fits its slot.
    pub(super) async fn round(&mut self, plan: &Plan, env: &Environment) -> Round {
        let mut told = Vec::new();
        let found = match SlotFiles::new(&*env.disk, plan.state_dir()).read() {
            Ok(found) => found,
            Err(e) => return Round { end: End::Never(refused(&e, e.hint())), told },
        };
        let pairs = pairs(plan, env, &found.set);
        let mut later = false;
        for pair in &pairs {
            let (Some(spec), Some(public)) = (plan.sources.get(pair.source), public(&found.set, pair.slot)) else {
                continue;
            };
            let same = |before: &Refused| before.source == *spec && before.slot == pair.slot;
            if self.refused.iter().any(same) && host::in_force("refused-source-not-asked-again") {
                continue;
            }
            if self.pin_was_refused(plan, env, spec, public) {
                let spared = Refused::new(spec, pair.slot, Refusal::Spared(PinSpared));
                told.push(spared.told(plan, ""));
                self.refused.push(spared);
                continue;
            }
            let why = match source::release(spec, plan, env, public.clone(), found.set.slots()).await {
                Ok(Released { ikm, evidence, remaining_this_boot }) => {
                    tracing::info!(slot = %pair.slot, evidence = ?evidence.0, "the source has released");
                    let kind = public.kind();
                    if found.set.fits(pair.slot, &ikm) {
                        let last = remaining_this_boot == Some(0);
                        let given = Given { found, kind, ikm, last, evidence };
                        return Round { end: End::Given(Box::new(given)), told };
                    }
                    Refusal::Unlock(UnlockError::WrongIkm { slot: pair.slot, kind })
                }
                Err(e) => Refusal::Source(e),
            };
            let refused = Refused::new(spec, pair.slot, why);
            if refused.why.remedy() == Remedy::Retry {
                later = true;
                told.push(refused.told(plan, "the source gives nothing yet"));
            } else {
                if pairs.len() > 1 {
                    told.push(refused.told(plan, ""));
                }
                self.refused.retain(|before| !same(before));
                self.refused.push(refused);
            }
        }
        let end = if later { End::Later } else { End::Never(self.halt(plan, &found.set)) };
        Round { end, told }
    }

    /// A round by the files that sources need; nobody is asked. [`End::Later`] also where somebody might give: then
    /// `told` is of the others.
    pub(super) fn look(&mut self, plan: &Plan, env: &Environment) -> Round {
        let mut told = Vec::new();
        let found = match SlotFiles::new(&*env.disk, plan.state_dir()).read() {
            Ok(found) => found,
            Err(e) => return Round { end: End::Never(refused(&e, e.hint())), told },
        };
        let mut hope = false;
        for pair in pairs(plan, env, &found.set) {
            let Some(spec) = plan.sources.get(pair.source) else { continue };
            let Err(e) = source::look(spec, plan, env, Wanted::Release) else {
                hope = true;
                continue;
            };
            hope |= e.remedy() == Remedy::Retry;
            let refused = Refused::new(spec, pair.slot, Refusal::Source(e));
            told.push(refused.told(plan, "the key source"));
            self.refused.push(refused);
        }
        let end = if hope { End::Later } else { End::Never(self.halt(plan, &found.set)) };
        Round { end, told }
    }

    /// Whether to ask `spec` for `slot` would try a PIN where one was refused since the start.
    fn pin_was_refused(&self, plan: &Plan, env: &Environment, spec: &SourceSpec, slot: &SlotPublic) -> bool {
        self.pins_refused().any(|before| before == spec || before.shares_tries(spec))
            && source::source(spec, plan, env).tries_pin(slot)
            && host::in_force("wrong-pin-tried-once")
    }

    /// The sources of which a PIN was refused, also those that the plan has no more.
    pub(super) fn pins_refused(&self) -> impl Iterator<Item = &SourceSpec> {
        self.refused.iter().filter(|refused| refused.why.is_of_pin()).map(|refused| &refused.source)
    }

    /// Whether what keeps the store sealed ends with this boot, and only then.
    pub(super) fn ends_with_the_boot(&self, plan: &Plan) -> bool {
        self.of(plan).map(|r| r.why.remedy()).max_by_key(|r| gravity(*r)) == Some(Remedy::Reboot)
    }

    /// Whether somebody was refused for a reason that a person must look into: to ask him again is in vain, and may be
    /// dear.
    pub(super) fn needs_somebody(&self, plan: &Plan) -> bool {
        self.of(plan).any(|r| matches!(r.why.remedy(), Remedy::Operator | Remedy::Alarm))
    }

    /// Whether a source has released what opens no slot: it is out, and was not all that there is.
    pub(super) fn gave_what_fits_no_slot(&self) -> bool {
        self.refused.iter().any(|r| matches!(r.why, Refusal::Unlock(_)))
    }

    /// Nobody is left who might open the store: all reasons, and the remedy of the gravest.
    fn halt(&self, plan: &Plan, set: &SlotSet) -> Halt {
        match &self.of(plan).collect::<Vec<_>>()[..] {
            [] => no_slot(plan, set),
            [only] => refused(only.why.error(), only.why.hint()),
            all => {
                let facts: Vec<String> = all.iter().map(|r| r.told(plan, "").1).collect();
                let asked = all.iter().map(|r| &r.why).filter(|why| !matches!(why, Refusal::Spared(_)));
                let gravest = asked.max_by_key(|why| gravity(why.remedy()));
                let hint = gravest.map_or("", Refusal::hint).to_owned();
                Halt::Refused { fact: format!("no key source opens the store: {}", facts.join("; ")), hint }
            }
        }
    }

    /// What was refused by sources that the plan has: of others nothing is to be said any more.
    fn of<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = &'a Refused> {
        self.refused.iter().filter(|refused| plan.sources.contains(&refused.source))
    }
}

impl Refused {
    fn new(source: &SourceSpec, slot: SlotId, why: Refusal) -> Self {
        Self { source: source.clone(), slot, why }
    }

    /// For people: the source with its slot, or `alone` where there is but one, and why.
    fn told(&self, plan: &Plan, alone: &str) -> (Remedy, String) {
        let Self { source, slot, why } = self;
        let fact = why.fact();
        let text = match plan.sources.len() > 1 || alone.is_empty() {
            true => format!("{source} (slot {slot}): {fact}"),
            false => format!("{alone}: {fact}"),
        };
        (why.remedy(), text)
    }
}

impl Refusal {
    fn error(&self) -> &dyn std::error::Error {
        match self {
            Self::Source(e) => e,
            Self::Unlock(e) => e,
            Self::Spared(e) => e,
        }
    }

    fn is_of_pin(&self) -> bool {
        matches!(self, Self::Source(e) if e.is_of_pin())
    }

    fn remedy(&self) -> Remedy {
        match self {
            Self::Source(e) => e.remedy(),
            Self::Unlock(_) | Self::Spared(_) => Remedy::Operator,
        }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Source(e) => e.hint(),
            Self::Unlock(e) => e.hint(),
            Self::Spared(_) => "put the right PIN into its place, and start edgekeep again",
        }
    }

    /// With its causes, in one line.
    fn fact(&self) -> String {
        refused(self.error(), "").to_string()
    }
}

/// Every source with the slots that it may open, in the order of asking.
pub(super) fn pairs(plan: &Plan, env: &Environment, set: &SlotSet) -> Vec<Pair> {
    let sources: Vec<_> = plan.sources.iter().map(|spec| source::source(spec, plan, env)).collect();
    // A slot that names its device is that device's alone.
    let claimed = |slot: &SlotPublic| sources.iter().any(|s| s.fits(slot) == Fit::Yes);
    let mut pairs: Vec<(bool, Pair)> = Vec::new();
    for (source, it) in sources.iter().enumerate() {
        let newest_first = || set.slots().iter().rev();
        let mine = |slot: &&Slot| match it.fits(slot.public()) {
            Fit::Yes => true,
            Fit::Maybe => !claimed(slot.public()),
            Fit::No => false,
        };
        let mut slots: Vec<&Slot> = newest_first().filter(mine).collect();
        if slots.is_empty() {
            // Another card, file or set of servers than before: asked all the same, for its refusal says what is wrong.
            slots = newest_first().filter(|s| s.public().kind() == it.kind() && !claimed(s.public())).collect();
        }
        pairs.extend(slots.iter().map(|slot| (is_counted(slot.public()), Pair { source, slot: slot.id() })));
    }
    // Stable: within each half the order of the plan stays.
    if host::in_force("counted-source-last") {
        pairs.sort_by_key(|(counted, _)| *counted);
    }
    pairs.into_iter().map(|(_, pair)| pair).collect()
}

fn is_counted(slot: &SlotPublic) -> bool {
    seal::may_count(slot)
}

fn public(set: &SlotSet, id: SlotId) -> Option<&SlotPublic> {
    set.slots().iter().find(|s| s.id() == id).map(Slot::public)
}

fn no_slot(plan: &Plan, set: &SlotSet) -> Halt {
    if let [only] = &plan.sources[..]
        && set.slots_of(only.kind()).next().is_none()
    {
        let e = UnlockError::NoSlotOfKind { kind: only.kind() };
        return refused(&e, e.hint());
    }
    let kinds: Vec<String> = set.slots().iter().map(|s| s.public().kind().to_string()).collect();
    let sources: Vec<String> = plan.sources.iter().map(ToString::to_string).collect();
    Halt::Refused {
        fact: format!(
            "none of the sources ({}) has a key slot; the slots are of: {}",
            sources.join("; "),
            kinds.join(", ")
        ),
        hint:
            "put the [[source]] back that the store was made with, or unseal with the recovery key: `edgekeep recover`"
                .into(),
    }
}

fn gravity(remedy: Remedy) -> u8 {
    match remedy {
        Remedy::Retry => 0,
        Remedy::Reboot => 1,
        Remedy::Operator => 2,
        Remedy::Alarm => 3,
    }
}
