//! The fields of a body, read as leniently as Vault's clients expect: durations as numbers or text, lists as arrays or
//! with commas, numbers as text. A field that is `null` is not there. No message repeats a value: it may be a secret.

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
            Value::Number(n) => n.as_u64().and_then(|n| [false, true].get(usize::try_from(n).ok()?).copied()),
            Value::String(s) => match &*s {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
                "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
                _ => None,
            },
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

    /// A list in which a text is one element, commas and all.
    pub(crate) fn elements(&self, name: &str) -> Result<Option<Vec<String>>, EngineError> {
        self.field(name, |value| match value {
            Value::String(s) => Some(vec![s]),
            Value::Array(all) => all.into_iter().map(scalar).collect(),
            _ => None,
        })
    }

    /// The fields of an object within.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Self>, EngineError> {
        let Some(raw) = self.0.get(name) else { return Ok(None) };
        let mut fields: Fields<'a> = serde_json::from_str(raw.get()).map_err(|_| wrong(name))?;
        fields.retain(|_, value| value.get() != "null");
        Ok(Some(Self(fields)))
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

/// The name of a user or a role in a path, in lower case; `None` for what is no name.
pub(crate) fn name(text: &str) -> Option<String> {
    let sound = (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    sound.then(|| text.to_ascii_lowercase())
}

const MAX_NAME_BYTES: usize = 256;

fn scalar(value: Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn wrong(name: &str) -> EngineError {
    let told = format!("error converting input for field {name:?}");
    // The name is ours, from the code that asks; the value was the caller's.
    EngineError::bad_request(told.clone()).because(told)
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
    fn flags_as_go_reads_them_and_lists_of_one() {
        let b = body(r#"{"a":0,"b":"1","c":"F","d":2,"e":"no","f":"x,y","g":{"h":["i"],"j":null,"k":"1h"},"l":""}"#);
        let i = Input::of(&b).unwrap();
        for (field, flag) in [("a", false), ("b", true), ("c", false), ("l", false)] {
            assert_eq!(i.flag(field).unwrap(), Some(flag), "{field}");
        }
        assert!(i.flag("d").is_err() && i.flag("e").is_err());
        assert_eq!(i.elements("f").unwrap().unwrap(), ["x,y"]);
        let within = i.object("g").unwrap().unwrap();
        assert_eq!((within.ttl("k").unwrap(), within.has("j")), (Some(Ttl::seconds(3600)), false));
        assert!(i.object("f").is_err());
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
