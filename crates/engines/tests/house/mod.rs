//! A whole store in a scratch directory, with all engines, a clock in the test's hands and an audit that keeps its
//! records.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the house")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::{ApiPath, Body, Operation, Payload, Reply, Request};
use engines::{Facts, HashPool, PoolFull};
use host::{OsDisk, WallTime};
use pipeline::{
    ActorRecord, AuditRefused, AuditSink, BoxFuture, Core, Engine, InProcess, RequestRecord, ResponseRecord, Services,
};
use secret::{RootKey, Secret, Token};
use serde_json::{Value, json};
use store::{NewStore, Profile, SlotSet, Store, StoreConfig};
use testkit::{FakeClock, SeededEntropy, block_on, scratch_dir};

pub struct House {
    pub core: Arc<Core>,
    pub clock: Arc<FakeClock>,
    pub audit: Arc<Tape>,
    store: Store,
    entropy: Arc<SeededEntropy>,
    dir: tempfile::TempDir,
}

impl House {
    pub fn new() -> Self {
        Self::with(Vec::new())
    }

    /// With engines of the test's own besides.
    pub fn with(more: Vec<Arc<dyn Engine>>) -> Self {
        let dir = scratch_dir();
        let clock = Arc::new(FakeClock::at(1_795_316_206));
        let entropy = Arc::new(SeededEntropy::new(7));
        let slots = SlotSet { generation: 1, digest: [3; 32] };
        let new = NewStore { store_id: ID, profile: Profile::Demo, slots };
        let store = Store::create(&config(&dir, &clock, &entropy), &root(), &new).unwrap();
        Self::over(store, dir, clock, entropy, more)
    }

    fn over(
        store: Store,
        dir: tempfile::TempDir,
        clock: Arc<FakeClock>,
        entropy: Arc<SeededEntropy>,
        more: Vec<Arc<dyn Engine>>,
    ) -> Self {
        let audit = Arc::new(Tape::default());
        let services = Services::new(store.clone(), clock.clone(), entropy.clone());
        let (mut engines, directory) = engines::all(&services, facts(), Arc::new(AtOnce));
        engines.extend(more);
        let core = block_on(Core::open(services, engines, directory, audit.clone())).unwrap();
        Self { core, clock, audit, store, entropy, dir }
    }

    /// The process dies and starts again: nothing is written down on the way.
    pub fn crash(self) -> Self {
        let Self { core, clock, store, entropy, dir, .. } = self;
        drop(core);
        store.close();
        drop(store);
        Self::reopen(dir, clock, entropy)
    }

    /// A clean stop and a new start.
    pub fn restart(self) -> Self {
        block_on(self.core.close()).unwrap();
        self.crash()
    }

    /// The kernel starts anew.
    pub fn reboot(self) -> Self {
        self.clock.reboot();
        self.crash()
    }

    fn reopen(dir: tempfile::TempDir, clock: Arc<FakeClock>, entropy: Arc<SeededEntropy>) -> Self {
        let store = Store::open(&config(&dir, &clock, &entropy), &root(), ID).unwrap();
        Self::over(store, dir, clock, entropy, Vec::new())
    }

    pub fn boot(&self) -> InProcess {
        self.core.in_process()
    }

    pub fn root(&self) -> String {
        block_on(self.core.generate_root(api::Ttl::ZERO)).unwrap().client_token.expose().to_owned()
    }

    /// The store's sequence number: each commit moves it.
    pub fn sequence(&self) -> u64 {
        self.store.head().unwrap().sequence
    }

    pub fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn tick(&self) {
        block_on(self.core.tick()).unwrap();
    }

    pub fn call(&self, method: &str, path: &str, body: Value, token: &str) -> Answer {
        let request = request(method, path, body, token);
        Answer::of(block_on(self.core.handle(request)).into_reply())
    }

    pub fn as_boot(&self, method: &str, path: &str, body: Value) -> Answer {
        use client::Vault;
        Answer::of(block_on(self.boot().call(request(method, path, body, ""))).unwrap())
    }

    pub fn get(&self, path: &str, token: &str) -> Answer {
        self.call("GET", path, Value::Null, token)
    }

    pub fn post(&self, path: &str, body: Value, token: &str) -> Answer {
        self.call("POST", path, body, token)
    }

    /// A token with these policies, made by root.
    pub fn token(&self, policies: &[&str], root: &str) -> String {
        self.post("auth/token/create", json!({ "policies": policies, "no_parent": true }), root).token()
    }

    pub fn policy(&self, name: &str, text: &str, root: &str) {
        self.post(&format!("sys/policies/acl/{name}"), json!({ "policy": text }), root).is(204);
    }
}

pub fn request(method: &str, path: &str, body: Value, token: &str) -> Request {
    let operation = match method {
        "GET" => Operation::Read,
        "LIST" => Operation::List,
        "POST" => Operation::Write,
        "DELETE" => Operation::Delete,
        "PATCH" => Operation::Patch,
        other => panic!("no method {other}"),
    };
    let mut request = Request::new(operation, ApiPath::parse(path).unwrap());
    if !body.is_null() {
        request = request.with_body(Body::new(body.to_string().into_bytes().into()));
    }
    if !token.is_empty() {
        request = request.with_token(Token::parse(token).unwrap());
    }
    request
}

