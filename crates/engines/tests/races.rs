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

#[test]
fn use_that_another_request_has_just_spent_is_not_there_for_a_second() {
    let (house, _, root) = with_meddler();
    let ask = |token: &str| house.core.handle(request("GET", "auth/token/lookup-self", Value::Null, token));
    // The first pays, and is left there: the store has its payment, but it has told nobody yet. Where the store was
    // quicker than the first look, another token is asked with.
    let (first, token, before) = loop {
        let body = json!({ "policies": ["default"], "num_uses": 1 });
        let token = house.post("auth/token/create", body, &root).token();
        let before = house.sequence();
        let mut first = Box::pin(ask(&token));
        if first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            break (first, token, before);
        }
    };
    while house.sequence() == before {
        std::thread::yield_now();
    }
    assert_eq!(testkit::block_on(ask(&token)).status().0, 403, "one use, and it is spent");
    assert_eq!(testkit::block_on(first).status().0, 200, "by the first, whose use it was");
}

#[test]
fn of_many_requests_at_once_as_many_pass_as_the_token_has_uses() {
    let (house, _, root) = with_meddler();
    for round in 0..20 {
        let uses = 1 + round % 5;
        let body = json!({ "policies": ["default"], "num_uses": uses });
        let token = house.post("auth/token/create", body, &root).token();
        let start = std::sync::Barrier::new(8);
        let ask = || {
            start.wait();
            let asked = request("GET", "auth/token/lookup-self", Value::Null, &token);
            testkit::block_on(house.core.handle(asked)).status().0
        };
        let statuses: Vec<u16> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
            asking.into_iter().map(|a| a.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|s| **s == 200).count(), uses, "round {round}: {statuses:?}");
        assert!(house.post("auth/token/lookup", json!({ "token": token }), &root).status == 403, "it is gone");
    }
}
