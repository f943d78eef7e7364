//! Sources that are closed as soon as the store is open, and who sees to it.
//!
//! ```text
//! guard starts -> source releases -> store opens -> KEK with the keeper -> sources are closed -> guard is told
//! ```
//! The guard is another process: if this one dies, or the store does not open in time after a release, it closes the
//! sources, so that no release is left for whoever comes after. Its time runs while sources are asked and until the
//! store is open, and not while a device waits for a source that gives nothing yet; a device that is ended while it
//! waits tells the guard so, and the sources stay as they were. It is looked after: before a release another takes the
//! place of one that is gone, and behind it the sources are closed before anything else is done. It stays until they
//! are: what could not be closed is tried again. The KEK goes to the keeper before they are closed: a cut between the
//! two leaves sources that the next start closes; the other way round it would leave a device that needs a restart.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use host::BootTime;
use seal::{FoundSlots, SlotFiles, SlotId, SlotKek, SourceKind, StoreId};

use super::asking;
use super::environment::Environment;
use super::running::Running;
use super::source;
use crate::machine::Event;
use crate::plan::{AfterClose, Plan};

/// Outlives this process within the boot, and has the KEK for the next. `keep` and `fetch` may take seconds, such as
/// those in which a process starts from slow flash: they are made beside the executor. `forget` ends within seconds too,
/// and is waited for: nothing is to be done meanwhile.
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

/// Starts a process that closes the sources of the plan if it is not told in time that they are closed. It may take
/// seconds, and is called beside the executor.
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

    /// A release may come from now on: its time begins, or begins again.
    ///
    /// # Errors
    /// If it does not hear it.
    fn begin(&mut self) -> io::Result<()>;

    /// Nothing was released: it closes the sources only should this process end.
    ///
    /// # Errors
    /// If it does not hear it; then its time runs.
    fn rest(&mut self) -> io::Result<()>;

    /// The sources are closed: it may go.
    fn dismiss(self: Box<Self>);

    /// Nothing was released, and this process releases nothing any more: it may go, and leaves the sources as they
    /// were.
    fn relieve(self: Box<Self>);
}

/// What has become of a guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// It stands there.
    Stands,
    /// It has closed the sources, and is gone.
    Closed,
    /// It could not close them, and is gone.
    Failed,
    /// It was ended before it could.
    Killed,
}

