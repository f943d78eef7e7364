//! The device while it runs: one task owns it, and takes signals, wishes of the admin socket and the passing of time in
//! turn.

use std::path::Path;
use std::sync::Arc;

use boot::driver::{Environment, Front, KekKeeper, ReleaseGuard, Rotation, Running, StoreMaker, UpError};
use boot::machine::{Halt, State};
use boot::plan::{GateName, Plan};
use delivery::OsMedium;
use host::{Disk, OsClock, OsDisk, OsEntropy};
use seal::RecoveryKey;
use secret::SecretBytes;
use server::{AdminStatus, GateStatus, Recovered, Signal, Signals};

use super::admin::{self, Asked, Desk, Granted, Refusal, Wish};
use super::front::{self, ServerFront};
use super::slots;
use super::story::Story;
use super::{build, engines};
use crate::commands::beside::{self, CalledAs, DescriptorStore, GuardProcess, KeeperProcess, MakerProcess};
use crate::failure::{Code, Failure};
use crate::process::Memory;

/// How it was called.
pub(super) struct Start {
    /// To be told with what was done.
    pub(super) note: Option<&'static str>,
    /// For whoever is started beside it; nobody is for a demo.
    pub(super) called_as: Option<CalledAs>,
    /// Whatever was tried before.
    pub(super) at_once: bool,
}

/// Carries a plan out and serves until it is told to end. `again` reads the configuration anew, for SIGHUP.
pub(super) async fn run(plan: Plan, start: Start, again: impl Fn() -> Result<Plan, Failure>) -> Result<(), Failure> {
    let Start { note, called_as, at_once } = start;
    // Before anything is made: a port that is taken is the commonest slip.
    front::check_address(&plan)?;
    let memory = crate::process::lock_memory();
    let mut signals = Signals::new().map_err(|e| Failure::fault(format!("signals cannot be taken over: {e}")))?;
    let story = Story::default();
    note.into_iter().for_each(|n| story.warn(n));
    let mut environment = environment(called_as)?;
    environment.keeper = Some(keeper(&plan, environment.clock.boot_id()));
    let (clock, disk) = (Arc::clone(&environment.clock), Arc::clone(&environment.disk));
    let (port, mut desk) = admin::open();
    // The lock on the data directory comes first: a second edgekeep must not take the sockets of the one that runs.
    let claimed = boot::driver::claim(plan, environment, Box::new(story.listener())).map_err(|e| not_up(&e))?;
    // What is known already is told while sources are asked, however long that takes.
    desk.show(starting(claimed.plan(), memory));
    let front = ServerFront::start(claimed.plan(), port, server::Machine { clock, disk })?;
    let mut running = claimed.at_once(at_once).start(Some(Arc::clone(&front) as Arc<dyn Front>)).await;
    // Whoever reads one of the lines below and asks finds the same at the admin socket.
    desk.show(status(&running, &story, memory));

    if let Some(halt) = running.halted().cloned() {
        if !may_be_recovered(&running, &halt) {
            running.shutdown().await;
            front.drain().await;
            return Err(stopped(&halt));
        }
        stays_sealed(&halt);
    } else if !is_serving(&running) {
        crate::output::error(&waits_for(&running));
    }
    let screen = |running: &Running| {
        let address = front.address().map(|a| format!("https://{a}"));
        crate::output::line(&story.tell(running.plan(), address.as_deref(), memory, &program()));
    };
    let device = Device { running: &mut running, desk: &mut desk, story: &story, front: &front, memory };
    serve(device, &mut signals, screen, again).await;
    running.shutdown().await;
    front.drain().await;
    Ok(())
}

/// Who keeps the KEK within this boot: the service manager where it keeps descriptors, else a process.
pub(in crate::commands) fn keeper(plan: &Plan, boot: host::BootId) -> Arc<dyn KekKeeper> {
    let Some(store) = DescriptorStore::offered(&crate::locate::environment(), boot) else {
        return Arc::new(KeeperProcess::beside(&plan.listen.admin_socket));
    };
    // One of an earlier start, before the service manager took its place.
    beside::forget(plan);
    Arc::new(store)
}

