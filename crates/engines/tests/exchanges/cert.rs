use std::sync::Arc;

use api::{CertificateName, PeerCertificates};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secret::Token;
use serde_json::{Value, json};
use testkit::{Pair, SiteCa};

use super::house::{Answer, House, request};

const ROLE: &str = "auth/cert/certs/devices";
const LOGIN: &str = "auth/cert/login";
const NOT_VOUCHED: &str = "invalid certificate or no client certificate supplied";
const NO_MATCH: &str = "no chain matching all constraints could be found for this login certificate";

/// A house with a mount of the kind, and a role that trusts the site's authority.
fn house() -> (House, SiteCa) {
    let (house, ca) = (House::new(), SiteCa::new());
    house.ask("POST", "sys/auth/cert", json!({"type": "cert"})).is(204);
    house.ask("POST", ROLE, json!({"certificate": ca.pem(), "token_policies": "p1", "token_ttl": "60s"})).is(204);
    (house, ca)
}

/// What the server hands over of a handshake.
fn shown(pem: &str) -> Arc<PeerCertificates> {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(|der| der.unwrap().to_vec()).collect();
    Arc::new(PeerCertificates::proven_in_handshake(chain, CertificateName::default()).unwrap())
}

fn send(h: &House, path: &str, body: Value, by: &Pair, token: &str) -> Answer {
    let mut request = request("POST", path, &body.to_string());
    request.certificates = Some(shown(&by.certificate));
    request.token = (!token.is_empty()).then(|| Token::parse(token).unwrap());
    h.send(request)
}

fn login(h: &House, by: &Pair) -> Answer {
    send(h, LOGIN, json!({}), by, "")
}

#[test]
fn roles_come_and_go() {
    let (h, ca) = house();
    assert_eq!(
        h.get("auth/cert/certs/Devices").is(200),
        json!({"allowed_common_names": null, "allowed_dns_sans": null, "allowed_email_sans": null,
            "allowed_metadata_extensions": null, "allowed_names": null, "allowed_organizational_units": null,
            "allowed_uri_sans": null, "certificate": ca.pem(), "display_name": "devices",
            "ocsp_ca_certificates": "", "ocsp_enabled": false, "ocsp_fail_open": false,
            "ocsp_query_all_servers": false, "ocsp_servers_override": null, "required_extensions": null,
            "token_bound_cidrs": [], "token_explicit_max_ttl": 0, "token_max_ttl": 0,
            "token_no_default_policy": false, "token_num_uses": 0, "token_period": 0, "token_policies": ["p1"],
            "token_strictly_bind_ip": false, "token_ttl": 60, "token_type": "default"})
    );
    h.ask("POST", "auth/cert/certs/B", json!({"certificate": ca.pem(), "policies": "x", "ttl": "1h"})).is(204);
    let older = h.get("auth/cert/certs/b").is(200);
    assert_eq!((&older["policies"], &older["ttl"], &older["token_ttl"]), (&json!(["x"]), &json!(3600), &json!(3600)));
    assert_eq!(h.ask("LIST", "auth/cert/certs", Value::Null).is(200), json!({"keys": ["b", "devices"]}));
    h.ask("DELETE", "auth/cert/certs/b", Value::Null).is(204);
    h.ask("DELETE", "auth/cert/certs/b", Value::Null).is(204);
    h.get("auth/cert/certs/b").absent();
}

#[test]
fn refusals_as_openbao_words_them() {
    let (h, ca) = house();
    let bad = "auth/cert/certs/bad";
    h.ask("POST", bad, json!({})).refuses(400, "failed to parse certificate");
    h.ask("POST", bad, json!({"certificate": "junk"})).refuses(400, "failed to parse certificate");
    h.ask("POST", bad, json!({"certificate": ca.server("localhost").certificate}))
        .refuses(400, "nonCA certificates should have TLS client authentication set as an extended key usage");
    let ttls = json!({"certificate": ca.pem(), "token_ttl": "2h", "token_max_ttl": "1h"});
    h.ask("POST", bad, ttls).refuses(400, "'token_ttl' cannot be greater than 'token_max_ttl'");
    h.get(bad).absent();
    h.ask("LIST", "auth/cert/crls", Value::Null).absent();
    h.ask("POST", "auth/cert/certs/a@b", json!({})).refuses(404, "1 error occurred:\n\t* unsupported path\n\n");
    h.get("auth/cert/nosuch").refuses(404, "1 error occurred:\n\t* unsupported path\n\n");
    h.ask("GET", LOGIN, Value::Null).is(405);
    h.ask_bare("GET", LOGIN, Value::Null).is(403);
    h.ask("GET", "auth/cert/crls", Value::Null).is(405);
    h.ask_bare("POST", LOGIN, json!({})).refuses(400, "no client certificate found");
    h.ask_bare("POST", LOGIN, json!({"name": "devices"})).refuses(400, "no client certificate found");
    let nosuch = send(&h, LOGIN, json!({"name": "nosuch"}), &ca.device("d"), "");
    nosuch.refuses(400, NOT_VOUCHED);
    send(&h, LOGIN, json!({"name": "../devices"}), &ca.device("d"), "").refuses(400, NOT_VOUCHED);
}

