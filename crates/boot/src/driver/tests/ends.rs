//! Ends of a device after each event of its disk, by a cut of the power and by a kill, and what it starts from
//! afterwards.

use std::fmt;
use std::sync::Arc;

use host::{Disk as _, OsDisk};
use testkit::{CrashDisk, Cut, Image, NameRule, Unsynced};

use crate::driver::Environment;
use crate::plan::Plan;

/// How a device ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// What was not synced is lost in part, what lay in memory whole.
    PowerCut,
    /// The process dies and the kernel goes on: all that was written is there.
    Kill,
}

/// A device's end.
pub(super) struct End {
    /// The last event on the disk.
    pub(super) at: usize,
    pub(super) by: By,
    /// What is on the disk then.
    pub(super) image: Image,
}

/// Ends by a power cut, with one way of losing what was not synced at each moment, all of them in turn.
pub(super) fn cuts(disk: &CrashDisk, events: impl IntoIterator<Item = usize>) -> impl Iterator<Item = End> {
    events.into_iter().map(move |at| {
        let (unsynced, names) = lost_at(at);
        End { at, by: By::PowerCut, image: disk.image(&Cut { at, unsynced, names, seed: at as u64 }) }
    })
}

/// Both ends after each of the events.
pub(super) fn ends(disk: &CrashDisk, events: impl IntoIterator<Item = usize>) -> impl Iterator<Item = End> {
    let kill = |end: &End| End { at: end.at, by: By::Kill, image: disk.killed(end.at) };
    cuts(disk, events).flat_map(move |cut| {
        let kill = kill(&cut);
        [cut, kill]
    })
}

impl End {
    /// Puts the files there as they are after this end; what lay in memory goes with the power.
    pub(super) fn restore(&self, disk: &CrashDisk, plan: &Plan) {
        disk.restore(&self.image);
        if self.by == By::PowerCut {
            OsDisk.remove_tree(&plan.run_dir).unwrap();
        }
    }

    /// One of three kills in four, for a test to which the fourth is enough: a sync changes nothing that a kill leaves.
    pub(super) fn is_spare(&self) -> bool {
        self.by == By::Kill && !self.at.is_multiple_of(4)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unsynced, names) = lost_at(self.at);
        write!(f, "{:?} after event {} ({unsynced:?}, {names:?})", self.by, self.at)
    }
}

fn lost_at(at: usize) -> (Unsynced, NameRule) {
    (Unsynced::ALL[at % 4], NameRule::ALL[at / 4 % 2])
}

/// The machine on the files as they are: nothing is recorded any more.
pub(super) fn unrecorded(env: Environment) -> Environment {
    Environment { disk: Arc::new(OsDisk), vfs: None, ..env }
}