/// This machine, for a boot.
pub(in crate::commands) fn environment(called_as: Option<CalledAs>) -> Result<Environment, Failure> {
    let clock = OsClock::new().map_err(|e| Failure::fault(format!("the kernel's boot id cannot be read: {e}")))?;
    Ok(Environment {
        clock: Arc::new(clock),
        entropy: Arc::new(OsEntropy),
        disk: Arc::new(OsDisk),
        medium: Arc::new(OsMedium),
        us: crate::process::uid(),
        vfs: None,
        keeper: None,
        guard: called_as.clone().map(|up| Arc::new(GuardProcess(up)) as Arc<dyn ReleaseGuard>),
        latch: seal::ReleaseLatch::default(),
        maker: called_as.map(|up| Arc::new(MakerProcess(up)) as Arc<dyn StoreMaker>),
        key_wear: store::KeyWear::default(),
        machine: "/".into(),
        build_date: build::date(),
        engines: engines::assemble()?,
    })
}

/// What one task owns.
struct Device<'a> {
    running: &'a mut Running,
    desk: &'a mut Desk,
    story: &'a Story,
    front: &'a ServerFront,
    memory: Memory,
}

/// Until SIGTERM or SIGINT. `screen` tells once what was done, when the store is open.
async fn serve(
    device: Device<'_>,
    signals: &mut Signals,
    screen: impl Fn(&Running),
    again: impl Fn() -> Result<Plan, Failure>,
) {
    let Device { running, desk, story, front, memory } = device;
    let (mut told, mut restarted) = (false, false);
    let mut halted = running.halted().cloned();
    loop {
        // After a rest, or when a source answered at last.
        if running.halted() != halted.as_ref() {
            halted = running.halted().cloned();
            halted.iter().filter(|halt| !matches!(halt, Halt::Erasing | Halt::Erased { .. })).for_each(stays_sealed);
        }
        if running.restart_is_due() && !restarted {
            restarted = true;
            restart();
        }
        if !told && is_serving(running) {
            screen(running);
            told = true;
            crate::process::give_back_start();
        }
        desk.show(status(running, story, memory));
        tokio::select! {
            () = running.wait() => {}
            Some(Asked { wish, done }) = desk.wishes.recv() => {
                let outcome = grant(running, wish, &again).await;
                // Whoever asked and looks then sees what came of it.
                desk.show(status(running, story, memory));
                if done.send(outcome).is_err() {
                    tracing::debug!("who asked at the admin socket is gone");
                }
            }
            signal = signals.next() => match signal {
                Signal::Terminate => return,
                Signal::Reload => reload(running.plan(), front, &again).await,
            },
        }
        running.tick().await;
    }
}

fn stays_sealed(halt: &Halt) {
    crate::failure::report(&stopped(halt));
    if !matches!(halt, Halt::Erased { .. }) {
        crate::output::error("edgekeep stays sealed; the admin socket takes `edgekeep recover`");
    }
}

fn restart() {
    tracing::error!("the key sources give nothing more in this boot: the device is restarted ([release] after_close)");
    if let Err(e) = crate::process::restart_device(rustix::process::Pid::INIT) {
        tracing::error!("the device is not restarted: {e}; restart it by hand");
    }
}

fn is_serving(running: &Running) -> bool {
    matches!(running.state(), State::Serving(_))
}