#[test]
fn limits_that_are_not_enforced_are_not_accepted() {
    let (h, ca) = house();
    for (field, value) in [
        ("required_extensions", json!("2.5.4.3:x")),
        ("allowed_metadata_extensions", json!("2.5.4.3")),
        ("ocsp_enabled", json!(true)),
        ("ocsp_ca_certificates", json!("x")),
        ("ocsp_servers_override", json!(["http://o"])),
        ("token_bound_cidrs", json!("10.0.0.0/8")),
        ("token_type", json!("batch")),
    ] {
        h.ask("POST", "auth/cert/certs/bad", json!({"certificate": ca.pem(), field: value})).is(400);
    }
    h.get("auth/cert/certs/bad").absent();
    h.ask("POST", "auth/cert/config", json!({"enable_identity_alias_metadata": true})).is(400);
    h.ask("POST", "auth/cert/crls/l", json!({"url": "http://crl"})).is(400);
}

#[test]
fn a_login_earns_an_orphan_with_the_entity_of_the_common_name() {
    let (h, ca) = house();
    let first = login(&h, &ca.device("device-07")).is(200);
    assert_eq!(first["policies"], json!(["default", "p1"]));
    assert_eq!((&first["lease_duration"], &first["orphan"]), (&json!(60), &json!(true)));
    let metadata = &first["metadata"];
    assert_eq!((&metadata["cert_name"], &metadata["common_name"]), (&json!("devices"), &json!("device-07")));
    assert!(metadata["serial_number"].as_str().unwrap().bytes().all(|b| b.is_ascii_digit()));
    assert!(metadata["subject_key_id"].is_string() && metadata["authority_key_id"].is_string());
    let again = login(&h, &ca.device("device-07")).is(200);
    let other = login(&h, &ca.device("device-08")).is(200);
    assert_eq!(first["entity_id"], again["entity_id"], "the common name is who it is");
    assert_ne!(first["entity_id"], other["entity_id"]);
    let own = h.ask_as(first["client_token"].as_str().unwrap(), "GET", "auth/token/lookup-self", "").is(200);
    assert_eq!(own["display_name"], json!("cert-devices"));
}

#[test]
fn another_authoritys_certificate_opens_nothing() {
    let (h, ca) = house();
    let other = SiteCa::new();
    login(&h, &other.device("device-07")).refuses(400, NOT_VOUCHED);
    send(&h, LOGIN, json!({"name": "devices"}), &other.device("device-07"), "").refuses(400, NOT_VOUCHED);
    let mut with_the_authority_beside = other.device("device-07");
    with_the_authority_beside.certificate.push_str(ca.pem());
    login(&h, &with_the_authority_beside).refuses(400, NOT_VOUCHED);
    login(&h, &ca.server("device-07")).refuses(400, NOT_VOUCHED);
}

#[test]
fn a_certificate_whose_time_is_over_opens_nothing() {
    let (h, ca) = house();
    login(&h, &ca.client_of_the_past("device-07")).refuses(400, NOT_VOUCHED);
}

#[test]
fn a_wall_clock_that_is_set_back_revives_no_certificate() {
    let (h, ca) = house();
    h.clock.step_wall(1_590_000_000);
    login(&h, &ca.client_of_the_past("device-07")).refuses(400, NOT_VOUCHED);
    login(&h, &ca.device("device-07")).is(200);
}

