//! The fields of a body, read as leniently as Vault's clients expect: durations as numbers or text, lists as arrays or with
//! commas, numbers as text. A field that is `null` is not there. No message repeats a value: it may be a secret.

use std::collections::BTreeMap;

use api::{Body, Fields, Ttl};
use pipeline::{Authorized, EngineError, Operation};
use serde_json::Value;
use zeroize::Zeroizing;

/// The top-level fields of one body.
pub(crate) struct Input<'a>(Fields<'a>);

impl<'a> Input<'a> {
    pub(crate) fn of(body: &'a Body) -> Result<Self, EngineError> {
        let mut fields = body.fields()?;
        fields.retain(|_, value| value.get() != "null");
        Ok(Self(fields))
    }

    /// The same fields without one of them.
    pub(crate) fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(field, _)| *field != name).map(|(k, v)| (k.clone(), *v)).collect())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, EngineError> {
        self.field(name, |value| match value {
            Value::String(s) => Some(s),
            Value::Number(n) => Some(n.to_string()),
            Value::Bool(b) => Some(b.to_string()),
            _ => None,
        })
    }

    /// A text that is a secret.
    pub(crate) fn secret(&self, name: &str) -> Result<Option<Zeroizing<String>>, EngineError> {
        let Some(raw) = self.0.get(name) else { return Ok(None) };
        let text = serde_json::from_str::<String>(raw.get()).map_err(|_| wrong(name))?;
        Ok(Some(Zeroizing::new(text)))
    }

    pub(crate) fn ttl(&self, name: &str) -> Result<Option<Ttl>, EngineError> {
        self.field(name, |value| match value {
            Value::String(s) if s.is_empty() => Some(Ttl::ZERO),
            Value::String(s) => Ttl::parse(&s).ok(),
            Value::Number(n) => Ttl::parse(&n.to_string()).ok(),
            _ => None,
        })
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, EngineError> {
        self.field(name, |value| match value {
            Value::Bool(b) => Some(b),
            Value::String(s) => s.parse().ok(),
            _ => None,
        })
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, EngineError> {
        self.field(name, |value| match value {
            Value::Number(n) => n.as_u64(),
            Value::String(s) => s.parse().ok(),
            _ => None,
        })
    }

    pub(crate) fn list(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        self.field(name, |value| match value {
            Value::String(s) => {
                Some(s.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
            }
            Value::Array(all) => all.into_iter().map(scalar).collect(),
            _ => None,
        })
    }

    pub(crate) fn map(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, EngineError> {
        self.field(name, |value| match value {
            Value::Object(all) => all.into_iter().map(|(k, v)| Some((k, scalar(v)?))).collect(),
            _ => None,
        })
    }

    fn field<T>(&self, name: &str, read: impl FnOnce(Value) -> Option<T>) -> Result<Option<T>, EngineError> {
        let Some(raw) = self.0.get(name) else { return Ok(None) };
        let value = serde_json::from_str(raw.get()).map_err(|_| wrong(name))?;
        read(value).map(Some).ok_or_else(|| wrong(name))
    }
}

/// Create and update are one verb of HTTP.
pub(crate) fn is_write(request: &Authorized<'_>) -> bool {
    matches!(request.operation(), Operation::Create | Operation::Update)
}

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn wrong(name: &str) -> EngineError {
    EngineError::bad_request(format!("error converting input for field {name:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Body {
        Body::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn fields_in_each_of_their_forms() {
        let b = body(r#"{"a":"1h","b":90,"c":["x","y"],"d":"x, y,","e":null,"f":{"k":"v","n":1},"g":"true","h":"3"}"#);
        let i = Input::of(&b).unwrap();
        assert_eq!(i.ttl("a").unwrap(), Some(Ttl::seconds(3600)));
        assert_eq!(i.ttl("b").unwrap(), Some(Ttl::seconds(90)));
        assert_eq!(i.list("c").unwrap(), i.list("d").unwrap());
        assert_eq!((i.text("e").unwrap(), i.has("e")), (None, false));
        assert_eq!(i.map("f").unwrap().unwrap()["n"], "1");
        assert_eq!((i.flag("g").unwrap(), i.number("h").unwrap()), (Some(true), Some(3)));
    }

    #[test]
    fn a_wrong_field_is_named_and_its_value_is_not() {
        let b = body(r#"{"password":["hunter2"],"ttl":"hunter2","metadata":"hunter2"}"#);
        let i = Input::of(&b).unwrap();
        for e in [i.secret("password").unwrap_err(), i.ttl("ttl").unwrap_err(), i.map("metadata").unwrap_err()] {
            assert_eq!(e.status(), api::Status::BAD_REQUEST);
            assert!(e.logged().contains("for field") && !e.logged().contains("hunter2"), "{e}");
        }
    }
}
