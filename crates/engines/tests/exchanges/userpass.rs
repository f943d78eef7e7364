use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::house::{CountingPool, House};

const USER: &str = "auth/userpass/users/u1";
const LOGIN: &str = "auth/userpass/login/u1";
const WRONG: &str = "invalid username or password";
/// 33 random bytes in base64, as EdgeX draws them.
const DRAWN: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2Vj";

#[test]
fn users_come_and_go() {
    let h = House::new();
    h.get(USER).absent();
    h.ask("POST", USER, json!({})).refuses(400, "must provide either password or password_hash");
    h.ask("POST", USER, json!({"password": "pw", "token_period": "1h", "token_policies": ["p1", "P2"]})).is(204);
    h.ask("POST", USER, json!({"token_ttl": "5m"})).is(204);
    assert_eq!(
        h.get(USER).is(200),
        json!({"token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0, "token_no_default_policy": false,
            "token_num_uses": 0, "token_period": 3600, "token_policies": ["p1", "P2"], "token_strictly_bind_ip": false,
            "token_ttl": 300, "token_type": "default"})
    );
    h.ask("POST", "auth/userpass/users/A.b-_1", json!({"password": "x"})).is(204);
    assert_eq!(h.ask("LIST", "auth/userpass/users", Value::Null).is(200), json!({"keys": ["a.b-_1", "u1"]}));
    h.ask("POST", "auth/userpass/users/u1/policies", json!({"policies": "x2,x3"})).is(204);
    let read = h.get(USER).is(200);
    assert_eq!((&read["policies"], &read["token_policies"]), (&json!(["x2", "x3"]), &json!(["x2", "x3"])));
    h.ask("DELETE", USER, Value::Null).is(204);
    h.ask("DELETE", USER, Value::Null).is(204);
    h.get(USER).absent();
}

#[test]
fn refusals_as_openbao_words_them() {
    let h = House::new();
    let unsupported_path = "1 error occurred:\n\t* unsupported path\n\n";
    let nobody = "1 error occurred:\n\t* username does not exist\n\n";
    h.ask("POST", "auth/userpass/users/a@b", json!({"password": "x"})).refuses(404, unsupported_path);
    h.get("auth/userpass/nosuch").refuses(404, unsupported_path);
    h.ask("POST", "auth/userpass/users/no/password", json!({"password": "x"})).refuses(500, nobody);
    h.ask("POST", "auth/userpass/users/no/policies", json!({"policies": "x"})).refuses(500, nobody);
    let ttls = json!({"password": "x", "token_ttl": "2h", "token_max_ttl": "1h"});
    h.ask("POST", USER, ttls).refuses(400, "'token_ttl' cannot be greater than 'token_max_ttl'");
    h.ask("POST", USER, json!({"password": "x", "token_period": "bogus"})).is(400);
    h.ask("POST", USER, json!({"password": "x".repeat(73)})).is(400);
    h.ask("POST", USER, json!({"password": ""})).is(400);
    h.get(USER).absent();
}

#[test]
fn limits_that_are_not_enforced_are_not_accepted() {
    let h = House::new();
    h.ask("POST", USER, json!({"password": "x", "token_bound_cidrs": "10.0.0.0/8"})).is(400);
    h.ask("POST", USER, json!({"password": "x", "token_type": "batch"})).is(400);
    h.ask("POST", USER, json!({"password": "x", "token_strictly_bind_ip": true})).is(400);
    h.ask("POST", USER, json!({"password": "x", "password_hash": "$2b$10$"})).is(400);
    h.get(USER).absent();
}

#[test]
fn a_login_earns_a_periodic_orphan_with_an_entity() {
    let h = House::new();
    h.ask("POST", USER, json!({"password": "pw", "token_period": "1h", "token_policies": "p1"})).is(204);
    let first = h.ask_bare("POST", "auth/userpass/login/U1", json!({"password": "pw"})).is(200);
    assert_eq!(first["policies"], json!(["default", "p1"]));
    assert_eq!((&first["lease_duration"], &first["orphan"]), (&json!(3600), &json!(true)));
    assert_eq!(first["metadata"], json!({"username": "u1"}));
    let second = h.ask_bare("POST", LOGIN, json!({"password": "pw"})).is(200);
    assert_eq!(first["entity_id"], second["entity_id"], "one entity for each name");
    assert!(!first["entity_id"].as_str().unwrap().is_empty());
    let own = h.ask_as(first["client_token"].as_str().unwrap(), "GET", "auth/token/lookup-self", "").is(200);
    assert_eq!(own["display_name"], json!("userpass-u1"));
}

