//! One store, one token, and what its refusals mean to a person.

use std::path::PathBuf;

use api::{ApiPath, Body, Operation, Payload, Reply, Request, Status};
use client::{CallError, Vault};
use secret::Token;

use crate::failure::{Code, Failure};

pub(super) struct Session<V> {
    pub(super) vault: V,
    pub(super) token: Option<Token>,
    /// Where `login` keeps the token; `None` where the token belongs to a service, or there is no home.
    pub(super) token_file: Option<PathBuf>,
}

impl<V: Vault> Session<V> {
    /// Makes a call. What is not a success is a failure, in the words of the store.
    pub(super) async fn call(&self, operation: Operation, path: &str, body: Option<Body>) -> Result<Reply, Failure> {
        let reply = self.ask(operation, path, body).await?;
        if reply.status.is_success() { Ok(reply) } else { Err(self.refusal(operation, path, &reply)) }
    }

    /// Makes a call, and leaves it to the caller what its status means.
    pub(super) async fn ask(&self, operation: Operation, path: &str, body: Option<Body>) -> Result<Reply, Failure> {
        let path = ApiPath::parse(path).map_err(|e| {
            Failure::usage(format!("{path:?} is no path: {e}"))
                .hint("write it from the mount on: secret/edgex/core-data/db")
        })?;
        let mut request = Request::new(operation, path);
        request.token = self.token.as_ref().and_then(|t| Token::parse(t.expose()).ok());
        if let Some(body) = body {
            request.body = body;
        }
        self.vault.call(request).await.map_err(|e| unanswered(&e))
    }

    /// What a reply that is no success means.
    pub(super) fn refusal(&self, operation: Operation, path: &str, reply: &Reply) -> Failure {
        let told = match &reply.payload {
            Payload::Errors(errors) if !errors.is_empty() => errors.join("; ").replace(['\n', '\t'], " "),
            _ => String::new(),
        };
        let or = |otherwise: String| if told.is_empty() { otherwise } else { format!("{otherwise}: {told}") };
        let verb = match operation {
            Operation::Read => "read",
            Operation::List => "list",
            Operation::Write => "write to",
            Operation::Delete => "delete",
            Operation::Patch => "patch",
        };
        match reply.status {
            Status::FORBIDDEN if self.token.is_none() => {
                Failure::new(Code::Refused, format!("may not {verb} {path}: no token was presented"))
                    .hint("log in (`edgekeep login`), set VAULT_TOKEN, or act as a service with --as")
            }
            Status::FORBIDDEN => Failure::new(Code::Refused, format!("may not {verb} {path}: permission denied"))
                .hint("no policy of this token grants it, or the token has expired: `edgekeep token lookup` tells"),
            Status::NOT_FOUND if told.is_empty() => Failure::new(Code::Refused, format!("nothing is at {path}"))
                .hint("`edgekeep list` shows the names of a folder"),
            Status::NOT_FOUND => Failure::new(Code::Refused, told).hint("`edgekeep read sys/mounts` shows the mounts"),
            Status::UNAVAILABLE | Status::NOT_INITIALIZED => {
                Failure::new(Code::NotReady, or("the store is not ready".into()))
                    .hint("`edgekeep status` tells its state; edgekeep's log tells the reason")
            }
            Status(500..) => Failure::fault(or(format!("the store answers {}", reply.status.0)))
                .hint("the log of the store tells the reason"),
            Status(code) => Failure::new(Code::Refused, or(format!("cannot {verb} {path} (status {code})")))
                .hint("correct what the store names, and try again"),
        }
    }
}

fn unanswered(error: &CallError) -> Failure {
    let (code, hint) = match error {
        CallError::Unreachable { .. } => (
            Code::NotReady,
            "start the store, or name another with --address; `edgekeep status` tells whether ours is sealed",
        ),
        CallError::Untrusted { .. } => {
            (Code::Refused, "nothing was sent; compare the CA file and the server name with those of the store")
        }
        CallError::TimedOut { .. } => (Code::NotReady, "look whether the call has taken effect before repeating it"),
        CallError::Malformed { .. } => (Code::Fault, "look which program answers at this address"),
    };
    Failure::of(code, error).hint(hint)
}
