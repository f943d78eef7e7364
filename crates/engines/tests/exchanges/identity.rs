use serde_json::{Value, json};

use super::house::House;

fn entity(h: &House, name: &str) -> String {
    h.ask("POST", &format!("identity/entity/name/{name}"), json!({})).is(200)["id"].as_str().unwrap().to_owned()
}

#[test]
fn entities_by_name_and_id() {
    let h = House::new();
    h.get("identity/entity/name/svc").absent();
    h.ask("LIST", "identity/entity/name", Value::Null).absent();
    let body = json!({"metadata": {"name": "svc"}, "policies": ["p1"]});
    let made = h.ask("POST", "identity/entity/name/svc", body.clone()).is(200);
    assert_eq!((&made["name"], &made["aliases"]), (&json!("svc"), &Value::Null));
    h.ask("POST", "identity/entity/name/svc", body).is(204);
    h.ask("POST", "identity/entity/name/svc", json!({"policies": ["P2", "p1"]})).is(204);
    let id = made["id"].as_str().unwrap();
    let read = h.get("identity/entity/name/SVC").is(200);
    assert_eq!(h.get(&format!("identity/entity/id/{id}")).is(200), read);
    assert_eq!((&read["policies"], &read["metadata"]), (&json!(["p1", "p2"]), &json!({"name": "svc"})));
    assert_eq!((&read["disabled"], &read["namespace_id"]), (&json!(false), &json!("root")));
    assert_eq!(read["creation_time"].as_str().unwrap().len(), 30);
    assert_eq!(h.ask("LIST", "identity/entity/name", Value::Null).is(200), json!({"keys": ["svc"]}));
    let listed = h.ask("LIST", "identity/entity/id", Value::Null).is(200);
    assert_eq!(listed, json!({"keys": [id], "key_info": {id: {"name": "svc"}}}));
    h.ask("POST", &format!("identity/entity/id/{id}"), json!({"name": "svc2"})).is(204);
    h.get("identity/entity/name/svc").absent();
    h.get("identity/entity/name/svc2").is(200);
    h.ask("DELETE", "identity/entity/name/svc2", Value::Null).is(204);
    h.ask("DELETE", "identity/entity/name/svc2", Value::Null).is(204);
    h.get(&format!("identity/entity/id/{id}")).absent();
}

#[test]
fn refusals_as_openbao_words_them() {
    let h = House::new();
    entity(&h, "e1");
    let id = entity(&h, "e2");
    h.ask("POST", "identity/entity/id/nosuch", json!({"name": "x"})).refuses(400, "entity not found from id");
    h.ask("POST", "identity/entity/name/e3", json!({"policies": ["root"]}))
        .refuses(400, "policies cannot contain root");
    h.ask("POST", "identity/entity/name/e3", json!({"metadata": "x"})).is(400);
    h.ask("POST", &format!("identity/entity/id/{id}"), json!({"name": "E1"}))
        .refuses(400, "entity name is already in use");
    h.get("identity/nosuch").refuses(404, "1 error occurred:\n\t* unsupported path\n\n");
    h.get("identity/entity/name/e3").absent();
}

#[test]
fn an_alias_is_bound_once_and_again_is_204() {
    let h = House::new();
    let (id, other, accessor) = (entity(&h, "svc"), entity(&h, "other"), h.accessor());
    let body = json!({"name": "svcu", "canonical_id": id, "mount_accessor": accessor});
    let made = h.ask("POST", "identity/entity-alias", body.clone()).is(200);
    assert_eq!(made["canonical_id"], json!(id));
    h.ask("POST", "identity/entity-alias", body.clone()).is(204);
    let alias = made["id"].as_str().unwrap();
    let read = h.get(&format!("identity/entity-alias/id/{alias}")).is(200);
    assert_eq!((&read["name"], &read["mount_path"]), (&json!("svcu"), &json!("auth/userpass/")));
    assert_eq!(h.get("identity/entity/name/svc").is(200)["aliases"], json!([read]));
    let second = json!({"name": "svcv", "canonical_id": id, "mount_accessor": accessor});
    let taken = "Alias already exists for requested entity and mount accessor";
    h.ask("POST", "identity/entity-alias", second).refuses(400, taken);
    let moved = json!({"name": "svcu", "canonical_id": other, "mount_accessor": accessor});
    assert_eq!(h.ask("POST", "identity/entity-alias", moved).is(200), json!({"canonical_id": other, "id": alias}));
    assert_eq!(h.get("identity/entity/name/svc").is(200)["aliases"], json!([]));
    h.ask("DELETE", &format!("identity/entity-alias/id/{alias}"), Value::Null).is(204);
    h.get(&format!("identity/entity-alias/id/{alias}")).absent();
    h.ask("POST", "identity/entity-alias", body).is(200);
}

