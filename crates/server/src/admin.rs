//! The admin socket's own routes, below `/admin/`: the same on a sealed store and on an open one.

use std::pin::Pin;

use api::{Auth, Status, Ttl};
use http::{HeaderMap, Method, Response, StatusCode};
use hyper::body::Body;
use secret::SecretBytes;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use crate::body::{self, Terms};
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

    /// Unseals by the recovery key, in the text form that was given out, and says what became of that key. With
    /// `reseal` the sources get new slots where theirs do not open any more; what came of that is told as JSON.
    ///
    /// # Errors
    /// [`AdminRefusal`].
    fn recover<'a>(
        &'a self,
        key: SecretBytes,
        reseal: bool,
        by: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Recovered, Option<Value>), AdminRefusal>>;

    /// Does what is wanted with the key slots of an open store, and tells it as JSON.
    ///
    /// # Errors
    /// [`AdminRefusal`].
    fn slots<'a>(&'a self, wish: SlotWish, by: &'a AdminPeer) -> AdminFuture<'a, Result<Value, AdminRefusal>>;

    /// Makes a root token that lives so long, for whoever has the recovery key, and says what became of that key.
    ///
    /// # Errors
    /// [`AdminRefusal`].
    fn generate_root<'a>(
        &'a self,
        key: SecretBytes,
        ttl: Ttl,
        by: &'a AdminPeer,
    ) -> AdminFuture<'a, Result<(Auth, Recovered), AdminRefusal>>;

    /// Replaces the recovery key of an open store.
    ///
    /// # Errors
    /// [`AdminRefusal`].
    fn rekey<'a>(&'a self, key: SecretBytes, by: &'a AdminPeer) -> AdminFuture<'a, Result<Recovered, AdminRefusal>>;

    /// Puts the key into force that [`Recovered::Offered`] held, now that it was shown; `key` is the used one, once
    /// more.
    ///
    /// # Errors
    /// [`AdminRefusal`]: the used key stays valid.
    fn confirm_recovery<'a>(&'a self, key: SecretBytes, by: &'a AdminPeer)
    -> AdminFuture<'a, Result<(), AdminRefusal>>;
}

/// What is wanted of the key slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotWish {
    /// Look at them.
    List,
    /// A slot for a source of the configuration, by its number or kind; for each that has none.
    Add(Option<String>),
    /// One goes.
    Remove(u16),
    /// One is tried, or all.
    Test(Option<u16>),
    /// One is made anew, or all.
    Reseal(Option<u16>),
    /// One for the image that is booted next, beside the present one: its registers, in the text form of a file of
    /// register values.
    Predict(String),
    /// Those for images before the one that runs go.
    Commit,
    /// All of them go, and the store with them, for good.
    Erase,
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

impl Recovered {
    /// Its one entry of a reply. With what else stands there it fits the first allocation of the text, so that growth
    /// leaves no copy of a key behind.
    fn entry<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        match self {
            Self::Replaced { place } => map.serialize_entry("replaced", place),
            Self::Offered { key } => {
                let text = std::str::from_utf8(key.expose()).map_err(|_| serde::ser::Error::custom("a key is text"))?;
                map.serialize_entry("offered", text)
            }
            Self::Kept { why } => map.serialize_entry("kept", why),
        }
    }
}

/// The reply to a recovery: one entry for the key, and one for the slots where those were wanted.
struct RecoveryReply(Recovered, Option<Value>);

impl Serialize for RecoveryReply {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + usize::from(self.1.is_some())))?;
        self.0.entry(&mut map)?;
        if let Some(resealed) = &self.1 {
            map.serialize_entry("resealed", resealed)?;
        }
        map.end()
    }
}

/// The reply to a wish for a root token: the token, and what became of the key that it was made for.
struct RootReply(Auth, Recovered);

impl Serialize for RootReply {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("token", self.0.client_token.expose())?;
        map.serialize_entry("accessor", self.0.accessor.as_str())?;
        map.serialize_entry("ttl", &self.0.lease_duration.as_seconds())?;
        self.1.entry(&mut map)?;
        map.end()
    }
}

