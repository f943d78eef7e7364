//! Reading a table: each key is asked for by name and kind, faults go to the collector, and what nobody asked for is a
//! fault.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use api::Ttl;

use crate::document::{Entry, Node, Value};
use crate::environment::{Environment, PREFIX};
use crate::fault::{Collector, Place, shown};
use crate::nearest::nearest;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}

/// What every reader of one file needs.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) file: &'a Path,
    pub(crate) faults: &'a Collector,
    pub(crate) environment: &'a Environment,
}

impl Source<'_> {
    pub(crate) fn at(&self, line: u32) -> Place {
        Place::File { path: self.file.to_owned(), line }
    }
}

/// One table while it is read.
pub(crate) struct Section<'a> {
    source: Source<'a>,
    /// As the file writes it: `[listen]`; empty for the top of the file.
    name: String,
    /// What overrides begin with; none in tables that repeat, and in EdgeX's files.
    prefix: Option<String>,
    line: u32,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

/// A scalar, from the file or from the environment.
enum Found<'a> {
    Node(&'a Entry),
    Variable(String, &'a str),
}

impl<'a> Section<'a> {
    /// The top of edgekeep.toml.
    pub(crate) fn top(source: Source<'a>, root: &'a Node) -> Self {
        let entries: &[Entry] = if let Value::Map(entries) = &root.value { entries } else { &[] };
        Self { source, name: String::new(), prefix: Some(PREFIX.to_owned()), line: 1, entries, asked: Vec::new() }
    }

    /// A table without overrides of its own.
    pub(crate) fn plain(source: Source<'a>, name: impl Into<String>, node: &'a Node) -> Self {
        let name = name.into();
        let entries: &[Entry] = match &node.value {
            Value::Map(entries) => entries,
            other => {
                source.faults.add(
                    &source.at(node.line),
                    format!("{name} is {}", other.kind()),
                    "write a table of keys and values",
                );
                &[]
            }
        };
        Self { source, name, prefix: None, line: node.line, entries, asked: Vec::new() }
    }

    /// Whether the file has the section.
    pub(crate) fn is_written(&self) -> bool {
        self.line > 0
    }

    /// Where the section begins.
    pub(crate) fn place(&self) -> Place {
        self.source.at(self.line)
    }

    pub(crate) fn fault(&self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.source.faults.add(place, what, remedy);
    }

    pub(crate) fn source(&self) -> Source<'a> {
        self.source
    }

    /// Whether the key is in the file or overridden.
    pub(crate) fn has(&mut self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Where the key is written, if it is.
    pub(crate) fn place_of(&mut self, key: &'static str) -> Option<Place> {
        Some(match self.find(key)? {
            Found::Node(entry) => self.source.at(entry.line),
            Found::Variable(name, _) => Place::Variable(name),
        })
    }

    /// Text that `parse` turns into a value; its error says what is wrong, `remedy` what would be right.
    pub(crate) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &'static str,
        remedy: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Located<T>> {
        let text = self.text(key)?;
        match parse(&text.value) {
            Ok(value) => Some(Located { value, place: text.place }),
            Err(e) => {
                // Some errors begin with the value themselves.
                let (value, reason) = (shown(&text.value), e.to_string());
                let reason = reason.strip_prefix(&value).map_or_else(|| format!(": {reason}"), str::to_owned);
                self.fault(&text.place, format!("{key} = {value}{reason}"), remedy);
                None
            }
        }
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<Located<String>> {
        match self.find(key)? {
            Found::Variable(name, value) => Some(Located { value: value.to_owned(), place: Place::Variable(name) }),
            Found::Node(entry) => match &entry.node.value {
                Value::Text(value) => Some(Located { value: value.clone(), place: self.source.at(entry.line) }),
                other => self.wrong_kind(entry, key, other, "text in quotes"),
            },
        }
    }

    pub(crate) fn flag(&mut self, key: &'static str) -> Option<Located<bool>> {
        match self.find(key)? {
            Found::Variable(name, value) => match value {
                "true" => Some(Located { value: true, place: Place::Variable(name) }),
                "false" => Some(Located { value: false, place: Place::Variable(name) }),
                other => {
                    self.fault(&Place::Variable(name), format!("is {}", shown(other)), "set it to true or false");
                    None
                }
            },
            Found::Node(entry) => match &entry.node.value {
                Value::Bool(value) => Some(Located { value: *value, place: self.source.at(entry.line) }),
                other => self.wrong_kind(entry, key, other, "true or false"),
            },
        }
    }

    pub(crate) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<Located<u64>> {
        let (value, place) = match self.find(key)? {
            Found::Variable(name, text) => (text.trim().parse::<i128>().ok(), Place::Variable(name)),
            Found::Node(entry) => match &entry.node.value {
                Value::Int(n) => (Some(i128::from(*n)), self.source.at(entry.line)),
                other => return self.wrong_kind(entry, key, other, "a whole number"),
            },
        };
        match value.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n)) {
            Some(value) => Some(Located { value, place }),
            None => {
                let found = value.map_or_else(|| "not a whole number".to_owned(), |n| n.to_string());
                self.fault(
                    &place,
                    format!("{key} is {found}"),
                    format!("write a whole number from {} to {}", range.start(), range.end()),
                );
                None
            }
        }
    }

    /// A list of whole numbers; one number alone counts as a list of one.
    pub(crate) fn numbers(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<Vec<Located<u64>>> {
        let found: Vec<(Option<i128>, Place)> = match self.find(key)? {
            Found::Variable(name, text) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                items.map(|item| (item.parse().ok(), Place::Variable(name.clone()))).collect()
            }
            Found::Node(entry) => {
                let items = match &entry.node.value {
                    Value::List(items) => items.as_slice(),
                    _ => std::slice::from_ref(&entry.node),
                };
                let number = |node: &Node| match &node.value {
                    Value::Int(n) => Some(i128::from(*n)),
                    _ => None,
                };
                items.iter().map(|node| (number(node), self.source.at(node.line))).collect()
            }
        };
        let mut numbers = Vec::new();
        for (value, place) in found {
            match value.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n)) {
                Some(value) => numbers.push(Located { value, place }),
                None => {
                    let found =
                        value.map_or_else(|| "something else than a whole number".to_owned(), |n| n.to_string());
                    let remedy = format!("write whole numbers from {} to {}", range.start(), range.end());
                    self.fault(&place, format!("{key} has {found}"), remedy);
                }
            }
        }
        Some(numbers)
    }

    /// A duration: text as `90s`, `1h30m`, `7d`, or whole seconds.
    pub(crate) fn duration(&mut self, key: &'static str) -> Option<Located<Ttl>> {
        if let Some(Found::Node(Entry { node: Node { value: Value::Int(n), .. }, line, .. })) = self.find(key) {
            let place = self.source.at(*line);
            return match u64::try_from(*n).map_err(drop).and_then(|n| Ttl::parse(&n.to_string()).map_err(drop)) {
                Ok(value) => Some(Located { value, place }),
                Err(()) => {
                    self.fault(&place, format!("{key} = {n} is not a duration"), DURATION_REMEDY);
                    None
                }
            };
        }
        self.parsed(key, DURATION_REMEDY, Ttl::parse)
    }

    pub(crate) fn path(&mut self, key: &'static str) -> Option<Located<PathBuf>> {
        self.parsed(key, "write an absolute path without `..`", parse_path)
    }

    /// A list of texts; one text alone counts as a list of one.
    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<Located<String>>> {
        match self.find(key)? {
            Found::Variable(name, value) => Some(
                value
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Located { value: item.to_owned(), place: Place::Variable(name.clone()) })
                    .collect(),
            ),
            Found::Node(entry) => match &entry.node.value {
                Value::Text(value) => Some(vec![Located { value: value.clone(), place: self.source.at(entry.line) }]),
                Value::List(items) => Some(
                    items
                        .iter()
                        .filter_map(|item| match &item.value {
                            Value::Text(value) => {
                                Some(Located { value: value.clone(), place: self.source.at(item.line) })
                            }
                            other => self.wrong_kind(
                                &Entry { key: key.to_owned(), line: item.line, node: item.clone() },
                                key,
                                other,
                                "a list of texts in quotes",
                            ),
                        })
                        .collect(),
                ),
                other => self.wrong_kind(entry, key, other, "a list of texts in quotes"),
            },
        }
    }

    /// A table that exists at most once.
    pub(crate) fn table(&mut self, key: &'static str) -> Section<'a> {
        self.asked.push(key);
        let name = if self.name.is_empty() { format!("[{key}]") } else { self.name.replace(']', &format!(".{key}]")) };
        let prefix = self.prefix.as_ref().map(|p| format!("{p}{}_", key.to_uppercase()));
        let (entries, line): (&[Entry], u32) = match self.entries.iter().find(|e| e.key == key) {
            None => (&[], 0),
            Some(entry) => match &entry.node.value {
                Value::Map(entries) => (entries, entry.line),
                other => {
                    self.wrong_kind::<()>(entry, key, other, "a table");
                    (&[], entry.line)
                }
            },
        };
        Section { source: self.source, name, prefix, line, entries, asked: Vec::new() }
    }

    /// A table of names: its entries and the line of each, if it is there.
    pub(crate) fn named(&mut self, key: &'static str) -> Option<&'a Entry> {
        self.asked.push(key);
        self.entries.iter().find(|e| e.key == key)
    }

    /// Tables that repeat: `[[key]]`.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<Section<'a>> {
        self.asked.push(key);
        let Some(entry) = self.entries.iter().find(|e| e.key == key) else { return Vec::new() };
        match &entry.node.value {
            Value::List(items) => {
                items.iter().map(|item| Section::plain(self.source, format!("[[{key}]]"), item)).collect()
            }
            other => {
                self.wrong_kind::<()>(entry, key, other, "tables that repeat, each headed [[...]]");
                Vec::new()
            }
        }
    }

    /// Tables that stand once, `[key]`, or repeat, `[[key]]`; one without entries where there is neither.
    pub(crate) fn one_or_more(&mut self, key: &'static str) -> Vec<Section<'a>> {
        match self.entries.iter().find(|e| e.key == key).map(|e| &e.node.value) {
            Some(Value::List(_)) => self.tables(key),
            _ => vec![self.table(key)],
        }
    }

    /// Ends the section: keys that nobody asked for are faults, but for those in `passed_over`.
    pub(crate) fn finish(self, passed_over: &[&str]) {
        for entry in self.entries {
            let key = entry.key.as_str();
            if self.asked.contains(&key) || passed_over.contains(&key) {
                continue;
            }
            let within = if self.name.is_empty() { String::new() } else { format!(" in {}", self.name) };
            let known = self.asked.iter().copied().chain(passed_over.iter().copied());
            let remedy = match nearest(key, known) {
                Some(near) => format!("did you mean {near}?"),
                None if self.asked.is_empty() => "remove it".to_owned(),
                None => format!("remove it; known are {}", self.asked.join(", ")),
            };
            self.source.faults.add(&self.source.at(entry.line), format!("unknown key {}{within}", shown(key)), remedy);
        }
    }

    fn find(&mut self, key: &'static str) -> Option<Found<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        if let Some(prefix) = &self.prefix {
            let name = format!("{prefix}{}", key.to_uppercase());
            if let Some(value) = self.source.environment.overriding(&name) {
                return Some(Found::Variable(name, value));
            }
        }
        self.entries.iter().find(|e| e.key == key).filter(|e| e.node.value != Value::Null).map(Found::Node)
    }

    fn wrong_kind<T>(&self, entry: &Entry, key: &str, found: &Value, wanted: &str) -> Option<T> {
        self.fault(&self.source.at(entry.line), format!("{key} is {}", found.kind()), format!("write {wanted}"));
        None
    }
}

/// An absolute path that says where it leads: no `..`, no control characters, and of a length that systems take.
pub(crate) fn parse_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    if !path.is_absolute() {
        Err("the path is not absolute")
    } else if text.chars().any(char::is_control) {
        Err("the path has control characters")
    } else if path.components().any(|c| c == std::path::Component::ParentDir) {
        Err("the path has `..`")
    } else if text.len() > MAX_PATH_BYTES {
        Err("the path is longer than 1024 bytes")
    } else {
        Ok(path.to_owned())
    }
}

const MAX_PATH_BYTES: usize = 1024;
const DURATION_REMEDY: &str = "write seconds (90) or units (\"90s\", \"1h30m\", \"7d\")";
