//! A document: what TOML, JSON and YAML have in common, with the line of everything.
//!
//! Three small front ends make one tree, so that sections are read, checked and complained about in one way. Duplicate
//! keys are faults in all three, as two readers of the same file could otherwise believe different things.

mod json;
mod toml;
mod yaml;

pub(crate) use json::read as json;
pub(crate) use toml::read as toml;
pub(crate) use yaml::read as yaml;

/// A value and the line where it begins, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) line: u32,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Kept as written: no setting of ours is a fraction.
    Float(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) line: u32,
    pub(crate) node: Node,
}

impl Value {
    /// The kind, in words for a fault.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a fraction",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a table",
        }
    }
}

/// Lines of a text by byte offset.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    /// The line, counted from 1, that holds the byte at `offset`.
    fn at(&self, offset: usize) -> u32 {
        u32::try_from(self.0.partition_point(|end| *end < offset) + 1).unwrap_or(u32::MAX)
    }
}

/// A syntax error: nothing else can be said about the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) line: u32,
    pub(crate) what: String,
}

/// Deeper than any file of ours, and shallow enough for any stack.
const MAX_DEPTH: usize = 24;
