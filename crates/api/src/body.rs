//! The body of a request: JSON whose values may be secrets, so it is wiped when it is dropped and never printed.

use std::fmt;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Largest body that is read: 1 MiB. Vault allows 32; no secret of an edge device is near either.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A JSON object's bytes as they came, or nothing.
pub struct Body(Zeroizing<Vec<u8>>);

/// Top-level keys of a body with their values as JSON text, in the order of the keys.
pub type Fields<'a> = std::collections::BTreeMap<String, &'a serde_json::value::RawValue>;

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self(Zeroizing::new(Vec::new()))
    }

    /// Takes over the bytes of a body; they are looked at only when asked for.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Whether there is nothing but white space.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(u8::is_ascii_whitespace)
    }

    /// The JSON text itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The body as a type of the endpoint; an empty body reads as `{}`.
    ///
    /// # Errors
    /// [`BodyError`]; its text names no value.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        let text: &[u8] = if self.is_empty() { b"{}" } else { &self.0 };
        serde_json::from_slice(text).map_err(|e| BodyError::from_serde(&e))
    }

    /// The top-level keys with their values untouched; an empty body has none.
    ///
    /// # Errors
    /// [`BodyError`] when the body is no JSON object.
    pub fn fields(&self) -> Result<Fields<'_>, BodyError> {
        let text: &[u8] = if self.is_empty() { b"{}" } else { &self.0 };
        serde_json::from_slice(text).map_err(|e| BodyError::from_serde(&e))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// The body is not what the endpoint takes. Tells where, never what: the value may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to decode JSON input: {problem} at line {line} column {column}")]
pub struct BodyError {
    /// The kind of fault.
    pub problem: &'static str,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl BodyError {
    fn from_serde(e: &serde_json::Error) -> Self {
        let problem = match e.classify() {
            serde_json::error::Category::Data => "a value of another type than expected",
            serde_json::error::Category::Eof => "the text ends too early",
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => "not JSON",
        };
        Self { problem, line: e.line(), column: e.column() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        Body::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn values_stay_as_they_were_written() {
        let b = body(r#"{"n": 12345678901234567890123, "s": "x"}"#);
        assert_eq!(b.fields().unwrap()["n"].get(), "12345678901234567890123");
    }

    #[test]
    fn an_error_names_no_value() {
        let e = body(r#"{"password": hunter2}"#).fields().unwrap_err();
        assert!(!e.to_string().contains("hunter2"), "{e}");
        assert!(body("[1]").fields().is_err());
        assert!(body(" ").fields().unwrap().is_empty());
    }
}
