//! Every route is tried by nobody, by a dead token and by a powerless one. Which routes let nobody in stands in a
//! golden list.

#![allow(clippy::unwrap_used)]

mod house;

use std::collections::BTreeSet;

use house::House;
use serde_json::{Value, json};

/// All that the engines answer to, with names filled in.
const ROUTES: &[&str] = &[
    "sys/health",
    "sys/seal-status",
    "sys/leader",
    "sys/init",
    "sys/unseal",
    "sys/seal",
    "sys/policy",
    "sys/policy/p",
    "sys/policies/acl",
    "sys/policies/acl/p",
    "sys/capabilities",
    "sys/capabilities-self",
    "sys/capabilities-accessor",
    "sys/mounts",
    "sys/mounts/m",
    "sys/mounts/secret/tune",
    "sys/auth",
    "sys/auth/a",
    "sys/auth/userpass/tune",
    "sys/internal/ui/mounts",
    "sys/internal/ui/mounts/secret/x",
    "sys/internal/ui/resultant-acl",
    "sys/wrapping/wrap",
    "sys/wrapping/unwrap",
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/rekey/init",
    "sys/audit",
    "sys/rotate",
    "sys/leases/lookup",
    "sys/nosuch",
    "auth/token/create",
    "auth/token/create-orphan",
    "auth/token/create/r",
    "auth/token/lookup",
    "auth/token/lookup-self",
    "auth/token/lookup-accessor",
    "auth/token/renew",
    "auth/token/renew-self",
    "auth/token/renew-accessor",
    "auth/token/revoke",
    "auth/token/revoke-self",
    "auth/token/revoke-accessor",
    "auth/token/revoke-orphan",
    "auth/token/accessors",
    "auth/token/roles",
    "auth/token/roles/r",
    "auth/userpass/users",
    "auth/userpass/users/u",
    "auth/userpass/users/u/password",
    "auth/userpass/users/u/policies",
    "auth/userpass/login/u",
    "auth/cert/certs",
    "auth/cert/certs/r",
    "auth/cert/crls",
    "auth/cert/crls/l",
    "auth/cert/config",
    "auth/cert/login",
    "identity/entity",
    "identity/entity/name/e",
    "identity/entity/id/e",
    "identity/entity-alias",
    "identity/entity-alias/id/e",
    "identity/lookup/entity",
    "identity/oidc/config",
    "identity/oidc/key",
    "identity/oidc/key/k",
    "identity/oidc/key/k/rotate",
    "identity/oidc/role",
    "identity/oidc/role/r",
    "identity/oidc/token/r",
    "identity/oidc/introspect",
    "identity/oidc/.well-known/openid-configuration",
    "identity/oidc/.well-known/keys",
    "secret",
    "secret/x",
    "secret/edgex/a/b",
    "cubbyhole/x",
    "nosuch/x",
];

const METHODS: [&str; 5] = ["GET", "LIST", "POST", "DELETE", "PATCH"];

fn furnished() -> (House, String) {
    let house = House::new();
    let root = house.root();
    house.post("sys/mounts/secret", json!({ "type": "kv", "options": { "version": "1" } }), &root).is(204);
    house.post("sys/auth/userpass", json!({ "type": "userpass" }), &root).is(204);
    house.post("sys/auth/cert", json!({ "type": "cert" }), &root).is(204);
    house.post("secret/x", json!({ "a": "b" }), &root).is(204);
    (house, root)
}

