//! What a document holds.

use zeroize::Zeroizing;

/// A value. Its texts are wiped, for bodies of requests are read with the same code.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As written: a request may have more digits than any machine number.
    Number(String),
    Text(Zeroizing<String>),
    List(Vec<Value>),
    Object(Vec<Item>),
}

/// One entry of an object. HCL blocks have labels, so there can be several keys: `path "secret/*" {...}`.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) keys: Vec<String>,
    /// From 1.
    pub(crate) line: u32,
    pub(crate) value: Value,
}

impl Value {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(Zeroizing::new(text.to_owned()))
    }
}

/// Equality as JSON has it: numbers by their value, objects in any order.
impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => same_number(a, b),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => {
                a.len() == b.len() && a.iter().all(|i| b.iter().any(|j| i.keys == j.keys && i.value == j.value))
            }
            _ => false,
        }
    }
}

/// Whole numbers digit by digit, others as floating point.
fn same_number(a: &str, b: &str) -> bool {
    let whole = |t: &str| !t.contains(['.', 'e', 'E']);
    if whole(a) && whole(b) {
        return a == b || (a.trim_start_matches('-') == "0" && b.trim_start_matches('-') == "0");
    }
    matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
}
