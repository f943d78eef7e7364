//! Requests and replies in the few shapes that those need who keep a store; none of them prints a value.

use api::{ApiPath, Auth, Body, Operation, Payload, Reply, Request, Status};
use secret::Token;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::bearer::copy;
use crate::{CallError, Vault};

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no reply.
    #[error("the store cannot be asked")]
    Call(#[from] CallError),
    /// It said no.
    #[error("the store answered {status} to {verb} {path}: {told}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Where.
        path: String,
        /// The HTTP status.
        status: u16,
        /// Its own words, cut.
        told: String,
    },
    /// The answer is not what the API promises.
    #[error("the store's answer to {path} cannot be used: {reason}")]
    Answer {
        /// Where.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl AskError {
    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Call(_) | Self::Answer { .. } => None,
        }
    }

    /// An answer of the path that is of no use, and why.
    pub fn answer(path: &str, reason: &'static str) -> Self {
        Self::Answer { path: path.to_owned(), reason }
    }
}

/// A store as one caller sees it: with that caller's token, or with none.
pub struct Calls<'v, V> {
    vault: &'v V,
    token: Option<&'v Token>,
}

impl<V> std::fmt::Debug for Calls<'_, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Calls(..)")
    }
}

impl<'v, V: Vault> Calls<'v, V> {
    /// With whatever token `vault` adds by itself; with none, where it adds none.
    pub fn over(vault: &'v V) -> Self {
        Self { vault, token: None }
    }

    /// With this token.
    pub fn with(vault: &'v V, token: &'v Token) -> Self {
        Self { vault, token: Some(token) }
    }

    /// The reply, whatever its status.
    ///
    /// # Errors
    /// [`AskError::Call`], and [`AskError::Answer`] for what is no path.
    pub async fn ask(&self, operation: Operation, path: &str, body: Body) -> Result<Reply, AskError> {
        let parsed = ApiPath::parse(path).map_err(|_| AskError::answer(path, "it is no path of the API"))?;
        let mut request = Request::new(operation, parsed).with_body(body);
        if let Some(token) = self.token {
            request = request.with_token(copy(token));
        }
        // A store in this process answers from its cache without suspending: who knocks at the door meanwhile is let in
        // between two of our calls, not after hundreds of them.
        tokio::task::yield_now().await;
        Ok(self.vault.call(request).await?)
    }

    /// What stands at a path; `None` for 404.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, AskError> {
        self.found(self.ask(Operation::Read, path, Body::empty()).await?, "GET", path)
    }

    /// The names below a path; none for 404.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn list(&self, path: &str) -> Result<Vec<String>, AskError> {
        #[derive(serde::Deserialize)]
        struct Names {
            keys: Vec<String>,
        }
        let names: Option<Names> = self.found(self.ask(Operation::List, path, Body::empty()).await?, "LIST", path)?;
        Ok(names.map(|n| n.keys).unwrap_or_default())
    }

    /// Writes a body without secrets.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn write(&self, path: &str, body: &Value) -> Result<Reply, AskError> {
        self.write_secret(path, Zeroizing::new(body.to_string().into_bytes())).await
    }

    /// Writes a body that holds a secret.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn write_secret(&self, path: &str, body: Zeroizing<Vec<u8>>) -> Result<Reply, AskError> {
        success(self.ask(Operation::Write, path, Body::new(body)).await?, "POST", path)
    }

    /// Writes, and reads the answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn exchange<T: DeserializeOwned>(&self, path: &str, body: Zeroizing<Vec<u8>>) -> Result<T, AskError> {
        json(&self.write_secret(path, body).await?, path)
    }

    /// Writes a body without secrets, and takes the token out of the answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn write_for_token(&self, path: &str, body: &Value) -> Result<Auth, AskError> {
        self.exchange_for_token(path, Zeroizing::new(body.to_string().into_bytes())).await
    }

    /// Writes a body that holds a secret, and takes the token out of the answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn exchange_for_token(&self, path: &str, body: Zeroizing<Vec<u8>>) -> Result<Auth, AskError> {
        match self.write_secret(path, body).await?.payload {
            Payload::Logical(logical) => logical.auth,
            _ => None,
        }
        .ok_or_else(|| AskError::answer(path, "it has no token"))
    }

    /// Deletes; what is not there is as good as deleted.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn delete(&self, path: &str) -> Result<(), AskError> {
        let reply = self.ask(Operation::Delete, path, Body::empty()).await?;
        if reply.status == Status::NOT_FOUND { Ok(()) } else { success(reply, "DELETE", path).map(drop) }
    }

    fn found<T: DeserializeOwned>(&self, reply: Reply, verb: &'static str, path: &str) -> Result<Option<T>, AskError> {
        if reply.status == Status::NOT_FOUND {
            return Ok(None);
        }
        json(&success(reply, verb, path)?, path).map(Some)
    }
}

/// The store's answer as a type.
fn json<T: DeserializeOwned>(reply: &Reply, path: &str) -> Result<T, AskError> {
    let text = text_of(reply).ok_or_else(|| AskError::answer(path, "it has no data"))?;
    serde_json::from_slice(text).map_err(|_| AskError::answer(path, "its data is of another shape"))
}

/// `data` of the envelope, or the whole where there is no envelope.
pub fn text_of(reply: &Reply) -> Option<&[u8]> {
    match &reply.payload {
        Payload::Raw { bytes, .. } => Some(bytes),
        Payload::Logical(_) => reply.data_text(),
        Payload::Empty | Payload::Errors(_) => None,
    }
}

fn success(reply: Reply, verb: &'static str, path: &str) -> Result<Reply, AskError> {
    if reply.status.is_success() {
        return Ok(reply);
    }
    let told = match &reply.payload {
        Payload::Errors(errors) => errors.join("; ").chars().map(printable).take(MAX_TOLD_CHARS).collect(),
        _ => String::new(),
    };
    Err(AskError::Refused { verb, path: path.to_owned(), status: reply.status.0, told })
}

/// The store is somebody else's: its words must not steer a terminal.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

const MAX_TOLD_CHARS: usize = 300;
