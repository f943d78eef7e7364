//! Templates of claims: JSON text with `{{directives}}`, each replaced by a JSON value.
//!
//! A value is written by the JSON serialiser, quotes and all, so no name or metadata of an entity can become structure:
//! a directive stands where a value stands, never within quotes.

use std::collections::BTreeMap;

use api::Ttl;
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// A parsed template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Directive(Directive),
}

#[derive(Debug, PartialEq, Eq)]
enum Directive {
    Id,
    Name,
    Metadata,
    MetadataOf(String),
    Alias { accessor: String, field: AliasField },
    Groups,
    Now,
    NowPlus(Ttl),
    NowMinus(Ttl),
}

#[derive(Debug, PartialEq, Eq)]
enum AliasField {
    Id,
    Name,
    Metadata,
    MetadataOf(String),
}

/// What directives are filled from.
#[derive(Debug, Default)]
pub(super) struct Subject {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) aliases: BTreeMap<String, SubjectAlias>,
    /// Seconds since 1970.
    pub(super) now: i64,
}

#[derive(Debug, Default)]
pub(super) struct SubjectAlias {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) metadata: BTreeMap<String, String>,
}

impl Template {
    /// Parses a template, which may come in base64, and tries it on an empty subject.
    pub(super) fn parse(text: &str) -> Result<Self, TemplateError> {
        let decoded =
            base64::engine::general_purpose::STANDARD.decode(text).ok().and_then(|b| String::from_utf8(b).ok());
        let text = decoded.as_deref().unwrap_or(text);
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLong);
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let (directive, after) = after.split_once("}}").ok_or(TemplateError::Unbalanced)?;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(Piece::Directive(Directive::parse(directive.trim()).ok_or(TemplateError::Directive)?));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        let template = Self(pieces);
        template.render(&Subject::default())?;
        Ok(template)
    }

    /// The claims for a subject.
    pub(super) fn render(&self, subject: &Subject) -> Result<Map<String, Value>, TemplateError> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(t) => text.push_str(t),
                Piece::Directive(d) => text.push_str(&d.value(subject).to_string()),
            }
        }
        if text.trim().is_empty() {
            return Ok(Map::new());
        }
        let claims: Map<String, Value> = serde_json::from_str(&text).map_err(|_| TemplateError::Json)?;
        match claims.keys().find(|k| RESERVED.contains(&k.as_str())) {
            Some(key) => Err(TemplateError::Reserved { key: key.clone() }),
            None => Ok(claims),
        }
    }
}

impl Directive {
    fn parse(text: &str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("identity.entity.") {
            return Some(match rest.split_once('.') {
                None if rest == "id" => Self::Id,
                None if rest == "name" => Self::Name,
                None if rest == "metadata" => Self::Metadata,
                Some(("metadata", key)) if !key.is_empty() => Self::MetadataOf(key.to_owned()),
                Some(("groups", "ids" | "names")) => Self::Groups,
                Some(("aliases", rest)) => {
                    let (accessor, field) = rest.split_once('.')?;
                    Self::Alias { accessor: accessor.to_owned(), field: AliasField::parse(field)? }
                }
                _ => return None,
            });
        }
        match text.strip_prefix("time.now")? {
            "" => Some(Self::Now),
            rest => {
                let plus = rest.strip_prefix(".plus.").map(|t| Ttl::parse(t).map(Self::NowPlus));
                let minus = rest.strip_prefix(".minus.").map(|t| Ttl::parse(t).map(Self::NowMinus));
                plus.or(minus)?.ok()
            }
        }
    }

    fn value(&self, subject: &Subject) -> Value {
        let seconds = |ttl: &Ttl| i64::try_from(ttl.as_seconds()).unwrap_or(i64::MAX);
        match self {
            Self::Id => json!(subject.id),
            Self::Name => json!(subject.name),
            Self::Metadata => json!(subject.metadata),
            Self::MetadataOf(key) => json!(subject.metadata.get(key).map_or("", |v| v)),
            Self::Groups => json!([]),
            Self::Now => json!(subject.now),
            Self::NowPlus(ttl) => json!(subject.now.saturating_add(seconds(ttl))),
            Self::NowMinus(ttl) => json!(subject.now.saturating_sub(seconds(ttl))),
            Self::Alias { accessor, field } => {
                let none = SubjectAlias::default();
                let alias = subject.aliases.get(accessor).unwrap_or(&none);
                match field {
                    AliasField::Id => json!(alias.id),
                    AliasField::Name => json!(alias.name),
                    AliasField::Metadata => json!(alias.metadata),
                    AliasField::MetadataOf(key) => json!(alias.metadata.get(key).map_or("", |v| v)),
                }
            }
        }
    }
}

