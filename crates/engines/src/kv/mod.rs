//! KV version 1: a value at a path, a JSON object kept exactly as it was written.
//!
//! ```text
//! entry   0  1  1, the version of this form
//!         1  8  lease_duration in seconds, big-endian; 0 for the mount's
//!         9     the JSON text of `data`
//! ```
//! The lease is worked out when a value is written, so that a read parses nothing.

use api::{Logical, Reply, Ttl};
use pipeline::{Authorized, BoxFuture, Engine, EngineError, Operation, Outcome, Txn};
use secret::SecretBytes;
use zeroize::Zeroizing;

use crate::input::Input;
use crate::listing::listed;

/// The engine `kv`, version 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Kv;

impl Engine for Kv {
    fn kind(&self) -> &'static str {
        "kv"
    }

    fn exists<'a>(&'a self, path: &'a str, txn: &'a mut Txn) -> BoxFuture<'a, Result<bool, EngineError>> {
        Box::pin(async move { Ok(is_entry(path) && txn.get(path).await?.is_some()) })
    }

    fn handle<'a>(
        &'a self,
        request: &'a Authorized<'a>,
        txn: &'a mut Txn,
    ) -> BoxFuture<'a, Result<Outcome, EngineError>> {
        Box::pin(async move {
            let reply = match request.operation() {
                Operation::Read => read(request, txn).await?,
                Operation::List => list(request.path(), txn).await?,
                Operation::Create | Operation::Update => write(request, txn)?,
                Operation::Delete => delete(request.path(), txn)?,
                Operation::Patch => return Err(EngineError::unsupported_operation()),
            };
            Ok(reply.into())
        })
    }
}

async fn read(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if !is_entry(request.path()) {
        return Err(EngineError::absent());
    }
    let entry = txn.get(request.path()).await?.ok_or_else(EngineError::absent)?;
    let (lease, text) = decode(entry.expose())?;
    let lease_duration =
        if lease == 0 { Ttl::seconds(request.mount().default_ttl_seconds()) } else { Ttl::seconds(lease) };
    let data = Some(Zeroizing::new(text.to_vec()));
    Ok(Reply::logical(Logical { data, lease_duration, ..Logical::default() }))
}

async fn list(folder: &str, txn: &mut Txn) -> Result<Reply, EngineError> {
    listed(txn.list(folder).await?)
}

fn write(request: &Authorized<'_>, txn: &mut Txn) -> Result<Reply, EngineError> {
    if !is_entry(request.path()) {
        return Err(EngineError::bad_request("cannot write to a path ending in '/'"));
    }
    txn.put(request.path(), encode(request.body())?)?;
    Ok(Reply::no_content())
}

fn delete(path: &str, txn: &mut Txn) -> Result<Reply, EngineError> {
    if is_entry(path) {
        txn.delete(path)?;
    }
    Ok(Reply::no_content())
}

/// A store path takes `a/` for `a`; here they are two things.
fn is_entry(path: &str) -> bool {
    !path.is_empty() && !path.ends_with('/')
}

fn encode(body: &api::Body) -> Result<SecretBytes, EngineError> {
    if body.fields()?.is_empty() {
        return Err(EngineError::bad_request("missing data fields"));
    }
    // What cannot be read as a duration is data like any other.
    let input = Input::of(body)?;
    let lease = ["lease", "ttl"].iter().find_map(|field| input.ttl(field).ok().flatten());
    let text = body.expose().trim_ascii();
    let mut entry = Vec::with_capacity(HEAD_BYTES + text.len());
    entry.push(FORM);
    entry.extend_from_slice(&lease.unwrap_or(Ttl::ZERO).as_seconds().to_be_bytes());
    entry.extend_from_slice(text);
    Ok(SecretBytes::new(entry))
}

fn decode(entry: &[u8]) -> Result<(u64, &[u8]), EngineError> {
    match entry.split_first_chunk::<HEAD_BYTES>() {
        Some(([FORM, lease @ ..], text)) => Ok((u64::from_be_bytes(*lease), text)),
        _ => Err(EngineError::internal("a kv entry has a form that this version does not know")),
    }
}

const FORM: u8 = 1;
const HEAD_BYTES: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> api::Body {
        api::Body::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_value_stays_as_it_was_written() {
        for text in [r#"{"n":12345678901234567890123, "f": 1.50,"z":null}"#, r#"{"a":"é","b":{"c":[1,2]}}"#] {
            let entry = encode(&body(text)).unwrap();
            assert_eq!(decode(entry.expose()).unwrap(), (0, text.as_bytes()));
        }
    }

    #[test]
    fn a_lease_comes_from_lease_or_ttl() {
        for (text, seconds) in [
            (r#"{"ttl":"1h"}"#, 3600),
            (r#"{"ttl":90}"#, 90),
            (r#"{"lease":"30m"}"#, 1800),
            (r#"{"ttl":"bogus"}"#, 0),
            (r#"{"ttl":"-1h"}"#, 0),
            (r#"{"ttl":{"a":1}}"#, 0),
        ] {
            assert_eq!(decode(encode(&body(text)).unwrap().expose()).unwrap().0, seconds, "{text}");
        }
    }

    #[test]
    fn no_fields_are_no_value() {
        for text in ["", "{}", " "] {
            assert_eq!(encode(&body(text)).unwrap_err().logged(), "missing data fields");
        }
        assert!(encode(&body("[1]")).is_err());
        assert!(decode(b"").is_err());
        assert!(decode(&[2; 20]).is_err());
    }
}
