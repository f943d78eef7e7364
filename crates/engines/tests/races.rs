//! What happens between two steps of one request: revocations, other writers, and nothing at all on the fast path.

#![allow(clippy::unwrap_used)]

mod house;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};

use house::{House, request};
use pipeline::{Authorized, BoxFuture, Core, Engine, EngineError, Outcome, Txn};
use secret::SecretBytes;
use serde_json::{Value, json};

/// An engine that lets something else happen between its reads and its commit, in the first of its runs.
#[derive(Default)]
struct Meddler {
    core: OnceLock<Arc<Core>>,
    meanwhile: OnceLock<(&'static str, Value, String)>,
    runs: AtomicUsize,
}

impl Engine for Meddler {
    fn kind(&self) -> &'static str {
        "meddler"
    }

    fn handle<'a>(
        &'a self,
        asked: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>> {
        Box::pin(async move {
            let key = asked.path().to_owned();
            let found = txn.get(&key).await?;
            if !asked.operation().is_write() {
                let text = found.map(|v| String::from_utf8(v.expose().to_vec()).unwrap());
                return text.map(|t| api::Reply::data(&json!(t)).into()).ok_or_else(EngineError::absent);
            }
            if self.runs.fetch_add(1, Ordering::Relaxed) == 0
                && let Some((path, body, token)) = self.meanwhile.get()
            {
                let core = self.core.get().unwrap();
                // Boxed, for a request within a request is a future within itself.
                let inner: BoxFuture<'_, _> = Box::pin(core.handle(request("POST", path, body.clone(), token)));
                assert!(inner.await.status().is_success());
            }
            let mut text = found.map(|v| v.expose().to_vec()).unwrap_or_default();
            text.push(b'x');
            txn.put(&key, SecretBytes::new(text))?;
            Ok(api::Reply::no_content().into())
        })
    }
}

fn with_meddler() -> (House, Arc<Meddler>, String) {
    let meddler = Arc::new(Meddler::default());
    let house = House::with(vec![meddler.clone()]);
    meddler.core.set(house.core.clone()).unwrap_or_else(|_| panic!("set once"));
    let root = house.root();
    house.post("sys/mounts/m", json!({ "type": "meddler" }), &root).is(204);
    house.policy("m", r#"path "m/*" { capabilities = ["create", "read", "update"] }"#, &root);
    (house, meddler, root)
}

#[test]
fn write_of_a_token_revoked_meanwhile_takes_no_effect() {
    let (house, meddler, root) = with_meddler();
    let token = house.token(&["m"], &root);
    meddler.meanwhile.set(("auth/token/revoke", json!({ "token": token }), root.clone())).unwrap();
    house.post("m/a", json!({}), &token).is(403);
    house.get("m/a", &root).is(404);
}

#[test]
fn lost_race_is_run_again_on_what_is_there_then() {
    let (house, meddler, root) = with_meddler();
    meddler.meanwhile.set(("m/a", json!({}), root.clone())).unwrap();
    house.post("m/a", json!({}), &root).is(204);
    assert_eq!(house.get("m/a", &root).is(200).data, "xx", "neither write is lost");
    assert_eq!(meddler.runs.load(Ordering::Relaxed), 3);
}

#[test]
fn read_from_the_caches_never_suspends() {
    let (house, _, root) = with_meddler();
    house.post("sys/mounts/secret", json!({ "type": "kv", "options": { "version": "1" } }), &root).is(204);
    house.post("secret/x", json!({ "a": "b" }), &root).is(204);
    house.get("secret/x", &root).is(200);
    let asked = pin!(house.core.handle(request("GET", "secret/x", Value::Null, &root)));
    let mut future = asked;
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[test]
fn reads_write_nothing() {
    let (house, _, root) = with_meddler();
    let token = house.token(&["m"], &root);
    let before = house.sequence();
    for _ in 0..10 {
        house.get("m/none", &token).is(404);
        house.get("auth/token/lookup-self", &token).is(200);
        house.get("sys/mounts", &root).is(200);
    }
    assert_eq!(house.sequence(), before);
}
