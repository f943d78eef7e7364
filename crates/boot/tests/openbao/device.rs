//! A device without slots: its plan names a store, and a role there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::Operation;
use boot::driver::{Environment, Note, Observer, Running, up};
use boot::plan::{
    Access, AuditPlan, CredentialPlan, Dangers, ExternalStore, GatePlan, ListenPlan, Need, Plan, Profile, RecoverySpec,
    Reunseal, ServicePlan, ShareCounts, SourceSpec, StoreSpec, Terms,
};
use delivery::{Backing, Medium};
use host::{Disk, OsDisk, WallTime};
use serde_json::{Value, json};
use testkit::{FakeClock, OpenBao, SeededEntropy};

/// What a device's token may do; docs/external.md says how it is put into the store.
pub(crate) const POLICY: &str = include_str!("../../../../docs/external-policy.hcl");

struct Memory;
impl Medium for Memory {
    fn backing(&self, _: &Path) -> io::Result<Backing> {
        Ok(Backing::Memory)
    }
}

/// Hears everything.
#[derive(Clone, Default)]
pub(crate) struct Ears(Arc<Mutex<Vec<Note>>>);

impl Observer for Ears {
    fn note(&mut self, note: Note) {
        self.0.lock().unwrap().push(note);
    }
}

pub(crate) struct Device {
    dir: tempfile::TempDir,
    pub(crate) clock: Arc<FakeClock>,
    entropy: Arc<SeededEntropy>,
    pub(crate) plan: Plan,
    pub(crate) ears: Ears,
}

pub(crate) const BOTH: [&str; 2] = ["ready-to-run", "tokens-ready"];

impl Device {
    /// Two services and a shared credential, in this store, by the role that [`let_in`] made.
    pub(crate) fn of(bao: &OpenBao, role_id: &str, secret_id: &str) -> Self {
        let dir = testkit::scratch_dir();
        let secret_id_file = dir.path().join("secret-id");
        OsDisk.write_new(&secret_id_file, secret_id.as_bytes(), 0o600, None).unwrap();
        let access = Access::AppRole { mount: "approle".into(), role_id: role_id.into(), secret_id_file };
        let store = ExternalStore {
            host: bao.address().ip().to_string(),
            port: bao.address().port(),
            ca: bao.ca_file(),
            server_name: None,
            terms: Terms::Guest(access),
        };
        Self::with(dir, store)
    }

    /// An owner of this store, which it makes and unseals; its source is a key in a file.
    pub(crate) fn keeping(bao: &OpenBao, reunseal: Reunseal) -> Self {
        let dir = testkit::scratch_dir();
        let key = dir.path().join("device.key");
        let counts = ShareCounts { shares: 5, threshold: 3 };
        let store = ExternalStore {
            host: bao.address().ip().to_string(),
            port: bao.address().port(),
            ca: bao.ca_file(),
            server_name: None,
            terms: Terms::Owner { counts, reunseal },
        };
        let mut device = Self::with(dir, store);
        device.plan.sources = vec![SourceSpec::Software { file: key }];
        device.plan.recovery = Some(RecoverySpec::None);
        device.plan.dangers.software_key = true;
        device
    }

    fn with(dir: tempfile::TempDir, store: ExternalStore) -> Self {
        let run_dir = dir.path().join("run");
        let services: Vec<ServicePlan> = ["sensor", "uploader"].map(|n| ServicePlan::usual(n.parse().unwrap())).into();
        let names = services.iter().map(|s| s.name.clone()).collect();
        let gate = |name: &str, needs| GatePlan { name: name.parse().unwrap(), needs, deadline: None, hint: None };
        let mut listen = ListenPlan::usual(&run_dir);
        listen.tcp = None;
        listen.names.clear();
        let plan = Plan {
            profile: Profile::Production,
            data_dir: dir.path().join("device"),
            run_dir,
            store: StoreSpec::External(store),
            sources: Vec::new(),
            release: boot::plan::ReleasePlan::default(),
            recovery: None,
            mounts: Plan::default_mounts(),
            services,
            credentials: vec![CredentialPlan::redis(names)],
            gates: vec![
                gate("tokens-ready", vec![Need::AllServices, Need::AllCredentials]),
                gate("ready-to-run", vec![Need::Gate("tokens-ready".parse().unwrap())]),
            ],
            listen,
            audit: AuditPlan::default(),
            dangers: Dangers::default(),
        };
        let (clock, entropy) = (Arc::new(FakeClock::at(0)), Arc::new(SeededEntropy::new(7)));
        Self { dir, clock, entropy, plan, ears: Ears::default() }
    }

