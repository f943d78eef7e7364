//! `certs/:role`: who is let in, and what for.

use std::collections::BTreeMap;

use api::Reply;
use pipeline::{Authorized, EngineError, Operation, Txn};
use pki::peer::{Anchors, PeerFacts};
use secret::SecretBytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::glob::glob;
use crate::input::Input;
use crate::terms::Terms;

/// A role's entry.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Role {
    /// Whom it trusts: PEM, as it was given.
    certificate: String,
    /// Patterns by the field that they were given in; a field without any is not there.
    #[serde(default)]
    allowed: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub(super) display_name: String,
    pub(super) terms: Terms,
}

impl Role {
    pub(super) async fn load(name: &str, txn: &mut Txn) -> Result<Option<Self>, EngineError> {
        let Some(entry) = txn.get(&place(name)).await? else { return Ok(None) };
        serde_json::from_slice(entry.expose()).map(Some).map_err(EngineError::internal)
    }

    /// Whom it trusts.
    pub(super) fn anchors(&self) -> Result<Anchors, EngineError> {
        // They were read when the role was written.
        Anchors::from_pem(self.certificate.as_bytes()).map_err(EngineError::internal)
    }

    /// Whether the names of a certificate fit: of each field that has patterns, one of the names fits one of them.
    pub(super) fn admits(&self, facts: &PeerFacts) -> bool {
        self.allowed.iter().all(|(field, patterns)| {
            // A field that this build does not know bounds what nobody can check here.
            let Some((_, names)) = NAMES.iter().find(|(known, _)| known == field) else { return false };
            names(facts).into_iter().any(|name| patterns.iter().any(|pattern| glob(pattern, name)))
        }) || !host::in_force("peer-names")
    }

    fn update(&mut self, name: &str, input: &Input<'_>) -> Result<(), EngineError> {
        // Bounds that would not be held must not look as if they were.
        for field in ["required_extensions", "allowed_metadata_extensions", "ocsp_servers_override"] {
            if input.list(field)?.is_some_and(|list| !list.is_empty()) {
                return Err(EngineError::bad_request(format!("{field} is not supported")));
            }
        }
        if input.flag("ocsp_enabled")? == Some(true)
            || input.text("ocsp_ca_certificates")?.is_some_and(|t| !t.is_empty())
        {
            return Err(EngineError::bad_request("OCSP is not supported; write revocation lists to crls/"));
        }
        if let Some(certificate) = input.text("certificate")? {
            self.certificate = certificate;
        }
        Anchors::from_pem(self.certificate.as_bytes())
            .map_err(|why| EngineError::bad_request(told(&why)).because(why))?;
        for (field, _) in &NAMES {
            let Some(patterns) = input.list(field)? else { continue };
            if patterns.is_empty() {
                self.allowed.remove(*field);
            } else {
                self.allowed.insert((*field).to_owned(), patterns);
            }
        }
        if let Some(display_name) = input.text("display_name")? {
            self.display_name = display_name;
        }
        if self.display_name.is_empty() {
            name.clone_into(&mut self.display_name);
        }
        self.terms.update(input)
    }

    fn to_data(&self) -> Value {
        let mut data = self.terms.to_data();
        for (field, _) in &NAMES {
            data[*field] = json!(self.allowed.get(*field));
        }
        data["certificate"] = json!(self.certificate);
        data["display_name"] = json!(self.display_name);
        data["allowed_metadata_extensions"] = Value::Null;
        data["required_extensions"] = Value::Null;
        data["ocsp_ca_certificates"] = json!("");
        data["ocsp_enabled"] = json!(false);
        data["ocsp_fail_open"] = json!(false);
        data["ocsp_query_all_servers"] = json!(false);
        data["ocsp_servers_override"] = Value::Null;
        data
    }
}

pub(super) async fn answer(name: &str, request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    match request.operation() {
        Operation::Read => {
            let role = Role::load(name, txn).await?.ok_or_else(EngineError::absent)?;
            Ok(Reply::data(&role.to_data()))
        }
        Operation::Create | Operation::Update => {
            let found = Role::load(name, txn).await?;
            if found.is_none() && txn.list(FOLDER).await?.len() >= MAX_ROLES {
                return Err(EngineError::bad_request("there are as many roles as a login looks through"));
            }
            let mut role = found.unwrap_or_default();
            role.update(name, &Input::of(request.body())?)?;
            let entry = serde_json::to_vec(&role).map_err(EngineError::internal)?;
            txn.put(&place(name), SecretBytes::new(entry))?;
            Ok(Reply::no_content())
        }
        Operation::Delete => {
            txn.delete(&place(name))?;
            Ok(Reply::no_content())
        }
        Operation::List | Operation::Patch => Err(EngineError::unsupported_operation()),
    }
}

/// OpenBao's words, where its clients know them.
fn told(why: &pki::peer::AnchorError) -> String {
    use pki::peer::AnchorError::{NoCertificate, NotForClients, TooMuch, Unreadable};
    match why {
        NoCertificate | Unreadable(_) => "failed to parse certificate".to_owned(),
        NotForClients => {
            "nonCA certificates should have TLS client authentication set as an extended key usage".to_owned()
        }
        TooMuch => why.to_string(),
    }
}

fn place(name: &str) -> String {
    format!("{FOLDER}/{name}")
}

type NamesOf = fn(&PeerFacts) -> Vec<&str>;

/// The fields with patterns, and what of a certificate each is held against.
const NAMES: [(&str, NamesOf); 6] = [
    ("allowed_common_names", |facts| facts.common_name.iter().map(String::as_str).collect()),
    ("allowed_dns_sans", |facts| texts(&[&facts.dns])),
    ("allowed_email_sans", |facts| texts(&[&facts.emails])),
    ("allowed_uri_sans", |facts| texts(&[&facts.uris])),
    ("allowed_organizational_units", |facts| texts(&[&facts.units])),
    ("allowed_names", |facts| {
        let mut all = texts(&[&facts.dns, &facts.emails]);
        all.extend(facts.common_name.as_deref());
        all
    }),
];

fn texts<'f>(lists: &[&'f [String]]) -> Vec<&'f str> {
    lists.iter().copied().flatten().map(String::as_str).collect()
}

pub(super) const FOLDER: &str = "role";
/// A login that names no role looks through all of them, and anybody may cause one.
const MAX_ROLES: usize = 64;
