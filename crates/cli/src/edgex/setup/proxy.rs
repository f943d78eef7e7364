//! The certificate of a proxy, put into the store once. One that is there already is as it should be, at the second run
//! as at the hundredth.

use api::{ApiPath, Body, Operation, Request, Status};
use client::Vault;
use config::ProxyCertificate;
use host::{Disk, OsDisk};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::failure::{Code, Failure};

/// Certificate and key, read before the store is touched.
pub(super) struct Pair {
    path: ApiPath,
    text: Text,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Text {
    #[serde(default)]
    cert: String,
    #[serde(default)]
    key: String,
}

impl Pair {
    /// Reads both files.
    pub(super) fn read(from: &ProxyCertificate) -> Result<Self, Failure> {
        let path =
            ApiPath::parse(&from.path).map_err(|e| Failure::of(Code::Refused, &e).hint("see SecretStore.CertPath"))?;
        let read = |file: &std::path::Path| -> Result<String, Failure> {
            let unfit = |what: String| Failure::new(Code::Refused, format!("{}: {what}", file.display()));
            let bytes = OsDisk.read(file, MAX_PEM_BYTES).map_err(|e| unfit(e.to_string()))?;
            let text = std::str::from_utf8(&bytes).map_err(|_| unfit("it is no text".into()))?;
            if text.contains("-----BEGIN ") { Ok(text.to_owned()) } else { Err(unfit("it is no PEM".into())) }
        };
        Ok(Self { path, text: Text { cert: read(&from.certificate)?, key: read(&from.key)? } })
    }
}

/// Puts them into the store, unless some are there.
pub(super) async fn upload<V: Vault>(root: &V, pair: &Pair) -> Result<(), Failure> {
    let failed = |e: &dyn std::error::Error| Failure::of(Code::Refused, e);
    let refused =
        |status: Status| Failure::new(Code::Refused, format!("the store answered {} at {}", status.0, pair.path));
    let there = root.call(Request::new(Operation::Read, pair.path.clone())).await.map_err(|e| failed(&e))?;
    if there.status != Status::NOT_FOUND {
        let text = there.data_text().filter(|_| there.status.is_success()).ok_or_else(|| refused(there.status))?;
        let text: Text = serde_json::from_slice(text).map_err(|_| refused(there.status))?;
        if !text.cert.is_empty() && !text.key.is_empty() {
            tracing::info!(path = %pair.path, "the proxy's certificate is there already");
            return Ok(());
        }
    }
    let mut body = Zeroizing::new(Vec::with_capacity(2 * (pair.text.cert.len() + pair.text.key.len()) + 64));
    serde_json::to_writer(&mut *body, &pair.text).expect("two strings are JSON");
    let request = Request::new(Operation::Write, pair.path.clone()).with_body(Body::new(body));
    let reply = root.call(request).await.map_err(|e| failed(&e))?;
    if reply.status.is_success() { Ok(()) } else { Err(refused(reply.status)) }
}

const MAX_PEM_BYTES: usize = 256 * 1024;
