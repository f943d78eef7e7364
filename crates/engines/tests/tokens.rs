//! Tokens as their bearers see them: what may be made, how long it lives, and that it dies.

#![allow(clippy::unwrap_used)]

mod house;

use house::House;
use serde_json::{Value, json};

const MAKER: &str = r#"
path "auth/token/create"        { capabilities = ["update"] }
path "auth/token/create-orphan" { capabilities = ["update"] }
path "auth/token/create/*"      { capabilities = ["update"] }
"#;

/// A house with root and a token that may make tokens.
fn with_maker() -> (House, String, String) {
    let house = House::new();
    let root = house.root();
    house.policy("maker", MAKER, &root);
    let maker = house.post("auth/token/create", json!({ "policies": ["maker"], "ttl": "1h" }), &root).token();
    (house, root, maker)
}

#[test]
fn child_has_at_most_its_parents_policies() {
    let (house, _, maker) = with_maker();
    house
        .post("auth/token/create", json!({ "policies": ["other"] }), &maker)
        .told(400, "child policies must be subset of parent");
    house.post("auth/token/create", json!({ "policies": ["root"] }), &maker).is(400);
    house.post("auth/token/create-orphan", json!({ "policies": ["other"] }), &maker).is(400);
    let child = house.post("auth/token/create", json!({}), &maker).is(200);
    assert_eq!(child.auth["policies"], json!(["default", "maker"]));
    let less = house.post("auth/token/create", json!({ "policies": ["default"] }), &maker).is(200);
    assert_eq!(less.auth["policies"], json!(["default"]));
}

#[test]
fn what_needs_sudo_is_refused_without_it() {
    let (house, _, maker) = with_maker();
    for (body, told) in [
        (json!({ "no_parent": true }), "root or sudo privileges required to create orphan token"),
        (json!({ "period": "1h" }), "root or sudo privileges required to create periodic token"),
        (json!({ "id": "a-token-of-my-own-choice" }), "root or sudo privileges required to specify token id"),
        (json!({ "type": "batch" }), "batch tokens are not supported"),
        (json!({ "type": "bogus" }), "invalid 'token_type' value"),
        (json!({ "entity_id": "x" }), "entity_id cannot be chosen"),
        (json!({ "entity_alias": "x" }), "only allowed in combination with token role"),
        (json!({ "policies": "default,maker" }), "child policies must be subset of parent"),
    ] {
        house.post("auth/token/create", body, &maker).told(400, told);
    }
}

