//! One unsealed core with a token that may do everything but be root.

use std::sync::Arc;
use std::time::Duration;

use api::{ApiPath, Body, Operation, Payload, Reply, Request};
use client::Vault;
use engines::{Facts, HashPool, PoolFull, ThreadPool};
use host::{OsDisk, WallTime};
use pipeline::{Core, InProcess, NoAudit, Services};
use secret::{RootKey, Secret, Token};
use serde_json::{Value, json};
use store::{NewStore, Profile, SlotSet, Store, StoreConfig};
use testkit::{FakeClock, SeededEntropy, block_on, scratch_dir};
use zeroize::Zeroizing;

pub struct House {
    pub core: Arc<Core>,
    pub clock: Arc<FakeClock>,
    boot: InProcess,
    token: String,
    _dir: tempfile::TempDir,
}

/// A reply: status and JSON. Envelopes are shown by their `data`, `auth` and `lease_duration`.
#[derive(Debug, PartialEq)]
pub struct Answer(pub u16, pub Value);

impl House {
    pub fn new() -> Self {
        Self::with_pool(Arc::new(ThreadPool::new(1, 8).unwrap()))
    }

    pub fn with_pool(pool: Arc<dyn HashPool>) -> Self {
        let dir = scratch_dir();
        let clock = Arc::new(FakeClock::at(1_795_316_206));
        let entropy = Arc::new(SeededEntropy::new(7));
        let built = WallTime(1_790_000_000_000_000_000);
        let mut config =
            StoreConfig::new(dir.path().join("store.db"), Arc::new(OsDisk), clock.clone(), entropy.clone(), built);
        config.readers = 0;
        let root = RootKey::new(Secret::init_with(|b| b.fill(1)));
        let slots = SlotSet { generation: 1, digest: [2; 32] };
        let store =
            Store::create(&config, &root, &NewStore { store_id: [3; 16], profile: Profile::Demo, slots }).unwrap();
        store.begin_boot().unwrap();
        let services = Services::new(store, clock.clone(), entropy);
        let facts = Facts {
            version: "0".into(),
            build_date: "0".into(),
            cluster_name: "c".into(),
            cluster_id: "i".into(),
            shares: None,
        };
        let (engines, directory) = engines::all(&services, facts, pool);
        let core = block_on(Core::open(services, engines, directory, Arc::new(NoAudit))).unwrap();
        let boot = core.in_process();
        let mut house = Self { core, clock, boot, token: String::new(), _dir: dir };
        house.as_boot("POST", "sys/mounts/secret", json!({"type": "kv", "options": {"version": "1"}})).is(204);
        house.as_boot("POST", "sys/auth/userpass", json!({"type": "userpass"})).is(204);
        let all = r#"path "*" { capabilities = ["create","read","update","delete","list","sudo"] }"#;
        house.as_boot("PUT", "sys/policies/acl/all", json!({"policy": all})).is(204);
        let made = house.as_boot("POST", "auth/token/create", json!({"no_parent": true, "policies": ["all"]}));
        house.token = made.token();
        house
    }

    /// As the unattended start.
    pub fn as_boot(&self, verb: &str, path: &str, body: Value) -> Answer {
        let request = request(verb, path, &body.to_string());
        Answer::of(block_on(self.boot.call(request)).unwrap())
    }

    /// With the token that may do everything.
    pub fn ask(&self, verb: &str, path: &str, body: Value) -> Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.ask_as(&self.token, verb, path, &text)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, Value::Null)
    }

    pub fn ask_as(&self, token: &str, verb: &str, path: &str, body: &str) -> Answer {
        self.send(request(verb, path, body).with_token(Token::parse(token).unwrap()))
    }

    /// Without a token.
    pub fn ask_bare(&self, verb: &str, path: &str, body: Value) -> Answer {
        self.send(request(verb, path, &body.to_string()))
    }

    pub fn send(&self, request: Request) -> Answer {
        Answer::of(block_on(self.core.handle(request)).into_reply())
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn accessor(&self) -> String {
        self.accessor_of("userpass/")
    }

    pub fn accessor_of(&self, mount: &str) -> String {
        self.get("sys/auth").1[mount]["accessor"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    fn of(reply: Reply) -> Self {
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let status = reply.status.0;
        match reply.payload {
            Payload::Empty => Self(status, Value::Null),
            Payload::Raw { bytes, .. } => Self(status, json(&bytes)),
            Payload::Errors(errors) => Self(status, json!({ "errors": errors })),
            Payload::Logical(l) => {
                let mut value = l.data.as_ref().map_or(Value::Null, |d| json(d));
                if let Some(auth) = &l.auth {
                    value = json!({
                        "client_token": auth.client_token.expose(), "policies": auth.policies, "metadata": auth.metadata,
                        "lease_duration": auth.lease_duration.as_seconds(), "entity_id": auth.entity_id, "orphan": auth.orphan,
                    });
                }
                Self(status, value)
            }
        }
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.0, status, "{}", self.1);
        self.1
    }

    #[track_caller]
    pub fn refuses(self, status: u16, text: &str) {
        assert_eq!(self, Answer(status, json!({ "errors": [text] })));
    }

    #[track_caller]
    pub fn absent(self) {
        assert_eq!(self, Answer(404, json!({ "errors": [] })));
    }

    pub fn token(&self) -> String {
        self.1["client_token"].as_str().unwrap_or_else(|| panic!("no token: {self:?}")).to_owned()
    }
}

pub fn request(verb: &str, path: &str, body: &str) -> Request {
    let operation = match verb {
        "GET" => Operation::Read,
        "LIST" => Operation::List,
        "POST" | "PUT" => Operation::Write,
        "DELETE" => Operation::Delete,
        other => panic!("no verb: {other}"),
    };
    let body = if body == "null" { "" } else { body };
    Request::new(operation, ApiPath::parse(path).unwrap())
        .with_body(Body::new(Zeroizing::new(body.as_bytes().to_vec())))
}

/// A pool that counts its jobs, and may be full.
#[derive(Default)]
pub struct CountingPool {
    pub jobs: std::sync::atomic::AtomicU32,
    pub full: std::sync::atomic::AtomicBool,
}

impl HashPool for CountingPool {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), PoolFull> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.full.load(Relaxed) {
            return Err(PoolFull);
        }
        self.jobs.fetch_add(1, Relaxed);
        job();
        Ok(())
    }
}