impl AliasField {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "id" => Some(Self::Id),
            "name" => Some(Self::Name),
            "metadata" | "custom_metadata" => Some(Self::Metadata),
            _ => {
                let key = text.strip_prefix("metadata.").or_else(|| text.strip_prefix("custom_metadata."))?;
                (!key.is_empty()).then(|| Self::MetadataOf(key.to_owned()))
            }
        }
    }
}

/// Why a text is no template, or its claims are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("error parsing template: longer than 16384 bytes")]
    TooLong,
    #[error("error parsing template: unbalanced templating characters")]
    Unbalanced,
    #[error("error parsing template: no value could be found for one of the template directives")]
    Directive,
    #[error("error parsing template JSON: not an object once its directives are filled in")]
    Json,
    #[error("top level key {key:?} not allowed. Restricted keys: {}", RESERVED.join(", "))]
    Reserved { key: String },
}

/// What the issuer alone may say, or what a client would mistake for it.
const RESERVED: [&str; 11] =
    ["iat", "aud", "exp", "iss", "sub", "namespace", "nonce", "auth_time", "at_hash", "c_hash", super::STORE_EXPIRY];
const MAX_TEMPLATE_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        let alias =
            SubjectAlias { id: "i".into(), name: "n".into(), metadata: BTreeMap::from([("k".into(), "v".into())]) };
        Subject {
            id: "b7fa86cc".into(),
            name: r#"evil","admin":true,"x":""#.into(),
            metadata: BTreeMap::from([("name".into(), "svc\\\"".into())]),
            aliases: BTreeMap::from([("auth_userpass_1".into(), alias)]),
            now: 100,
        }
    }

    #[test]
    fn a_name_cannot_become_structure() {
        let template = Template::parse(r#"{"name": {{identity.entity.name}}, "m": {{identity.entity.metadata.name}}}"#);
        let claims = template.unwrap().render(&subject()).unwrap();
        assert_eq!(claims.len(), 2);
        assert_eq!(claims["name"], json!(subject().name));
        assert_eq!(claims["m"], json!("svc\\\""));
    }

    #[test]
    fn every_directive() {
        let text = r#"{"id":{{identity.entity.id}},"all":{{identity.entity.metadata}},"no":{{identity.entity.metadata.zz}},
            "a":{{identity.entity.aliases.auth_userpass_1.name}},"am":{{identity.entity.aliases.auth_userpass_1.metadata.k}},
            "none":{{identity.entity.aliases.nosuch.id}},"g":{{identity.entity.groups.names}},
            "t":{{time.now}},"p":{{time.now.plus.1h}},"q":{{ time.now.minus.10s }}}"#;
        let claims = Template::parse(text).unwrap().render(&subject()).unwrap();
        assert_eq!(
            json!(claims),
            json!({"id":"b7fa86cc","all":{"name":"svc\\\""},"no":"","a":"n","am":"v","none":"","g":[],"t":100,"p":3700,"q":90})
        );
    }

    #[test]
    fn base64_and_emptiness() {
        let encoded = base64::engine::general_purpose::STANDARD.encode(r#"{"name": "x"}"#);
        assert_eq!(Template::parse(&encoded).unwrap().render(&subject()).unwrap()["name"], json!("x"));
        assert!(Template::parse("").unwrap().render(&subject()).unwrap().is_empty());
    }

    #[test]
    fn refusals_named_for_their_defect() {
        for (text, error) in [
            (r#"{"name": "#, TemplateError::Json),
            (r#"[1]"#, TemplateError::Json),
            (r#"{"a": {{identity.entity.name}"#, TemplateError::Unbalanced),
            (r#"{"a": {{identity.entity.bogus}}}"#, TemplateError::Directive),
            (r#"{"a": {{identity.entity.metadata.}}}"#, TemplateError::Directive),
            (r#"{"a": {{time.now.plus.soon}}}"#, TemplateError::Directive),
            (r#"{"a": {{secret}}}"#, TemplateError::Directive),
            // In quotes a directive would be text within text.
            (r#"{"a": "{{identity.entity.name}}"}"#, TemplateError::Json),
            (r#"{"aud": "x"}"#, TemplateError::Reserved { key: "aud".into() }),
            // A key that is only there once it is filled in: refused when it is rendered, as "" here is no key of ours.
            (r#"{"\u0073ub": 1}"#, TemplateError::Reserved { key: "sub".into() }),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
        let key_from_name = Template::parse(r#"{ {{identity.entity.name}}: 1 }"#).unwrap();
        let sub = Subject { name: "sub".into(), ..subject() };
        assert_eq!(key_from_name.render(&sub), Err(TemplateError::Reserved { key: "sub".into() }));
    }
}