async fn grant(
    running: &mut Running,
    wish: Wish,
    again: &impl Fn() -> Result<Plan, Failure>,
) -> Result<Granted, Refusal> {
    match wish {
        Wish::Seal => {
            running.seal().await;
            Ok(Granted::Done)
        }
        Wish::Recover(text, reseal, by) => recover(running, &text, reseal, by, again).await,
        Wish::Slots(wish, by) => slots::grant(running, wish, by, again).await,
        Wish::GenerateRoot(text, ttl, by) => match recovery_key(&text) {
            Ok(key) => {
                let made = running.generate_root(&key, ttl, by).await;
                made.map(|(auth, r)| Granted::Root(Box::new(auth), recovered(r))).map_err(Refusal::Halted)
            }
            Err(refusal) => Err(refusal),
        },
        Wish::Rekey(text, by) => match recovery_key(&text) {
            Ok(key) => {
                running.rekey(&key, by).await.map(|r| Granted::Recovered(recovered(r), None)).map_err(Refusal::Halted)
            }
            Err(refusal) => Err(refusal),
        },
        Wish::ConfirmRecovery(text, by) => match recovery_key(&text) {
            Ok(key) => running.confirm_recovery(&key, by).await.map(|()| Granted::Done).map_err(Refusal::Halted),
            Err(refusal) => Err(refusal),
        },
    }
}

/// With `reseal`, by the sources that the configuration has now: another board may need another device's name.
async fn recover(
    running: &mut Running,
    text: &SecretBytes,
    reseal: bool,
    by: api::PeerAddress,
    again: &impl Fn() -> Result<Plan, Failure>,
) -> Result<Granted, Refusal> {
    let key = recovery_key(text)?;
    if reseal {
        slots::adopt(running, again)?;
    }
    let (rotation, change) = running.recover_and(&key, by, reseal).await.map_err(Refusal::Halted)?;
    let told = change.and_then(|change| serde_json::to_value(change).ok());
    Ok(Granted::Recovered(recovered(rotation), told))
}

fn recovery_key(text: &SecretBytes) -> Result<RecoveryKey, Refusal> {
    let text = std::str::from_utf8(text.expose()).map_err(|_| Refusal::NotAKey("the recovery key is text".into()))?;
    RecoveryKey::parse(text).map_err(|e| Refusal::NotAKey(e.to_string()))
}

fn recovered(rotation: Rotation) -> Recovered {
    match rotation {
        Rotation::Replaced(place) => Recovered::Replaced { place: place.display().to_string() },
        Rotation::Offered(text) => Recovered::Offered { key: SecretBytes::new(text.as_bytes().to_vec()) },
        Rotation::Kept(why) => Recovered::Kept { why },
    }
}

/// What can change while edgekeep runs: the operator's certificate. What cannot is said, and nothing is half applied.
async fn reload(plan: &Plan, front: &ServerFront, again: &impl Fn() -> Result<Plan, Failure>) {
    match again() {
        Ok(new) => {
            if let Err(e) = front.reload(&new).await {
                tracing::error!(hint = e.hint, "the certificate stays as it was: {}", e.fact);
                return;
            }
            let same = format!("{:?}", Unreloadable(plan)) == format!("{:?}", Unreloadable(&new));
            if same {
                tracing::info!("reloaded: the certificate of [listen]");
            } else {
                tracing::warn!("reloaded: the certificate of [listen]; all other changes wait for a restart");
            }
        }
        Err(e) => tracing::error!(hint = e.hint, "the configuration stays as it was: {}", e.fact),
    }
}

/// A plan without what a reload can change.
struct Unreloadable<'a>(&'a Plan);

impl std::fmt::Debug for Unreloadable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut plan = self.0.clone();
        plan.listen.operator_tls = None;
        plan.fmt(f)
    }
}

fn status(running: &Running, story: &Story, memory: Memory) -> AdminStatus {
    let (state, reason) = match running.state() {
        State::Serving(_) => ("unsealed", None),
        State::Reaching(_) => ("starting", running.away().map(str::to_owned)),
        State::Sealed if running.plan().store.external().is_some() => {
            let address = running.plan().store.external().map(|s| s.address().to_string()).unwrap_or_default();
            (
                "shut",
                Some(format!(
                    "{address} is another's store and stays open: seal it there; restart edgekeep to open the gates"
                )),
            )
        }
        State::Sealed => ("sealed", Some("it was sealed on command; restart edgekeep to unseal".to_owned())),
        State::Releasing(_) => ("starting", running.resting()),
        State::Halted(halt) => ("sealed", Some(format!("{halt}; {}", halt.hint()))),
        _ => ("starting", None),
    };
    let open = story.open_gates();
    let gate = |name: &GateName| GateStatus {
        name: name.to_string(),
        open: open.iter().any(|o| o == name.as_str()),
        waits_for: match running.state() {
            State::Serving(serving) => serving.facts().lacking(running.plan(), name),
            _ => Some("the store".into()),
        },
    };
    let gates = running.plan().gates.iter().map(|g| gate(&g.name)).collect();
    AdminStatus { state, reason, gates, ..starting(running.plan(), memory) }
}

