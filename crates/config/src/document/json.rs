//! JSON. `serde_json` gives no positions, but a raw value borrows from the text, and its address tells where it stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Entry, Lines, MAX_DEPTH, Node, Syntax, Value};

pub(crate) fn read(text: &str) -> Result<Node, Vec<Syntax>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let reader = Reader { text, lines: Lines::of(text) };
    let root: &RawValue = serde_json::from_str(text).map_err(|e| vec![reader.syntax(0, &e)])?;
    let mut faults = Vec::new();
    let node = reader.node(root, 0, &mut faults);
    if faults.is_empty() { Ok(node) } else { Err(faults) }
}

struct Reader<'a> {
    text: &'a str,
    lines: Lines,
}

impl<'a> Reader<'a> {
    fn line(&self, raw: &str) -> u32 {
        // `raw` borrows from `self.text`, so the difference of addresses is its offset.
        self.lines.at(raw.as_ptr().addr().saturating_sub(self.text.as_ptr().addr()))
    }

    fn syntax(&self, base: u32, e: &serde_json::Error) -> Syntax {
        let line = base + u32::try_from(e.line()).unwrap_or(0);
        let said = e.to_string();
        // The library's text ends in its own idea of the position.
        let what = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
        Syntax { line: line.max(1), what: format!("not JSON: {what}") }
    }

    fn node(&self, raw: &'a RawValue, depth: usize, faults: &mut Vec<Syntax>) -> Node {
        let text = raw.get();
        let line = self.line(text);
        let mut fail = |what: String| {
            faults.push(Syntax { line, what });
            Value::Null
        };
        let parsed = |e: serde_json::Error| self.syntax(line.saturating_sub(1), &e).what;
        let value = match text.as_bytes().first() {
            _ if depth > MAX_DEPTH => fail(format!("nested deeper than {MAX_DEPTH} levels")),
            Some(b'{') => match serde_json::from_str::<Pairs<'_>>(text) {
                Ok(Pairs(pairs)) => {
                    let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
                    let mut seen = std::collections::BTreeMap::new();
                    for (key, raw) in pairs {
                        let line = self.line(raw.get());
                        if let Some(first) =
                            seen.insert(key.clone(), line).filter(|_| host::in_force("duplicate-keys-refused"))
                        {
                            faults.push(Syntax {
                                line,
                                what: format!("{} is there twice, first at line {first}", crate::fault::shown(&key)),
                            });
                        }
                        let node = self.node(raw, depth + 1, faults);
                        entries.push(Entry { key, line, node });
                    }
                    Value::Map(entries)
                }
                Err(e) => fail(parsed(e)),
            },
            Some(b'[') => match serde_json::from_str::<Items<'_>>(text) {
                Ok(Items(items)) => Value::List(items.into_iter().map(|r| self.node(r, depth + 1, faults)).collect()),
                Err(e) => fail(parsed(e)),
            },
            Some(b'"') => match serde_json::from_str(text) {
                Ok(text) => Value::Text(text),
                Err(e) => fail(parsed(e)),
            },
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'n') => Value::Null,
            _ => text.parse().map_or_else(|_| Value::Float(text.to_owned()), Value::Int),
        };
        Node { line, value }
    }
}

/// An object as the text has it: in order, duplicates and all.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

struct Items<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Items<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Items(items))
            }
        }
        deserializer.deserialize_seq(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_knows_its_line() {
        let node = read("{\n  \"a\": 1,\n  \"b\": {\n    \"c\": [true,\n \"x\"]}}").unwrap();
        let Value::Map(top) = node.value else { panic!() };
        assert_eq!((top[0].line, top[1].line), (2, 3));
        let Value::Map(b) = &top[1].node.value else { panic!() };
        let Value::List(list) = &b[0].node.value else { panic!() };
        assert_eq!(list[0], Node { line: 4, value: Value::Bool(true) });
        assert_eq!(list[1], Node { line: 5, value: Value::Text("x".into()) });
    }

    #[test]
    fn a_duplicate_key_is_a_fault() {
        let faults = read("{\"a\": 1,\n\"\\u0061\": 2}").unwrap_err();
        assert_eq!(faults, [Syntax { line: 2, what: "\"a\" is there twice, first at line 1".into() }]);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let faults = read(&deep).unwrap_err();
        assert!(faults[0].what.contains("deeper") || faults[0].what.contains("recursion"), "{faults:?}");
    }

    #[test]
    fn syntax_errors_tell_their_line() {
        assert_eq!(read("{\n\n\"a\": tru }").unwrap_err()[0].line, 3);
        assert_eq!(read("").unwrap_err()[0].line, 1);
    }
}