#[test]
fn unknown_user_and_bad_password_look_and_cost_the_same() {
    let pool = Arc::new(CountingPool::default());
    let h = House::with_pool(pool.clone());
    h.ask("POST", USER, json!({"password": "pw"})).is(204);
    let generated = json!({"password": DRAWN, "edgekeep_generated": true});
    h.as_boot("POST", "auth/userpass/users/svc", generated).is(204);
    for name in ["u1", "nosuch", "svc"] {
        let before = pool.jobs.load(Relaxed);
        h.ask_bare("POST", &format!("auth/userpass/login/{name}"), json!({"password": "bad"})).refuses(400, WRONG);
        assert_eq!(pool.jobs.load(Relaxed) - before, 1, "{name}: one slow hash");
    }
    h.ask_bare("POST", LOGIN, json!({})).refuses(500, "missing password");
    h.ask_bare("GET", LOGIN, Value::Null).is(403);
    h.ask("GET", LOGIN, Value::Null).is(405);
}

#[test]
fn a_drawn_password_needs_no_slow_hash() {
    let pool = Arc::new(CountingPool::default());
    let h = House::with_pool(pool.clone());
    h.as_boot("POST", USER, json!({"password": DRAWN, "edgekeep_generated": true})).is(204);
    h.ask_bare("POST", LOGIN, json!({"password": DRAWN})).is(200);
    assert_eq!(pool.jobs.load(Relaxed), 0);
    h.ask_bare("POST", LOGIN, json!({"password": DRAWN.to_lowercase()})).refuses(400, WRONG);
}

#[test]
fn only_boot_may_say_that_a_password_was_drawn() {
    let pool = Arc::new(CountingPool::default());
    let h = House::with_pool(pool.clone());
    h.ask("POST", USER, json!({"password": DRAWN, "edgekeep_generated": true})).is(204);
    assert_eq!(pool.jobs.load(Relaxed), 1, "hashed slowly like any other");
    h.as_boot("POST", USER, json!({"password": "short", "edgekeep_generated": true})).is(204);
    assert_eq!(pool.jobs.load(Relaxed), 2, "and so is one that is too short to have been");
}

#[test]
fn guessing_is_locked_out_but_no_service_is() {
    let h = House::with_pool(Arc::new(CountingPool::default()));
    h.ask("POST", USER, json!({"password": "pw"})).is(204);
    h.as_boot("POST", "auth/userpass/users/svc", json!({"password": DRAWN, "edgekeep_generated": true})).is(204);
    for name in ["u1", "svc"] {
        for _ in 0..6 {
            h.ask_bare("POST", &format!("auth/userpass/login/{name}"), json!({"password": "bad"})).refuses(400, WRONG);
        }
    }
    h.ask_bare("POST", LOGIN, json!({"password": "pw"})).refuses(400, WRONG);
    h.ask_bare("POST", "auth/userpass/login/svc", json!({"password": DRAWN})).is(200);
    h.pass(15 * 60);
    h.ask_bare("POST", LOGIN, json!({"password": "pw"})).is(200);
}

#[test]
fn a_full_pool_answers_503() {
    let pool = Arc::new(CountingPool::default());
    let h = House::with_pool(pool.clone());
    h.ask("POST", USER, json!({"password": "pw"})).is(204);
    pool.full.store(true, Relaxed);
    h.ask_bare("POST", LOGIN, json!({"password": "pw"})).is(503);
    h.ask("POST", "auth/userpass/users/u2", json!({"password": "pw"})).is(503);
}

#[test]
fn a_login_is_never_root() {
    let h = House::new();
    h.ask("POST", USER, json!({"password": "pw", "token_policies": ["root"]})).is(204);
    h.ask_bare("POST", LOGIN, json!({"password": "pw"})).is(400);
}
