//! A brake on starts that end before the store is served: they must use up neither the releases of a boot nor the tries
//! of a PIN, and leave servers in peace.
//!
//! ```text
//! start   keeper, if there is one -> rest that is left -> noted: a try, durable -> sources are asked -> noted: what came of it
//! served  noted: nothing was tried
//! ```
//! That a start is about to try is durable before it does, so that a crash at any moment has been counted. Whatever
//! else is noted is not synced: a kill does not lose it, and after a power cut, in another boot of the kernel, the
//! number of starts alone decides; one too many is taken lightly there (`rest_left`). No wall clock is asked: a rest is
//! measured by CLOCK_BOOTTIME within a boot, and from the start of the kernel in another.

mod record;

use std::io;
use std::path::Path;
use std::time::Duration;

use host::{BootTime, Clock, Disk, Entropy};

use self::record::{Outcome, Tries, TriesFile};
use super::running::Running;
use crate::machine::{Event, doubled, pause};
use crate::plan::{Cost, Plan, SourceSpec};

/// What this unsealing has done about it so far.
#[derive(Default)]
pub(super) struct Brake {
    looked: bool,
    counted: bool,
    /// Key material was given, and the store is not served by it so far.
    given: bool,
    /// That tries cannot be noted was waited for.
    waited: bool,
    rest: Option<Rest>,
}

/// A rest under way.
struct Rest {
    until: BootTime,
    why: String,
}

/// What a round of asking has come to, for the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    Given,
    Later,
    Refused,
    Exhausted,
}

impl Running {
    /// What is left of the rest that starts before this one have made necessary, or a key of this one's that has opened
    /// nothing: the store of somebody else's may not take its shares. `None` to go on at once.
    pub(super) fn rest_first(&mut self) -> Option<Event> {
        let brake = &mut self.hands.brake;
        let in_vain = std::mem::take(&mut brake.given);
        // Which is as if another process had begun.
        brake.counted &= !in_vain;
        if !is_braked(&self.plan) || (std::mem::replace(&mut brake.looked, true) && !in_vain) {
            return None;
        }
        let (disk, clock) = (self.env.disk.clone(), self.env.clock.clone());
        let mut file = TriesFile::read(&*disk, &self.plan.state_dir());
        let tries = file.tries(clock.boot_id(), clock.boottime(), LONGEST);
        if file.is_damaged() {
            self.alarm("the record of tries is damaged: the key sources are asked after the longest rest".into());
            // The rest begins now, and not anew at each start: a device that is started again and again would never
            // ask.
            if let Err(e) = file.write(tries, true) {
                self.warn(format!("the record of tries cannot be written: {e}"));
            }
        }
        let left =
            if self.at_once || !host::in_force("starts-rest") { Duration::ZERO } else { rest_left(&tries, &*clock) };
        let rest = jittered(left, &*self.env.entropy);
        if !rest.is_zero() {
            let why = tell(&tries);
            self.warn(format!("{why}; the key sources are asked in {} s", rest.as_secs().max(1)));
            self.hands.brake.rest = Some(Rest { until: clock.boottime().plus(rest), why });
        }
        let failed = tries.rounds.into();
        (failed > 0 || !rest.is_zero()).then_some(Event::Rested { failed, rest })
    }

    /// Notes that the sources are about to be asked: durable on return. Where it cannot be, they are asked after a
    /// rest.
    pub(super) fn note_try(&mut self) -> Result<(), Event> {
        self.hands.brake.rest = None;
        let first = !std::mem::replace(&mut self.hands.brake.counted, true);
        let dear = cost(&self.plan) == Cost::Counted;
        let noted = self.note(first, |tries| Tries {
            starts: tries.starts.saturating_add(first.into()),
            rounds: tries.rounds.saturating_add(1),
            // Of a process that goes on asking servers it is known that they gave nothing.
            outcome: if first || dear { Outcome::Asked } else { tries.outcome },
            ..tries
        });
        match noted {
            Err(e) if !std::mem::replace(&mut self.hands.brake.waited, true) => {
                let rest = UNNOTED;
                self.hands.brake.counted = !first;
                self.warn(format!("a try cannot be noted: {e}; the key sources are asked in {} s", rest.as_secs()));
                Err(Event::Rested { failed: 0, rest })
            }
            _ => Ok(()),
        }
    }

    /// Notes what came of it.
    pub(super) fn note_outcome(&mut self, came: Came) {
        self.hands.brake.given = came == Came::Given;
        let outcome = match came {
            Came::Given => Outcome::Given,
            Came::Later => Outcome::Later,
            Came::Refused => Outcome::Refused,
            Came::Exhausted => Outcome::Exhausted,
        };
        if let Err(e) = self.note(false, |tries| Tries { outcome, ..tries }) {
            self.warn(format!("the record of tries cannot be written: {e}"));
        }
    }

    /// The store is served: what was tried before is of no account.
    pub(super) fn forget_tries(&mut self) {
        self.hands.brake = Brake::default();
        if !is_braked(&self.plan) {
            return;
        }
        let (disk, clock) = (self.env.disk.clone(), self.env.clock.clone());
        let mut file = TriesFile::read(&*disk, &self.plan.state_dir());
        let none = Tries::none(clock.boot_id(), clock.boottime());
        if (file.is_damaged() || file.tries(none.boot, none.at, LONGEST).starts > 0)
            && let Err(e) = file.write(none, false)
        {
            self.warn(format!("the record of tries cannot be written: {e}"));
        }
    }

