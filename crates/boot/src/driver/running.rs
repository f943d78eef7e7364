//! A boot under way, and the device that it becomes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use delivery::{Channel, Endpoint, FileChannel};
use host::BootTime;
use pipeline::Core;
use pipeline::audit::AuditDevice;
use pki::{Ca, ServerCertificate};
use seal::{Evidence, FoundSlots, FreshKek, Ikm, RecoveryKey, SlotKek, Unkept, Unlocked};
use store::Store;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::asking::Asking;
use super::backoff::Brake;
use super::certificates::Certificates;
use super::closing::{OnGuard, not_closed};
use super::door::Door;
use super::environment::{Environment, Note, Observer};
use super::front::{Front, Serving};
use super::keys::refused;
use super::reach::{Line, Reached};
use super::recovery::Rotation;
use super::seam::Seam;
use super::slots::{Seen, SlotChange};
use super::steps::undelayed;
use super::upkeep::Watched;
use crate::gate::{Board, Hints};
use crate::machine::{Action, Event, Halt, Machine, State};
use crate::plan::{AfterClose, GateName, Plan, ServiceName, SourceSpec};
use crate::provision::Ground;

/// The device: its machine, and what the machine's state is made of.
pub struct Running {
    pub(super) plan: Arc<Plan>,
    pub(super) env: Environment,
    pub(super) observer: Box<dyn Observer>,
    pub(super) machine: Option<Machine>,
    pub(super) hands: Hands,
    pub(super) channel: FileChannel,
    pub(super) board: watch::Sender<Board>,
    /// The gates whose opening was told.
    pub(super) told_open: BTreeSet<GateName>,
    /// Rings when a request has sealed the store.
    pub(super) sealed: Arc<Notify>,
    pub(super) hints: Hints,
    pub(super) probes: (mpsc::Sender<Probed>, mpsc::Receiver<Probed>),
    pub(super) probing: Vec<JoinHandle<()>>,
    pub(super) door: Door,
    pub(super) later: Vec<(BootTime, Action)>,
    pub(super) started: BootTime,
    pub(super) front: Option<Arc<dyn Front>>,
    pub(super) serving: Serving,
    /// Somebody has said that the sources are to be asked, whatever was tried before.
    pub(super) at_once: bool,
    /// The sources that were last asked give nothing more in this boot.
    pub(super) used_up: bool,
    /// Sources that have refused a PIN since this process started, as the configuration had them then.
    pub(super) pins_refused: Vec<SourceSpec>,
    pub(super) ticked: Option<BootTime>,
    /// Something has happened that should not wait for the next turn of the upkeep.
    pub(super) look_again: bool,
    /// The way to a store in another process.
    pub(super) line: Option<Line>,
    /// How it stood when it was last told.
    pub(super) away: Option<String>,
    /// Held for as long as the process works on this data directory, and in this run directory.
    pub(super) _locks: [Box<dyn Send>; 2],
}

/// News of a probe: of which gate, which of its needs, and what.
pub(super) type Probed = (GateName, usize, ProbeNews);

/// What is told of a probe, with what was seen in words.
#[derive(Debug)]
pub(super) enum ProbeNews {
    Passed,
    Lapsed(String),
    GivenUp(String),
}