    /// Where its store is, to be changed by a test.
    pub(crate) fn store(&mut self) -> &mut ExternalStore {
        match &mut self.plan.store {
            StoreSpec::External(store) => store,
            StoreSpec::Ours => unreachable!("these devices have another's"),
        }
    }

    /// From now on our token is this one, in a file.
    pub(crate) fn comes_by(&mut self, token: &str) {
        let file = self.path("token");
        OsDisk.replace(&file, token.as_bytes(), 0o600, None).unwrap();
        self.store().terms = Terms::Guest(Access::TokenFile(file));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) async fn up(&mut self) -> Running {
        self.ears = Ears::default();
        let environment = Environment {
            clock: Arc::clone(&self.clock) as Arc<dyn host::Clock>,
            entropy: Arc::clone(&self.entropy) as Arc<dyn host::Entropy>,
            disk: Arc::new(OsDisk),
            medium: Arc::new(Memory),
            us: OsDisk.meta(self.dir.path()).unwrap().unwrap().owner.uid,
            vfs: None,
            build_date: WallTime(0),
            keeper: None,
            guard: None,
            latch: seal::ReleaseLatch::default(),
            maker: None,
            key_wear: store::KeyWear::default(),
            machine: "/".into(),
            engines: Arc::new(|_| unreachable!("a guest has no engines of its own")),
        };
        up(self.plan.clone(), environment, Box::new(self.ears.clone())).await.unwrap()
    }

    /// A service's token.
    pub(crate) fn token(&self, service: &str) -> String {
        let path = self.plan.run_dir.join("secrets").join(service).join("secrets-token.json");
        let file: Value = serde_json::from_slice(&OsDisk.read(&path, 10_000).unwrap()).unwrap();
        file["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// Some time passes, and what is due is done.
    pub(crate) async fn after(&self, running: &mut Running, time: Duration) {
        self.clock.advance(time);
        running.tick().await;
    }

    pub(crate) fn heard(&self, what: impl Fn(&Note) -> bool) -> usize {
        self.ears.0.lock().unwrap().iter().filter(|n| what(n)).count()
    }

    /// Warnings and alarms, for a test that has to say why it failed.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let notes = self.ears.0.lock().unwrap();
        let text = |n: &Note| match n {
            Note::Warning(text) | Note::Alarm(text) => Some(text.clone()),
            _ => None,
        };
        notes.iter().filter_map(text).collect()
    }
}

pub(crate) fn open(running: &Running) -> Vec<String> {
    running.gates().borrow().open().iter().map(ToString::to_string).collect()
}

/// What the store's operator does once: the policy, and a role whose tokens have it and nothing else. Role id and
/// secret id.
pub(crate) async fn let_in(bao: &OpenBao, policy: &str) -> (String, String) {
    bao.as_root(Operation::Write, "sys/policies/acl/edgekeep", json!({ "policy": policy })).await;
    let mounted = bao.as_root(Operation::Read, "sys/auth", Value::Null).await;
    if mounted.get("approle/").is_none() {
        bao.as_root(Operation::Write, "sys/auth/approle", json!({ "type": "approle" })).await;
    }
    let role = json!({
        "token_policies": ["edgekeep"],
        "token_no_default_policy": true,
        "token_period": "1h",
    });
    bao.as_root(Operation::Write, "auth/approle/role/device", role).await;
    let id = bao.as_root(Operation::Read, "auth/approle/role/device/role-id", Value::Null).await;
    let secret = bao.as_root(Operation::Write, "auth/approle/role/device/secret-id", json!({})).await;
    (id["role_id"].as_str().unwrap().to_owned(), secret["secret_id"].as_str().unwrap().to_owned())
}