    /// Why no source is asked at the moment, and for how long, if that is so.
    pub fn resting(&self) -> Option<String> {
        let Rest { until, why } = self.hands.brake.rest.as_ref()?;
        let left = until.since(self.env.clock.boottime());
        Some(format!("{why}; the key sources are asked in {} s", left.as_secs().max(1)))
    }

    fn note(&mut self, durable: bool, change: impl FnOnce(Tries) -> Tries) -> io::Result<()> {
        if !is_braked(&self.plan) {
            return Ok(());
        }
        let clock = &*self.env.clock;
        let mut file = TriesFile::read(&*self.env.disk, &self.plan.state_dir());
        let (boot, at) = (clock.boot_id(), clock.boottime());
        let before = file.tries(boot, at, LONGEST);
        let tries = change(Tries { boot, at, ..before });
        let tries = Tries { rest: rest_after(&self.plan, &tries), ..tries };
        // A server that is away for weeks is asked every minute, and nothing new is known then: the disk is spared.
        if !durable && (tries.outcome, tries.rest) == (before.outcome, before.rest) {
            return Ok(());
        }
        file.write(tries, durable)
    }
}

/// What starts before have left, in a sentence; `None` where the last one was served, or nothing is kept. Changes
/// nothing.
pub fn tries_before(disk: &dyn Disk, clock: &dyn Clock, plan: &Plan) -> Option<String> {
    if !is_braked(plan) {
        return None;
    }
    let file = TriesFile::read(disk, &plan.state_dir());
    let tries = file.tries(clock.boot_id(), clock.boottime(), LONGEST);
    let left = rest_left(&tries, clock);
    (tries.starts > 0).then(|| match left.as_secs() {
        0 => format!("{}; the next one asks at once", tell(&tries)),
        left => format!("{}; the next one asks in {left} s or later", tell(&tries)),
    })
}

/// Makes room for the record in a state directory that is being made.
pub(super) fn prepare(plan: &Plan, disk: &dyn Disk, state_dir: &Path) -> io::Result<()> {
    if is_braked(plan) { record::prepare(disk, state_dir) } else { Ok(()) }
}

/// For fuzzers.
pub fn fuzz_tries(bytes: &[u8]) {
    record::fuzz(bytes);
}

/// Whether there is anything that asking too often would wear out or disturb.
fn is_braked(plan: &Plan) -> bool {
    cost(plan) > Cost::Nothing
}

fn cost(plan: &Plan) -> Cost {
    plan.sources.iter().map(SourceSpec::cost).max().unwrap_or(Cost::Nothing)
}

/// After a try that has come to this, by the count of tries.
fn rest_after(plan: &Plan, tries: &Tries) -> Duration {
    let starts = tries.starts.into();
    match tries.outcome {
        // As long as the process itself would have waited.
        Outcome::Later => pause(plan, tries.rounds.into()),
        Outcome::Asked | Outcome::Given | Outcome::Refused if cost(plan) == Cost::Counted => doubled(COUNTED, starts),
        Outcome::Asked | Outcome::Given | Outcome::Refused | Outcome::Exhausted => pause(plan, starts),
    }
}

/// What is left of a rest. Never more than the longest, whatever the record says.
fn rest_left(tries: &Tries, clock: &dyn Clock) -> Duration {
    if tries.starts == 0 {
        return Duration::ZERO;
    }
    let (now, rest) = (clock.boottime(), tries.rest.min(LONGEST));
    if tries.boot == clock.boot_id() {
        // A moment that is still to come was written by nobody who could know: the rest is whole.
        return if tries.at > now { rest } else { rest.saturating_sub(now.since(tries.at)) };
    }
    // Another boot: its releases are its own, and a device whose power fails again and again should serve when it can.
    // PINs and servers have their peace by a rest from the start of the kernel.
    match tries.outcome {
        Outcome::Exhausted => Duration::ZERO,
        _ => doubled(OTHER_BOOT, tries.starts.into()).saturating_sub(now.since(BootTime(0))),
    }
}

/// Up to a quarter longer: devices of one site do not ask in step.
fn jittered(rest: Duration, entropy: &dyn Entropy) -> Duration {
    if rest.is_zero() {
        return rest;
    }
    let mut chance = [0; 1];
    entropy.fill(&mut chance);
    rest + rest / 4 * u32::from(chance[0]) / 255
}

fn tell(tries: &Tries) -> String {
    let end = match tries.outcome {
        _ if tries.starts == u16::MAX => return "what was tried before is not known".into(),
        Outcome::Asked => "while a key source was asked",
        Outcome::Given => "after a key source had given the key",
        Outcome::Later => "while no key source answered",
        Outcome::Refused => "with a refusal that somebody must put right",
        Outcome::Exhausted => "when no release was left in that boot",
    };
    match tries.starts {
        1 => format!("the start before ended before the store was served, {end}"),
        n => format!("{n} starts in a row ended before the store was served, the last {end}"),
    }
}

/// Where each try costs a release or a try of a PIN: first and longest rest.
const COUNTED: (Duration, Duration) = (Duration::from_secs(30), LONGEST);
/// In another boot of the kernel, from its start.
const OTHER_BOOT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Whatever the record says.
const LONGEST: Duration = Duration::from_secs(600);
/// Where no try can be noted.
const UNNOTED: Duration = Duration::from_secs(30);

/// How many starts a record counts.
#[cfg(test)]
pub(super) fn starts_in(bytes: &[u8]) -> Option<u16> {
    record::starts_in(bytes)
}