/// What the machine's states stand for. Sealed means that none of it is there.
#[derive(Default)]
pub(super) struct Hands {
    pub(super) asking: Asking,
    pub(super) brake: Brake,
    /// Slots that have opened.
    pub(super) seen: Seen,
    /// A source has opened the store, and neither the keeper nor the recovery key.
    pub(super) by_source: bool,
    /// What the keeper of this boot had.
    pub(super) kept: Option<SlotKek>,
    /// Of a slot that was made just now, and took a release of this boot.
    pub(super) released_when_made: Option<SlotKek>,
    /// What a first boot has made in hardware, until its store is there.
    pub(super) unkept: Unkept<SourceSpec>,
    /// Closes the sources should this process not come to it.
    pub(super) on_guard: Option<Box<dyn OnGuard>>,
    /// Nothing was released since it was posted.
    pub(super) guard_rests: bool,
    /// Sources are not closed that should be: when it is tried again, after which pause.
    pub(super) unclosed: Option<(BootTime, Duration)>,
    pub(super) found: Option<FoundSlots>,
    pub(super) ikm: Option<(seal::SourceKind, Ikm)>,
    /// The source that gave it gives nothing more in this boot.
    pub(super) last_release: bool,
    /// What it said with that.
    pub(super) evidence: Evidence,
    /// Another KEK for the slot that is being opened, should it be due.
    pub(super) fresh: Option<FreshKek>,
    /// The slot's KEK in the set of before.
    pub(super) kek_before: Option<SlotKek>,
    pub(super) unlocked: Option<Unlocked>,
    pub(super) store: Option<Store>,
    pub(super) audit: Option<Arc<AuditDevice>>,
    /// A turn of it to another key has met a fault of a disk.
    pub(super) audit_turns: bool,
    pub(super) core: Option<Arc<Core>>,
    pub(super) vault: Option<Seam>,
    /// A store in another process.
    pub(super) reached: Option<Box<Reached>>,
    pub(super) certificates: Option<Certificates>,
    pub(super) ground: Option<Ground>,
    pub(super) entities: BTreeMap<ServiceName, String>,
    pub(super) watched: BTreeMap<ServiceName, Watched>,
    pub(super) credentials: bool,
    /// That the data key is half worn out was said.
    pub(super) wear_told: bool,
    /// A new recovery key that somebody is to see before it counts.
    pub(super) offered: Option<RecoveryKey>,
}

impl Running {
    /// What the device should look like.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where the machine stands.
    pub fn state(&self) -> &State {
        // Only `step` takes it out, and puts it back.
        self.machine.as_ref().expect("the machine is in its place").state()
    }

    /// The unsealed core, for the server; `None` while sealed.
    pub fn core(&self) -> Option<&Arc<Core>> {
        self.hands.core.as_ref()
    }

    /// The store; `None` while sealed.
    pub fn store(&self) -> Option<&Store> {
        self.hands.store.as_ref()
    }

    /// The device CA; `None` while sealed.
    pub fn ca(&self) -> Option<&Ca> {
        self.hands.certificates.as_ref().map(|c| &c.ca)
    }

    /// The server's certificate and key; `None` while sealed.
    pub fn server_certificate(&self) -> Option<&ServerCertificate> {
        self.hands.certificates.as_ref().map(|c| &c.server)
    }

    /// The gates, as they change.
    pub fn gates(&self) -> watch::Receiver<Board> {
        self.board.subscribe()
    }

    /// Why an operator is needed, if one is.
    pub fn halted(&self) -> Option<&Halt> {
        if let State::Halted(halt) = self.state() { Some(halt) } else { None }
    }

    /// Why a store in another process is not reached, as it was last seen.
    pub fn away(&self) -> Option<&str> {
        self.away.as_deref()
    }

    /// Where a service's token is.
    pub fn token_directory(&self, service: &ServiceName) -> std::path::PathBuf {
        self.plan.run_dir.join("secrets").join(service.as_str())
    }

    /// Whether the device is to be restarted: the plan says so, its sources give nothing more in this boot, and the
    /// boot is old enough for a device that restarts again and again to be reached in between.
    pub fn restart_is_due(&self) -> bool {
        let wanted = self.plan.release.after_close == Some(AfterClose::Reboot);
        let stopped = matches!(self.state(), State::Halted(_)) && self.used_up;
        wanted && stopped && self.env.clock.boottime().since(BootTime(0)) >= LEAST_UPTIME
    }

