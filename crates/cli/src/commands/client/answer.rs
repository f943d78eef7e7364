//! What a command has to say, and its two forms: a table for people, JSON for programs.

use std::collections::BTreeMap;
use std::io::Write;

use api::{Auth, Logical, Payload, Reply};
use clap::ValueEnum;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::json::pretty;
use crate::failure::{Code, Failure};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns.
    Table,
    /// JSON, as `vault -format=json` has it.
    Json,
}

/// What the flags say about the form.
pub(super) struct Style {
    pub(super) format: Format,
    /// Show one value alone.
    pub(super) field: Option<String>,
}

/// What a command found, did, or found to be so.
pub(super) struct Answer {
    subject: Subject,
    /// It was done and shown, and yet the exit code is not 0: a sealed store is no success.
    failure: Option<Failure>,
}

enum Subject {
    /// Something was done; for a program there is nothing to read.
    Done(String),
    /// Names, in their order.
    Names(Vec<String>),
    /// JSON of an object: its keys are the rows; for a program it comes in `envelope`, if there is one.
    Object { rows: Zeroizing<Vec<u8>>, envelope: Option<Zeroizing<Vec<u8>>>, warnings: Vec<String> },
    /// A text of its own, such as a policy, and its name for a program.
    Text { key: &'static str, text: String },
}

impl Answer {
    pub(super) fn done(text: impl Into<String>) -> Self {
        Self::of(Subject::Done(text.into()))
    }

    pub(super) fn names(names: Vec<String>) -> Self {
        Self::of(Subject::Names(names))
    }

    pub(super) fn text(key: &'static str, text: String) -> Self {
        Self::of(Subject::Text { key, text })
    }

    /// An object without an envelope.
    pub(super) fn object(rows: Zeroizing<Vec<u8>>) -> Self {
        Self::of(Subject::Object { rows, envelope: None, warnings: Vec::new() })
    }

    /// A reply of the store; `done` is said where it holds nothing.
    pub(super) fn reply(reply: Reply, done: impl FnOnce() -> String) -> Self {
        match reply.payload {
            Payload::Logical(logical) => Self::logical(*logical, done),
            Payload::Raw { bytes, .. } => Self::object(bytes),
            Payload::Empty | Payload::Errors(_) => Self::done(done()),
        }
    }

    fn logical(logical: Logical, done: impl FnOnce() -> String) -> Self {
        let rows = match (&logical.auth, &logical.data) {
            (Some(auth), _) => auth_rows(auth),
            (None, Some(data)) => data.clone(),
            (None, None) if logical.warnings.is_empty() => return Self::done(done()),
            (None, None) => Zeroizing::new(b"{}".to_vec()),
        };
        let envelope = Some(envelope(&logical));
        Self::of(Subject::Object { rows, envelope, warnings: logical.warnings })
    }

    /// Shows other rows to people than the whole `data`: those of a secret that has a version.
    pub(super) fn with_rows(mut self, new: Zeroizing<Vec<u8>>) -> Self {
        if let Subject::Object { rows, .. } = &mut self.subject {
            *rows = new;
        }
        self
    }

    pub(super) fn failing(mut self, failure: Failure) -> Self {
        self.failure = Some(failure);
        self
    }

    fn of(subject: Subject) -> Self {
        Self { subject, failure: None }
    }

    /// The text for standard output, and the failure that follows it, if any.
    pub(super) fn render(self, style: &Style) -> Result<(Zeroizing<String>, Option<Failure>), Failure> {
        let text = match (&style.field, style.format) {
            (Some(key), _) => self.subject.field(key)?,
            (None, Format::Json) => self.subject.json(),
            (None, Format::Table) => self.subject.table()?,
        };
        Ok((text, self.failure))
    }
}

impl Subject {
    fn json(&self) -> Zeroizing<String> {
        let lined = |text: &str| {
            let mut text = pretty(text);
            text.push('\n');
            text
        };
        match self {
            Self::Done(_) => Zeroizing::new("{}\n".to_owned()),
            Self::Names(names) => lined(&json!(names).to_string()),
            Self::Text { key, text } => lined(&json!({ *key: text }).to_string()),
            Self::Object { rows, envelope, .. } => {
                lined(std::str::from_utf8(envelope.as_ref().unwrap_or(rows)).unwrap_or("null"))
            }
        }
    }

