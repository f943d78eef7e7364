//! TOML, with a parser that goes on after an error, so that all errors of syntax are shown too.

use ::toml::de::{DeTable, DeValue};

use super::{Entry, Lines, Node, Syntax, Value};

pub(crate) fn read(text: &str) -> Result<Node, Vec<Syntax>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .into_iter()
            .map(|e| Syntax {
                line: e.span().map_or(1, |s| lines.at(s.start)),
                what: format!("not TOML: {}", e.message().lines().next().unwrap_or_default()),
            })
            .collect());
    }
    Ok(Node { line: 1, value: map(table.get_ref(), &lines) })
}

fn map(table: &DeTable<'_>, lines: &Lines) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            line: lines.at(key.span().start),
            node: Node { line: lines.at(value.span().start), value: value_of(value.get_ref(), lines) },
        })
        .collect();
    entries.sort_by_key(|e| e.line);
    Value::Map(entries)
}

fn value_of(value: &DeValue<'_>, lines: &Lines) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => match i64::from_str_radix(n.as_str(), n.radix()) {
            Ok(n) => Value::Int(n),
            Err(_) => Value::Float(n.as_str().to_owned()),
        },
        DeValue::Float(n) => Value::Float(n.as_str().to_owned()),
        DeValue::Boolean(b) => Value::Bool(*b),
        // No setting of ours is a date: text, so that it is refused by its kind where it stands.
        DeValue::Datetime(d) => Value::Float(d.to_string()),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .map(|item| Node { line: lines.at(item.span().start), value: value_of(item.get_ref(), lines) })
                .collect(),
        ),
        DeValue::Table(table) => map(table, lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let node = read("a = 1\n\n[t]\nb = [\"x\",\n \"y\"]\n[[s]]\nname = \"n\"\n[[s]]\nname = \"m\"\n").unwrap();
        let Value::Map(top) = node.value else { panic!() };
        let keys: Vec<_> = top.iter().map(|e| (e.key.as_str(), e.line)).collect();
        assert_eq!(keys, [("a", 1), ("t", 3), ("s", 6)]);
        let Value::List(s) = &top[2].node.value else { panic!() };
        let Value::Map(second) = &s[1].value else { panic!() };
        assert_eq!(second[0].line, 9);
    }

    #[test]
    fn all_errors_of_syntax_at_once() {
        let errors = read("a = \nb = 1\nb = 2\nc = \"x\n").unwrap_err();
        let lines: Vec<u32> = errors.iter().map(|e| e.line).collect();
        assert_eq!(lines, [1, 3, 4], "{errors:?}");
    }
}
