//! What the store says about itself, and what may be changed of it, compared with what OpenBao 2.7.2 answers.

#![allow(clippy::unwrap_used)]

mod house;

use house::House;
use serde_json::{Value, json};

fn with_root() -> (House, String) {
    let house = House::new();
    let root = house.root();
    (house, root)
}

#[test]
fn state_is_told_to_anybody_without_envelope() {
    let (house, _) = with_root();
    let health = house.get("sys/health", "").is(200).data;
    assert_eq!(
        (&health["initialized"], &health["sealed"], &health["standby"]),
        (&json!(true), &json!(false), &json!(false))
    );
    assert_eq!(health["server_time_utc"], 1_795_316_206);
    let status = house.get("sys/seal-status", "").is(200).data;
    assert_eq!((&status["sealed"], &status["recovery_seal"], &status["t"]), (&json!(false), &json!(true), &json!(0)));
    assert_eq!(house.get("sys/leader", "").is(200).data["ha_enabled"], false);
    assert_eq!(house.get("sys/init", "").is(200).data, json!({ "initialized": true }));
    house
        .post("sys/init", json!({ "secret_shares": 1, "secret_threshold": 1 }), "")
        .told(400, "Vault is already initialized");
    let unseal = |body: Value| house.post("sys/unseal", body, "");
    assert_eq!(unseal(json!({ "key": "abcd" })).is(200).data["sealed"], false);
    unseal(json!({})).told(400, "'key' must be specified");
    unseal(json!({ "reset": true })).told(400, "vault is unsealed");
    assert!(house.get("sys/seal", &house.root()).is(405).errors.is_empty());
}

#[test]
fn policies_in_both_shapes() {
    let (house, root) = with_root();
    let text = "path \"x\" { capabilities = [\"read\"] }";
    house.post("sys/policies/acl/P1", json!({ "policy": text }), &root).is(204);
    assert_eq!(house.get("sys/policies/acl/p1", &root).is(200).data["policy"], text);
    let old = house.get("sys/policy/p1", &root).is(200).data;
    assert_eq!((&old["rules"], &old["name"]), (&json!(text), &json!("p1")));
    let warned = house.post("sys/policy/p2", json!({ "rules": text }), &root).is(200);
    assert_eq!(warned.warnings, ["'rules' is deprecated, please use 'policy' instead"]);
    let all = json!(["default", "p1", "p2", "root"]);
    assert_eq!(house.get("sys/policy", &root).is(200).data, json!({ "keys": all, "policies": all }));
    assert_eq!(house.call("LIST", "sys/policies/acl", Value::Null, &root).is(200).data["keys"], all);
    house.get("sys/policies/acl", &root).is(405);
    house.get("sys/policies/acl/none", &root).is(404);
    house.post("sys/policies/acl/p2", json!({ "policy": text, "cas": null }), &root).is(204);
    for (path, body, told) in [
        ("sys/policies/acl/p3", json!({}), "'policy' parameter not supplied or empty"),
        ("sys/policies/acl/p3", json!({ "policy": "path \"x\" { bogus = 1 }" }), "invalid key \"bogus\""),
        ("sys/policies/acl/p3", json!({ "policy": text, "cas": 0 }), "a policy has no 'cas' here: leave it out"),
        ("sys/policies/acl/p3", json!({ "policy": text, "ttl": "1h" }), "a policy has no 'ttl' here: leave it out"),
        ("sys/policies/acl/root", json!({ "policy": text }), "cannot update \"root\" policy"),
    ] {
        house.post(path, body, &root).told(400, told);
    }
    for name in ["default", "root"] {
        house.call("DELETE", &format!("sys/policies/acl/{name}"), Value::Null, &root).is(400);
    }
    house.call("DELETE", "sys/policies/acl/none", Value::Null, &root).is(204);
}

#[test]
fn mounts_come_and_go() {
    let (house, root) = with_root();
    let kv = json!({ "type": "kv", "options": { "version": "1" }, "description": "d" });
    house.post("sys/mounts/kv1", kv.clone(), &root).is(204);
    let table = house.get("sys/mounts", &root).is(200).data;
    assert_eq!((&table["kv1/"]["type"], &table["sys/"]["type"]), (&json!("kv"), &json!("system")));
    assert!(table.get("auth/token/").is_none());
    for (path, body, told) in [
        ("kv1", kv.clone(), "path is already in use at kv1/"),
        ("kv1/sub", kv.clone(), "path is already in use at kv1/"),
        ("sys", kv.clone(), "cannot mount \"sys/\""),
        ("sys/x", kv.clone(), "cannot mount \"sys/x/\""),
        ("auth/x", kv.clone(), "cannot mount \"auth/x/\""),
        ("identity", kv.clone(), "cannot mount \"identity/\""),
        ("x", json!({ "type": "nope" }), "plugin not found in the catalog: nope"),
        ("x", json!({ "type": "userpass" }), "plugin not found in the catalog: userpass"),
        ("x", json!({}), "backend type must be specified as a string"),
        ("x", json!({ "type": "token" }), "mount type of \"token\" is not mountable"),
        ("x", json!({ "type": "kv-v2" }), "kv version 2 is not supported"),
    ] {
        house.post(&format!("sys/mounts/{path}"), body, &root).told(400, told);
    }
    house.post("kv1/a", json!({ "k": "old" }), &root).is(204);
    house.call("DELETE", "sys/mounts/kv1", Value::Null, &root).is(204);
    house.get("kv1/a", &root).told(404, "no handler for route");
    house.post("sys/mounts/kv1", kv, &root).is(204);
    house.get("kv1/a", &root).is(404);
    for path in ["sys", "identity", "cubbyhole"] {
        house.call("DELETE", &format!("sys/mounts/{path}"), Value::Null, &root).told(400, "cannot unmount");
    }
    house.call("DELETE", "sys/mounts/none", Value::Null, &root).is(204);
}