/// A reply as a client sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub data: Value,
    pub auth: Value,
    pub warnings: Vec<String>,
    pub errors: Vec<String>,
}

impl Answer {
    fn of(reply: Reply) -> Self {
        let mut answer = Self {
            status: reply.status.0,
            data: Value::Null,
            auth: Value::Null,
            warnings: Vec::new(),
            errors: Vec::new(),
        };
        match reply.payload {
            Payload::Empty => {}
            Payload::Errors(errors) => answer.errors = errors,
            Payload::Raw { bytes, .. } => answer.data = serde_json::from_slice(&bytes).unwrap(),
            Payload::Logical(logical) => {
                answer.data = logical.data.map_or(Value::Null, |d| serde_json::from_slice(&d).unwrap());
                answer.warnings = logical.warnings;
                if let Some(auth) = logical.auth {
                    answer.auth = json!({
                        "client_token": auth.client_token.expose(),
                        "accessor": auth.accessor.as_str(),
                        "policies": auth.policies,
                        "token_policies": auth.token_policies,
                        "identity_policies": auth.identity_policies,
                        "lease_duration": auth.lease_duration.as_seconds(),
                        "renewable": auth.renewable,
                        "entity_id": auth.entity_id,
                        "orphan": auth.orphan,
                        "num_uses": auth.num_uses,
                        "metadata": auth.metadata,
                    });
                }
            }
        }
        answer
    }

    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub fn told(self, status: u16, text: &str) -> Self {
        let answer = self.is(status);
        assert!(answer.errors.iter().any(|e| e.contains(text)), "{text:?} is not in {answer:?}");
        answer
    }

    #[track_caller]
    pub fn token(self) -> String {
        let answer = self.is(200);
        answer.auth["client_token"].as_str().unwrap().to_owned()
    }
}

/// An audit device that keeps what it is told, and refuses when the test wants it to.
#[derive(Default)]
pub struct Tape {
    pub lines: Mutex<Vec<String>>,
    /// Why requests were refused, as the records have it.
    pub reasons: Mutex<Vec<String>>,
    pub refuses: AtomicBool,
}

impl Tape {
    fn take(
        &self,
        kind: &str,
        request: &RequestRecord<'_>,
        response: Option<&ResponseRecord<'_>>,
    ) -> Result<(), AuditRefused> {
        if self.refuses.load(Ordering::Acquire) {
            return Err(AuditRefused { reason: "the test says no".to_owned() });
        }
        let actor = match request.actor {
            ActorRecord::Anonymous => "anonymous".to_owned(),
            ActorRecord::Unknown { .. } => "unknown".to_owned(),
            ActorRecord::Boot => "boot".to_owned(),
            ActorRecord::Local { name } => name.to_owned(),
            ActorRecord::Token { display_name, .. } => display_name.to_owned(),
        };
        let status = response.map_or(String::new(), |r| format!(" {}", r.status));
        let line = format!("{kind} {} {} by {actor}{status}", request.operation, request.path);
        self.lines.lock().unwrap().push(line);
        self.reasons.lock().unwrap().extend(response.and_then(|r| r.error).map(str::to_owned));
        Ok(())
    }

    pub fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

impl AuditSink for Tape {
    fn announce<'a>(&'a self, request: &'a RequestRecord<'a>) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(std::future::ready(self.take("request", request, None)))
    }

    fn conclude<'a>(
        &'a self,
        request: &'a RequestRecord<'a>,
        response: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(std::future::ready(self.take("response", request, Some(response))))
    }

    fn record<'a>(
        &'a self,
        request: &'a RequestRecord<'a>,
        response: &'a ResponseRecord<'a>,
    ) -> BoxFuture<'a, Result<(), AuditRefused>> {
        Box::pin(std::future::ready(self.take("both", request, Some(response))))
    }
}

struct AtOnce;

impl HashPool for AtOnce {
    fn submit(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), PoolFull> {
        job();
        Ok(())
    }
}

fn config(dir: &tempfile::TempDir, clock: &Arc<FakeClock>, entropy: &Arc<SeededEntropy>) -> StoreConfig {
    StoreConfig::new(dir.path().join("store.db"), Arc::new(OsDisk), clock.clone(), entropy.clone(), WallTime(0))
}

fn root() -> RootKey {
    RootKey::new(Secret::init_with(|key| key.fill(9)))
}

fn facts() -> Facts {
    Facts {
        version: "0.1.0".to_owned(),
        build_date: "2026-11-22T00:00:00Z".to_owned(),
        cluster_name: "edgekeep-test".to_owned(),
        cluster_id: "8e0f".to_owned(),
        shares: None,
    }
}

const ID: [u8; 16] = [5; 16];