/// How things stand, for the operator at the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AdminStatus {
    /// `sealed`, `unsealed` or `starting`; `shut` where the gates are, and the store is another's.
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
    #[serde(default)]
    reseal: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByOwner {
    key: RecoveryText,
    /// Of a root token, in seconds.
    ttl: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Erase {
    destroys_all_secrets: bool,
}

/// What a wish about slots may say.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slots {
    slot: Option<u16>,
    source: Option<String>,
    pcrs: Option<String>,
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
    terms: &Terms,
) -> Response<ReplyBody> {
    match (path, method) {
        ("/admin/status", &Method::GET) => reply::json(StatusCode::OK, &port.status(by).await, false),
        ("/admin/seal", &Method::POST) => done(port.seal(by).await),
        ("/admin/recover" | "/admin/recover/confirm", &Method::POST) => {
            let wish = match body::read(headers, body, terms).await {
                Ok((text, _room)) => recovery(&text),
                Err(fault) => return reply::malformed(fault, false),
            };
            match (wish, path.ends_with("/confirm")) {
                (Some((key, false)), true) => done(port.confirm_recovery(key, by).await),
                (Some((key, reseal)), false) => match port.recover(key, reseal, by).await {
                    Ok((recovered, slots)) => reply::json(StatusCode::OK, &RecoveryReply(recovered, slots), false),
                    Err(refusal) => done(Err(refusal)),
                },
                _ => refuse(StatusCode::BAD_REQUEST, "expected {\"key\": \"...\"}"),
            }
        }
        ("/admin/generate-root" | "/admin/rekey", &Method::POST) => {
            let wish = match body::read(headers, body, terms).await {
                Ok((text, _room)) => by_owner(&text),
                Err(fault) => return reply::malformed(fault, false),
            };
            match (wish, path) {
                (Some((key, None)), "/admin/rekey") => match port.rekey(key, by).await {
                    Ok(recovered) => reply::json(StatusCode::OK, &RecoveryReply(recovered, None), false),
                    Err(refusal) => done(Err(refusal)),
                },
                (Some((key, Some(ttl))), "/admin/generate-root") => match port.generate_root(key, ttl, by).await {
                    Ok((auth, recovered)) => reply::json(StatusCode::OK, &RootReply(auth, recovered), false),
                    Err(refusal) => done(Err(refusal)),
                },
                _ => refuse(
                    StatusCode::BAD_REQUEST,
                    "expected {\"key\": \"...\"}, for generate-root {\"ttl\": 3600} too, at most a day",
                ),
            }
        }
        ("/admin/slots", &Method::GET) => told(port.slots(SlotWish::List, by).await),
        (_, &Method::POST) if path.strip_prefix(SLOTS).is_some_and(|verb| SLOT_VERBS.contains(&verb)) => {
            let wish = match body::read(headers, body, terms).await {
                Ok((text, _room)) => slot_wish(path, &text),
                Err(fault) => return reply::malformed(fault, false),
            };
            match wish {
                Some(wish) => told(port.slots(wish, by).await),
                None => refuse(
                    StatusCode::BAD_REQUEST,
                    "expected {\"slot\": 1}, for add {\"source\": \"...\"}, for predict {\"pcrs\": \"...\"}",
                ),
            }
        }
        ("/admin/erase", &Method::POST) => match body::read(headers, body, terms).await {
            // Said in words, so that no slip of a route is the end of a device.
            Ok((text, _room)) if serde_json::from_slice::<Erase>(&text).is_ok_and(|said| said.destroys_all_secrets) => {
                told(port.slots(SlotWish::Erase, by).await)
            }
            Ok(_) => refuse(StatusCode::BAD_REQUEST, "expected {\"destroys_all_secrets\": true}"),
            Err(fault) => reply::malformed(fault, false),
        },
        ("/admin/slots" | "/admin/erase", _) => refuse(StatusCode::METHOD_NOT_ALLOWED, "unsupported method"),
        _ if path.strip_prefix(SLOTS).is_some_and(|verb| SLOT_VERBS.contains(&verb)) => {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "unsupported method")
        }
        (
            "/admin/status"
            | "/admin/seal"
            | "/admin/recover"
            | "/admin/recover/confirm"
            | "/admin/generate-root"
            | "/admin/rekey",
            _,
        ) => refuse(StatusCode::METHOD_NOT_ALLOWED, "unsupported method"),
        _ => refuse(StatusCode::NOT_FOUND, "no such admin route"),
    }
}

fn recovery(body: &Zeroizing<Vec<u8>>) -> Option<(SecretBytes, bool)> {
    let mut parsed: Recover = serde_json::from_slice(body).ok()?;
    Some((SecretBytes::new(std::mem::take(&mut parsed.key.0).into_bytes()), parsed.reseal))
}

