//! The envelope of a logical reply, written straight into one buffer: what a secret's value was stored as is what is
//! sent.

use api::{Auth, Logical};
use serde::Serialize;
use zeroize::Zeroizing;

/// The text of a request id: a UUID.
pub type RequestId = [u8; 36];

/// Writes `{request_id, lease_id, renewable, lease_duration, data, wrap_info, warnings, auth}` and a newline, as Vault
/// does.
pub(crate) fn write(request_id: &RequestId, logical: &Logical) -> Zeroizing<Vec<u8>> {
    let bound = bound(logical);
    let mut out = Zeroizing::new(Vec::with_capacity(bound));
    out.push(b'{');
    if logical.data_at_top
        && let Some(members) = logical.data.as_deref().and_then(|d| members(d))
    {
        out.extend_from_slice(members);
        out.push(b',');
    }
    out.extend_from_slice(b"\"request_id\":\"");
    out.extend_from_slice(request_id);
    out.extend_from_slice(b"\",\"lease_id\":");
    json(&mut out, &logical.lease_id);
    out.extend_from_slice(b",\"renewable\":");
    json(&mut out, &logical.renewable);
    out.extend_from_slice(b",\"lease_duration\":");
    json(&mut out, &logical.lease_duration.as_seconds());
    out.extend_from_slice(b",\"data\":");
    match &logical.data {
        Some(data) => out.extend_from_slice(data),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"wrap_info\":null,\"warnings\":");
    if logical.warnings.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        json(&mut out, &logical.warnings);
    }
    out.extend_from_slice(b",\"auth\":");
    match &logical.auth {
        Some(auth) => write_auth(&mut out, auth),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}\n");
    debug_assert!(out.len() <= bound, "a buffer that grows leaves copies of secrets behind");
    out
}

fn write_auth(out: &mut Vec<u8>, auth: &Auth) {
    out.extend_from_slice(b"{\"client_token\":");
    json(out, &auth.client_token.expose());
    out.extend_from_slice(b",\"accessor\":");
    json(out, &auth.accessor.as_str());
    out.extend_from_slice(b",\"policies\":");
    json(out, &auth.policies);
    out.extend_from_slice(b",\"token_policies\":");
    json(out, &auth.token_policies);
    if !auth.identity_policies.is_empty() {
        out.extend_from_slice(b",\"identity_policies\":");
        json(out, &auth.identity_policies);
    }
    out.extend_from_slice(b",\"metadata\":");
    json(out, &auth.metadata);
    out.extend_from_slice(b",\"lease_duration\":");
    json(out, &auth.lease_duration.as_seconds());
    out.extend_from_slice(b",\"renewable\":");
    json(out, &auth.renewable);
    out.extend_from_slice(b",\"entity_id\":");
    json(out, &auth.entity_id);
    out.extend_from_slice(b",\"token_type\":");
    json(out, &auth.token_type);
    out.extend_from_slice(b",\"orphan\":");
    json(out, &auth.orphan);
    out.extend_from_slice(b",\"mfa_requirement\":null,\"num_uses\":");
    json(out, &auth.num_uses);
    out.push(b'}');
}

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("strings, numbers and lists of them always serialise into memory");
}

/// What stands between the braces of a JSON object; `None` for an empty one.
fn members(object: &[u8]) -> Option<&[u8]> {
    let inner = object.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    (!inner.is_empty()).then_some(inner)
}

/// At least as many bytes as the envelope will have: a character is at most six in JSON (`\u0000`).
fn bound(logical: &Logical) -> usize {
    let text = |s: &str| 6 * s.len() + 3;
    let list = |l: &[String]| l.iter().map(|s| text(s)).sum::<usize>() + 4;
    let data = logical.data.as_ref().map_or(4, |d| d.len()) * (1 + usize::from(logical.data_at_top));
    let auth = logical.auth.as_ref().map_or(4, |a| {
        let metadata: usize = a.metadata.iter().flatten().map(|(k, v)| text(k) + text(v)).sum();
        320 + text(a.client_token.expose())
            + text(a.accessor.as_str())
            + list(&a.policies)
            + list(&a.token_policies)
            + list(&a.identity_policies)
            + metadata
            + text(&a.entity_id)
            + text(a.token_type)
    });
    220 + text(&logical.lease_id) + data + list(&logical.warnings) + auth
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Ttl;
    use proptest::prelude::*;
    use secret::{Accessor, Token};

    const ID: RequestId = *b"5d3f2c1e-0000-4000-8000-000000000000";

    fn logical(data: &str) -> Logical {
        Logical { data: Some(Zeroizing::new(data.as_bytes().to_vec())), ..Logical::default() }
    }

    fn text(l: &Logical) -> String {
        String::from_utf8(write(&ID, l).to_vec()).unwrap()
    }

    #[test]
    fn a_stored_value_is_not_written_anew() {
        let stored = r#"{ "n":12345678901234567890123,"e":1e2,"u":"\u00e9" }"#;
        assert!(text(&logical(stored)).contains(&format!("\"data\":{stored},\"wrap_info\"")));
    }

    #[test]
    fn data_stands_at_the_top_as_well_where_vault_does_so() {
        let mut l = logical(r#" {"keys":["default"]} "#);
        l.data_at_top = true;
        assert!(text(&l).starts_with(r#"{"keys":["default"],"request_id":"#), "{}", text(&l));
        for empty in ["{}", " { } "] {
            let mut l = logical(empty);
            l.data_at_top = true;
            assert!(text(&l).starts_with(r#"{"request_id":"#));
            serde_json::from_str::<serde_json::Value>(&text(&l)).unwrap();
        }
    }

    proptest! {
        #[test]
        fn it_is_json_within_its_bound(
            lease in ".{0,20}", warnings in proptest::collection::vec(".{0,20}", 0..3),
            policies in proptest::collection::vec("[\u{0}-\u{7f}]{0,20}", 0..3),
            metadata in proptest::option::of(proptest::collection::btree_map(".{0,8}", "[\u{0}-\u{1f}]{0,8}", 0..3)),
            top: bool, ttl in 0u64..3_000_000_000, uses: u64, entity in ".{0,9}",
        ) {
            let auth = Auth {
                client_token: Token::parse("s.0123456789abcdefghijABCD").unwrap(),
                accessor: Accessor::parse("a\"b\\c").unwrap(),
                policies: policies.clone(), token_policies: policies.clone(), identity_policies: policies.clone(),
                metadata: metadata.clone(), lease_duration: Ttl::seconds(ttl), renewable: true, entity_id: entity,
                token_type: "service", orphan: true, num_uses: uses,
            };
            let l = Logical {
                lease_id: lease.clone(), warnings: warnings.clone(), auth: Some(auth), data_at_top: top,
                renewable: true, lease_duration: Ttl::seconds(u64::MAX), ..logical(r#"{"a":1}"#)
            };
            let out = write(&ID, &l);
            prop_assert!(out.len() <= bound(&l));
            let read: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(&read["lease_id"], &serde_json::Value::from(lease));
            prop_assert_eq!(&read["auth"]["policies"], &serde_json::json!(policies));
            prop_assert_eq!(&read["auth"]["metadata"], &serde_json::json!(metadata));
            prop_assert_eq!(read["warnings"].is_null(), warnings.is_empty());
            prop_assert_eq!(read["a"].is_null(), !top);
        }
    }
}
