use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secret::crypto::{Curve, verify};
use serde_json::{Value, json};

use super::house::House;

const KEY: &str = "identity/oidc/key/edgex-identity";
const ROLE: &str = "identity/oidc/role/svc";

/// EdgeX's key and role, and the token of a service that logged in.
fn service(h: &House) -> String {
    h.ask("POST", KEY, json!({"allowed_client_ids": ["*"], "algorithm": "ES384"})).is(204);
    let template = r#"{"name": {{identity.entity.name}}}"#;
    let role = json!({"client_id": "edgex", "key": "edgex-identity", "template": template, "ttl": "1h"});
    h.ask("POST", ROLE, role).is(204);
    let id = h.ask("POST", "identity/entity/name/svc", json!({})).is(200)["id"].clone();
    let alias = json!({"name": "u1", "canonical_id": id, "mount_accessor": h.accessor()});
    h.ask("POST", "identity/entity-alias", alias).is(200);
    h.ask("POST", "auth/userpass/users/u1", json!({"password": "pw", "token_policies": "all"})).is(204);
    h.ask_bare("POST", "auth/userpass/login/u1", json!({"password": "pw"})).token()
}

fn issue(h: &House, token: &str) -> String {
    let data = h.ask_as(token, "GET", "identity/oidc/token/svc", "").is(200);
    assert_eq!((&data["client_id"], &data["ttl"]), (&json!("edgex"), &json!(3600)));
    data["token"].as_str().unwrap().to_owned()
}

fn part(jwt: &str, n: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(jwt.split('.').nth(n).unwrap()).unwrap()).unwrap()
}

fn introspect(h: &House, body: Value) -> bool {
    h.ask("POST", "identity/oidc/introspect", body).is(200)["active"].as_bool().unwrap()
}

fn published(h: &House) -> Vec<Value> {
    h.ask_bare("GET", "identity/oidc/.well-known/keys", Value::Null).is(200)["keys"].as_array().unwrap().clone()
}