#[test]
fn mount_survives_a_crash_and_its_data_are_swept_when_it_goes() {
    let (house, root) = with_root();
    house.post("sys/mounts/kv1", json!({ "type": "kv" }), &root).is(204);
    (0..5).for_each(|n| drop(house.post(&format!("kv1/a/{n}"), json!({ "k": "v" }), &root).is(204)));
    let house = house.crash();
    house.get("kv1/a/1", &root).is(200);
    house.call("DELETE", "sys/mounts/kv1", Value::Null, &root).is(204);
    let house = house.crash();
    let before = house.sequence();
    house.tick();
    house.tick();
    assert!(house.sequence() >= before + 2, "data, then the note of them");
    let swept = house.sequence();
    house.tick();
    assert_eq!(house.sequence(), swept, "nothing is left to sweep");
}

#[test]
fn auth_mounts_need_sudo_and_end_their_logins() {
    let (house, root) = with_root();
    house.policy(
        "mounter",
        r#"path "sys/auth/*" { capabilities = ["create", "update", "read", "delete"] }
        path "sys/mounts/*" { capabilities = ["create", "update", "read", "delete"] }"#,
        &root,
    );
    let mounter = house.token(&["mounter"], &root);
    house.post("sys/auth/userpass", json!({ "type": "userpass" }), &mounter).is(403);
    for caller in [&mounter, &root] {
        let status = if caller == &root { 400 } else { 403 };
        house.post("sys/mounts/auth/userpass", json!({ "type": "userpass" }), caller).is(status);
        house.call("DELETE", "sys/mounts/auth/token", Value::Null, caller).is(status);
    }
    house.post("sys/auth/userpass", json!({ "type": "userpass" }), &root).is(204);
    house
        .post("sys/auth/userpass", json!({ "type": "userpass" }), &root)
        .told(400, "path is already in use at userpass/");
    assert!(
        house.get("sys/auth", &root).is(200).data["userpass/"]["accessor"]
            .as_str()
            .unwrap()
            .starts_with("auth_userpass_")
    );
    house.post("sys/auth/tt", json!({ "type": "kv" }), &root).told(400, "plugin not found in the catalog: kv");
    house.post("sys/auth/tt", json!({ "type": "token" }), &root).told(400, "cannot be instantiated");
    house.call("DELETE", "sys/auth/token", Value::Null, &root).told(400, "cannot be disabled");
    house
        .post("auth/userpass/users/u", json!({ "password": "pw-of-a-person", "token_policies": "default" }), &root)
        .is(204);
    let login = house.post("auth/userpass/login/u", json!({ "password": "pw-of-a-person" }), "").is(200);
    let token = login.auth["client_token"].as_str().unwrap().to_owned();
    assert_eq!(house.get("auth/token/lookup-self", &token).is(200).data["display_name"], "userpass-u");
    house.call("DELETE", "sys/auth/userpass", Value::Null, &root).is(204);
    house.get("auth/token/lookup-self", &token).is(403);
}

