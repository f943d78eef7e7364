//! What a service gets: the reply of a login as Vault words it, and the CA to trust.
//!
//! EdgeX's clients read `auth.client_token`, and `auth.entity_id` when they ask for another token; others expect the
//! reply of `auth/token/create` whole, as `vault` writes it.

use std::collections::BTreeMap;
use std::io::Write;

use api::Auth;
use secret::Token;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// `auth.client_token` of such a file, whoever wrote it.
pub fn token_in(text: &[u8]) -> Option<Token> {
    #[derive(Deserialize)]
    struct File<'a> {
        #[serde(borrow)]
        auth: Auth<'a>,
    }
    #[derive(Deserialize)]
    struct Auth<'a> {
        client_token: &'a str,
    }
    let file: File<'_> = serde_json::from_slice(text).ok()?;
    Token::parse(file.auth.client_token).ok()
}

/// A token's file and the CA's certificate. Never printed.
pub struct Parcel {
    token_json: Zeroizing<Vec<u8>>,
    ca_pem: Vec<u8>,
}

impl Parcel {
    /// Writes the token's file: one line of JSON and a newline.
    pub fn new(auth: &Auth, ca_pem: &[u8]) -> Self {
        let reply = Envelope {
            request_id: "",
            lease_id: "",
            renewable: false,
            lease_duration: 0,
            data: (),
            wrap_info: (),
            warnings: (),
            auth: AuthBlock {
                client_token: auth.client_token.expose(),
                accessor: auth.accessor.as_str(),
                policies: &auth.policies,
                token_policies: &auth.token_policies,
                identity_policies: &auth.identity_policies,
                metadata: auth.metadata.as_ref(),
                lease_duration: auth.lease_duration.as_seconds(),
                renewable: auth.renewable,
                entity_id: &auth.entity_id,
                token_type: auth.token_type,
                orphan: auth.orphan,
                mfa_requirement: (),
                num_uses: auth.num_uses,
            },
        };
        // Counted first and then written into a buffer of that size: a growing one would leave copies of the token.
        let mut count = Count(0);
        write_line(&mut count, &reply);
        let mut token_json = Zeroizing::new(Vec::with_capacity(count.0));
        write_line(&mut *token_json, &reply);
        Self { token_json, ca_pem: ca_pem.to_vec() }
    }

    /// The token's file.
    pub fn expose_token_json(&self) -> &[u8] {
        &self.token_json
    }

    /// The CA's certificate, PEM.
    pub fn ca_pem(&self) -> &[u8] {
        &self.ca_pem
    }
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parcel(..)")
    }
}

fn write_line(to: &mut dyn Write, reply: &Envelope<'_>) {
    serde_json::to_writer(&mut *to, reply).expect("strings and numbers are JSON, and memory takes them");
    to.write_all(b"\n").expect("memory takes a byte");
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    request_id: &'static str,
    lease_id: &'static str,
    renewable: bool,
    lease_duration: u64,
    data: (),
    wrap_info: (),
    warnings: (),
    auth: AuthBlock<'a>,
}

#[derive(Serialize)]
struct AuthBlock<'a> {
    client_token: &'a str,
    accessor: &'a str,
    policies: &'a [String],
    token_policies: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    identity_policies: &'a [String],
    metadata: Option<&'a BTreeMap<String, String>>,
    lease_duration: u64,
    renewable: bool,
    entity_id: &'a str,
    token_type: &'static str,
    orphan: bool,
    mfa_requirement: (),
    num_uses: u64,
}

#[cfg(test)]
pub(crate) fn sample(token: &str) -> Parcel {
    Parcel::new(
        &Auth {
            client_token: secret::Token::parse(token).unwrap(),
            accessor: secret::Accessor::parse("accessor0000000000000000").unwrap(),
            policies: vec!["default".into(), "edgex-service-sensor".into()],
            token_policies: vec!["default".into()],
            identity_policies: vec!["edgex-service-sensor".into()],
            metadata: None,
            lease_duration: api::Ttl::seconds(3600),
            renewable: true,
            entity_id: "e0000000-0000-0000-0000-000000000000".into(),
            token_type: "service",
            orphan: true,
            num_uses: 0,
        },
        b"-----BEGIN CERTIFICATE-----\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_a_logins_reply_on_one_line() {
        let parcel = sample("s.tokentokentokentokentoken");
        assert_eq!(
            std::str::from_utf8(parcel.expose_token_json()).unwrap(),
            concat!(
                r#"{"request_id":"","lease_id":"","renewable":false,"lease_duration":0,"data":null,"wrap_info":null,"#,
                r#""warnings":null,"auth":{"client_token":"s.tokentokentokentokentoken","#,
                r#""accessor":"accessor0000000000000000","policies":["default","edgex-service-sensor"],"#,
                r#""token_policies":["default"],"identity_policies":["edgex-service-sensor"],"metadata":null,"#,
                r#""lease_duration":3600,"renewable":true,"entity_id":"e0000000-0000-0000-0000-000000000000","#,
                r#""token_type":"service","orphan":true,"mfa_requirement":null,"num_uses":0}}"#,
                "\n"
            )
        );
        assert_eq!(parcel.token_json.capacity(), parcel.token_json.len(), "one allocation, no copies left behind");
        assert_eq!(format!("{parcel:?}"), "Parcel(..)");
    }

    #[test]
    fn the_file_gives_its_token_back() {
        assert_eq!(token_in(sample("s.abc").expose_token_json()).unwrap().expose(), "s.abc");
        for bad in [&b"{}"[..], b"", br#"{"auth":{"client_token":""}}"#, br#"{"auth":{"client_token":"a b"}}"#] {
            assert!(token_in(bad).is_none());
        }
    }
}