    fn table(&self) -> Result<Zeroizing<String>, Failure> {
        let rows = match self {
            Self::Done(text) => return Ok(Zeroizing::new(format!("{text}\n"))),
            Self::Text { text, .. } => return Ok(Zeroizing::new(format!("{}\n", text.trim_end_matches('\n')))),
            Self::Names(names) => {
                let lines = ["Keys", "----"].into_iter().chain(names.iter().map(String::as_str));
                return Ok(Zeroizing::new(lines.map(|l| format!("{l}\n")).collect()));
            }
            Self::Object { rows, .. } => rows,
        };
        let mut table: Vec<(String, Zeroizing<String>)> = Vec::new();
        for (key, value) in fields(rows)? {
            table.push((key, shown(value)));
        }
        let width = table.iter().map(|(k, _)| k.chars().count()).max().unwrap_or(0).max(3);
        let mut out = Zeroizing::new(String::with_capacity(rows.len() * 2 + (width + 8) * (table.len() + 2)));
        let mut row = |key: &str, value: &str| {
            out.push_str(key);
            (key.chars().count()..width + 4).for_each(|_| out.push(' '));
            out.push_str(value);
            out.push('\n');
        };
        row("Key", "Value");
        row("---", "-----");
        table.iter().for_each(|(key, value)| row(key, value));
        if let Self::Object { warnings, .. } = self {
            warnings.iter().for_each(|w| out.push_str(&format!("warning: {}\n", w.replace('\n', " "))));
        }
        Ok(out)
    }

    /// One value, without a line's end of its own: what goes into a file or a variable is the value and nothing else.
    fn field(&self, wanted: &str) -> Result<Zeroizing<String>, Failure> {
        let absent = || {
            Failure::new(Code::Refused, format!("there is no field {wanted:?}"))
                .hint("leave --field away to see them all")
        };
        match self {
            Self::Text { key, text } if *key == wanted => Ok(Zeroizing::new(text.clone())),
            Self::Object { rows, .. } => fields(rows)?
                .into_iter()
                .find(|(key, _)| key == wanted)
                .map(|(_, value)| exact(value))
                .ok_or_else(absent),
            _ => Err(absent()),
        }
    }
}

/// Writes to standard output; a reader that has gone away is no fault.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn fields(object: &[u8]) -> Result<BTreeMap<String, &RawValue>, Failure> {
    serde_json::from_slice(object).map_err(|_| {
        Failure::fault("the store answers what is no table of keys and values").hint("--format=json shows it as it is")
    })
}

/// A value in a table: control characters could draw anything on a terminal, so they are shown as escapes.
fn shown(value: &RawValue) -> Zeroizing<String> {
    let text = exact(value);
    if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return text;
    }
    let mut safe = Zeroizing::new(String::with_capacity(text.len() * 6));
    for c in text.chars() {
        if c.is_control() && c != '\n' && c != '\t' { safe.extend(c.escape_unicode()) } else { safe.push(c) }
    }
    safe
}

/// A text without its quotes; other values as JSON.
fn exact(value: &RawValue) -> Zeroizing<String> {
    let text = serde_json::from_str::<String>(value.get());
    Zeroizing::new(text.unwrap_or_else(|_| value.get().to_owned()))
}

fn auth_rows(auth: &Auth) -> Zeroizing<Vec<u8>> {
    let rows = json!({
        "token": auth.client_token.expose(),
        "token_accessor": auth.accessor.as_str(),
        "token_duration": auth.lease_duration.to_go(),
        "token_renewable": auth.renewable,
        "token_policies": auth.token_policies,
        "identity_policies": auth.identity_policies,
        "policies": auth.policies,
    });
    Zeroizing::new(rows.to_string().into_bytes())
}

/// The envelope as programs know it. `request_id` belongs to the exchange and is not kept.
fn envelope(logical: &Logical) -> Zeroizing<Vec<u8>> {
    let auth = logical.auth.as_ref().map_or(Value::Null, |a| {
        json!({
            "client_token": a.client_token.expose(), "accessor": a.accessor.as_str(), "policies": a.policies,
            "token_policies": a.token_policies, "identity_policies": a.identity_policies, "metadata": a.metadata,
            "lease_duration": a.lease_duration.as_seconds(), "renewable": a.renewable, "entity_id": a.entity_id,
            "token_type": a.token_type, "orphan": a.orphan, "num_uses": a.num_uses,
        })
    });
    let warnings = if logical.warnings.is_empty() { Value::Null } else { json!(logical.warnings) };
    let head = json!({
        "lease_id": logical.lease_id, "lease_duration": logical.lease_duration.as_seconds(), "renewable": logical.renewable,
    });
    let data = logical.data.as_deref().map_or(&b"null"[..], Vec::as_slice);
    let mut text = Zeroizing::new(Vec::with_capacity(data.len() + 4096));
    text.extend_from_slice(head.to_string().trim_end_matches('}').as_bytes());
    text.extend_from_slice(b",\"data\":");
    text.extend_from_slice(data);
    text.extend_from_slice(format!(",\"warnings\":{warnings},\"auth\":{auth}}}").as_bytes());
    text
}
