//! Sources that are closed as soon as the store is open, and who sees to it.
//!
//! ```text
//! guard starts -> source releases -> store opens -> KEK with the keeper -> sources are closed -> guard is told
//! ```
//! The guard is another process: if this one dies in between, or the store does not open in time, it closes the sources, so that no
//! release is left for whoever comes after. It is looked after: before a release another takes the place of one that was killed, and
//! behind it the sources are closed before anything else is done. The KEK goes to the keeper before they are closed: a cut between the two leaves sources
//! that the next start closes; the other way round it would leave a device that needs a restart.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use seal::{SlotFiles, SlotKek, SourceKind, StoreId};

use super::asking;
use super::environment::Environment;
use super::running::Running;
use super::source;
use crate::machine::Event;
use crate::plan::{AfterClose, Plan};

/// Outlives this process within the boot, and has the KEK for the next. Its calls end within a second or so.
pub trait KekKeeper: Send + Sync {
    /// Has it keep `kek`, in place of any other.
    ///
    /// # Errors
    /// If it does not have it on return.
    fn keep(&self, store: &StoreId, kek: &SlotKek) -> io::Result<()>;

    /// What it keeps for `store`; `None` if it keeps nothing, or is not there.
    ///
    /// # Errors
    /// If it is there and does not answer.
    fn fetch(&self, store: &StoreId) -> io::Result<Option<SlotKek>>;

    /// Has it forget, and end.
    ///
    /// # Errors
    /// If it may still have a KEK.
    fn forget(&self) -> io::Result<()>;
}

/// Starts a process that closes the sources of the plan if it is not told in time that they are closed.
pub trait ReleaseGuard: Send + Sync {
    /// Starts it.
    ///
    /// # Errors
    /// If there is nobody to see to it: then nothing is released.
    fn start(&self, limit: Duration) -> io::Result<Box<dyn OnGuard>>;
}

/// A guard at its post. Dropped without a word, it closes the sources.
pub trait OnGuard: Send {
    /// Whether it is there still.
    fn watch(&mut self) -> Watch;

    /// The sources are closed: it may go.
    fn dismiss(self: Box<Self>);
}

/// What has become of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It stands there.
    Stands,
    /// It has closed the sources, and is gone.
    Closed,
    /// It was ended before it could.
    Killed,
}

/// Closes every slot of a state directory that a source of the plan can close. What was closed, and what was not and why.
///
/// # Errors
/// If the slots cannot be read.
pub async fn close_sources(plan: &Plan, env: &Environment) -> io::Result<Vec<Result<String, String>>> {
    let found = SlotFiles::new(&*env.disk, plan.state_dir()).read().map_err(io::Error::other)?;
    let mut told = Vec::new();
    for pair in asking::pairs(plan, env, &found.set) {
        let slot = found.set.slots().iter().find(|s| s.id() == pair.slot).map(|s| s.public().clone());
        let (Some(spec), Some(slot)) = (plan.sources.get(pair.source), slot) else { continue };
        match source::close(spec, plan, env, slot).await {
            Ok(closed) if closed.is_until_reboot() => told.push(Ok(format!("{spec} (slot {})", pair.slot))),
            Ok(_) => {}
            Err(e) => told.push(Err(format!("{spec} (slot {}): {}", pair.slot, host::with_causes(&e)))),
        }
    }
    Ok(told)
}

impl Running {
    /// What the keeper has, if it opens the store: then no source is asked.
    pub(super) fn ask_keeper(&mut self) -> Option<Event> {
        let keeper = self.keeper()?;
        let found = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read().ok()?;
        let kek = match keeper.fetch(&found.set.header().store) {
            Ok(kek) => kek?,
            Err(e) => {
                self.warn(format!("the keeper of this boot does not answer, so the sources are asked: {e}"));
                return None;
            }
        };
        if !found.set.opens(kek.slot, &kek.kek) {
            self.warn("the keeper of this boot has a key that opens no slot, so the sources are asked".into());
            return None;
        }
        self.hands.found = Some(found);
        self.hands.kept = Some(kek);
        self.phase("released");
        Some(Event::Released)
    }

    /// Before anything is released: whoever is to close the sources should this process not come to it. One that is gone has another in
    /// its place.
    pub(super) fn post_guard(&mut self) -> io::Result<()> {
        match self.hands.on_guard.as_mut().map(|guard| guard.watch()) {
            _ if self.plan.release.after_close.is_none() => return Ok(()),
            Some(Watch::Stands) => return Ok(()),
            Some(Watch::Killed) => {
                self.alarm("the guard of the key sources was ended by somebody; another takes its place".into());
            }
            Some(Watch::Closed) | None => {}
        }
        if let Some(guard) = &self.env.guard
            && host::in_force("release-guarded")
        {
            self.hands.on_guard = Some(guard.start(self.plan.release.guard)?);
        }
        Ok(())
    }

    /// Before what was released is used. With nobody on guard a crash from here on would leave releases: so the sources are closed now,
    /// and what is in hand is the last that anybody gets in this boot.
    pub(super) async fn see_to_guard(&mut self) {
        let watch = self.hands.on_guard.as_mut().map(|guard| guard.watch());
        if watch == Some(Watch::Killed) && host::in_force("guard-watched") {
            self.alarm("the guard of the key sources was ended by somebody: they are closed at once".into());
            self.close_sources(None).await;
        }
    }

    /// The store is open: the sources have done what they are for.
    pub(super) async fn close_when_open(&mut self) {
        if self.plan.release.after_close.is_none() {
            return;
        }
        if let (Some(keeper), Some(unlocked)) = (self.keeper(), &self.hands.unlocked) {
            // The recovery key is spent by its use, and its slot with it.
            let kept = match unlocked.source {
                SourceKind::Recovery => Ok(()),
                _ => keeper.keep(&unlocked.header().store, &unlocked.kek),
            };
            if let Err(e) = kept {
                self.warn(format!("no keeper has the key: after a crash the device must be restarted: {e}"));
            }
        }
        if host::in_force("closed-when-open") {
            self.close_sources(None).await;
        }
        if let Some(on_guard) = self.hands.on_guard.take() {
            on_guard.dismiss();
        }
    }

    /// Sealed by somebody's word is sealed: the next start must not open by what was kept.
    pub(super) fn keeper_forgets(&mut self) {
        if let Some(Err(e)) = self.keeper().map(|keeper| keeper.forget()) {
            self.alarm(format!("the keeper of this boot may still have the key: {e}"));
        }
    }

    fn keeper(&self) -> Option<Arc<dyn KekKeeper>> {
        let wanted = self.plan.release.after_close == Some(AfterClose::Keeper);
        self.env.keeper.clone().filter(|_| wanted)
    }
}