/// The routes at which `token` gets anything but a refusal: 403, or 405 for a verb that the few paths open to all do
/// not have.
fn let_in(house: &House, token: &str) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for route in ROUTES {
        for method in METHODS {
            let body = if matches!(method, "POST" | "PATCH") { json!({}) } else { Value::Null };
            let status = house.call(method, route, body, token).status;
            if status != 403 && status != 405 {
                open.insert(format!("{method} {route} {status}"));
            }
        }
    }
    open
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a golden file is written for the reviewer, not for a device")]
fn nobody_passes_but_at_the_routes_of_the_golden_list() {
    let (house, _) = furnished();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/routes.txt");
    let open = let_in(&house, "");
    let text: String = open.iter().map(|line| format!("{line}\n")).collect();
    if std::env::var_os("EDGEKEEP_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "the list of routes that are open to all has changed; EDGEKEEP_BLESS=1 writes it anew");
}

#[test]
fn dead_token_opens_nothing_that_nobody_can_open() {
    let (house, _) = furnished();
    let nobody = let_in(&house, "");
    let dead = let_in(&house, "s.0123456789abcdefghijklmn");
    assert!(dead.is_subset(&nobody), "{:?}", dead.difference(&nobody).collect::<Vec<_>>());
}

#[test]
fn powerless_token_opens_nothing_that_nobody_can_open() {
    let (house, root) = furnished();
    let body = json!({ "policies": ["nothing"], "no_default_policy": true, "no_parent": true });
    let powerless = house.post("auth/token/create", body, &root).token();
    let nobody = let_in(&house, "");
    let open = let_in(&house, &powerless);
    let more: Vec<_> = open.difference(&nobody).filter(|r| !r.starts_with("GET sys/internal/ui/")).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn absent_mount_is_told_only_to_who_may_know() {
    let (house, root) = furnished();
    let weak = house.token(&["default"], &root);
    house.get("nosuch/x", "").told(403, "permission denied");
    house.get("nosuch/x", "s.bad").told(403, "permission denied");
    house.get("nosuch/x", &weak).told(403, "permission denied");
    house.get("nosuch/x", &root).told(404, "no handler for route \"nosuch/x\". route entry not found.");
    let (there, absent) = (house.get("secret/x", &weak), house.get("nosuch/x", &weak));
    assert_eq!(there, absent, "a mount that is there and one that is not look alike");
    let (there, absent) = (house.get("secret/x", ""), house.get("nosuch/x", ""));
    assert_eq!(there, absent);
    house.get("sys/internal/ui/mounts/secret/x", &weak).told(403, "preflight capability check returned 403");
    house.get("sys/internal/ui/mounts/nosuch/x", &weak).told(403, "preflight capability check returned 403");
}

#[test]
fn refusals_are_recorded_as_well() {
    let (house, root) = furnished();
    let weak = house.token(&["default"], &root);
    house.audit.taken();
    house.get("secret/x", "");
    house.get("secret/x", "s.bad");
    house.get("secret/x", &weak);
    house.get("nosuch/x", &root);
    assert_eq!(
        house.audit.taken(),
        [
            "both read secret/x by anonymous 403",
            "both read secret/x by unknown 403",
            "both read secret/x by token 403",
            "both read nosuch/x by root 404",
        ]
    );
}

#[test]
fn no_value_of_a_body_is_recorded_with_a_refusal() {
    const VALUE: &str = "hunter2";
    let (house, root) = furnished();
    house
        .post("auth/token/roles/r", json!({ "allowed_policies": ["p"], "disallowed_policies_glob": "x*" }), &root)
        .is(204);
    house.post("identity/oidc/key/k", json!({ "algorithm": "ES256" }), &root);
    house.audit.reasons.lock().unwrap().clear();
    let told = [
        ("sys/mounts/m", json!({ "type": VALUE })),
        ("sys/mounts/m", json!({ "type": "kv", "config": { "default_lease_ttl": VALUE } })),
        ("sys/mounts/secret/tune", json!({ "default_lease_ttl": VALUE })),
        ("sys/policies/acl/p", json!({ "policy": format!("path \"{VALUE}\" {{ capabilities = [\"{VALUE}\"] }}") })),
        ("sys/policies/acl/p", json!({ "policy": format!("{VALUE} {{") })),
        ("sys/policies/acl/p", json!({ "policy": format!("path \"x\" {{ {VALUE} = 1 }}") })),
        ("auth/token/roles/s", json!({ "token_type": VALUE })),
        ("auth/token/create/r", json!({ "policies": [VALUE] })),
        ("auth/token/create", json!({ "ttl": VALUE })),
        ("auth/token/create", json!({ "type": VALUE })),
        ("auth/token/create", json!({ "id": format!("{VALUE} {VALUE}") })),
        ("auth/token/renew", json!({ "token": VALUE })),
        ("auth/token/lookup-accessor", json!({ "accessor": VALUE })),
        ("auth/userpass/users/u", json!({ "password": "x", "token_type": VALUE })),
        ("auth/cert/certs/r", json!({ "certificate": VALUE })),
        ("auth/cert/certs/r", json!({ "allowed_metadata_extensions": VALUE })),
        ("auth/cert/crls/l", json!({ "crl": VALUE })),
        ("identity/entity-alias", json!({ "name": "n", "mount_accessor": VALUE })),
        ("identity/entity-alias", json!({ "name": "n", "id": VALUE })),
        ("identity/oidc/key/k", json!({ "algorithm": VALUE })),
        ("identity/oidc/role/r", json!({ "key": VALUE })),
        ("identity/oidc/role/r", json!({ "key": "k", "template": format!("{{{{{VALUE}}}}}") })),
        ("sys/capabilities-accessor", json!({ "accessor": VALUE, "path": VALUE })),
    ];
    let mut repeated = 0;
    for (path, body) in told {
        let answer = house.post(path, body.clone(), &root);
        assert!(answer.status >= 400, "{path} {body} {answer:?}");
        let reasons = std::mem::take(&mut *house.audit.reasons.lock().unwrap());
        assert_eq!(reasons.len(), 1, "{path} {body}");
        assert!(!reasons[0].contains(VALUE), "{path} {body}: {reasons:?}");
        repeated += usize::from(answer.errors.iter().any(|e| e.contains(VALUE)));
    }
    assert!(repeated >= 8, "the caller is told what was wrong, {repeated} times");
}

#[test]
fn change_is_announced_before_it_is_made() {
    let (house, root) = furnished();
    house.audit.taken();
    house.post("secret/y", json!({ "a": "b" }), &root).is(204);
    house.get("secret/y", &root).is(200);
    assert_eq!(
        house.audit.taken(),
        ["request create secret/y by root", "response create secret/y by root 204", "both read secret/y by root 200"]
    );
}

#[test]
fn what_cannot_be_recorded_does_not_happen() {
    let (house, root) = furnished();
    let before = house.sequence();
    house.audit.refuses.store(true, std::sync::atomic::Ordering::Release);
    house.post("secret/y", json!({ "a": "b" }), &root).told(500, "internal error");
    house.post("auth/token/create", json!({ "policies": ["p"] }), &root).is(500);
    assert_eq!(house.get("secret/x", &root).is(500).data, Value::Null, "nothing of the secret goes out");
    assert_eq!(house.sequence(), before, "nothing was written");
    assert!(testkit::block_on(house.core.generate_root(api::Ttl::ZERO)).is_err());
    house.audit.refuses.store(false, std::sync::atomic::Ordering::Release);
    house.get("secret/y", &root).is(404);
}

#[test]
fn wrapped_reply_is_refused_and_never_given_bare() {
    let (house, root) = furnished();
    let mut request = house::request("GET", "secret/x", Value::Null, &root);
    request.wrap_ttl = Some(api::Ttl::seconds(60));
    let recorded = testkit::block_on(house.core.handle(request));
    assert_eq!(recorded.status().0, 400);
    assert!(recorded.into_reply().data_text().is_none());
}

#[test]
fn seal_needs_sudo_and_ends_everything() {
    let (house, root) = furnished();
    house.policy("almost", r#"path "sys/seal" { capabilities = ["update"] }"#, &root);
    let almost = house.token(&["almost"], &root);
    house.post("sys/seal", Value::Null, &almost).is(403);
    house.get("secret/x", &root).is(200);
    house.post("sys/seal", Value::Null, &root).is(204);
    assert!(house.core.is_sealing());
    house.get("secret/x", &root).told(503, "Vault is sealed");
    house.get("sys/health", "").told(503, "Vault is sealed");
}

#[test]
fn entity_is_asked_at_each_request() {
    let (house, root) = furnished();
    house.policy("reader", r#"path "secret/*" { capabilities = ["read"] }"#, &root);
    let id = house.post("identity/entity/name/e", json!({ "policies": [] }), &root).is(200).data["id"].clone();
    let create = json!({ "policies": ["default"], "no_parent": true, "entity_id": id });
    let token = house.as_boot("POST", "auth/token/create", create).token();
    house.get("secret/x", &token).is(403);
    house.post("identity/entity/name/e", json!({ "policies": ["reader"] }), &root);
    house.get("secret/x", &token).is(200);
    house.post("identity/entity/name/e", json!({ "policies": ["root"] }), &root);
    house.post("sys/seal", Value::Null, &token).is(403);
    house.post("identity/entity/name/e", json!({ "policies": ["reader"], "disabled": true }), &root);
    house.get("secret/x", &token).is(403);
    house.post("identity/entity/name/e", json!({ "disabled": false }), &root);
    house.get("secret/x", &token).is(200);
    house.call("DELETE", "identity/entity/name/e", Value::Null, &root).is(204);
    house.get("secret/x", &token).is(403);
}

#[test]
fn policy_counts_from_its_writing_to_its_removal() {
    let (house, root) = furnished();
    let token = house.token(&["later"], &root);
    house.get("secret/x", &token).is(403);
    house.policy("later", r#"path "secret/*" { capabilities = ["read"] }"#, &root);
    house.get("secret/x", &token).is(200);
    house.policy("later", r#"path "secret/*" { capabilities = ["deny"] }"#, &root);
    house.get("secret/x", &token).is(403);
    house.policy("later", r#"path "secret/*" { capabilities = ["read"] }"#, &root);
    house.call("DELETE", "sys/policies/acl/later", Value::Null, &root).is(204);
    house.get("secret/x", &token).is(403);
}

#[test]
fn another_spelling_of_a_name_passes_no_policy() {
    let (house, root) = furnished();
    let text = r#"path "x" { capabilities = ["read"] }"#;
    house.policy("prod", text, &root);
    house.post("sys/mounts/prod", json!({ "type": "kv" }), &root).is(204);
    house.post("auth/userpass/users/prod", json!({ "password": "pw" }), &root).is(204);
    house.post("identity/entity/name/prod", json!({}), &root).is(200);
    let folders = ["sys/policy/", "sys/policies/acl/", "sys/mounts/", "auth/userpass/users/", "identity/entity/name/"];
    let rules: String = folders
        .iter()
        .map(|f| {
            let all = r#"["create", "read", "update", "delete"]"#;
            format!("path \"{f}*\" {{ capabilities = {all} }}\npath \"{f}prod\" {{ capabilities = [\"deny\"] }}\n")
        })
        .collect();
    house.policy("all-but-prod", &rules, &root);
    let token = house.token(&["all-but-prod"], &root);
    let body = json!({ "policy": text, "password": "other", "policies": [] });
    for name in ["prod", "PROD", "pRod"] {
        for folder in ["sys/policy/", "sys/policies/acl/", "auth/userpass/users/", "identity/entity/name/"] {
            for method in ["POST", "GET", "DELETE"] {
                house.call(method, &format!("{folder}{name}"), body.clone(), &token).told(403, "permission denied");
            }
        }
    }
    for folder in ["sys/policy/", "sys/policies/acl/", "sys/mounts/"] {
        house.call("DELETE", &format!("{folder}prod/"), Value::Null, &token).is(403);
    }
    house.post("sys/policies/acl/Other", body.clone(), &token).is(204);
    house.get("sys/policies/acl/OTHER", &token).is(200);
    house.call("DELETE", "sys/policies/acl/Other/", Value::Null, &token).is(204);
    house.get("sys/policies/acl/other", &root).is(404);
}

#[test]
fn create_and_update_are_different_rights() {
    let (house, root) = furnished();
    house.policy("creator", r#"path "secret/*" { capabilities = ["create"] }"#, &root);
    house.policy("updater", r#"path "secret/*" { capabilities = ["update"] }"#, &root);
    let (creator, updater) = (house.token(&["creator"], &root), house.token(&["updater"], &root));
    house.post("secret/new", json!({ "a": "1" }), &updater).is(403);
    house.post("secret/new", json!({ "a": "1" }), &creator).is(204);
    house.post("secret/new", json!({ "a": "2" }), &creator).is(403);
    house.post("secret/new", json!({ "a": "2" }), &updater).is(204);
}
