//! The device of the tests: real files, real SQLite, real engines; the clock alone is held.

use super::*;

struct Memory;

impl Medium for Memory {
    fn backing(&self, _: &Path) -> io::Result<Backing> {
        Ok(Backing::Memory)
    }
}

/// Hears everything, and keeps the recovery key as a person would.
#[derive(Clone, Default)]
pub(super) struct Ears {
    pub(super) notes: Arc<Mutex<Vec<Note>>>,
    pub(super) key: Arc<Mutex<Option<Zeroizing<String>>>>,
}

impl Observer for Ears {
    fn note(&mut self, note: Note) {
        self.notes.lock().unwrap().push(note);
    }

    fn show_recovery_key(&mut self, key: &RecoveryKey) -> io::Result<()> {
        *self.key.lock().unwrap() = Some(key.format());
        Ok(())
    }
}

impl Ears {
    pub(super) fn heard(&self, what: impl Fn(&Note) -> bool) -> usize {
        self.notes.lock().unwrap().iter().filter(|n| what(n)).count()
    }
}

fn engines() -> Assemble {
    let pool = Arc::new(engines::ThreadPool::new(1, 8).unwrap());
    Arc::new(move |services| {
        let facts = engines::Facts {
            version: "test".into(),
            build_date: "1970-01-01T00:00:00Z".into(),
            cluster_name: "test".into(),
            cluster_id: "test".into(),
            shares: None,
        };
        engines::all(services, facts, Arc::clone(&pool) as Arc<dyn engines::HashPool>)
    })
}

/// A device with two services and a shared credential.
pub(super) struct Device {
    pub(super) dir: TempDir,
    pub(super) clock: Arc<FakeClock>,
    pub(super) entropy: Arc<SeededEntropy>,
    pub(super) plan: Plan,
    pub(super) ears: Ears,
}

impl Device {
    pub(super) fn new() -> Self {
        let dir = testkit::scratch_dir();
        let plan = plan_in(&dir.path().join("device"), &dir.path().join("run"));
        let (clock, entropy) = (Arc::new(FakeClock::at(0)), Arc::new(SeededEntropy::new(7)));
        Self { dir, clock, entropy, plan, ears: Ears::default() }
    }

    pub(super) fn environment(&self) -> Environment {
        machine(&self.clock, Arc::clone(&self.entropy))
    }

    pub(super) async fn up(&mut self) -> Running {
        self.ears = Ears::default();
        up(self.plan.clone(), self.environment(), Box::new(self.ears.clone())).await.unwrap()
    }

    pub(super) fn state(&self, name: &str) -> PathBuf {
        self.plan.state_dir().join(name)
    }

    pub(super) fn token(&self, service: &str) -> Token {
        let path = self.plan.run_dir.join("secrets").join(service).join("secrets-token.json");
        let text = OsDisk.read(&path, 10_000).unwrap();
        let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
        Token::parse(file["auth"]["client_token"].as_str().unwrap()).unwrap()
    }
}

pub(super) async fn ask(running: &Running, token: &Token, operation: Operation, path: &str, body: &str) -> Status {
    let request = Request::new(operation, ApiPath::parse(path).unwrap())
        .with_token(Token::parse(token.expose()).unwrap())
        .with_body(Body::new(Zeroizing::new(body.as_bytes().to_vec())));
    running.core().unwrap().handle(request).await.into_reply().status
}

pub(super) async fn lives(running: &Running, token: &Token) -> bool {
    ask(running, token, Operation::Read, "auth/token/lookup-self", "").await == Status::OK
}

pub(super) fn open(running: &Running) -> Vec<String> {
    running.gates().borrow().open().iter().map(ToString::to_string).collect()
}

/// The keys of the audit; nothing is open about them.
pub(super) async fn chain(running: &Running) -> pipeline::audit::ChainKeys {
    let store = running.store().unwrap();
    let former = audit_keys::Former::of(store).await.unwrap();
    let (keys, turning) = former.chain(audit_keys::today(store).unwrap());
    assert!(turning.is_none(), "the audit is still turning to another key");
    keys
}

pub(super) const BOTH: [&str; 2] = ["ready-to-run", "tokens-ready"];

/// A device on a disk that records; everything of it lies in the recorded directory, the tokens' tmpfs too.
pub(super) fn recorded(disk: &testkit::CrashDisk, clock: &Arc<FakeClock>, seed: u64) -> (Plan, Environment) {
    let on_files = machine(clock, Arc::new(SeededEntropy::new(seed)));
    let env = Environment { disk: Arc::new(disk.clone()), vfs: Some(disk.vfs().into()), ..on_files };
    (plan_in(&disk.path("device"), &disk.path("run")), env)
}

fn plan_in(data_dir: &Path, run_dir: &Path) -> Plan {
    let mut plan = demo_plan(data_dir, run_dir);
    plan.audit = AuditPlan { segments: 2, segment_bytes: 64 * 1024, ..AuditPlan::default() };
    plan.credentials = vec![CredentialPlan::redis(plan.services.iter().map(|s| s.name.clone()).collect())];
    plan
}

fn machine(clock: &Arc<FakeClock>, entropy: Arc<SeededEntropy>) -> Environment {
    Environment {
        clock: Arc::clone(clock) as Arc<dyn host::Clock>,
        entropy,
        disk: Arc::new(OsDisk),
        medium: Arc::new(Memory),
        us: rustix::process::geteuid().as_raw(),
        vfs: None,
        keeper: None,
        guard: None,
        latch: seal::ReleaseLatch::default(),
        maker: None,
        key_wear: store::KeyWear::default(),
        machine: "/".into(),
        build_date: WallTime(0),
        engines: engines(),
    }
}
