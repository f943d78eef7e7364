//! `edgekeep token`.

use std::io::Read;

use api::{Body, Operation};
use clap::{Args, Subcommand};
use client::Vault;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::answer::Answer;
use super::pairs;
use super::session::Session;
use crate::failure::Failure;

/// Example: edgekeep --as sensor token lookup
#[derive(Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Tell what a token is; by default the one that is used.
    Lookup(Which),
    /// Prolong the life of a token; by default of the one that is used.
    Renew {
        #[command(flatten)]
        which: Which,
        /// The time that is asked for, such as 1h.
        #[arg(long, value_name = "DURATION")]
        increment: Option<String>,
    },
    /// Revoke a token and all that came from it.
    Revoke {
        #[command(flatten)]
        which: Which,
        /// The token that is used.
        #[arg(long = "self", conflicts_with_all = ["accessor", "token"])]
        own: bool,
    },
    /// Make a token.
    Create(Create),
}

#[derive(Args)]
struct Which {
    /// The token with this accessor.
    #[arg(long, value_name = "ACCESSOR", conflicts_with = "token")]
    accessor: Option<String>,
    /// - reads a token from standard input.
    #[arg(value_name = "-")]
    token: Option<String>,
}

#[derive(Args)]
struct Create {
    /// A policy of the new token; may be given several times.
    #[arg(long, value_name = "NAME")]
    policy: Vec<String>,
    /// Its time to live.
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Makes it periodic: each renewal gives it this time again.
    #[arg(long, value_name = "DURATION")]
    period: Option<String>,
    /// The longest life that renewals can give it.
    #[arg(long, value_name = "DURATION")]
    explicit_max_ttl: Option<String>,
    /// Its name in logs.
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// Makes it independent of the token that makes it.
    #[arg(long)]
    orphan: bool,
    /// Leaves the policy `default` out.
    #[arg(long)]
    no_default_policy: bool,
    /// How often it can be used.
    #[arg(long, value_name = "NUMBER")]
    use_limit: Option<u64>,
    /// key=value of its metadata; may be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// The role that it is made by.
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
}

/// Which token a call is about.
enum Subject {
    Own,
    Accessor(String),
    Other(Zeroizing<String>),
}

pub(super) async fn run<V: Vault>(
    token: &Token,
    session: &Session<V>,
    stdin: &mut dyn Read,
) -> Result<Answer, Failure> {
    match &token.action {
        Action::Lookup(which) => match which.subject(stdin)? {
            Subject::Own => show(session, Operation::Read, "lookup-self", None).await,
            other => show(session, Operation::Write, other.path("lookup"), Some(other.body(None)?)).await,
        },
        Action::Renew { which, increment } => {
            let subject = which.subject(stdin)?;
            let body = subject.body(increment.as_deref())?;
            show(session, Operation::Write, subject.path("renew"), Some(body)).await
        }
        Action::Revoke { which, own } => {
            let subject = which.subject(stdin)?;
            if matches!(subject, Subject::Own) && !own {
                return Err(Failure::usage("no token to revoke is named")
                    .hint("give --accessor, or - and the token on standard input, or --self"));
            }
            let path = format!("auth/token/{}", subject.path("revoke"));
            session.call(Operation::Write, &path, Some(subject.body(None)?)).await?;
            Ok(Answer::done("Success! Revoked token (if it existed)"))
        }
        Action::Create(create) => {
            let path = create.role.as_ref().map_or_else(|| "create".to_owned(), |role| format!("create/{role}"));
            show(session, Operation::Write, &path, Some(create.body()?)).await
        }
    }
}

async fn show<V: Vault>(
    session: &Session<V>,
    operation: Operation,
    path: &str,
    body: Option<Body>,
) -> Result<Answer, Failure> {
    let reply = session.call(operation, &format!("auth/token/{path}"), body).await?;
    Ok(Answer::reply(reply, || "Success!".to_owned()))
}

impl Which {
    fn subject(&self, stdin: &mut dyn Read) -> Result<Subject, Failure> {
        match (&self.accessor, self.token.as_deref()) {
            (Some(accessor), _) => Ok(Subject::Accessor(accessor.clone())),
            (None, None) => Ok(Subject::Own),
            (None, Some("-")) => read_token(stdin).map(Subject::Other),
            (None, Some(_)) => Err(Failure::usage("a token is among the arguments, where every user can read it")
                .hint("write - and give the token on standard input")),
        }
    }
}

/// A token from standard input, without the white space around it.
pub(super) fn read_token(stdin: &mut dyn Read) -> Result<Zeroizing<String>, Failure> {
    let bytes = pairs::read_all(stdin, "standard input")?;
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    secret::Token::parse(text)
        .map(|t| Zeroizing::new(t.expose().to_owned()))
        .map_err(|e| Failure::usage(format!("what is on standard input is {e}")))
}

impl Subject {
    fn path(&self, verb: &'static str) -> &'static str {
        match (verb, self) {
            ("renew", Self::Own) => "renew-self",
            ("renew", Self::Accessor(_)) => "renew-accessor",
            ("renew", Self::Other(_)) => "renew",
            ("revoke", Self::Own) => "revoke-self",
            ("revoke", Self::Accessor(_)) => "revoke-accessor",
            ("revoke", Self::Other(_)) => "revoke",
            (_, Self::Accessor(_)) => "lookup-accessor",
            (_, _) => "lookup",
        }
    }

    fn body(&self, increment: Option<&str>) -> Result<Body, Failure> {
        let named = match self {
            Self::Own => Vec::new(),
            Self::Accessor(accessor) => vec![format!("accessor={}", literal(accessor))],
            Self::Other(token) => vec![format!("token={}", literal(token))],
        };
        let increment = increment.map(|i| format!("increment={}", literal(i)));
        let pairs = Zeroizing::new(named.into_iter().chain(increment).collect::<Vec<_>>());
        pairs::body(&pairs, &mut std::io::empty())
    }
}

/// A value that [`pairs`] takes as it is.
fn literal(value: &str) -> String {
    if value.starts_with('@') { format!("\\{value}") } else { value.to_owned() }
}

impl Create {
    fn body(&self) -> Result<Body, Failure> {
        let mut fields = Map::new();
        let texts = [
            ("ttl", &self.ttl),
            ("period", &self.period),
            ("explicit_max_ttl", &self.explicit_max_ttl),
            ("display_name", &self.display_name),
        ];
        for (key, value) in texts {
            if let Some(value) = value {
                fields.insert(key.to_owned(), json!(value));
            }
        }
        if !self.policy.is_empty() {
            fields.insert("policies".into(), json!(self.policy));
        }
        if let Some(limit) = self.use_limit {
            fields.insert("num_uses".into(), json!(limit));
        }
        for (key, set) in [("no_parent", self.orphan), ("no_default_policy", self.no_default_policy)] {
            if set {
                fields.insert(key.to_owned(), json!(true));
            }
        }
        let mut metadata = Map::new();
        for pair in &self.metadata {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                Failure::usage(format!("the metadata {pair:?} is no key=value")).hint("write --metadata key=value")
            })?;
            metadata.insert(key.to_owned(), json!(value));
        }
        if !metadata.is_empty() {
            fields.insert("meta".into(), Value::Object(metadata));
        }
        Ok(Body::new(Zeroizing::new(Value::Object(fields).to_string().into_bytes())))
    }
}
