//! From HTTP status and body to [`Reply`].
//!
//! Four shapes, told apart by their keys: `{"errors": [...]}`; the envelope with `request_id`; JSON without an
//! envelope; nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use api::{Auth, Logical, Payload, Reply, Status, Ttl};
use secret::{Accessor, Token};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// Largest reply that is read: 4 MiB, four times the largest body that our own store takes.
pub const MAX_REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Parses the body of a reply; an error says what cannot be read, and names no value.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(status: u16, bytes: Zeroizing<Vec<u8>>) -> Result<Reply, &'static str> {
    let status = Status(status);
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Reply { status, payload: Payload::Empty });
    }
    let payload = match serde_json::from_slice::<Shape<'_>>(&bytes) {
        Ok(Shape { errors: Some(errors), .. }) => Payload::Errors(errors),
        // A wrapped reply has its answer in `wrap_info`, which Logical does not carry: it goes on whole.
        Ok(shape) if shape.request_id.is_some() && shape.wrap_info.is_none() => {
            Payload::Logical(Box::new(shape.into_logical()?))
        }
        Ok(_) => Payload::Raw { content_type: "application/json", bytes },
        // A list or a single value, and an object whose keys of the same names mean something else.
        Err(_) if serde_json::from_slice::<&RawValue>(&bytes).is_ok() => {
            Payload::Raw { content_type: "application/json", bytes }
        }
        Err(_) => return Err("it is not JSON"),
    };
    Ok(Reply { status, payload })
}

/// All top-level keys that tell the shapes apart.
#[derive(Deserialize)]
struct Shape<'a> {
    errors: Option<Vec<String>>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    lease_duration: u64,
    warnings: Option<Vec<String>>,
    #[serde(borrow)]
    wrap_info: Option<&'a RawValue>,
    #[serde(borrow)]
    auth: Option<AuthShape<'a>>,
}

/// Vault leaves out or nulls what does not apply.
#[derive(Deserialize)]
struct AuthShape<'a> {
    #[serde(borrow)]
    client_token: Cow<'a, str>,
    #[serde(default)]
    accessor: String,
    policies: Option<Vec<String>>,
    token_policies: Option<Vec<String>>,
    identity_policies: Option<Vec<String>>,
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    #[serde(default)]
    entity_id: String,
    #[serde(default)]
    token_type: String,
    #[serde(default)]
    orphan: bool,
    #[serde(default)]
    num_uses: u64,
}

impl Shape<'_> {
    fn into_logical(self) -> Result<Logical, &'static str> {
        let data = self.data.filter(|d| d.get() != "null");
        Ok(Logical {
            data: data.map(|d| Zeroizing::new(d.get().as_bytes().to_vec())),
            data_at_top: false,
            lease_id: self.lease_id,
            renewable: self.renewable,
            lease_duration: Ttl::seconds(self.lease_duration),
            warnings: self.warnings.unwrap_or_default(),
            auth: self.auth.map(AuthShape::into_auth).transpose()?,
        })
    }
}

impl AuthShape<'_> {
    fn into_auth(self) -> Result<Auth, &'static str> {
        Ok(Auth {
            // A renewal by accessor gives no token back.
            client_token: match self.client_token.is_empty() {
                true => Token::withheld(),
                false => Token::parse(&self.client_token).map_err(|_| "its auth holds no token")?,
            },
            accessor: Accessor::parse(&self.accessor)
                .map_err(|_| "its auth holds no accessor, as for a batch token")?,
            policies: self.policies.unwrap_or_default(),
            token_policies: self.token_policies.unwrap_or_default(),
            identity_policies: self.identity_policies.unwrap_or_default(),
            metadata: self.metadata,
            lease_duration: Ttl::seconds(self.lease_duration),
            renewable: self.renewable,
            entity_id: self.entity_id,
            token_type: match self.token_type.as_str() {
                "service" | "" => "service",
                "batch" => "batch",
                _ => return Err("its auth holds a token of an unknown type"),
            },
            orphan: self.orphan,
            num_uses: self.num_uses,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, text: &str) -> Result<Reply, &'static str> {
        parse(status, Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn the_envelope_keeps_data_as_it_was_written() {
        let text = r#"{"request_id":"r","lease_id":"","renewable":false,"lease_duration":2764800,
            "data":{"n":12345678901234567890123,"s":"x"},"wrap_info":null,"warnings":["w"],"auth":null}"#;
        let reply = read(200, text).unwrap();
        assert_eq!(reply.data_text(), Some(&br#"{"n":12345678901234567890123,"s":"x"}"#[..]));
        let Payload::Logical(logical) = reply.payload else { panic!() };
        assert_eq!((logical.lease_duration, logical.warnings), (Ttl::seconds(2_764_800), vec!["w".to_owned()]));
    }

    #[test]
    fn auth_becomes_a_token() {
        let text = r#"{"request_id":"r","data":null,"auth":{"client_token":"s.oMjt4uStTRreNwqvtB0TtiMb",
            "accessor":"9WC36WRr4G2krTK0wJlKxgMp","policies":["default","p1"],"token_policies":["default"],
            "metadata":{"username":"u1"},"lease_duration":3600,"renewable":true,"entity_id":"e","token_type":"service",
            "orphan":true,"mfa_requirement":null,"num_uses":0}}"#;
        let reply = read(200, text).unwrap();
        assert!(reply.data_text().is_none());
        let auth = reply.auth().unwrap();
        assert_eq!(auth.client_token.expose(), "s.oMjt4uStTRreNwqvtB0TtiMb");
        assert_eq!((auth.policies.len(), auth.lease_duration.as_seconds(), auth.orphan), (2, 3600, true));
    }

    #[test]
    fn errors_raw_and_nothing() {
        assert!(matches!(read(403, r#"{"errors":["permission denied"]}"#).unwrap().payload,
            Payload::Errors(e) if e == ["permission denied"]));
        assert!(matches!(read(404, r#"{"errors":[]}"#).unwrap().payload, Payload::Errors(e) if e.is_empty()));
        assert!(matches!(read(204, "").unwrap().payload, Payload::Empty));
        for raw in [r#"{"sealed":true}"#, "[1]", "3", r#"{"request_id":"r","wrap_info":{"token":"s.x"}}"#] {
            assert!(matches!(read(200, raw).unwrap().payload, Payload::Raw { .. }), "{raw}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_and_not_quoted() {
        assert_eq!(read(200, "<html>").unwrap_err(), "it is not JSON");
        assert_eq!(read(200, r#"{"a":1} x"#).unwrap_err(), "it is not JSON");
        let auth =
            |inner: &str| read(200, &format!(r#"{{"request_id":"r","auth":{{{inner}}}}}"#)).map(|_| ()).unwrap_err();
        assert_eq!(auth(r#""client_token":"a b","accessor":"x""#), "its auth holds no token");
        assert!(auth(r#""client_token":"b.x","accessor":"""#).starts_with("its auth holds no accessor"));
    }
}
