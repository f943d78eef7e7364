//! A device on a recorded disk, what people outside have seen of it, and what both ends of it must leave.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use seal::{SlotFiles, Unlocked};
use store::{Store, StorePath};
use testkit::{CrashDisk, Fault, Image};
use tokio::sync::watch;

use super::super::ends::End;
use super::super::*;
use crate::driver::{claim, keys, source};
use crate::gate::{Board, Evidence, GateState};
use crate::plan::GateName;
use crate::provision::Receipts;

/// What was done to a device, event by event, and what somebody could see of it at each.
pub(super) struct Story {
    pub(super) disk: CrashDisk,
    pub(super) clock: Arc<FakeClock>,
    /// What the device is held to. A mutant runs by another.
    pub(super) plan: Plan,
    /// Ends are played from this event on.
    begun: usize,
    gates: Arc<Mutex<Vec<(usize, Board)>>>,
    shown: Option<Shown>,
    acknowledged: Option<usize>,
    /// Tokens that must open nothing, whatever the end.
    dead: Vec<Token>,
    fault: Option<(&'static str, Fault)>,
    starts: u64,
}

/// What a client may rely on once a gate was open.
struct Shown {
    since: usize,
    ca: [u8; 32],
    password: String,
}

/// What was played.
#[derive(Debug, Default)]
pub(super) struct Played {
    pub(super) cuts: usize,
    pub(super) kills: usize,
    /// Cuts that left no state directory.
    pub(super) bare: usize,
}

macro_rules! hold {
    ($holds:expr, $($otherwise:tt)*) => {
        if !$holds {
            return Err(format!($($otherwise)*));
        }
    };
}

impl Story {
    /// Of a bare device.
    pub(super) fn new() -> Self {
        let (disk, clock) = (CrashDisk::new(), Arc::new(FakeClock::at(0)));
        let (plan, _) = recorded(&disk, &clock, 0);
        let (gates, dead) = (Arc::default(), Vec::new());
        let (begun, shown, acknowledged, fault, starts) = (0, None, None, None, 0);
        Self { disk, clock, plan, begun, gates, shown, acknowledged, dead, fault, starts }
    }

    /// Of a device after its first boot; the story itself begins here.
    pub(super) async fn of_a_device() -> Self {
        let mut story = Self::new();
        let running = story.start().await;
        story.leave(running);
        story.begin();
        story
    }

    /// What was before is the story's ground: ends are played from here on.
    pub(super) fn begin(&mut self) {
        self.begun = self.disk.events();
    }

    /// From this phase on, in each start, something is wrong with the disk.
    pub(super) fn with_fault(mut self, phase: &'static str, fault: Fault) -> Self {
        self.fault = Some((phase, fault));
        self
    }

    pub(super) async fn start(&mut self) -> Running {
        self.start_by(self.plan.clone()).await
    }

    /// Starts the device by this plan, and notes what its gates show.
    pub(super) async fn start_by(&mut self, plan: Plan) -> Running {
        self.starts += 1;
        let (_, env) = recorded(&self.disk, &self.clock, self.starts);
        let board = Arc::new(OnceLock::new());
        let watch = Watch {
            disk: self.disk.clone(),
            board: Arc::clone(&board),
            gates: Arc::clone(&self.gates),
            fault: self.fault.clone(),
        };
        let claimed = claim(plan, env, Box::new(watch)).unwrap();
        board.set(claimed.gates()).unwrap();
        let running = claimed.start(None).await;
        assert_eq!((running.halted(), open(&running)), (None, BOTH.map(String::from).to_vec()));
        if self.shown.is_none() {
            let since = self.opened_first();
            let password = password(&running, &self.token("sensor")).await.unwrap();
            self.shown = Some(Shown { since, ca: running.ca().unwrap().fingerprint().0, password });
        }
        running
    }