/// What the plan and the machine say, before anything was done.
fn starting(plan: &Plan, memory: Memory) -> AdminStatus {
    let shut =
        |name: &GateName| GateStatus { name: name.to_string(), open: false, waits_for: Some("the store".into()) };
    AdminStatus {
        state: "starting",
        reason: None,
        profile: Some(plan.profile.as_str()),
        gates: plan.gates.iter().map(|g| shut(&g.name)).collect(),
        memory: Some(memory.tell()),
        lacking: [crate::lacking::of_plan(plan), memory.lacking()].concat(),
    }
}

fn waits_for(running: &Running) -> String {
    match (running.plan().store.external(), running.state()) {
        (Some(store), State::Reaching(_)) => {
            let address = store.address();
            let why = running.away().map(|why| why.strip_prefix(&format!("{address}: ")).unwrap_or(why).to_owned());
            format!("edgekeep waits for the store at {address}: {}", why.unwrap_or_default())
        }
        _ => {
            let why = running.resting().map(|why| format!(": {why}")).unwrap_or_default();
            format!("edgekeep waits for its key source{why}; `edgekeep recover` opens the store without it")
        }
    }
}

/// Whether there is something to wait for: a recovery key that could help, because slots and store are there and the
/// source is what fails; or somebody who asks for the receipt of an erased device.
fn may_be_recovered(running: &Running, halt: &Halt) -> bool {
    if matches!(halt, Halt::Erased { .. }) {
        return true;
    }
    let dir = running.plan().state_dir();
    let there = |name: &str| matches!(OsDisk.meta(&dir.join(name)), Ok(Some(_)));
    let what = if running.plan().store.external().is_some() { "resp-init.json" } else { "store.db" };
    matches!(halt, Halt::Refused { .. }) && there(what) && (there("slots.a") || there("slots.b"))
}

pub(super) fn stopped(halt: &Halt) -> Failure {
    Failure::new(Code::NotReady, format!("edgekeep is sealed: {halt}")).hint(halt.hint())
}

pub(super) fn not_up(error: &UpError) -> Failure {
    let code = match error {
        UpError::InUse { .. } | UpError::RunDirInUse { .. } | UpError::Gates(_) => Code::NotReady,
        // Of the disk, and not of the configuration: it may be put right while nobody touches edgekeep.
        UpError::DataDir { cause, .. } if is_of_the_disk(cause) => Code::NotReady,
        _ => Code::Usage,
    };
    Failure::of(code, error).hint(error.hint())
}

fn is_of_the_disk(cause: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let io = rustix::io::Errno::IO.raw_os_error();
    matches!(cause.kind(), QuotaExceeded | ReadOnlyFilesystem | StorageFull) || cause.raw_os_error() == Some(io)
}

/// How this program would be called again from here.
fn program() -> String {
    let called = std::env::args().next().unwrap_or_default();
    let here = |exe: &Path| {
        let dir = std::env::current_dir().ok()?;
        Some(format!("./{}", exe.strip_prefix(dir).ok()?.display()))
    };
    match std::env::current_exe() {
        // Called by its name alone, it is on the search path.
        _ if !called.contains('/') && !called.is_empty() => called,
        Ok(exe) => here(&exe).unwrap_or_else(|| exe.display().to_string()),
        Err(_) => "edgekeep".into(),
    }
}