/// Closes every slot of a state directory but `kept` that a source of the plan can close. What was closed, and what was
/// not and why.
///
/// # Errors
/// If the slots cannot be read.
pub async fn close_sources(
    plan: &Plan,
    env: &Environment,
    kept: Option<SlotId>,
) -> io::Result<Vec<Result<String, String>>> {
    let found = SlotFiles::new(&*env.disk, plan.state_dir()).read().map_err(io::Error::other)?;
    let mut told = Vec::new();
    for pair in asking::pairs(plan, env, &found.set).into_iter().filter(|p| Some(p.slot) != kept) {
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
    pub(super) async fn ask_keeper(&mut self) -> Option<Event> {
        let keeper = self.wanted_keeper()?;
        let found = SlotFiles::new(&*self.env.disk, self.plan.state_dir()).read().ok()?;
        let store = found.set.header().store;
        let kek = match aside(move || keeper.fetch(&store)).await {
            Ok(kek) => kek?,
            Err(e) => {
                self.warn(format!("the keeper of this boot does not answer, so the sources are asked: {e}"));
                return None;
            }
        };
        let released = self.released_by(found, kek);
        if released.is_none() {
            self.warn("the keeper of this boot has a key that opens no slot, so the sources are asked".into());
        }
        released
    }

    /// By a slot's KEK in the place of its source's key material, if it opens the slot.
    pub(super) fn released_by(&mut self, found: FoundSlots, kek: SlotKek) -> Option<Event> {
        if !found.set.opens(kek.slot, &kek.kek) {
            return None;
        }
        self.hands.found = Some(found);
        self.hands.kept = Some(kek);
        self.phase("released");
        Some(Event::Released)
    }

    /// Before anything is released: whoever is to close the sources should this process not come to it. One that is
    /// gone has another in its place. Its time begins.
    ///
    /// # Errors
    /// If there is nobody, also because whoever runs this start has no guard to post: it may not release then.
    pub(super) async fn post_guard(&mut self) -> io::Result<()> {
        if self.plan.release.after_close.is_none() {
            return Ok(());
        }
        let watch = self.hands.on_guard.as_mut().map(|guard| guard.watch());
        match watch {
            Some(Watch::Killed) => {
                self.alarm("the guard of the key sources was ended by somebody; another takes its place".into());
            }
            Some(Watch::Failed) => {
                self.alarm("the guard of the key sources could not close them; another takes its place".into());
            }
            Some(Watch::Stands | Watch::Closed) | None => {}
        }
        if watch != Some(Watch::Stands) && host::in_force("release-guarded") {
            let none = || io::Error::other("nobody is there to stand guard over the key sources");
            let (guard, limit) = (self.env.guard.clone().ok_or_else(none)?, self.plan.release.guard);
            self.hands.on_guard = Some(aside(move || guard.start(limit)).await?);
        }
        self.hands.guard_rests = false;
        self.hands.on_guard.as_mut().map_or(Ok(()), |guard| guard.begin())
    }

    /// The sources were asked, and nothing came of it that anybody could use: a device may wait for them as long as it
    /// must.
    pub(super) fn rest_guard(&mut self) {
        match self.hands.on_guard.as_mut().map(|guard| guard.rest()) {
            Some(Ok(())) => self.hands.guard_rests = true,
            // The next round sees what has become of it.
            Some(Err(e)) => tracing::debug!("the guard of the key sources does not hear: {e}"),
            None => {}
        }
    }

    /// At an orderly end. Where every round has come to nothing there is nothing to close: the next start in this boot
    /// has its releases. A command that may have released counts, whatever was answered; from here on none is sent.
    pub(super) fn relieve_guard(&mut self) {
        if self.hands.guard_rests
            && self.env.latch.shut()
            && let Some(on_guard) = self.hands.on_guard.take()
        {
            on_guard.relieve();
        }
    }

    /// Before what was released is used. With nobody on guard a crash from here on would leave releases: so the sources
    /// are closed now, and what is in hand is the last that anybody gets in this boot.
    pub(super) async fn see_to_guard(&mut self) {
        let watch = self.hands.on_guard.as_mut().map(|guard| guard.watch());
        let how = match watch {
            Some(Watch::Killed) => "was ended by somebody",
            Some(Watch::Failed) => "could not close them",
            Some(Watch::Stands | Watch::Closed) | None => return,
        };
        if host::in_force("guard-watched") {
            self.alarm(format!("the guard of the key sources {how}: they are closed at once"));
            self.hands.on_guard = None;
            self.close_all().await;
        }
    }

    /// The store is open: the sources have done what they are for.
    pub(super) async fn close_when_open(&mut self) {
        let by_recovery = self.hands.unlocked.as_ref().is_some_and(|unlocked| unlocked.source == SourceKind::Recovery);
        if self.plan.release.after_close.is_none() || (by_recovery && host::in_force("recovered-before-closed")) {
            // Whoever recovers closes them when new slots are made: each in the state in which it is to open.
            return;
        }
        if let Some(keeper) = self.wanted_keeper()
            && let Some(unlocked) = self.hands.unlocked.take()
        {
            let kept = aside(move || {
                let kept = keeper.keep(&unlocked.header().store, &unlocked.kek);
                Ok((unlocked, kept))
            });
            let kept = kept.await.and_then(|(unlocked, kept)| {
                self.hands.unlocked = Some(unlocked);
                kept
            });
            if let Err(e) = kept {
                self.warn(format!("no keeper has the key: after a crash the device must be restarted: {e}"));
            }
        }
        if host::in_force("closed-when-open") {
            self.close_all().await;
        }
    }

    /// Ends this boot's releases of every slot that a source of the plan can open. The guard goes when they are ended;
    /// until then it stays and they are tried again.
    pub(super) async fn close_all(&mut self) {
        let faults = self.close_sources(None).await;
        if faults.is_empty() {
            if self.hands.unclosed.take().is_some() {
                self.warn("the key sources are closed now".into());
            }
            if let Some(on_guard) = self.hands.on_guard.take() {
                on_guard.dismiss();
            }
            return;
        }
        if self.hands.unclosed.is_none() {
            let text = "the key sources are not closed, and may give their keys again in this boot";
            self.alarm(format!("{text}: {}; it is tried again", faults.join("; ")));
            // One that never asked a source has no guard yet.
            if self.hands.on_guard.is_none()
                && let Err(e) = self.post_guard().await
            {
                self.alarm(format!("and nobody stands guard over them: {e}"));
            }
        }
        let pause = self.hands.unclosed.map_or(CLOSE_AGAIN, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
        let next = (self.env.clock.boottime().plus(pause), pause);
        self.hands.unclosed = Some(next).filter(|_| host::in_force("closed-again"));
    }

    /// What could not be closed, when its time has come.
    pub(super) async fn close_again(&mut self, now: BootTime) {
        if self.hands.unclosed.is_some_and(|(at, _)| at <= now) {
            self.close_all().await;
        }
    }

    /// Where the agreement of this boot is used up, a second source would renew it: the others give nothing more.
    pub(super) async fn close_others(&mut self) {
        if !self.hands.last_release {
            return;
        }
        let opened_by = self.hands.unlocked.as_ref().map(|u| u.kek.slot);
        for fault in self.close_sources(opened_by).await {
            self.warn(not_closed(&fault));
        }
    }

    /// Ends this boot's releases of every slot but `kept`, of those that a source of the plan can open: what they might
    /// still give is then for nobody. Why any is open still.
    #[must_use = "what could not be closed has to be told"]
    pub(super) async fn close_sources(&mut self, kept: Option<SlotId>) -> Vec<String> {
        let closed = match close_sources(&self.plan, &self.env, kept).await {
            Ok(closed) => closed,
            Err(e) => return vec![format!("the slot files cannot be read: {e}")],
        };
        for source in closed.iter().flatten() {
            tracing::info!("{source} gives nothing more in this boot");
        }
        closed.into_iter().filter_map(Result::err).collect()
    }

    /// Sealed by somebody's word is sealed: the next start must not open by what was kept, also not by what was kept
    /// under a plan of before.
    pub(super) fn keeper_forgets(&mut self) -> Result<(), String> {
        let keeper =
            if host::in_force("keeper-forgets-always") { self.env.keeper.clone() } else { self.wanted_keeper() };
        let Some(Err(e)) = keeper.map(|keeper| keeper.forget()) else { return Ok(()) };
        let fault = format!("the keeper of this boot may still have the key: {e}");
        self.alarm(fault.clone());
        Err(fault)
    }

    /// The plan has no keeper, and one of an earlier start of this boot may be there still.
    pub(super) fn dismiss_keeper(&mut self) {
        if self.plan.release.after_close != Some(AfterClose::Keeper) {
            let _ = self.keeper_forgets(); // it was told
        }
    }

    fn wanted_keeper(&self) -> Option<Arc<dyn KekKeeper>> {
        let wanted = self.plan.release.after_close == Some(AfterClose::Keeper);
        self.env.keeper.clone().filter(|_| wanted)
    }
}

/// Beside the executor: the device's sockets answer meanwhile.
async fn aside<T: Send + 'static>(call: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|e| Err(e.into()))
}

pub(super) fn not_closed(fault: &str) -> String {
    format!("a key source was not closed for this boot: {fault}")
}

/// A TPM that is not there for a moment is there some seconds later.
const CLOSE_AGAIN: Duration = Duration::from_secs(5);
/// One that is gone for good is asked no more often than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
