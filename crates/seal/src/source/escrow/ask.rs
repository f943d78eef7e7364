//! The few calls to a holder. Nothing of an answer is printed but its refusals, cut short.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::time::Duration;

use api::{ApiPath, Body, Operation, Payload, Reply, Request, Status};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use client::{CallError, HttpsVault, Vault};
use secret::Token;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::setup::{EscrowName, Login};
use super::slot::is_plain;
use crate::source::SourceError;

/// Why the holder gave nothing. All of it may be other the next time.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it did not finish within {0:?}")]
    TooSlow(Duration),
    #[error("it is not well: {what} ended with status {status}{told}")]
    NotWell { what: &'static str, status: u16, told: String },
    #[error("{what} is refused with status {status}{told}")]
    Refused { what: &'static str, status: u16, told: String },
    #[error("the key is not there")]
    Gone,
    #[error("it gives another key than the slot was made with")]
    OtherKey,
    #[error("its answer to {what} cannot be understood")]
    Answer { what: &'static str },
}

impl Fault {
    /// With its causes, in one line.
    pub(super) fn told(&self) -> String {
        host::with_causes(self)
    }

    pub(super) fn into_error(self, what: String) -> SourceError {
        let defect = self.told();
        match self {
            Self::Refused { .. } | Self::Gone | Self::OtherKey => SourceError::Withheld { what, defect },
            Self::Call(_) | Self::TooSlow(_) | Self::NotWell { .. } | Self::Answer { .. } => {
                SourceError::Unreachable { what, defect }
            }
        }
    }
}

/// What a login shows besides a certificate.
pub(super) enum Proof {
    Certificate,
    Secret(Zeroizing<String>),
}

/// A holder that has let us in.
pub(super) struct Asking<'a> {
    holder: &'a HttpsVault,
    token: Token,
}

impl<'a> Asking<'a> {
    pub(super) async fn log_in(holder: &'a HttpsVault, login: &Login, proof: Proof) -> Result<Self, Fault> {
        const WHAT: &str = "the login";
        let (path, body) = match (login, proof) {
            (Login::Certificate { mount, role }, _) => {
                let body = role.as_ref().map_or_else(|| "{}".to_owned(), |role| format!(r#"{{"name":"{role}"}}"#));
                (format!("auth/{mount}/login"), Zeroizing::new(body))
            }
            (Login::AppRole { mount, role_id, .. }, Proof::Secret(secret)) => {
                let secret = quoted(&secret);
                let body = format!(r#"{{"role_id":"{role_id}","secret_id":{}}}"#, *secret);
                (format!("auth/{mount}/login"), Zeroizing::new(body))
            }
            (Login::Userpass { mount, user, .. }, Proof::Secret(secret)) => {
                let secret = quoted(&secret);
                (format!("auth/{mount}/login/{user}"), Zeroizing::new(format!(r#"{{"password":{}}}"#, *secret)))
            }
            // The proof is made for the login; where it were not, nothing is sent.
            (Login::AppRole { .. } | Login::Userpass { .. }, Proof::Certificate) => {
                return Err(Fault::Answer { what: WHAT });
            }
        };
        let reply = granted(WHAT, call(holder, None, Operation::Write, &path, body).await?)?;
        let Payload::Logical(logical) = reply.payload else { return Err(Fault::Answer { what: WHAT }) };
        let token = logical.auth.ok_or(Fault::Answer { what: WHAT })?.client_token;
        Ok(Self { holder, token })
    }

    /// The token would live on for nobody. Whether it is taken back is the holder's business: the key is here.
    pub(super) async fn log_out(self) {
        let out = self.ask(Operation::Write, "auth/token/revoke-self", Zeroizing::new("{}".to_owned()));
        if let Err(e) =
            tokio::time::timeout(LOGOUT_LIMIT, out).await.map_err(|_| Fault::TooSlow(LOGOUT_LIMIT)).flatten()
        {
            tracing::debug!(reason = %e.told(), "the holder of the key was not logged out of");
        }
    }

    pub(super) async fn encrypt(&self, mount: &EscrowName, key: &EscrowName, octets: &[u8]) -> Result<String, Fault> {
        const WHAT: &str = "encryption";
        let text = Zeroizing::new(BASE64.encode(octets));
        let body = Zeroizing::new(format!(r#"{{"plaintext":"{}"}}"#, *text));
        let reply = granted(WHAT, self.ask(Operation::Write, &format!("{mount}/encrypt/{key}"), body).await?)?;
        parse::ciphertext(reply.data_text().unwrap_or_default()).ok_or(Fault::Answer { what: WHAT })
    }

    pub(super) async fn decrypt(
        &self,
        mount: &EscrowName,
        key: &EscrowName,
        ciphertext: &str,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        const WHAT: &str = "decryption";
        let body = Zeroizing::new(format!(r#"{{"ciphertext":"{ciphertext}"}}"#));
        let reply = granted(WHAT, self.ask(Operation::Write, &format!("{mount}/decrypt/{key}"), body).await?)?;
        parse::plaintext(reply.data_text().unwrap_or_default()).ok_or(Fault::Answer { what: WHAT })
    }

    /// The key of a kv engine; `None` where there is none.
    pub(super) async fn read(
        &self,
        mount: &EscrowName,
        path: &EscrowName,
        version: u8,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        const WHAT: &str = "reading the key";
        let reply = self.ask(Operation::Read, &kv(mount, path, version), Zeroizing::default()).await?;
        if reply.status == Status::NOT_FOUND {
            return Ok(None);
        }
        let reply = granted(WHAT, reply)?;
        parse::kept(reply.data_text().unwrap_or_default(), version).map(Some).ok_or(Fault::Answer { what: WHAT })
    }

    /// Keeps a key where there is none.
    pub(super) async fn write(
        &self,
        mount: &EscrowName,
        path: &EscrowName,
        version: u8,
        octets: &[u8],
    ) -> Result<(), Fault> {
        let text = Zeroizing::new(hex::encode(octets));
        let body = match version {
            // Only while there is none: a key that something hangs on is never displaced.
            2 => format!(r#"{{"data":{{"ikm":"{}"}},"options":{{"cas":0}}}}"#, *text),
            _ => format!(r#"{{"ikm":"{}"}}"#, *text),
        };
        let reply = self.ask(Operation::Write, &kv(mount, path, version), Zeroizing::new(body)).await?;
        match reply.status {
            // Somebody was faster; the caller reads what is there.
            Status::BAD_REQUEST if version == 2 => Ok(()),
            _ => granted("keeping the key", reply).map(drop),
        }
    }

    async fn ask(&self, operation: Operation, path: &str, body: Zeroizing<String>) -> Result<Reply, Fault> {
        let token = Token::parse(self.token.expose()).map_err(|_| Fault::Answer { what: "the login" })?;
        call(self.holder, Some(token), operation, path, body).await
    }
}

/// How the holder is, for people.
pub(super) async fn health(holder: &HttpsVault) -> String {
    match call(holder, None, Operation::Read, "sys/health", Zeroizing::default()).await {
        Ok(reply) => match reply.status.0 {
            200 | 429 | 472 | 473 => "it is well".into(),
            501 => "it is not initialised".into(),
            503 => "it is sealed".into(),
            other => format!("status {other}"),
        },
        Err(e) => e.told(),
    }
}

/// Runs `work` on a thread with a runtime of its own, so that a source may be asked from anywhere, from within another
/// runtime too. A name that the resolver hangs on is left behind.
pub(super) fn on_a_thread<T: Send, W: Future<Output = T>>(work: impl FnOnce() -> W + Send) -> io::Result<T> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let done = runtime.block_on(work());
        runtime.shutdown_background();
        Ok(done)
    };
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().name("escrow".into()).spawn_scoped(scope, run)?;
        asking.join().map_err(|_| io::Error::other("the thread that asks ended early"))?
    })
}

async fn call(
    holder: &HttpsVault,
    token: Option<Token>,
    operation: Operation,
    path: &str,
    body: Zeroizing<String>,
) -> Result<Reply, Fault> {
    let path = ApiPath::parse(path).map_err(|_| Fault::Answer { what: "a path that is none" })?;
    let body = Zeroizing::new(body.as_bytes().to_vec());
    let mut request = Request::new(operation, path).with_body(Body::new(body));
    if let Some(token) = token {
        request = request.with_token(token);
    }
    Ok(holder.call(request).await?)
}

/// A success, or what the holder says of its refusal.
fn granted(what: &'static str, reply: Reply) -> Result<Reply, Fault> {
    let status = reply.status.0;
    if reply.status.is_success() {
        return Ok(reply);
    }
    let told = match &reply.payload {
        Payload::Errors(errors) if !errors.is_empty() => {
            let text: String = errors.join("; ").escape_default().take(MAX_TOLD).collect();
            format!(": {text}")
        }
        _ => String::new(),
    };
    match status {
        429 | 500.. => Err(Fault::NotWell { what, status, told }),
        _ => Err(Fault::Refused { what, status, told }),
    }
}

fn kv(mount: &EscrowName, path: &EscrowName, version: u8) -> String {
    if version == 2 { format!("{mount}/data/{path}") } else { format!("{mount}/{path}") }
}

/// A JSON string. No buffer of it grows, so that no copies are left behind.
fn quoted(text: &str) -> Zeroizing<String> {
    let mut out = Zeroizing::new(String::with_capacity(2 * text.len() + 2));
    out.push('"');
    for c in text.chars() {
        // Control characters have been refused where the file was read.
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

/// The parts of answers that are used. Total: any bytes give a value or none.
pub(super) mod parse {
    use super::*;

    #[derive(Deserialize)]
    struct Ciphertext {
        ciphertext: String,
    }

    /// What transit made: a text that goes into a slot and into a request as it is.
    pub(in super::super) fn ciphertext(data: &[u8]) -> Option<String> {
        let text = serde_json::from_slice::<Ciphertext>(data).ok()?.ciphertext;
        (text.len() <= MAX_CIPHERTEXT && !text.is_empty() && is_plain(&text)).then_some(text)
    }

    #[derive(Deserialize)]
    struct Plaintext<'a> {
        #[serde(borrow)]
        plaintext: Cow<'a, str>,
    }

    /// What transit decrypted.
    pub(in super::super) fn plaintext(data: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let text = serde_json::from_slice::<Plaintext<'_>>(data).ok()?.plaintext;
        let mut out = Zeroizing::new(vec![0; text.len()]);
        let length = BASE64.decode_slice(text.as_bytes(), &mut out).ok()?;
        out.truncate(length);
        Some(out)
    }

    #[derive(Deserialize)]
    struct Kept<'a> {
        #[serde(borrow)]
        ikm: Cow<'a, str>,
    }

    #[derive(Deserialize)]
    struct KeptV2<'a> {
        #[serde(borrow)]
        data: Kept<'a>,
    }

    /// What a kv engine keeps.
    pub(in super::super) fn kept(data: &[u8], version: u8) -> Option<Zeroizing<Vec<u8>>> {
        let kept = match version {
            2 => serde_json::from_slice::<KeptV2<'_>>(data).ok()?.data,
            _ => serde_json::from_slice::<Kept<'_>>(data).ok()?,
        };
        let octets = crate::source::hex_line::octets(kept.ikm.as_bytes()).ok()?;
        Some(Zeroizing::new(octets.expose().to_vec()))
    }

    const MAX_CIPHERTEXT: usize = 1024;

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn answers_that_are_used_and_answers_that_are_not() {
            assert_eq!(ciphertext(br#"{"ciphertext":"vault:v1:AA==","key_version":1}"#).unwrap(), "vault:v1:AA==");
            assert_eq!(plaintext(br#"{"plaintext":"AQID"}"#).unwrap()[..], [1, 2, 3]);
            assert_eq!(kept(br#"{"ikm":"010203","note":"x"}"#, 1).unwrap()[..], [1, 2, 3]);
            assert_eq!(kept(br#"{"data":{"ikm":"010203"},"metadata":{}}"#, 2).unwrap()[..], [1, 2, 3]);
            let long = format!(r#"{{"ciphertext":"{}"}}"#, "x".repeat(1025));
            for bad in
                ["", "[]", "{}", r#"{"ciphertext":""}"#, r#"{"ciphertext":"a\"b"}"#, r#"{"ciphertext":1}"#, &long]
            {
                assert!(ciphertext(bad.as_bytes()).is_none(), "{bad}");
            }
            for bad in ["", "{}", r#"{"plaintext":"A"}"#, r#"{"plaintext":"AQ ID"}"#, r#"{"plaintext":null}"#] {
                assert!(plaintext(bad.as_bytes()).is_none(), "{bad}");
            }
            for bad in ["", "{}", r#"{"ikm":"01020"}"#, r#"{"ikm":"AB"}"#, r#"{"ikm":1}"#, r#"{"data":{"ikm":"01"}}"#] {
                assert!(kept(bad.as_bytes(), 1).is_none(), "{bad}");
            }
            assert!(kept(br#"{"data":null}"#, 2).is_none(), "a version that was deleted");
        }
    }
}

/// What is shown of the holder's own words.
const MAX_TOLD: usize = 200;
/// What taking the token back may take.
const LOGOUT_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_any_characters_is_one_json_string() {
        for text in ["plain", r#"a"b\c"#, "\u{e9}\u{1f511}"] {
            assert_eq!(serde_json::from_str::<String>(&quoted(text)).unwrap(), text);
        }
    }

    #[test]
    fn refusals_are_shown_short_and_on_one_line() {
        let reply = Reply::error(Status::FORBIDDEN, format!("no\n\u{1b}[2J{}", "x".repeat(1000)));
        let Err(Fault::Refused { told, status: 403, .. }) = granted("the login", reply) else { panic!() };
        assert!(told.starts_with(": no\\n\\u{1b}[2Jxxx") && told.len() == MAX_TOLD + 2, "{told}");
        let reply = Reply::error(Status::UNAVAILABLE, "Vault is sealed");
        let fault = granted("the login", reply).unwrap_err();
        assert_eq!(fault.to_string(), "it is not well: the login ended with status 503: Vault is sealed");
    }
}
