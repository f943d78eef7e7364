//! Requests and replies in the few shapes that provisioning needs.

use api::{ApiPath, Auth, Body, Operation, Payload, Reply, Request, Status};
use client::{CallError, Vault};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::provision::ReceiptError;

/// Why a step of provisioning was not done. All of it is tried again: whoever must act may act meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The store did not answer.
    #[error("the store cannot be asked")]
    Call(#[from] CallError),
    /// The store refused.
    #[error("the store answered {status} to {verb} {path}: {told}")]
    Refused {
        /// What was asked.
        verb: &'static str,
        /// Where.
        path: String,
        /// The HTTP status.
        status: u16,
        /// Its own words.
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
    /// Something else is mounted there.
    #[error("{path} is mounted as {found}, and {wanted} is wanted")]
    Mounted {
        /// The mount.
        path: String,
        /// Its kind.
        found: String,
        /// The kind that the plan names.
        wanted: &'static str,
    },
    /// A password was needed, and none could be had.
    #[error("no password was made: {reason}")]
    Password {
        /// Why.
        reason: String,
    },
    /// The token did not reach its service.
    #[error("the token was not delivered")]
    Deliver(#[from] delivery::DeliverError),
    /// The receipt was not kept.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

/// Requests to one store.
pub(crate) struct Calls<'v, V>(pub(crate) &'v V);

impl<V: Vault> Calls<'_, V> {
    /// `data` at a path, as a type; `None` for 404.
    pub(crate) async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ProvisionError> {
        let reply = self.call(Operation::Read, path, Body::empty()).await?;
        if reply.status == Status::NOT_FOUND {
            return Ok(None);
        }
        let reply = success(reply, "GET", path)?;
        let unfit = |reason| ProvisionError::Answer { path: path.into(), reason };
        let data = reply.data_text().ok_or(unfit("it has no data"))?;
        serde_json::from_slice(data).map(Some).map_err(|_| unfit("its data is of another shape"))
    }

    /// Writes a public body.
    pub(crate) async fn write(&self, path: &str, body: &Value) -> Result<Reply, ProvisionError> {
        self.write_secret(path, Zeroizing::new(body.to_string().into_bytes())).await
    }

    /// Writes a body that holds a secret.
    pub(crate) async fn write_secret(&self, path: &str, body: Zeroizing<Vec<u8>>) -> Result<Reply, ProvisionError> {
        success(self.call(Operation::Write, path, Body::new(body)).await?, "POST", path)
    }

    /// Writes, and takes the token out of the answer.
    pub(crate) async fn write_for_token(&self, path: &str, body: &Value) -> Result<Auth, ProvisionError> {
        match self.write(path, body).await?.payload {
            Payload::Logical(logical) => logical.auth,
            _ => None,
        }
        .ok_or(ProvisionError::Answer { path: path.into(), reason: "it has no token" })
    }

    async fn call(&self, operation: Operation, path: &str, body: Body) -> Result<Reply, ProvisionError> {
        let parsed = ApiPath::parse(path)
            .map_err(|_| ProvisionError::Answer { path: path.into(), reason: "it is no path of the API" })?;
        // The store in this process answers from its cache without suspending: who knocks at the door meanwhile is let in
        // between two of our calls, not after hundreds of them.
        tokio::task::yield_now().await;
        Ok(self.0.call(Request::new(operation, parsed).with_body(body)).await?)
    }
}

fn success(reply: Reply, verb: &'static str, path: &str) -> Result<Reply, ProvisionError> {
    if reply.status.is_success() {
        return Ok(reply);
    }
    let told = match &reply.payload {
        Payload::Errors(errors) => errors.join("; ").chars().take(300).collect(),
        _ => String::new(),
    };
    Err(ProvisionError::Refused { verb, path: path.into(), status: reply.status.0, told })
}