#[test]
fn only_names_that_a_role_allows_are_let_in() {
    let (h, ca) = house();
    for (field, pattern, fits) in [
        ("allowed_common_names", "device-*", true),
        ("allowed_common_names", "pump-*,device-07", true),
        ("allowed_common_names", "device", false),
        ("allowed_names", "*-07", true),
        ("allowed_names", "other", false),
        ("allowed_dns_sans", "*", false),
        ("allowed_uri_sans", "*", false),
        ("allowed_email_sans", "*", false),
        ("allowed_organizational_units", "*", false),
    ] {
        h.ask("POST", "auth/cert/certs/c", json!({"certificate": ca.pem(), field: pattern})).is(204);
        let answer = send(&h, LOGIN, json!({"name": "c"}), &ca.device("device-07"), "");
        if fits {
            drop(answer.is(200))
        } else {
            answer.refuses(400, NO_MATCH)
        }
        h.ask("DELETE", "auth/cert/certs/c", Value::Null).is(204);
    }
    h.ask("POST", ROLE, json!({"allowed_dns_sans": "*.site"})).is(204);
    login(&h, &ca.client("elsewhere")).refuses(400, NO_MATCH);
    login(&h, &ca.client("a.site")).is(200);
    h.ask("POST", ROLE, json!({"allowed_dns_sans": ""})).is(204);
    assert_eq!(h.get(ROLE).is(200)["allowed_dns_sans"], Value::Null);
}

#[test]
fn without_a_common_name_there_is_nobody_to_be() {
    let (h, ca) = house();
    for name in ["", "a/b", "a\u{7}", &"x".repeat(257)] {
        assert_eq!(login(&h, &ca.device(name)).0, 400, "{name:?}");
    }
}

#[test]
fn roles_are_tried_in_the_order_of_their_names() {
    let (h, ca) = house();
    let other = SiteCa::new();
    for (name, authority, allowed) in [("a", &other, "*"), ("b", &ca, "pump-*"), ("c", &ca, "device-*")] {
        let role = json!({"certificate": authority.pem(), "allowed_common_names": allowed, "token_policies": name});
        h.ask("POST", &format!("auth/cert/certs/{name}"), role).is(204);
    }
    assert_eq!(login(&h, &ca.device("pump-1")).is(200)["metadata"]["cert_name"], json!("b"));
    assert_eq!(login(&h, &ca.device("device-1")).is(200)["metadata"]["cert_name"], json!("c"));
    assert_eq!(login(&h, &ca.device("valve")).is(200)["metadata"]["cert_name"], json!("devices"));
    assert_eq!(login(&h, &other.device("device-1")).is(200)["metadata"]["cert_name"], json!("a"));
}

#[test]
fn a_single_certificate_is_trusted_as_it_is() {
    let (h, ca) = house();
    h.ask("DELETE", ROLE, Value::Null).is(204);
    let (one, other) = (ca.device("one"), ca.device("one"));
    h.ask("POST", "auth/cert/certs/one", json!({"certificate": one.certificate})).is(204);
    login(&h, &one).is(200);
    login(&h, &other).refuses(400, NOT_VOUCHED);
}

#[test]
fn a_revoked_certificate_is_refused_from_then_on() {
    let (h, ca) = house();
    let (lost, kept) = (ca.device_numbered("lost", &[0x2a, 7]), ca.device_numbered("kept", &[0x2a, 8]));
    let token = login(&h, &lost).token();
    login(&h, &kept).is(200);
    h.ask("POST", "auth/cert/crls/Site", json!({"crl": ca.crl(&[&[0x2a, 7]])})).is(204);
    login(&h, &lost).refuses(400, NO_MATCH);
    send(&h, LOGIN, json!({"name": "devices"}), &lost, "").refuses(400, NO_MATCH);
    send(&h, "auth/token/renew-self", json!({}), &lost, &token).refuses(400, NO_MATCH);
    login(&h, &kept).is(200);
    let listed = h.get("auth/cert/crls/site").is(200);
    assert_eq!(listed, json!({"serials": {"10759": {}}}));
    assert_eq!(h.ask("LIST", "auth/cert/crls", Value::Null).is(200), json!({"keys": ["site"]}));
    h.ask("DELETE", "auth/cert/crls/site", Value::Null).is(204);
    h.ask("DELETE", "auth/cert/crls/site", Value::Null).refuses(400, "no such CRL site");
    h.get("auth/cert/crls/site").refuses(400, "no such CRL site");
    login(&h, &lost).is(200);
    h.ask("POST", "auth/cert/crls/x", json!({})).refuses(400, "one of 'crl' or 'url' must be provided");
    h.ask("POST", "auth/cert/crls/x", json!({"crl": "junk"})).is(400);
}