    /// Waits until there may be something to do, a second at most. Can be dropped at any time.
    pub async fn wait(&mut self) {
        let now = self.env.clock.boottime();
        let next = self.later.iter().map(|(at, _)| at.since(now)).min().unwrap_or(TICK);
        let longest = if self.look_again { SOON } else { TICK };
        let pause = tokio::time::sleep(next.clamp(Duration::from_millis(10), longest));
        let hung_up = async {
            match &self.hands.reached {
                // A store that dies is noticed when the kernel closes its connection, not a second later.
                Some(reached) => client::Wired::hung_up(&**reached.vault.anonymous()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => {}
            // Its gates are shut by now; the rest is to follow at once.
            () = self.sealed.notified() => {}
            () = hung_up => self.look_again = true,
        }
    }

    /// Does what is due by now: retries, ended probes, renewals, upkeep of the store, a seal that was asked for through
    /// the API. To be run to its end.
    pub async fn tick(&mut self) {
        while let Ok((gate, at, news)) = self.probes.1.try_recv() {
            match news {
                ProbeNews::Passed => self.feed(Event::ProbePassed { gate, at }).await,
                ProbeNews::Lapsed(seen) => {
                    self.feed(Event::ProbeLapsed { gate: gate.clone(), at }).await;
                    self.alarm(format!("the gate {gate} is shut: its need {} has lapsed: {seen}", at + 1));
                }
                ProbeNews::GivenUp(seen) => {
                    self.alarm(format!("the gate {gate} stays shut: its need {} was given up: {seen}", at + 1));
                }
            }
        }
        let now = self.env.clock.boottime();
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(BootTime, Action)> = due;
        self.carry_out(due.into_iter().map(|(_, action)| undelayed(action)).collect()).await;
        if self.hands.core.as_ref().is_some_and(|core| core.is_sealing()) {
            return self.seal().await;
        }
        if std::mem::take(&mut self.look_again) || self.ticked.is_none_or(|t| now.since(t) >= TICK) {
            self.ticked = Some(now);
            self.close_again(now).await;
            if let Some(lost) = self.watch(now).await {
                return self.feed(lost).await;
            }
            self.upkeep(now).await;
        }
    }

    /// Seals: gates shut, then every key dropped.
    pub async fn seal(&mut self) {
        let _ = self.keeper_forgets(); // it was told
        self.drop_kept_token();
        self.feed(Event::SealAsked).await;
    }

    /// Unseals from the source again, after [`Running::seal`].
    pub async fn unseal(&mut self) {
        self.feed(Event::UnsealAsked).await;
    }

    /// Opens the store by the recovery key, when the source gives nothing or a slot of it is lost. Everything after
    /// that goes its ordinary way. The use is recorded, and the key replaced: see [`Rotation`].
    ///
    /// # Errors
    /// A [`Halt`]: the key is not this store's, and the device does what it did; or, and then it is the machine's, the
    /// store does not open by it, or its use cannot be recorded.
    pub async fn recover(&mut self, key: &RecoveryKey, by: api::PeerAddress) -> Result<Rotation, Halt> {
        self.recover_and(key, by, false).await.map(|(rotation, _)| rotation)
    }

    /// As [`Running::recover`]; with `reseal` the sources of the plan whose slots do not open here any more, or that
    /// have none, get new ones: for another board, a TPM that was cleared, a disk that was moved, another system on it.
    ///
    /// # Errors
    /// As above. What could not be made anew is told in the [`SlotChange`].
    pub async fn recover_and(
        &mut self,
        key: &RecoveryKey,
        by: api::PeerAddress,
        reseal: bool,
    ) -> Result<(Rotation, Option<SlotChange>), Halt> {
        if !self.plan.store.has_slots() {
            let fact = "the store is somebody else's: it has no slots here, and no recovery key".to_owned();
            return Err(Halt::Refused { fact, hint: "whoever keeps its key shares unseals it".into() });
        }
        // Another's store that we keep is open without being in our hands.
        if self.hands.store.is_some() || matches!(self.state(), State::Serving(_)) {
            let fact = "the store is open already".to_owned();
            return Err(Halt::Refused { fact, hint: "nothing is to be recovered".into() });
        }
        let ikm = key.ikm().map_err(|e| refused(&e, "give the key as it was given out"))?;
        // Before anything is given up for it: a device that waits for its source waits on after a slip of the hand.
        if host::in_force("recovery-key-tried-first") {
            self.fits_a_recovery_slot(key)?;
        }
        self.later.clear();
        // Until slots are made anew: it closes the sources should this process end in between.
        if let Err(e) = self.post_guard().await {
            self.alarm(format!("nobody stands guard over the key sources while the store is recovered: {e}"));
        }
        let on_guard = self.hands.on_guard.take();
        self.hands = Hands { ikm: Some((seal::SourceKind::Recovery, ikm)), ..Hands::default() };
        let machine = Machine::new(Arc::clone(&self.plan));
        self.machine = Some(machine.recovering());
        self.feed(Event::Released).await;
        self.hands.on_guard = on_guard;
        match self.halted().cloned() {
            Some(halt) => {
                self.rest_guard();
                Err(halt)
            }
            None => {
                if self.plan.store.external().is_some() {
                    if self.plan.release.after_close.is_some() {
                        self.close_all().await;
                    }
                    let why =
                        "it opens the key shares of a store that is not ours: nothing of that store changes with it";
                    return Ok((Rotation::Kept(why.into()), None));
                }
                let rotation = self.spend(key, by.clone()).await?;
                // Before the sources are closed: a slot is made in the state in which it is to open.
                let resealed = if reseal { Some(self.reseal_lost(by).await) } else { None };
                if self.plan.release.after_close.is_some() {
                    self.close_all().await;
                } else {
                    let open = self.close_sources(None).await;
                    open.into_iter().for_each(|fault| self.warn(not_closed(&fault)));
                }
                Ok((rotation, resealed))
            }
        }
    }

    /// Ends cleanly: gates shut, what was gathered written down, keys dropped. Tokens stay alive for the next start in
    /// this boot.
    pub async fn shutdown(mut self) {
        self.feed(Event::SealAsked).await;
        self.relieve_guard();
    }

    /// Another plan for what is yet to come.
    pub(super) fn set_plan(&mut self, plan: Plan) {
        self.plan = Arc::new(plan);
        let machine = self.machine.take().expect("the machine is in its place");
        self.machine = Some(machine.with_plan(Arc::clone(&self.plan)));
    }

    pub(super) fn at_ms(&self) -> u64 {
        u64::try_from(self.env.clock.boottime().since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn phase(&mut self, name: &'static str) {
        let at_ms = self.at_ms();
        self.observer.note(Note::Phase { name, at_ms });
    }

    pub(super) fn warn(&mut self, text: String) {
        tracing::warn!("{text}");
        self.observer.note(Note::Warning(text));
    }

    pub(super) fn alarm(&mut self, text: String) {
        tracing::error!("{text}");
        self.observer.note(Note::Alarm(text));
    }

    /// Public files beside the tokens: the CA, and how to find the server.
    pub(super) fn publish_endpoint(&mut self) {
        let Some(pem) = self.ca_pem() else { return };
        let ca = self.plan.run_dir.join(delivery::CA_FILE);
        let external = self.plan.store.external();
        let endpoint = Endpoint {
            address: match (self.serving.tcp.first(), &self.plan.listen.tcp) {
                _ if external.is_some() => external.map(|s| s.address().to_string()).unwrap_or_default(),
                // The kernel's choice of a port, where it had one; otherwise the plan's words, which may be a name.
                (Some(bound), Some(tcp)) if tcp.ends_with(":0") => format!("https://{bound}"),
                (_, Some(tcp)) => format!("https://{tcp}"),
                (_, None) => format!("unix:{}", self.plan.listen.api_socket.display()),
            },
            server_name: match external {
                Some(store) => store.server_name.clone().unwrap_or_else(|| store.host.clone()),
                None => self.plan.listen.names.first().cloned().unwrap_or_default(),
            },
            ca: ca.clone(),
        };
        let disk = &*self.env.disk;
        let written =
            disk.replace(&ca, pem.as_bytes(), 0o644, None).and_then(|()| endpoint.write(disk, &self.plan.run_dir));
        if let Err(e) = written {
            self.warn(format!("{} is not written: {e}", self.plan.run_dir.join(delivery::ENDPOINT_FILE).display()));
        }
    }

    pub(super) fn channel(&self) -> &dyn Channel {
        &self.channel
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running(..)")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.probing.iter().for_each(JoinHandle::abort);
        // Dropped without a shutdown: as after a crash nothing is written down, but the file is let go for the next
        // one.
        if let Some(store) = &self.hands.store {
            store.close();
        }
    }
}

/// After which a store that gave no answer is looked at once more.
const SOON: Duration = Duration::from_millis(20);
/// A device that restarts by itself does so six times an hour at most.
const LEAST_UPTIME: Duration = Duration::from_secs(600);
/// How often upkeep is done.
const TICK: Duration = Duration::from_secs(1);
