//! EdgeX's rule for overrides: the path of a key with `/`, `-` and dots as `_`, in capitals, is the name of a variable
//! that takes its place. The type is that of the value in the file; only leaves that exist can be overridden.

use crate::document::{Entry, Node, Value};
use crate::fault::{Place, shown};
use crate::section::Source;

pub(super) fn apply(root: &mut Node, source: &Source<'_>) {
    descend(root, "", source);
}

/// Puts empty leaves where the file has none, so that their variables count: to be believed to check a name, and not to
/// do so, would be worse than to go beyond EdgeX's rule.
pub(super) fn supply(root: &mut Node, table: &str, keys: &[&str]) {
    let Value::Map(tables) = &mut root.value else { return };
    let Some(found) = tables.iter_mut().find(|e| e.key == table) else { return };
    let line = found.line;
    if let Value::Map(entries) = &mut found.node.value {
        for key in keys {
            if !entries.iter().any(|e| e.key == *key) {
                entries.push(Entry {
                    key: (*key).to_owned(),
                    line,
                    node: Node { line, value: Value::Text(String::new()) },
                });
            }
        }
    }
}

fn descend(node: &mut Node, name: &str, source: &Source<'_>) {
    if let Value::Map(entries) = &mut node.value {
        for entry in entries {
            let key = entry.key.replace(['-', '/', '.'], "_").to_uppercase();
            let name = if name.is_empty() { key } else { format!("{name}_{key}") };
            descend(&mut entry.node, &name, source);
        }
        return;
    }
    let Some(text) = source.environment.value(name) else { return };
    match convert(&node.value, text) {
        Ok(value) => node.value = value,
        Err(wanted) => {
            let place = Place::Variable(name.to_owned());
            let what = format!("{} does not convert to {wanted}, which {} has", shown(text), source.file.display());
            source.faults.add(&place, what, format!("set it to {wanted}, or unset it"));
        }
    }
}

fn convert(like: &Value, text: &str) -> Result<Value, &'static str> {
    match like {
        Value::Bool(_) => match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => Err("true or false"),
        },
        Value::Int(_) => text.parse().map(Value::Int).map_err(|_| "a whole number"),
        Value::Float(_) => text.parse::<f64>().map(|_| Value::Float(text.to_owned())).map_err(|_| "a number"),
        Value::List(items) => {
            let line = items.first().map_or(0, |i| i.line);
            let item = |t: &str| Node { line, value: Value::Text(t.trim().to_owned()) };
            Ok(Value::List(text.split(',').filter(|t| !t.trim().is_empty()).map(item).collect()))
        }
        Value::Null | Value::Text(_) | Value::Map(_) => Ok(Value::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_to_check_counts_though_the_file_has_none() {
        let environment = Environment::of([("SECRETSTORE_SERVERNAME", "store")]);
        let faults = Collector::default();
        let mut node = crate::document::yaml("SecretStore:\n  Host: a\n").unwrap();
        supply(&mut node, "SecretStore", &["ServerName", "Host"]);
        apply(&mut node, &Source { file: Path::new("f"), faults: &faults, environment: &environment });
        let text = format!("{node:?}");
        assert!(text.contains("\"store\"") && text.matches("\"Host\"").count() == 1, "{text}");
    }

    use std::path::Path;

    use super::*;
    use crate::environment::Environment;
    use crate::fault::Collector;

    fn applied(yaml: &str, variables: &[(&str, &str)]) -> Result<Node, String> {
        let (environment, faults) = (Environment::of(variables.iter().copied()), Collector::default());
        let mut node = crate::document::yaml(yaml).unwrap();
        apply(&mut node, &Source { file: Path::new("c.yaml"), faults: &faults, environment: &environment });
        faults.finish(node).map_err(|f| f.to_string())
    }

    #[test]
    fn leaves_keep_their_types() {
        let yaml = "A:\n  Some-Key: 1\n  B: true\n  C: [x]\n  D: t\n";
        let node = applied(yaml, &[("A_SOME_KEY", "7"), ("A_B", "F"), ("A_C", "p, q"), ("A_D", "u"), ("A", "no leaf")]);
        let Value::Map(top) = node.unwrap().value else { panic!() };
        let Value::Map(a) = &top[0].node.value else { panic!() };
        assert_eq!((&a[0].node.value, &a[1].node.value), (&Value::Int(7), &Value::Bool(false)));
        assert!(matches!(&a[2].node.value, Value::List(l) if l.len() == 2));
        assert_eq!(a[3].node.value, Value::Text("u".into()));
    }

    #[test]
    fn a_bad_conversion_is_a_fault() {
        let text = applied("A: 1\n", &[("A", "many")]).unwrap_err();
        assert!(text.starts_with("environment A: \"many\" does not convert to a whole number"), "{text}");
    }
}
