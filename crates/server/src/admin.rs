//! The admin socket's own routes, below `/admin/`: the same on a sealed store and on an open one.

use std::pin::Pin;

use api::Status;
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Body;
use secret::SecretBytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::body::{self, BodyBudget};
use crate::reply::{self, ReplyBody};
use crate::sockets::AdminPeer;

/// A future of an object-safe `async fn`.
pub type AdminFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What stands behind the admin socket. Every call names the peer that the kernel vouched for, for the audit.
pub trait AdminPort: Send + Sync + 'static {
    /// How things stand.
    fn status<'a>(&'a self, by: &'a AdminPeer) -> AdminFuture<'a, AdminStatus>;

    /// Drops the keys; durable nowhere, for the next start unseals again.
    ///
    /// # Errors
    /// [`AdminRefusal`].
    fn seal<'a>(&'a self, by: &'a AdminPeer) -> AdminFuture<'a, Result<(), AdminRefusal>>;

    /// Unseals by the recovery key, in the text form that was given out, and says what became of that key.
    ///
    /// # Errors
    /// [`AdminRefusal`].
    fn recover<'a>(&'a self, key: SecretBytes, by: &'a AdminPeer) -> AdminFuture<'a, Result<Recovered, AdminRefusal>>;

    /// Puts the key into force that [`Recovered::Offered`] held, now that it was shown; `key` is the used one, once more.
    ///
    /// # Errors
    /// [`AdminRefusal`]: the used key stays valid.
    fn confirm_recovery<'a>(&'a self, key: SecretBytes, by: &'a AdminPeer)
    -> AdminFuture<'a, Result<(), AdminRefusal>>;
}

/// The store is open; what became of the recovery key that opened it.
#[derive(Debug)]
pub enum Recovered {
    /// It opens nothing any more, and the new one is here.
    Replaced {
        /// A file.
        place: String,
    },
    /// It stays valid until this new one was shown to a person, and that was confirmed.
    Offered {
        /// Its text.
        key: SecretBytes,
    },
    /// It stays valid.
    Kept {
        /// Why, and what to do.
        why: String,
    },
}

impl Serialize for Recovered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Replaced { place } => map.serialize_entry("replaced", place)?,
            // At 16 + 74 bytes the reply fits the first allocation of its text, so that growth leaves no copy behind.
            Self::Offered { key } => {
                let text = std::str::from_utf8(key.expose()).map_err(|_| serde::ser::Error::custom("a key is text"))?;
                map.serialize_entry("offered", text)?;
            }
            Self::Kept { why } => map.serialize_entry("kept", why)?,
        }
        map.end()
    }
}

/// How things stand, for the operator at the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdminStatus {
    /// `sealed`, `unsealed` or `starting`.
    pub state: &'static str,
    /// Why it is not unsealed, and what to do.
    pub reason: Option<String>,
    /// `production` or `demo`.
    pub profile: Option<&'static str>,
    /// The gates by name.
    pub gates: Vec<GateStatus>,
    /// How its memory keeps keys.
    pub memory: Option<String>,
    /// The protections that this device lacks, a sentence each.
    pub lacking: Vec<String>,
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GateStatus {
    /// Its name.
    pub name: String,
    /// Whether it is open.
    pub open: bool,
    /// What it waits for.
    pub waits_for: Option<String>,
}

/// A refusal on the admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminRefusal {
    /// The status.
    pub status: Status,
    /// The text; the peer is root or ourselves, and may know.
    pub told: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recover {
    key: RecoveryText,
}

/// Wiped when the request is done.
#[derive(Deserialize)]
#[serde(transparent)]
struct RecoveryText(String);

impl Drop for RecoveryText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

pub(crate) async fn answer<B: Body + Unpin>(
    port: &dyn AdminPort,
    by: &AdminPeer,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: B,
    budget: &BodyBudget,
) -> Response<ReplyBody> {
    match (path, method) {
        ("/admin/status", &Method::GET) => reply::json(StatusCode::OK, &port.status(by).await, false),
        ("/admin/seal", &Method::POST) => done(port.seal(by).await),
        ("/admin/recover" | "/admin/recover/confirm", &Method::POST) => {
            let key = match body::read(headers, body, budget).await {
                Ok((text, _room)) => recovery_key(&text),
                Err(fault) => return reply::malformed(fault, false),
            };
            let Some(key) = key else {
                return refuse(StatusCode::BAD_REQUEST, "expected {\"key\": \"...\"}");
            };
            if path.ends_with("/confirm") {
                return done(port.confirm_recovery(key, by).await);
            }
            match port.recover(key, by).await {
                Ok(recovered) => reply::json(StatusCode::OK, &recovered, false),
                Err(refusal) => done(Err(refusal)),
            }
        }
        ("/admin/status" | "/admin/seal" | "/admin/recover" | "/admin/recover/confirm", _) => {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "unsupported method")
        }
        _ => refuse(StatusCode::NOT_FOUND, "no such admin route"),
    }
}

fn recovery_key(body: &Zeroizing<Vec<u8>>) -> Option<SecretBytes> {
    let mut parsed: Recover = serde_json::from_slice(body).ok()?;
    Some(SecretBytes::new(std::mem::take(&mut parsed.key.0).into_bytes()))
}

fn done(result: Result<(), AdminRefusal>) -> Response<ReplyBody> {
    match result {
        Ok(()) => reply::empty(StatusCode::NO_CONTENT),
        Err(AdminRefusal { status, told }) => {
            refuse(StatusCode::from_u16(status.0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &told)
        }
    }
}

fn refuse(status: StatusCode, told: &str) -> Response<ReplyBody> {
    reply::errors(status, &[told.to_owned()], false)
}
