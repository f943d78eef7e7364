use api::Payload;
use serde_json::{Value, json};
use testkit::block_on;

use super::house::{House, request};

#[test]
fn writes_reads_lists_and_deletes() {
    let h = House::new();
    h.get("secret/a").absent();
    h.ask("LIST", "secret", Value::Null).absent();
    h.ask("POST", "secret/a", json!({"x": 1})).is(204);
    assert_eq!(h.get("secret/a").is(200), json!({"x": 1}));
    h.ask("PUT", "secret/a/b", json!({"x": "2"})).is(204);
    h.ask("POST", "secret/c/d/e", json!({"x": "2"})).is(204);
    assert_eq!(h.ask("LIST", "secret", Value::Null).is(200), json!({"keys": ["a", "a/", "c/"]}));
    assert_eq!(h.ask("LIST", "secret/a", Value::Null).is(200), json!({"keys": ["b"]}));
    h.ask("LIST", "secret/nosuch", Value::Null).absent();
    h.get("secret/a/").absent();
    h.ask("DELETE", "secret/a/", Value::Null).is(204);
    assert_eq!(h.get("secret/a").is(200), json!({"x": 1}), "a folder's name is not an entry's");
    h.ask("DELETE", "secret/a", Value::Null).is(204);
    h.ask("DELETE", "secret/a", Value::Null).is(204);
    h.get("secret/a").absent();
    assert_eq!(h.get("secret/a/b").is(200), json!({"x": "2"}));
}

#[test]
fn refusals_as_openbao_words_them() {
    let h = House::new();
    h.ask("POST", "secret/a", json!({})).refuses(400, "missing data fields");
    h.ask("POST", "secret/a", Value::Null).refuses(400, "missing data fields");
    h.ask("POST", "secret/a/", json!({"x": 1})).refuses(400, "cannot write to a path ending in '/'");
    h.ask("POST", "secret/a", json!([1])).is(400);
    h.get("secret/a").absent();
}

#[test]
fn a_value_comes_back_byte_for_byte_with_its_lease() {
    let h = House::new();
    let text = r#"{"n":12345678901234567890123, "f": 1.50,"z":null}"#;
    let token = h.as_boot("POST", "auth/token/create", json!({"no_parent": true, "policies": ["all"]})).token();
    for (text, lease) in
        [(text, 2_764_800), (r#"{"x":1,"ttl":"1h"}"#, 3600), (r#"{"lease":"30m","ttl":"bogus"}"#, 1800)]
    {
        h.ask_as(&token, "POST", "secret/a", text).is(204);
        let request = request("GET", "secret/a", "").with_token(secret::Token::parse(&token).unwrap());
        let Payload::Logical(l) = block_on(h.core.handle(request)).into_reply().payload else { panic!("no data") };
        assert_eq!(std::str::from_utf8(l.data.as_ref().unwrap()).unwrap(), text);
        assert_eq!(l.lease_duration.as_seconds(), lease);
    }
}

#[test]
fn two_mounts_do_not_see_each_other() {
    let h = House::new();
    h.as_boot("POST", "sys/mounts/other", json!({"type": "kv", "options": {"version": "1"}})).is(204);
    h.ask("POST", "secret/a", json!({"x": 1})).is(204);
    h.get("other/a").absent();
    h.ask("LIST", "other", Value::Null).absent();
}