#[test]
fn a_token_is_renewed_by_the_certificate_of_its_login_alone() {
    let (h, ca) = house();
    let (own, neighbour) = (ca.device("device-07"), ca.device("device-08"));
    let token = login(&h, &own).token();
    let renew = |by: &Pair| send(&h, "auth/token/renew-self", json!({}), by, &token);
    renew(&own).is(200);
    renew(&neighbour).refuses(400, "client identity during renewal not matching client identity used during login");
    renew(&ca.device("device-07"))
        .refuses(400, "client identity during renewal not matching client identity used during login");
    renew(&SiteCa::new().device("device-07")).refuses(400, NOT_VOUCHED);
    h.ask_as(&token, "POST", "auth/token/renew-self", "{}").refuses(400, "no client certificate found");

    h.ask("POST", "auth/cert/config", json!({"disable_binding": true})).is(204);
    h.ask_as(&token, "POST", "auth/token/renew-self", "{}").is(200);
    assert_eq!(
        h.get("auth/cert/config").is(200),
        json!({"disable_binding": true, "enable_identity_alias_metadata": false, "ocsp_cache_size": 0})
    );
    h.ask("POST", "auth/cert/config", json!({"disable_binding": false})).is(204);
    h.ask("POST", ROLE, json!({"token_policies": "p1,p2"})).is(204);
    renew(&own).refuses(400, "policies have changed, not renewing");
    h.ask("DELETE", ROLE, Value::Null).is(204);
    renew(&own).refuses(400, NOT_VOUCHED);
}

/// The recipe of packaging/escrow: one role for all devices, and each reaches what is named as its certificate.
#[test]
fn each_device_reaches_its_own_key_and_is_shut_out_by_its_entity() {
    let (h, ca) = house();
    let accessor = h.accessor_of("cert/");
    let rule = format!(
        "path \"secret/escrow/{{{{identity.entity.aliases.{accessor}.name}}}}\" \
         {{ capabilities = [\"create\", \"read\"] }}"
    );
    h.ask("PUT", "sys/policies/acl/p1", json!({ "policy": rule })).is(204);
    let (seven, eight) = (login(&h, &ca.device("device-07")), login(&h, &ca.device("device-08")).token());
    let (entity, seven) = (seven.1["entity_id"].as_str().unwrap().to_owned(), seven.token());
    h.ask_as(&seven, "POST", "secret/escrow/device-07", r#"{"ikm":"aa"}"#).is(204);
    h.ask_as(&seven, "GET", "secret/escrow/device-07", "").is(200);
    for (token, path) in [(&eight, "secret/escrow/device-07"), (&seven, "secret/escrow/device-08")] {
        h.ask_as(token, "GET", path, "").is(403);
    }
    // Names that would widen the rule fill nothing in.
    for name in ["*", "+", "device-*"] {
        let wide = login(&h, &ca.device(name)).token();
        h.ask_as(&wide, "GET", "secret/escrow/device-07", "").is(403);
    }
    assert_eq!(login(&h, &ca.device("../escrow/device-07")).0, 400);
    h.ask("POST", &format!("identity/entity/id/{entity}"), json!({"disabled": true})).is(204);
    login(&h, &ca.device("device-07")).is(403);
    h.ask_as(&seven, "GET", "secret/escrow/device-07", "").is(403);
    login(&h, &ca.device("device-08")).is(200);
}

#[test]
fn a_login_is_never_root_and_no_more_roles_are_made_than_are_looked_through() {
    let (h, ca) = house();
    h.ask("POST", ROLE, json!({"token_policies": "root"})).is(204);
    login(&h, &ca.device("device-07")).is(400);
    for n in 1..64 {
        h.ask("POST", &format!("auth/cert/certs/r{n}"), json!({"certificate": ca.pem()})).is(204);
    }
    h.ask("POST", "auth/cert/certs/one-more", json!({"certificate": ca.pem()})).is(400);
    h.ask("POST", "auth/cert/certs/r1", json!({"token_ttl": "1h"})).is(204);
}

#[test]
fn what_is_mounted_decides_whether_clients_are_asked() {
    let h = House::new();
    assert!(!h.core.asks_for_certificates());
    h.ask("POST", "sys/auth/devices", json!({"type": "cert"})).is(204);
    assert!(h.core.asks_for_certificates());
    h.ask("DELETE", "sys/auth/devices", Value::Null).is(204);
    assert!(!h.core.asks_for_certificates());
}