/// A root token without an end is not to be had: its life is 1 s to 24 h.
fn by_owner(body: &Zeroizing<Vec<u8>>) -> Option<(SecretBytes, Option<Ttl>)> {
    let mut parsed: ByOwner = serde_json::from_slice(body).ok()?;
    let ttl = match parsed.ttl {
        Some(seconds) if (1..=MAX_ROOT_SECONDS).contains(&seconds) => Some(Ttl::seconds(seconds)),
        Some(_) => return None,
        None => None,
    };
    Some((SecretBytes::new(std::mem::take(&mut parsed.key.0).into_bytes()), ttl))
}

/// What a body says to one of [`SLOT_VERBS`]; a word that its verb does not take is refused, and so is a name that is
/// no name.
fn slot_wish(path: &str, body: &[u8]) -> Option<SlotWish> {
    let said: Slots = if body.is_empty() { Slots::default() } else { serde_json::from_slice(body).ok()? };
    match (path.strip_prefix(SLOTS)?, said.slot, said.source, said.pcrs) {
        ("add", None, source, None) if source.as_ref().is_none_or(|s| s.len() <= MAX_SOURCE_BYTES) => {
            Some(SlotWish::Add(source))
        }
        ("remove", Some(slot), None, None) => Some(SlotWish::Remove(slot)),
        ("test", slot, None, None) => Some(SlotWish::Test(slot)),
        ("reseal", slot, None, None) => Some(SlotWish::Reseal(slot)),
        ("predict", None, None, Some(pcrs)) if pcrs.len() <= MAX_PCRS_BYTES => Some(SlotWish::Predict(pcrs)),
        ("commit", None, None, None) => Some(SlotWish::Commit),
        _ => None,
    }
}

fn told(result: Result<Value, AdminRefusal>) -> Response<ReplyBody> {
    match result {
        Ok(value) => reply::json(StatusCode::OK, &value, false),
        Err(refusal) => done(Err(refusal)),
    }
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

const SLOTS: &str = "/admin/slots/";
const SLOT_VERBS: [&str; 6] = ["add", "remove", "test", "reseal", "predict", "commit"];
const MAX_SOURCE_BYTES: usize = 64;
/// A day.
const MAX_ROOT_SECONDS: u64 = 86_400;
/// 24 registers, a line each.
const MAX_PCRS_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_about_slots_says_what_its_verb_takes_and_nothing_else() {
        let wish = |verb: &str, body: &str| slot_wish(&format!("{SLOTS}{verb}"), body.as_bytes());
        assert_eq!(wish("add", ""), Some(SlotWish::Add(None)));
        assert_eq!(wish("add", r#"{"source":"tpm"}"#), Some(SlotWish::Add(Some("tpm".into()))));
        assert_eq!(wish("remove", r#"{"slot":3}"#), Some(SlotWish::Remove(3)));
        assert_eq!(wish("test", "{}"), Some(SlotWish::Test(None)));
        assert_eq!(wish("reseal", r#"{"slot":1}"#), Some(SlotWish::Reseal(Some(1))));
        assert_eq!(wish("predict", r#"{"pcrs":"sha256:7=ab"}"#), Some(SlotWish::Predict("sha256:7=ab".into())));
        assert_eq!(wish("commit", "{}"), Some(SlotWish::Commit));
        for (verb, body) in [
            ("predict", "{}"),
            ("predict", r#"{"pcrs":"x","slot":1}"#),
            ("commit", r#"{"slot":1}"#),
            ("add", r#"{"pcrs":"x"}"#),
            ("add", r#"{"slot":3}"#),
            ("remove", "{}"),
            ("remove", r#"{"slot":65536}"#),
            ("remove", r#"{"slot":1,"source":"x"}"#),
            ("remove", r#"{"slot":1,"force":true}"#),
            ("test", r#"{"source":"x"}"#),
            ("test", "[]"),
            ("forget", "{}"),
        ] {
            assert_eq!(wish(verb, body), None, "{verb} {body}");
        }
        assert_eq!(wish("add", &format!("{{\"source\":\"{}\"}}", "x".repeat(65))), None);
        assert_eq!(wish("predict", &format!("{{\"pcrs\":\"{}\"}}", "x".repeat(MAX_PCRS_BYTES + 1))), None);
    }
}
