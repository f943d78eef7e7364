//! `edgekeep kv`: secrets by their name, whichever version the mount has.
//!
//! Version 1 keeps a secret at the path itself. Version 2 has `data/` and `metadata/` between mount and name, and wraps
//! the values. Which it is, and where the mount ends, the store tells (`sys/internal/ui/mounts/PATH`).

use std::io::Read;

use api::{Body, Operation};
use clap::{Args, Subcommand};
use client::Vault;
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::session::Session;
use super::{list, pairs};
use crate::failure::{Code, Failure};

/// Example: edgekeep --as sensor kv put secret/edgex/sensor/camera user=admin password=- < password.txt
#[derive(Args)]
pub(crate) struct Kv {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Read a secret.
    Get {
        /// mount/name
        path: String,
    },
    /// Write a secret, all of it: keys that are not given are gone.
    Put {
        /// mount/name
        path: String,
        /// key=value, key=@file, key=- (standard input); or @file or - for a whole JSON object.
        #[arg(value_name = "KEY=VALUE", required = true)]
        data: Vec<String>,
    },
    /// List the names of a folder.
    List {
        /// mount/folder
        path: String,
    },
    /// Delete a secret.
    Delete {
        /// mount/name
        path: String,
    },
}

pub(super) async fn run<V: Vault>(kv: &Kv, session: &Session<V>, stdin: &mut dyn Read) -> Result<Answer, Failure> {
    match &kv.action {
        Action::Get { path } => {
            let place = Place::find(path, session).await?;
            let reply = session.call(Operation::Read, &place.at("data"), None).await?;
            let inner = if place.versioned { reply.data_text().and_then(inner_data) } else { None };
            let answer = Answer::reply(reply, || format!("Nothing to show at: {path}"));
            Ok(match inner {
                Some(rows) => answer.with_rows(rows),
                None => answer,
            })
        }
        Action::Put { path, data } => {
            // Read before anything is asked of the store: a slip in the arguments costs nothing.
            let body = pairs::body(data, stdin)?;
            let place = Place::find(path, session).await?;
            let reply = session.call(Operation::Write, &place.at("data"), Some(place.wrap(body))).await?;
            Ok(Answer::reply(reply, || format!("Success! Data written to: {path}")))
        }
        Action::List { path } => {
            let place = Place::find(path, session).await?;
            list::names(&session.call(Operation::List, &place.at("metadata"), None).await?)
        }
        Action::Delete { path } => {
            let place = Place::find(path, session).await?;
            let reply = session.call(Operation::Delete, &place.at("data"), None).await?;
            Ok(Answer::reply(reply, || format!("Success! Data deleted (if it existed) at: {path}")))
        }
    }
}

/// Where a secret lies.
struct Place {
    /// With its slash.
    mount: String,
    name: String,
    versioned: bool,
}

#[derive(Deserialize)]
struct Mount {
    path: String,
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    version: Option<String>,
}

impl Place {
    async fn find<V: Vault>(path: &str, session: &Session<V>) -> Result<Self, Failure> {
        let path = path.trim_start_matches('/');
        let asked = format!("sys/internal/ui/mounts/{path}");
        let reply = session.ask(Operation::Read, &asked, None).await?;
        let mount = reply.data_text().and_then(|data| serde_json::from_slice::<Mount>(data).ok());
        match (reply.status.0, mount) {
            (200, Some(mount)) => Self::in_mount(path, &mount),
            // A store that does not tell: version 1 has the path of the secret for its path.
            (404, _) => Ok(Self { mount: String::new(), name: path.to_owned(), versioned: false }),
            (200, None) => Err(Failure::fault("the store does not tell the mount of the path")),
            _ => Err(session.refusal(Operation::Read, path, &reply)),
        }
    }

    fn in_mount(path: &str, mount: &Mount) -> Result<Self, Failure> {
        let bare = mount.path.trim_end_matches('/');
        let name = path.strip_prefix(bare).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let name = name.ok_or_else(|| Failure::fault(format!("the store says that {path} is in {}", mount.path)))?;
        let version = mount.options.as_ref().and_then(|o| o.version.as_deref()).unwrap_or("1");
        let versioned = match version {
            "1" => false,
            "2" => true,
            other => {
                let fact = format!("{} is a key-value mount of version {other}", mount.path);
                return Err(Failure::new(Code::Refused, fact).hint("this client knows versions 1 and 2"));
            }
        };
        Ok(Self { mount: format!("{bare}/"), name: name.trim_start_matches('/').to_owned(), versioned })
    }

    /// The path of the call.
    fn at(&self, section: &str) -> String {
        if self.versioned {
            format!("{}{section}/{}", self.mount, self.name)
        } else {
            format!("{}{}", self.mount, self.name)
        }
    }

    fn wrap(&self, body: Body) -> Body {
        if !self.versioned {
            return body;
        }
        let inner = body.expose();
        let mut wrapped = Zeroizing::new(Vec::with_capacity(inner.len() + 16));
        wrapped.extend_from_slice(b"{\"data\":");
        wrapped.extend_from_slice(if body.is_empty() { b"{}" } else { inner });
        wrapped.push(b'}');
        Body::new(wrapped)
    }
}

/// The values of a versioned secret.
fn inner_data(data: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    #[derive(Deserialize)]
    struct Versioned<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let versioned: Versioned<'_> = serde_json::from_slice(data).ok()?;
    Some(Zeroizing::new(versioned.data.get().as_bytes().to_vec()))
}