#[test]
fn one_login_is_one_entity_in_every_spelling() {
    let h = House::new();
    let (a, b, accessor) = (entity(&h, "a"), entity(&h, "b"), h.accessor());
    let alias = |name: &str, id: &Value| {
        let body = json!({"name": name, "canonical_id": id, "mount_accessor": accessor});
        h.ask("POST", "identity/entity-alias", body).is(200)["id"].as_str().unwrap().to_owned()
    };
    let (of_a, of_b) = (alias("Carol", &json!(a)), alias("dave", &json!(b)));
    let taken = "alias with this name and mount accessor already exists";
    for name in ["carol", "Carol", "CAROL"] {
        let path = format!("identity/entity-alias/id/{of_b}");
        h.ask("POST", &path, json!({"name": name})).refuses(400, taken);
        h.ask("POST", "identity/entity-alias", json!({"id": of_b, "name": name})).refuses(400, taken);
    }
    h.ask("POST", &format!("identity/entity-alias/id/{of_a}"), json!({"name": "carol"})).is(200);
    let who = json!({"alias_name": "CAROL", "alias_mount_accessor": accessor});
    assert_eq!(h.ask("POST", "identity/lookup/entity", who).is(200)["id"], json!(a));
}

#[test]
fn an_alias_needs_a_mount_and_an_entity() {
    let h = House::new();
    let (id, accessor) = (entity(&h, "svc"), h.accessor());
    let post = |body: Value| h.ask("POST", "identity/entity-alias", body);
    post(json!({"name": "u", "canonical_id": "nosuch", "mount_accessor": accessor}))
        .refuses(400, "given 'canonical_id' is not associated with an entity");
    post(json!({"name": "u", "canonical_id": id, "mount_accessor": "nosuch"}))
        .refuses(400, "invalid mount accessor \"nosuch\"");
    let needed = "'id' or 'mount_accessor' and 'name' must be provided";
    post(json!({"canonical_id": id, "mount_accessor": accessor})).refuses(400, needed);
    post(json!({"canonical_id": id, "name": "u"})).refuses(400, needed);
    assert!(post(json!({"name": "u", "mount_accessor": accessor})).is(200)["canonical_id"].is_string());
}

#[test]
fn policies_of_an_entity_count_as_they_are_now() {
    let h = House::new();
    let (id, accessor) = (entity(&h, "svc"), h.accessor());
    h.ask("POST", "identity/entity-alias", json!({"name": "u1", "canonical_id": id, "mount_accessor": accessor}))
        .is(200);
    h.ask("POST", "auth/userpass/users/u1", json!({"password": "pw"})).is(204);
    h.as_boot("PUT", "sys/policies/acl/reads", json!({"policy": r#"path "secret/a" { capabilities = ["read"] }"#}))
        .is(204);
    h.ask("POST", "secret/a", json!({"x": 1})).is(204);
    let login = h.ask_bare("POST", "auth/userpass/login/u1", json!({"password": "pw"}));
    assert_eq!(login.1["entity_id"], json!(id));
    let token = login.token();
    let read = |status: u16| h.ask_as(&token, "GET", "secret/a", "").is(status);
    read(403);
    h.ask("POST", "identity/entity/name/svc", json!({"policies": ["reads"]})).is(204);
    read(200);
    h.ask("POST", "identity/entity/name/svc", json!({"disabled": true})).is(204);
    read(403);
    h.ask_bare("POST", "auth/userpass/login/u1", json!({"password": "pw"})).is(403);
    h.ask("POST", "identity/entity/name/svc", json!({"disabled": false})).is(204);
    read(200);
    h.ask("DELETE", "identity/entity/name/svc", Value::Null).is(204);
    read(403);
}

#[test]
fn an_entity_is_found_by_each_of_its_names() {
    let h = House::new();
    let (id, accessor) = (entity(&h, "svc"), h.accessor());
    let body = json!({"name": "u/1", "canonical_id": id, "mount_accessor": accessor});
    let alias = h.ask("POST", "identity/entity-alias", body).is(200)["id"].clone();
    for by in [
        json!({"id": id}),
        json!({"name": "svc"}),
        json!({"alias_id": alias}),
        json!({"alias_name": "u/1", "alias_mount_accessor": accessor}),
    ] {
        assert_eq!(h.ask("POST", "identity/lookup/entity", by.clone()).is(200)["id"], json!(id), "{by}");
    }
    h.ask("POST", "identity/lookup/entity", json!({"name": "nosuch"})).is(204);
    h.ask("POST", "identity/lookup/entity", json!({})).is(400);
}
