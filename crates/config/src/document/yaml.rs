//! YAML, as EdgeX writes its configuration.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Options, Spanned};

use super::{Entry, MAX_DEPTH, Node, Syntax, Value};

pub(crate) fn read(text: &str) -> Result<Node, Vec<Syntax>> {
    // Duplicate keys are errors by default, and so are documents that aliases blow up.
    let options = serde_saphyr::options! { with_snippet: false };
    let tree: Spanned<Yaml> =
        serde_saphyr::from_str_with_options(text, options as Options).map_err(|e| vec![syntax(&e)])?;
    let mut faults = Vec::new();
    let node = node(tree, 0, &mut faults);
    if faults.is_empty() { Ok(node) } else { Err(faults) }
}

fn syntax(e: &serde_saphyr::Error) -> Syntax {
    let line = e.location().map_or(1, |l| u32::try_from(l.line()).unwrap_or(1)).max(1);
    let said = e.to_string();
    let first = said.lines().next().unwrap_or_default();
    let what = first.rsplit_once(" at line ").map_or(first, |(what, _)| what);
    Syntax { line, what: format!("not YAML: {}", what.chars().take(200).collect::<String>()) }
}

fn node(tree: Spanned<Yaml>, depth: usize, faults: &mut Vec<Syntax>) -> Node {
    let line = u32::try_from(tree.referenced.line()).unwrap_or(1).max(1);
    if depth > MAX_DEPTH {
        faults.push(Syntax { line, what: format!("nested deeper than {MAX_DEPTH} levels") });
        return Node { line, value: Value::Null };
    }
    let value = match tree.value {
        Yaml::Scalar(value) => value,
        Yaml::List(items) => Value::List(items.into_iter().map(|i| node(i, depth + 1, faults)).collect()),
        Yaml::Map(pairs) => Value::Map(
            pairs
                .into_iter()
                .map(|(key, value)| {
                    let line = u32::try_from(key.referenced.line()).unwrap_or(1).max(1);
                    Entry { key: key.value, line, node: node(value, depth + 1, faults) }
                })
                .collect(),
        ),
    };
    Node { line, value }
}

enum Yaml {
    Scalar(Value),
    List(Vec<Spanned<Yaml>>),
    Map(Vec<(Spanned<String>, Spanned<Yaml>)>),
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(deserializer)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Bool(b)))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Int(n)))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(i64::try_from(n).map_or_else(|_| Value::Float(n.to_string()), Value::Int)))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Float(n.to_string())))
    }

    fn visit_str<E>(self, text: &str) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Value::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Yaml, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Yaml::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let node = read("# c\nA:\n  B: 1\n  C: \"5s\"\nD: []\nE:\n  - x\n  - true\nF:\n").unwrap();
        let Value::Map(top) = node.value else { panic!() };
        let keys: Vec<_> = top.iter().map(|e| (e.key.as_str(), e.line)).collect();
        assert_eq!(keys, [("A", 2), ("D", 5), ("E", 6), ("F", 9)]);
        let Value::Map(a) = &top[0].node.value else { panic!() };
        assert_eq!(a[0].node, Node { line: 3, value: Value::Int(1) });
        assert_eq!(a[1].node.value, Value::Text("5s".into()));
        assert_eq!(top[3].node.value, Value::Null);
    }

    #[test]
    fn a_duplicate_key_is_a_fault() {
        let faults = read("A: 1\nB: 2\nA: 3\n").unwrap_err();
        assert_eq!(faults[0].line, 3, "{faults:?}");
        assert!(faults[0].what.contains("duplicate"), "{faults:?}");
    }

    #[test]
    fn an_alias_bomb_is_a_fault() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let before = n - 1;
            let refs = vec![format!("*a{before}"); 10].join(",");
            text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
        }
        assert!(read(&text).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let text = "[".repeat(10_000) + &"]".repeat(10_000);
        assert!(read(&text).is_err());
    }
}