#[test]
fn sudo_gives_policies_but_never_root() {
    let (house, root, _) = with_maker();
    house.policy("boss", r#"path "auth/token/create" { capabilities = ["update", "sudo"] }"#, &root);
    let boss = house.token(&["boss"], &root);
    house
        .post("auth/token/create", json!({ "policies": ["anything"], "no_parent": true, "period": "1h" }), &boss)
        .is(200);
    house
        .post("auth/token/create", json!({ "id": "a-token.with-a-dot-in-it" }), &boss)
        .told(400, "custom token ID cannot have a '.' in the value");
    house
        .post("auth/token/create", json!({ "policies": ["root"] }), &boss)
        .told(400, "root tokens may not be created without parent token being root");
}

#[test]
fn root_is_not_inherited() {
    let (house, root, _) = with_maker();
    house.post("auth/token/roles/open", json!({}), &root).is(204);
    for path in ["auth/token/create", "auth/token/create-orphan", "auth/token/create/open"] {
        let made = house.post(path, json!({}), &root).is(200);
        assert_eq!(made.auth["policies"], json!(["default"]), "{path}");
        assert!(made.warnings.iter().any(|w| w.contains("root")), "{path}: {:?}", made.warnings);
    }
    let asked = house.post("auth/token/create", json!({ "policies": ["root"] }), &root).is(200);
    assert_eq!((&asked.auth["policies"], &asked.auth["lease_duration"]), (&json!(["root"]), &json!(0)));
}

#[test]
fn expiring_root_makes_no_root_for_ever() {
    let (house, root, _) = with_maker();
    let brief = house.post("auth/token/create", json!({ "policies": ["root"], "ttl": "1h" }), &root).token();
    house
        .post("auth/token/create", json!({ "policies": ["root"] }), &brief)
        .told(400, "expiring root tokens cannot create non-expiring root tokens");
}

#[test]
fn times_are_capped_with_a_warning() {
    let (house, root, _) = with_maker();
    let made =
        house.post("auth/token/create", json!({ "policies": ["p"], "explicit_max_ttl": "10s", "ttl": "1h" }), &root);
    assert_eq!(made.auth["lease_duration"], 10);
    assert_eq!(
        made.warnings,
        [
            "TTL of \"1h\" exceeded the effective max_ttl of \"10s\"; TTL value is capped accordingly",
            "Policy \"p\" does not exist"
        ]
    );
    let made = house.post("auth/token/create", json!({ "policies": ["maker"], "ttl": "9999h" }), &root);
    assert_eq!(made.auth["lease_duration"], 2_764_800);
    assert!(made.warnings[0].starts_with("TTL of \"9999h\" exceeded the effective max_ttl of \"768h\""));
    let made = house.post("auth/token/create", json!({ "policies": ["maker"], "period": "9999h" }), &root);
    assert!(made.warnings[0].starts_with("period of \"9999h\" exceeded the effective max_ttl of \"768h\""));
}

#[test]
fn token_is_refused_from_the_second_of_its_end() {
    let (house, _, maker) = with_maker();
    house.pass(3599);
    house.get("auth/token/lookup-self", &maker).is(200);
    house.pass(1);
    house.get("auth/token/lookup-self", &maker).told(403, "permission denied");
    house.post("auth/token/renew-self", json!({}), &maker).is(403);
}

#[test]
fn explicit_max_ttl_ends_a_token_whatever_is_renewed() {
    let (house, root, _) = with_maker();
    let body = json!({ "policies": ["maker"], "period": "1h", "explicit_max_ttl": "2h" });
    let token = house.post("auth/token/create", body, &root).token();
    house.pass(3000);
    house.post("auth/token/renew-self", json!({}), &token).is(200);
    house.pass(3000);
    let last = house.post("auth/token/renew-self", json!({}), &token).is(200);
    assert_eq!(last.auth["lease_duration"], 1200, "two hours after its making it ends");
    house.pass(1200);
    house.get("auth/token/lookup-self", &token).is(403);
}

#[test]
fn periodic_token_lives_as_long_as_it_is_renewed() {
    let (house, root, _) = with_maker();
    let token = house.post("auth/token/create", json!({ "policies": ["default"], "period": "1h" }), &root).token();
    for _ in 0..2000 {
        house.pass(1800);
        house.tick();
        assert_eq!(house.post("auth/token/renew-self", json!({}), &token).is(200).auth["lease_duration"], 3600);
    }
    house.pass(3600);
    house.get("auth/token/lookup-self", &token).is(403);
}

#[test]
fn renewals_are_seldom_a_write() {
    let (house, root, _) = with_maker();
    let make = || house.post("auth/token/create", json!({ "policies": ["default"], "period": "1h" }), &root).token();
    let tokens: Vec<String> = (0..20).map(|_| make()).collect();
    let before = house.sequence();
    // A day of twenty services that renew every half hour.
    for _ in 0..48 {
        house.pass(1800);
        house.tick();
        tokens.iter().for_each(|t| drop(house.post("auth/token/renew-self", json!({}), t).is(200)));
    }
    let commits = house.sequence() - before;
    assert!(commits <= 48, "960 renewals took {commits} commits");
}

#[test]
fn crash_takes_no_promise_back() {
    let (mut house, root, _) = with_maker();
    let token = house.post("auth/token/create", json!({ "policies": ["default"], "ttl": "1h" }), &root).token();
    for _ in 0..6 {
        house.pass(1800);
        let promised = house.post("auth/token/renew-self", json!({}), &token).is(200).auth["lease_duration"].clone();
        assert_eq!(promised, 3600);
        // The renewal stands in memory alone; power goes off before anything is written down.
        house = house.crash();
        house.pass(3500);
        house.get("auth/token/lookup-self", &token).is(200);
        // Back to the rhythm: what is left of the promise is renewed.
        house.post("auth/token/renew-self", json!({}), &token).is(200);
    }
}

#[test]
fn crash_lengthens_a_life_by_at_most_the_head_room() {
    let (house, root, _) = with_maker();
    let renewable = house.post("auth/token/create", json!({ "policies": ["default"], "ttl": "1h" }), &root).token();
    let fixed = house
        .post("auth/token/create", json!({ "policies": ["default"], "ttl": "1h", "renewable": false }), &root)
        .token();
    let limited = house
        .post("auth/token/create", json!({ "policies": ["default"], "ttl": "1h", "explicit_max_ttl": "1h" }), &root)
        .token();
    let house = house.crash();
    house.pass(3600);
    house.get("auth/token/lookup-self", &fixed).is(403);
    house.get("auth/token/lookup-self", &limited).is(403);
    house.get("auth/token/lookup-self", &renewable).is(200);
    house.pass(3600);
    house.get("auth/token/lookup-self", &renewable).is(403);
}

#[test]
fn clean_stop_keeps_ends_to_the_second() {
    let (house, root, _) = with_maker();
    let token = house.post("auth/token/create", json!({ "policies": ["default"], "ttl": "1h" }), &root).token();
    house.pass(1800);
    house.post("auth/token/renew-self", json!({}), &token).is(200);
    let house = house.restart();
    house.pass(3599);
    house.get("auth/token/lookup-self", &token).is(200);
    house.pass(1);
    house.get("auth/token/lookup-self", &token).is(403);
}

#[test]
fn last_renewal_counts_though_all_come_in_one_millisecond() {
    let (house, root, _) = with_maker();
    let make = || house.post("auth/token/create", json!({ "policies": ["default"], "ttl": "1h" }), &root).token();
    let renew = |token: &str, increment: u64| {
        let told = house.post("auth/token/renew-self", json!({ "increment": increment }), token).is(200);
        assert_eq!(told.auth["lease_duration"], increment);
    };
    // Up to two hours are a note in memory; more is written.
    let (longer, shorter, thrice) = (make(), make(), make());
    renew(&longer, 300);
    renew(&longer, 10_800);
    renew(&shorter, 10_800);
    renew(&shorter, 300);
    renew(&thrice, 300);
    renew(&thrice, 10_800);
    renew(&thrice, 600);
    let ends = |house: &House| {
        for (token, seconds) in [(&longer, 10_800), (&shorter, 300), (&thrice, 600)] {
            assert_eq!(house.get("auth/token/lookup-self", token).is(200).data["ttl"], seconds);
        }
    };
    ends(&house);
    // Any change of a token has all of them read anew.
    house.post("auth/token/revoke", json!({ "token": make() }), &root).is(204);
    ends(&house);
    ends(&house.restart());
}

#[test]
fn wall_clock_decides_no_life() {
    let (house, _, maker) = with_maker();
    house.clock.step_wall(0);
    house.get("auth/token/lookup-self", &maker).is(200);
    house.clock.step_wall(4_000_000_000);
    house.get("auth/token/lookup-self", &maker).is(200);
    house.pass(3600);
    house.clock.step_wall(0);
    house.get("auth/token/lookup-self", &maker).is(403);
}

#[test]
fn revoked_parent_takes_its_tree_along() {
    let (house, _, maker) = with_maker();
    let child = house.post("auth/token/create", json!({}), &maker).token();
    let grandchild = house.post("auth/token/create", json!({}), &child).token();
    let orphan = house.post("auth/token/create-orphan", json!({}), &child).token();
    for token in [&child, &grandchild, &orphan] {
        house.get("auth/token/lookup-self", token).is(200);
    }
    house.post("auth/token/revoke-self", json!({}), &maker).is(204);
    for token in [&maker, &child, &grandchild] {
        house.get("auth/token/lookup-self", token).is(403);
    }
    house.get("auth/token/lookup-self", &orphan).is(200);
}

#[test]
fn tree_larger_than_a_commit_dies_at_once_and_is_swept() {
    let (house, root, maker) = with_maker();
    let tree: Vec<String> = (0..320).map(|_| house.post("auth/token/create", json!({}), &maker).token()).collect();
    house.post("auth/token/revoke", json!({ "token": maker }), &root).is(204);
    tree.iter().for_each(|t| drop(house.get("auth/token/lookup-self", t).is(403)));
    let house = house.crash();
    tree.iter().for_each(|t| drop(house.get("auth/token/lookup-self", t).is(403)));
    house.tick();
    house.tick();
    let left = house.call("LIST", "auth/token/accessors", Value::Null, &root).is(200).data["keys"].clone();
    assert_eq!(left.as_array().unwrap().len(), 1, "root alone is left: {left}");
}

#[test]
fn expired_parent_ends_its_children() {
    let (house, _, maker) = with_maker();
    let child = house.post("auth/token/create", json!({ "ttl": "10h" }), &maker).token();
    house.pass(3600);
    house.get("auth/token/lookup-self", &child).is(403);
}

#[test]
fn revoke_orphan_needs_sudo_and_spares_the_children() {
    let (house, root, maker) = with_maker();
    let child = house.post("auth/token/create", json!({}), &maker).token();
    house.policy("revoker", r#"path "auth/token/revoke-orphan" { capabilities = ["update"] }"#, &root);
    let revoker = house.token(&["revoker"], &root);
    house.post("auth/token/revoke-orphan", json!({ "token": maker }), &revoker).is(403);
    house.post("auth/token/revoke-orphan", json!({ "token": maker }), &root).is(204);
    house.get("auth/token/lookup-self", &maker).is(403);
    assert_eq!(house.get("auth/token/lookup-self", &child).is(200).data["orphan"], true);
    let house = house.crash();
    house.get("auth/token/lookup-self", &child).is(200);
    house.post("auth/token/revoke-orphan", json!({ "token": "nope" }), &root).told(400, "token to revoke not found");
}

#[test]
fn children_of_a_token_at_its_end_are_not_brought_to_life() {
    let (house, root, maker) = with_maker();
    let child = house.post("auth/token/create", json!({ "ttl": "10h" }), &maker).token();
    house.pass(3600);
    house.get("auth/token/lookup-self", &child).is(403);
    house.post("auth/token/revoke-orphan", json!({ "token": maker }), &root).told(400, "token to revoke not found");
    house.get("auth/token/lookup-self", &child).is(403);
}

#[test]
fn what_descends_from_a_login_ends_with_its_mount() {
    let (house, root, _) = with_maker();
    house.post("sys/auth/up2", json!({ "type": "userpass" }), &root).is(204);
    house.post("auth/up2/users/u", json!({ "password": "pw", "token_policies": ["maker"] }), &root).is(204);
    let login = house.post("auth/up2/login/u", json!({ "password": "pw" }), "").token();
    let child = house.post("auth/token/create", json!({ "ttl": "10h" }), &login).token();
    let grandchild = house.post("auth/token/create", json!({}), &child).token();
    let line = [&login, &child, &grandchild];
    let accessors = line.map(|t| house.get("auth/token/lookup-self", t).is(200).data["accessor"].clone());
    house.call("DELETE", "sys/auth/up2", Value::Null, &root).is(204);
    // A mount of the same path is another.
    house.post("sys/auth/up2", json!({ "type": "userpass" }), &root).is(204);
    let ended = |house: &House| {
        for (token, accessor) in line.iter().zip(&accessors) {
            house.get("auth/token/lookup-self", token).is(403);
            house.post("auth/token/create", json!({}), token).is(403);
            house.post("auth/token/renew-self", json!({}), token).is(403);
            house.post("auth/token/renew", json!({ "token": token }), &root).told(400, "token not found");
            house.post("auth/token/lookup", json!({ "token": token }), &root).told(403, "bad token");
            house.post("auth/token/lookup-accessor", json!({ "accessor": accessor }), &root).is(400);
            house.post("sys/capabilities", json!({ "token": token, "path": "x" }), &root).is(400);
        }
    };
    ended(&house);
    let house = house.crash();
    ended(&house);
    house.pass(60);
    house.tick();
    let left = house.call("LIST", "auth/token/accessors", Value::Null, &root).is(200).data["keys"].clone();
    assert_eq!(left.as_array().unwrap().len(), 2, "swept, but for root and the maker: {left}");
}

#[test]
fn uses_are_paid_before_the_request_and_the_last_is_served() {
    let (house, root, _) = with_maker();
    let token = house.post("auth/token/create", json!({ "policies": ["default"], "num_uses": 3 }), &root).token();
    house.get("secret/x", &token).is(403); // a refusal is a use
    assert_eq!(house.get("auth/token/lookup-self", &token).is(200).data["num_uses"], 1);
    house.get("auth/token/lookup-self", &token).is(200);
    house.get("auth/token/lookup-self", &token).is(403);
    assert!(
        house.post("auth/token/lookup", json!({ "token": token }), &root).status == 403,
        "it is gone, not only used up"
    );
}

#[test]
fn crash_gives_no_use_twice() {
    let (house, root, _) = with_maker();
    let token = house.post("auth/token/create", json!({ "policies": ["default"], "num_uses": 1 }), &root).token();
    house.get("auth/token/lookup-self", &token).is(200);
    house.crash().get("auth/token/lookup-self", &token).is(403);
}

#[test]
fn limited_token_makes_no_children() {
    let (house, root, _) = with_maker();
    let token = house.post("auth/token/create", json!({ "policies": ["maker"], "num_uses": 5 }), &root).token();
    house.post("auth/token/create", json!({}), &token).told(400, "restricted use token cannot generate child tokens");
}

#[test]
fn tokens_of_boot_end_with_the_kernels_boot() {
    let (house, root, _) = with_maker();
    let service = house.as_boot(
        "POST",
        "auth/token/create",
        json!({ "policies": ["default"], "no_parent": true, "period": "1h" }),
    );
    let service = service.token();
    let operator = house.token(&["default"], &root);
    let house = house.crash();
    house.get("auth/token/lookup-self", &service).is(200);
    let house = house.reboot();
    let before = house.sequence();
    house.get("auth/token/lookup-self", &service).told(403, "permission denied");
    assert_eq!(house.sequence(), before, "the refusal writes nothing");
    house.get("auth/token/lookup-self", &operator).is(200);
    house.get("auth/token/lookup-self", &root).is(200);
    house.tick();
    let keys = house.call("LIST", "auth/token/accessors", Value::Null, &root).is(200).data["keys"].clone();
    assert_eq!(keys.as_array().unwrap().len(), 3, "swept: {keys}");
}

#[test]
fn boot_renews_for_others_and_is_reduced_for_good() {
    let house = House::new();
    let create = json!({ "policies": ["default"], "no_parent": true, "period": "1h" });
    let auth = house.as_boot("POST", "auth/token/create", create.clone()).is(200).auth;
    let accessor = json!({ "accessor": auth["accessor"] });
    assert_eq!(house.as_boot("POST", "auth/token/renew-accessor", accessor.clone()).is(200).auth["client_token"], "");
    house.as_boot("POST", "sys/policies/acl/p", json!({ "policy": "path \"x\" {}" })).is(204);
    house.as_boot("POST", "auth/token/create", json!({ "policies": ["root"] })).is(400);
    let old_door = house.boot();
    drop(house.boot().reduce());
    house.as_boot("POST", "sys/policies/acl/q", json!({ "policy": "path \"x\" {}" })).is(403);
    use client::Vault;
    let late = house::request("POST", "sys/policies/acl/q", json!({ "policy": "path \"x\" {}" }), "");
    assert_eq!(testkit::block_on(old_door.call(late)).unwrap().status.0, 403);
    house.as_boot("POST", "auth/token/renew-accessor", accessor).is(200);
    house.as_boot("POST", "auth/token/create", create).is(200);
}

#[test]
fn token_in_the_in_process_door_has_its_own_power_alone() {
    let house = House::new();
    let root = house.root();
    let weak = house.token(&["default"], &root);
    use client::Vault;
    let asks = house::request("POST", "sys/policies/acl/q", json!({ "policy": "path \"x\" {}" }), &weak);
    assert_eq!(testkit::block_on(house.boot().call(asks)).unwrap().status.0, 403);
    let dead = house::request("POST", "sys/policies/acl/q", json!({ "policy": "path \"x\" {}" }), "s.nosuchtoken");
    assert_eq!(
        testkit::block_on(house.boot().call(dead)).unwrap().status.0,
        403,
        "a dead token does not fall back to boot"
    );
}

#[test]
fn roles_bound_what_is_made() {
    let (house, root, maker) = with_maker();
    let role = json!({ "allowed_policies": ["p1"], "orphan": true, "period": "2h", "allowed_entity_aliases": ["x*"],
        "path_suffix": "suf" });
    house.post("auth/token/roles/r1", role, &root).is(204);
    house.post("auth/token/roles/r1", json!({}), &root).is(204);
    let read = house.get("auth/token/roles/r1", &root).is(200).data;
    assert_eq!(
        (&read["allowed_policies"], &read["period"], &read["orphan"]),
        (&json!(["p1"]), &json!(7200), &json!(true))
    );
    let made = house.post("auth/token/create/r1", json!({}), &maker).is(200).auth;
    assert_eq!((&made["policies"], &made["lease_duration"]), (&json!(["default", "p1"]), &json!(7200)));
    assert_eq!(made["orphan"], true);
    house.post("auth/token/create/r1", json!({ "policies": ["p2"] }), &maker).told(
        400,
        "token policies ([\"default\" \"p2\"]) must be subset of the role's allowed policies ([\"default\" \"p1\"]) or glob policies ([])",
    );
    house
        .post("auth/token/create/r1", json!({ "entity_alias": "bob" }), &root)
        .told(400, "invalid 'entity_alias' value");
    let named = house.post("auth/token/create/r1", json!({ "entity_alias": "xavier" }), &root).is(200).auth;
    assert_ne!(named["entity_id"], "");
    house.post("auth/token/roles/r2", json!({ "disallowed_policies": ["p1"] }), &root).is(204);
    house.post("auth/token/create/r2", json!({ "policies": ["p1"] }), &root).told(400, "disallowed by this role");
    house.post("auth/token/create/none", json!({}), &root).told(400, "unknown role none");
    house.post("auth/token/roles/r3", json!({ "token_type": "batch" }), &root).is(400);
    house.post("auth/token/roles/r3", json!({ "token_bound_cidrs": ["10.0.0.0/8"] }), &root).is(400);
    assert_eq!(house.call("LIST", "auth/token/roles", Value::Null, &root).is(200).data["keys"], json!(["r1", "r2"]));
    house.call("DELETE", "auth/token/roles/none", Value::Null, &root).is(204);
    house.get("auth/token/roles/none", &root).is(404);
}

#[test]
fn a_role_forbids_by_every_star_of_its_patterns() {
    let (house, root, _) = with_maker();
    let role = |name: &str, body: Value| house.post(&format!("auth/token/roles/{name}"), body, &root).is(204);
    let make = |name: &str, policy: &str| {
        house.post(&format!("auth/token/create/{name}"), json!({ "policies": [policy] }), &root)
    };
    role("no-admin", json!({ "disallowed_policies_glob": "prod-*-admin,*secret*key*" }));
    make("no-admin", "prod-eu-admin").told(400, "token policy \"prod-eu-admin\" is disallowed by this role");
    make("no-admin", "a-secret-old-key-2").told(400, "disallowed by this role");
    make("no-admin", "prod-eu-reader").is(200);
    role("readers", json!({ "allowed_policies_glob": "prod-*-reader" }));
    make("readers", "prod-eu-reader").is(200);
    role("bare", json!({ "disallowed_policies": ["default"] }));
    assert_eq!(make("bare", "maker").is(200).auth["policies"], json!(["maker"]), "it is left out unless asked for");
    make("bare", "default").told(400, "token policy \"default\" is disallowed by this role");
    make("readers", "prod-eu-reader-and-more").told(400, "must be subset of the role's allowed policies");
}

#[test]
fn a_renewal_passes_no_maximum_of_today() {
    let (house, root, _) = with_maker();
    let make = |body: Value| house.post("auth/token/create", body, &root).is(200);
    let renew = |token: &str| house.post("auth/token/renew-self", json!({ "increment": "500s" }), token);
    let tune = |max: &str| {
        house.post("sys/auth/token/tune", json!({ "default_lease_ttl": "10s", "max_lease_ttl": max }), &root).is(204)
    };
    let long = make(json!({ "policies": ["default"], "period": "3000h" })).token();
    let again = renew(&long).is(200);
    assert_eq!(again.auth["lease_duration"], 2_764_800);
    assert_eq!(
        again.warnings,
        ["period of \"3000h\" exceeded the effective max_ttl of \"768h\"; period value is capped accordingly"]
    );
    let plain = make(json!({ "policies": ["default"], "ttl": "500s" })).token();
    let periodic = make(json!({ "policies": ["default"], "period": "500s" })).token();
    tune("20s");
    for token in [&plain, &periodic] {
        assert_eq!(renew(token).is(200).auth["lease_duration"], 20);
    }
    house.pass(15);
    assert_eq!(renew(&plain).is(200).auth["lease_duration"], 5, "in all no more than the maximum");
    assert_eq!(renew(&periodic).is(200).auth["lease_duration"], 20, "in one step no more");
    house.pass(5);
    house.get("auth/token/lookup-self", &plain).is(403);
    let kept = house.crash();
    kept.pass(19);
    kept.get("auth/token/lookup-self", &periodic).is(200);
    kept.pass(21);
    kept.get("auth/token/lookup-self", &periodic).is(403);
}

#[test]
fn a_token_past_a_lower_maximum_keeps_its_end_and_gets_no_other() {
    let (house, root, _) = with_maker();
    let token = house.post("auth/token/create", json!({ "policies": ["default"], "ttl": "100s" }), &root).token();
    house.post("sys/auth/token/tune", json!({ "default_lease_ttl": "10s", "max_lease_ttl": "20s" }), &root).is(204);
    house.pass(30);
    house.post("auth/token/renew-self", json!({}), &token).told(400, "past the max TTL, cannot renew");
    assert_eq!(house.get("auth/token/lookup-self", &token).is(200).data["ttl"], 70);
    house.post("sys/auth/token/tune", json!({ "max_lease_ttl": 0, "default_lease_ttl": 0 }), &root).is(204);
    assert_eq!(house.post("auth/token/renew-self", json!({}), &token).is(200).auth["lease_duration"], 100);
}

#[test]
fn a_role_counts_at_each_renewal() {
    let (house, root, _) = with_maker();
    let role = |body: Value| house.post("auth/token/roles/r", body, &root).is(204);
    role(json!({ "period": "300s" }));
    let token = house.post("auth/token/create/r", json!({ "policies": ["default"] }), &root).token();
    let renew = || house.post("auth/token/renew-self", json!({}), &token);
    role(json!({ "period": "200s" }));
    assert_eq!(renew().is(200).auth["lease_duration"], 200);
    role(json!({ "explicit_max_ttl": "100s" }));
    assert_eq!(renew().is(200).auth["lease_duration"], 100);
    house.call("DELETE", "auth/token/roles/r", Value::Null, &root).is(204);
    renew().told(400, "original token role \"r\" could not be found, not renewing");
}

#[test]
fn a_login_is_renewed_for_who_could_log_in_today() {
    let (house, root, _) = with_maker();
    house.post("sys/auth/userpass", json!({ "type": "userpass" }), &root).is(204);
    let user = |body: Value| house.post("auth/userpass/users/u", body, &root).is(204);
    user(json!({ "password": "pw", "token_policies": ["p1", "P2"], "token_ttl": "100s" }));
    let token = house.post("auth/userpass/login/u", json!({ "password": "pw" }), "").token();
    let renew = |body: Value| house.post("auth/token/renew-self", body, &token);
    let ttl = |body: Value| renew(body).is(200).auth["lease_duration"].clone();
    assert_eq!(ttl(json!({})), 100);
    user(json!({ "token_policies": ["p1"] }));
    renew(json!({})).told(400, "policies have changed, not renewing");
    house.post("auth/token/renew", json!({ "token": token }), &root).told(400, "policies have changed, not renewing");
    user(json!({ "token_policies": ["p2", "default", "p1"], "token_ttl": "200s" }));
    assert_eq!(ttl(json!({})), 200);
    user(json!({ "token_ttl": "15s", "token_max_ttl": "15s" }));
    assert_eq!(ttl(json!({ "increment": "150s" })), 15);
    user(json!({ "token_ttl": 0, "token_max_ttl": 0, "token_period": "300s" }));
    assert_eq!(ttl(json!({})), 300);
    house.post("sys/auth/userpass/tune", json!({ "default_lease_ttl": "20s", "max_lease_ttl": "20s" }), &root).is(204);
    assert_eq!(ttl(json!({})), 20);
    house.call("DELETE", "auth/userpass/users/u", Value::Null, &root).is(204);
    renew(json!({})).told(400, "the user is gone, not renewing");
    house.pass(19);
    house.get("auth/token/lookup-self", &token).is(200);
    house.pass(1);
    house.get("auth/token/lookup-self", &token).is(403);
}

#[test]
fn answers_are_openbaos() {
    let (house, root, maker) = with_maker();
    let accessor = house.get("auth/token/lookup-self", &maker).is(200).data["accessor"].clone();
    let post = |path: &str, body: Value| house.post(&format!("auth/token/{path}"), body, &root);
    post("lookup", json!({ "token": "nope" })).told(403, "bad token");
    post("lookup-accessor", json!({ "accessor": "nope" })).told(400, "invalid accessor");
    post("lookup-accessor", json!({})).told(400, "missing accessor");
    post("renew", json!({})).told(400, "missing token ID");
    post("renew", json!({ "token": "nope" })).told(400, "token not found");
    post("renew-self", json!({})).told(400, "lease is not renewable");
    post("revoke", json!({})).told(400, "missing token ID");
    post("revoke", json!({ "token": "nope" })).is(204);
    assert_eq!(
        post("revoke-accessor", json!({ "accessor": "nope" })).is(200).warnings,
        ["No token found with this accessor"]
    );
    let seen = post("lookup-accessor", json!({ "accessor": accessor })).is(200).data;
    assert_eq!((&seen["id"], &seen["ttl"], &seen["path"]), (&json!(""), &json!(3600), &json!("auth/token/create")));
    assert_eq!(seen["expire_time"], "2026-11-22T03:56:46.000000000Z");
    post("revoke-accessor", json!({ "accessor": accessor })).is(204);
    house.get("auth/token/lookup-self", &maker).is(403);
    house.get("auth/token/nosuch", &root).told(404, "unsupported path");
    house.get("auth/token/create", &root).told(405, "unsupported operation");
    house.call("DELETE", "auth/token/lookup-self", Value::Null, &root).told(405, "unsupported operation");
}

#[test]
fn accessors_need_sudo() {
    let (house, root, _) = with_maker();
    house.policy("lister", r#"path "auth/token/accessors" { capabilities = ["list"] }"#, &root);
    house.policy("chief", r#"path "auth/token/accessors" { capabilities = ["list", "sudo"] }"#, &root);
    let (lister, chief) = (house.token(&["lister"], &root), house.token(&["chief"], &root));
    house.call("LIST", "auth/token/accessors", Value::Null, &lister).is(403);
    house.call("LIST", "auth/token/accessors", Value::Null, &chief).is(200);
}