#[test]
fn a_token_is_verified_by_the_published_key() {
    let h = House::new();
    let jwt = issue(&h, &service(&h));
    let (header, claims) = (part(&jwt, 0), part(&jwt, 1));
    assert_eq!(header["alg"], json!("ES384"));
    assert_eq!((&claims["aud"], &claims["name"]), (&json!("edgex"), &json!("svc")));
    assert_eq!((&claims["iss"], &claims["namespace"]), (&json!("/v1/identity/oidc"), &json!("root")));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    let keys = published(&h);
    let key = keys.iter().find(|k| k["kid"] == header["kid"]).unwrap();
    let mut point = vec![4];
    for half in ["x", "y"] {
        point.extend(URL_SAFE_NO_PAD.decode(key[half].as_str().unwrap()).unwrap());
    }
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    verify(Curve::P384, &point, signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    assert!(introspect(&h, json!({"token": jwt})));
    assert!(introspect(&h, json!({"token": jwt, "client_id": "edgex"})));
}

#[test]
fn introspection_refuses_what_does_not_count() {
    let h = House::new();
    let token = service(&h);
    let jwt = issue(&h, &token);
    for bad in [
        json!({}),
        json!({"token": "garbage"}),
        json!({"token": format!("{jwt}x")}),
        json!({"token": jwt, "client_id": "zz"}),
    ] {
        assert!(!introspect(&h, bad.clone()), "{bad}");
    }
    h.ask("POST", "identity/entity/name/svc", json!({"disabled": true})).is(204);
    assert!(!introspect(&h, json!({"token": jwt})), "a disabled entity");
    h.ask("POST", "identity/entity/name/svc", json!({"disabled": false})).is(204);
    assert!(introspect(&h, json!({"token": jwt})));
    h.ask("POST", "identity/oidc/config", json!({"issuer": "https://elsewhere:8200"})).is(204);
    assert!(!introspect(&h, json!({"token": jwt})), "another issuer");
}

#[test]
fn expiry_is_counted_in_the_stores_time() {
    let h = House::new();
    let token = service(&h);
    let jwt = issue(&h, &token);
    h.clock.step_wall(0);
    assert!(introspect(&h, json!({"token": jwt})));
    h.clock.step_wall(4_000_000_000);
    assert!(introspect(&h, json!({"token": jwt})), "a step of the wall clock ends no token");
    h.pass(3599);
    assert!(introspect(&h, json!({"token": jwt})));
    h.clock.step_wall(0);
    h.pass(1);
    assert!(!introspect(&h, json!({"token": jwt})), "and prolongs none");
}

#[test]
fn a_rotated_key_verifies_until_its_time_has_passed() {
    let h = House::new();
    let token = service(&h);
    let before = issue(&h, &token);
    h.ask("POST", &format!("{KEY}/rotate"), json!({})).is(204);
    let after = issue(&h, &token);
    assert_ne!(part(&before, 0)["kid"], part(&after, 0)["kid"]);
    assert_eq!(published(&h).len(), 2);
    assert!(introspect(&h, json!({"token": before})) && introspect(&h, json!({"token": after})));
    h.pass(86_400);
    assert_eq!(published(&h).len(), 1, "the former key is published for its verification_ttl");
    h.ask("POST", &format!("{KEY}/rotate"), json!({"verification_ttl": "1m"})).is(204);
    h.pass(60);
    assert_eq!(published(&h).len(), 1);
}

#[test]
fn a_due_rotation_happens_at_the_next_signature() {
    let h = House::new();
    let token = service(&h);
    let before = part(&issue(&h, &token), 0)["kid"].clone();
    h.pass(86_399);
    assert_eq!(part(&issue(&h, &token), 0)["kid"], before);
    h.pass(1);
    let after = part(&issue(&h, &token), 0)["kid"].clone();
    assert_ne!(after, before);
    assert_eq!(part(&issue(&h, &token), 0)["kid"], after, "once");
    let kids: Vec<_> = published(&h).iter().map(|k| k["kid"].clone()).collect();
    assert_eq!(kids, [after, before]);
}

#[test]
fn keys_and_roles_as_openbao_words_them() {
    let h = House::new();
    h.ask("LIST", "identity/oidc/key", Value::Null).absent();
    h.ask("POST", KEY, json!({"algorithm": "bogus"})).refuses(400, "unknown signing algorithm \"bogus\"");
    h.ask("POST", KEY, json!({"algorithm": "RS256"})).is(400);
    let long = json!({"algorithm": "ES384", "rotation_period": "1h", "verification_ttl": "20h"});
    h.ask("POST", KEY, long).refuses(400, "verification_ttl cannot be longer than 10x rotation_period");
    h.ask("POST", &format!("{KEY}/rotate"), json!({})).refuses(400, "no named key found at \"edgex-identity\"");
    h.ask("POST", ROLE, json!({})).refuses(400, "the key parameter is required");
    h.ask("POST", ROLE, json!({"key": "nosuch"})).refuses(400, "cannot find key \"nosuch\"");
    h.ask("POST", KEY, json!({"algorithm": "ES256", "allowed_client_ids": "a,b"})).is(204);
    assert_eq!(
        h.get(KEY).is(200),
        json!({"algorithm": "ES256", "allowed_client_ids": ["a", "b"], "rotation_period": 86400, "verification_ttl": 86400})
    );
    assert_eq!(h.ask("LIST", "identity/oidc/key", Value::Null).is(200), json!({"keys": ["edgex-identity"]}));
    h.ask("POST", ROLE, json!({"key": "edgex-identity", "ttl": "9999h"})).is(400);
    h.ask("POST", ROLE, json!({"key": "edgex-identity", "template": "{\"aud\": 1}"})).is(400);
    h.get(ROLE).absent();
    h.ask("POST", ROLE, json!({"key": "edgex-identity"})).is(204);
    let role = h.get(ROLE).is(200);
    assert_eq!((&role["ttl"], role["client_id"].as_str().unwrap().len()), (&json!(86400), 24));
    h.ask("DELETE", KEY, Value::Null).is(400);
    h.get("identity/oidc/token/nosuch").refuses(400, "role \"nosuch\" not found");
    h.get("identity/oidc/token/svc").refuses(400, "no entity associated with the request's token");
    h.ask("DELETE", ROLE, Value::Null).is(204);
    h.ask("DELETE", KEY, Value::Null).is(204);
    assert!(published(&h).is_empty());
}

#[test]
fn a_client_that_the_key_does_not_list_gets_no_token() {
    let h = House::new();
    let token = service(&h);
    h.ask("POST", KEY, json!({"allowed_client_ids": ["other"]})).is(204);
    h.ask_as(&token, "GET", "identity/oidc/token/svc", "").is(400);
}

#[test]
fn discovery_is_open_to_all_and_nothing_else_is() {
    let h = House::new();
    let open = h.ask_bare("GET", "identity/oidc/.well-known/openid-configuration", Value::Null).is(200);
    assert_eq!(open["jwks_uri"], json!("/v1/identity/oidc/.well-known/keys"));
    h.ask("POST", "identity/oidc/config", json!({"issuer": "https://store.example:8200/"})).is(204);
    let open = h.ask_bare("GET", "identity/oidc/.well-known/openid-configuration", Value::Null).is(200);
    assert_eq!(open["issuer"], json!("https://store.example:8200/v1/identity/oidc"));
    for path in ["identity/oidc/config", "identity/oidc/key", "identity/oidc/token/svc", "identity/entity/name/svc"] {
        h.ask_bare("GET", path, Value::Null).is(403);
    }
    h.ask_bare("POST", "identity/oidc/introspect", json!({})).is(403);
}