#[test]
fn an_auth_mount_is_read_and_tuned_below_sys_mounts_too() {
    let (house, root) = with_root();
    house.post("sys/auth/up", json!({ "type": "userpass" }), &root).is(204);
    let all = r#"{ capabilities = ["create", "update", "read", "sudo"] }"#;
    house.policy("mounts-alone", &format!("path \"sys/mounts/*\" {all}"), &root);
    house.policy("both", &format!("path \"sys/mounts/*\" {all} path \"sys/auth/*\" {all}"), &root);
    house.policy(
        "forbidden",
        &format!("path \"sys/*\" {all} path \"sys/auth/up\" {{ capabilities = [\"deny\"] }}"),
        &root,
    );
    for (policy, status) in [("mounts-alone", 403), ("forbidden", 403), ("both", 200)] {
        let token = house.token(&[policy], &root);
        let read = house.get("sys/mounts/auth/up", &token).is(status);
        assert_eq!(read.data["type"], if status == 200 { json!("userpass") } else { Value::Null });
    }
    let token = house.token(&["both"], &root);
    house
        .post("sys/mounts/auth/up/tune", json!({ "max_lease_ttl": "1.5h", "default_lease_ttl": "1h" }), &token)
        .is(204);
    assert_eq!(house.get("sys/mounts/auth/up/tune", &token).is(200).data["max_lease_ttl"], 5400);
    house.post("sys/auth/up/tune", json!({ "max_lease_ttl": "system", "default_lease_ttl": "system" }), &root).is(204);
    assert_eq!(house.get("sys/auth/up/tune", &root).is(200).data["max_lease_ttl"], 2_764_800);
    let kv = |config: Value| house.post("sys/mounts/k", json!({ "type": "kv", "config": config }), &root);
    kv(json!({ "default_lease_ttl": ["1h"] })).is(400);
    kv(json!({ "default_lease_ttl": "1h", "allowed_response_headers": ["a"] })).is(204);
    assert_eq!(house.get("sys/mounts/k", &root).is(200).data["config"]["default_lease_ttl"], 3600);
}

#[test]
fn tuning_moves_the_times_of_new_tokens() {
    let (house, root) = with_root();
    let tune = |body: Value| house.post("sys/auth/token/tune", body, &root);
    tune(json!({ "default_lease_ttl": "1h", "max_lease_ttl": "2h" })).is(204);
    assert_eq!(house.get("sys/auth/token/tune", &root).is(200).data["default_lease_ttl"], 3600);
    let made = house.post("auth/token/create", json!({ "policies": ["default"] }), &root).is(200);
    assert_eq!(made.auth["lease_duration"], 3600);
    let made = house.post("auth/token/create", json!({ "policies": ["default"], "ttl": "3h" }), &root).is(200);
    assert_eq!(made.auth["lease_duration"], 7200);
    tune(json!({ "default_lease_ttl": "3h" })).told(400, "backend max lease TTL of 7200 would be less");
    house.post("sys/mounts/none/tune", json!({}), &root).told(400, "no mount entry found");
}

#[test]
fn capabilities_are_told_by_path() {
    let (house, root) = with_root();
    house.policy("p1", r#"path "secret/*" { capabilities = ["read", "list"] }"#, &root);
    let token = house.token(&["p1"], &root);
    let own = |body: Value| house.post("sys/capabilities-self", body, &token);
    assert_eq!(
        own(json!({ "path": "secret/x" })).is(200).data,
        json!({ "secret/x": ["list", "read"], "capabilities": ["list", "read"] })
    );
    assert_eq!(
        own(json!({ "paths": ["secret/x", "zz"] })).is(200).data,
        json!({ "secret/x": ["list", "read"], "zz": ["deny"] })
    );
    own(json!({})).told(400, "paths must be supplied");
    let of = |path: &str, body: Value| house.post(&format!("sys/{path}"), body, &root);
    assert_eq!(
        of("capabilities", json!({ "token": token, "path": "secret/x" })).is(200).data["secret/x"],
        json!(["list", "read"])
    );
    of("capabilities", json!({ "token": "bad", "path": "x" })).told(400, "invalid token");
    of("capabilities-accessor", json!({ "accessor": "bad", "path": "x" })).told(400, "invalid accessor");
    assert_eq!(of("capabilities-self", json!({ "path": "x" })).is(200).data["x"], json!(["root"]));
}

#[test]
fn clients_learn_of_mounts_that_they_have_rights_on() {
    let (house, root) = with_root();
    house.post("sys/mounts/secret", json!({ "type": "kv", "options": { "version": "1" } }), &root).is(204);
    house.post("sys/mounts/other", json!({ "type": "kv" }), &root).is(204);
    house.policy("p1", r#"path "secret/edgex/a/*" { capabilities = ["read"] }"#, &root);
    let token = house.token(&["p1"], &root);
    let one = house.get("sys/internal/ui/mounts/secret/edgex/a/x", &token).is(200).data;
    assert_eq!(
        (&one["path"], &one["type"], &one["options"]["version"]),
        (&json!("secret/"), &json!("kv"), &json!("1"))
    );
    house.get("sys/internal/ui/mounts/other/x", &token).is(403);
    house.get("sys/internal/ui/mounts/other/x", "").told(403, "permission denied");
    let seen = house.get("sys/internal/ui/mounts", &token).is(200).data;
    assert!(seen["secret"].get("secret/").is_some() && seen["secret"].get("other/").is_none(), "{seen}");
    assert_eq!(house.get("sys/internal/ui/mounts", "").is(200).data, json!({ "auth": {}, "secret": {} }));
    house.get("sys/internal/ui/mounts", "s.bad").is(403);
}