    /// A crash in the midst of the story.
    pub(super) fn leave(&self, running: Running) {
        drop(running);
        self.gates.lock().unwrap().push((self.disk.events(), Board::shut(&self.plan, self.clock.boot_id())));
    }

    /// Another boot of the kernel: what lay in memory is gone, and the tokens with it.
    pub(super) fn reboot(&mut self) {
        self.dead.extend(["sensor", "uploader"].map(|s| self.token(s)));
        self.disk.remove_tree(&self.plan.run_dir).unwrap();
        self.clock.reboot();
    }

    /// These tokens are no good from here on.
    pub(super) fn are_dead(&mut self, tokens: impl IntoIterator<Item = Token>) {
        self.dead.extend(tokens);
    }

    /// A service writes, and is told that it is done.
    pub(super) async fn write(&mut self, running: &Running) {
        let done = ask(running, &self.token("sensor"), Operation::Write, KEPT, r#"{"a":"1"}"#).await;
        assert_eq!(done, Status::NO_CONTENT);
        self.acknowledged = Some(self.disk.events());
    }

    pub(super) fn token(&self, service: &str) -> Token {
        let path = self.token_file(service);
        token_of(&OsDisk.read(&path, 10_000).unwrap()).unwrap()
    }

    pub(super) fn token_file(&self, service: &str) -> PathBuf {
        self.plan.run_dir.join("secrets").join(service).join("secrets-token.json")
    }

    /// When a gate was first open.
    pub(super) fn opened_first(&self) -> usize {
        let gates = self.gates.lock().unwrap();
        gates.iter().find(|(_, board)| !board.open().is_empty()).expect("a gate was open").0
    }

    /// Ends the story after each of its events, both ways, and starts the device again.
    pub(super) async fn every_end(&self) -> Result<Played, String> {
        self.ends(self.begun..=self.disk.events()).await
    }

    /// The same for some of the events; the first end that does not hold is told.
    pub(super) async fn ends(&self, events: RangeInclusive<usize>) -> Result<Played, String> {
        let mut played = Played::default();
        let mut seen = BTreeSet::new();
        for end in ends(&self.disk, events) {
            let bare = !end.image.has("device/data");
            played.bare += usize::from(bare && end.by == By::PowerCut);
            // Before there is a device, a kill is a cut that has lost nothing; some of them are enough.
            if bare && end.is_spare() {
                continue;
            }
            // A sync changes nothing that a kill leaves, so the same image comes again; it is played once.
            if !seen.insert((end.by == By::Kill, self.told_by(end.at), digest(&end.image))) {
                continue;
            }
            self.starts_again(&end).await.map_err(|e| format!("{end}: {e}"))?;
            *(if end.by == By::Kill { &mut played.kills } else { &mut played.cuts }) += 1;
        }
        Ok(played)
    }

    /// By a power cut the kernel's next boot is another.
    async fn starts_again(&self, end: &End) -> Result<(), String> {
        let (at, by) = (end.at, end.by);
        if let (By::PowerCut, GateState::Open(evidence)) = (by, self.gate_at(at)) {
            self.disk.restore(&end.image);
            let durable = self.durable_evidence().await?;
            hold!(durable == evidence, "the gate shows other evidence than what is durable");
        }
        end.restore(&self.disk, &self.plan);
        let clock = Arc::new(FakeClock::clone(&self.clock));
        if by == By::PowerCut {
            clock.reboot();
        }
        let ears = Ears::default();
        let up = up(self.plan.clone(), self.unrecorded(clock, at), Box::new(ears.clone())).await;
        let running = up.map_err(|e| format!("it is not up: {e}"))?;
        hold!(running.halted().is_none(), "it has halted: {}", running.halted().unwrap());
        hold!(open(&running) == BOTH, "only these gates are open: {:?}", open(&running));
        self.is_the_same_device(at, &running).await?;

        let issued = ears.heard(|n| matches!(n, Note::Token { issued: true, .. }));
        for token in &self.dead {
            hold!(!lives(&running, token).await, "a token of before lives again");
        }
        let in_hand = tokens_in(&self.disk.killed(at));
        for token in in_hand.iter().filter(|t| !self.dead.iter().any(|d| same(d, t))) {
            match by {
                By::PowerCut => hold!(!lives(&running, token).await, "a token of the boot before opens something"),
                By::Kill => hold!(lives(&running, token).await, "a service holds a token that has died"),
            }
        }
        match (by, self.gate_at(at)) {
            (By::PowerCut, _) => hold!(issued == 2, "{issued} tokens were issued for another boot"),
            // What somebody has damaged and edgekeep has not seen yet is issued anew, and nothing else.
            (By::Kill, GateState::Open(_)) => {
                hold!(issued == 2 - in_hand.len(), "{issued} tokens were issued behind an open gate");
            }
            (By::Kill, _) => {}
        }
        Ok(())
    }

    /// Whatever somebody could rely on is as it was, and nothing is left over.
    async fn is_the_same_device(&self, at: usize, running: &Running) -> Result<(), String> {
        let shown = self.shown.as_ref().expect("the story has started once");
        for service in ["sensor", "uploader"] {
            let token = self.token(service);
            hold!(lives(running, &token).await, "the token of {service} is dead");
            let path = format!("secret/edgex/{service}/redisdb");
            let password = value(running, &token, &path, "password").await?;
            hold!(at < shown.since || password == shown.password, "{service} has another password than it was shown");
        }
        let ca = running.ca().ok_or("there is no CA")?.fingerprint().0;
        hold!(at < shown.since || ca == shown.ca, "the CA is another than the one that was shown");
        if self.acknowledged.is_some_and(|told| told <= at) {
            hold!(value(running, &self.token("sensor"), KEPT, "a").await? == "1", "a write that was told is lost");
        }
        let new = self.plan.data_dir.join("data.new");
        hold!(OsDisk.meta(&new).unwrap().is_none(), "data.new is left over");
        Ok(())
    }

    /// What a gate of this plan may show by what is on the disk: read from the store as it lies there, by other rules
    /// than the machine's.
    async fn durable_evidence(&self) -> Result<Evidence, String> {
        let store = self.opened_aside().await?;
        let certificate = StorePath::new(["boot", "ca", "certificate"]).unwrap();
        let ca = store.get(&certificate).await.unwrap().ok_or("the gate is open, and there is no CA")?;
        let (receipts, mut parts) = (Receipts::new(store.clone()), Vec::new());
        let names: BTreeMap<_, _> = self.plan.services.iter().map(|s| (s.name.as_str(), &s.name)).collect();
        for (text, name) in names {
            let receipt = receipts.read(name).await.unwrap().filter(|r| r.is_of(self.clock.boot_id()));
            let receipt = receipt.ok_or(format!("the gate is open, and {name} has no receipt"))?;
            parts.push([text.as_bytes(), &[0], &receipt.digest()].concat());
        }
        store.close();
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        Ok(Evidence { ca: secret::crypto::sha256(&[ca.value.expose()]), receipts: secret::crypto::sha256(&parts) })
    }

    /// The store as it lies on the disk, opened beside the boot.
    async fn opened_aside(&self) -> Result<Store, String> {
        let config = keys::store_config(&self.unrecorded(Arc::clone(&self.clock), 0), &self.plan.state_dir());
        let unlocked = self.unlocked().await?;
        Store::open(&config, &unlocked.root, unlocked.header().store.0).map_err(|e| format!("the store: {e}"))
    }

    /// The root key by the slots as they lie on the disk.
    pub(super) async fn unlocked(&self) -> Result<Unlocked, String> {
        let env = self.unrecorded(Arc::clone(&self.clock), 0);
        let found = SlotFiles::new(&OsDisk, self.plan.state_dir()).read().map_err(|e| e.to_string())?;
        let spec = &self.plan.sources[0];
        let kind = spec.kind();
        let public = found.set.slots_of(kind).next().ok_or("there is no slot")?.public().clone();
        let released =
            source::release(spec, &self.plan, &env, public, found.set.slots()).await.map_err(|e| e.to_string())?;
        found.set.unlock(kind, released.ikm).map_err(|e| e.to_string())
    }

    /// The machine as the next start has it: the files are real, and nobody records.
    fn unrecorded(&self, clock: Arc<FakeClock>, seed: usize) -> Environment {
        let (_, env) = recorded(&self.disk, &clock, 1000 + seed as u64);
        super::super::unrecorded(env)
    }

    /// What decides beside the disk how an end is judged.
    fn told_by(&self, at: usize) -> [bool; 3] {
        let shown = self.shown.as_ref().is_some_and(|s| s.since <= at);
        [matches!(self.gate_at(at), GateState::Open(_)), shown, self.acknowledged.is_some_and(|told| told <= at)]
    }

    fn gate_at(&self, at: usize) -> GateState {
        let gate: GateName = BOTH[1].parse().unwrap();
        let gates = self.gates.lock().unwrap();
        let last = gates.iter().rev().find(|(moment, _)| *moment <= at);
        last.map_or(GateState::Shut, |(_, board)| board.answer(&gate).state)
    }
}

/// Notes what the gates show, with the moment on the disk.
struct Watch {
    disk: CrashDisk,
    board: Arc<OnceLock<watch::Receiver<Board>>>,
    gates: Arc<Mutex<Vec<(usize, Board)>>>,
    fault: Option<(&'static str, Fault)>,
}

impl Observer for Watch {
    fn note(&mut self, note: Note) {
        match note {
            Note::GateOpen { .. } | Note::GateShut { .. } => {
                let board = self.board.get().expect("set before the start").borrow().clone();
                self.gates.lock().unwrap().push((self.disk.events(), board));
            }
            Note::Phase { name, .. } if self.fault.as_ref().is_some_and(|(phase, _)| *phase == name) => {
                self.disk.inject(self.fault.take().unwrap().1);
            }
            _ => {}
        }
    }
}

/// One field of a secret, by the API.
async fn value(running: &Running, token: &Token, path: &str, field: &str) -> Result<String, String> {
    let request =
        Request::new(Operation::Read, ApiPath::parse(path).unwrap()).with_token(Token::parse(token.expose()).unwrap());
    let reply = running.core().ok_or("it is sealed")?.handle(request).await.into_reply();
    let text = reply.data_text().ok_or(format!("{path}: {:?}", reply.status))?;
    let data: serde_json::Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    Ok(data[field].as_str().ok_or(format!("{path} has no {field}"))?.to_owned())
}

async fn password(running: &Running, token: &Token) -> Result<String, String> {
    value(running, token, "secret/edgex/sensor/redisdb", "password").await
}

fn token_of(text: &[u8]) -> Option<Token> {
    let file: serde_json::Value = serde_json::from_slice(text).ok()?;
    Token::parse(file["auth"]["client_token"].as_str()?).ok()
}

/// The tokens that services could read, had they looked just then.
fn tokens_in(image: &Image) -> Vec<Token> {
    let file = |service: &str| image.file(&format!("run/secrets/{service}/secrets-token.json"));
    ["sensor", "uploader"].iter().filter_map(|s| token_of(file(s)?)).collect()
}

fn same(a: &Token, b: &Token) -> bool {
    a.expose() == b.expose()
}

fn digest(image: &Image) -> [u8; 32] {
    let parts: Vec<&[u8]> =
        image.files().flat_map(|(path, bytes)| [path.to_str().unwrap().as_bytes(), bytes]).collect();
    secret::crypto::sha256(&parts)
}

/// What the service writes.
const KEPT: &str = "secret/edgex/sensor/kept";
