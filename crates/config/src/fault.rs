//! A fault of a configuration: where it is, what it is, and what to do about it. A reader of a configuration goes on
//! after a fault, so that one run shows all of them.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of a file; line 0 stands for the file as a whole.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: u32,
    },
    /// An environment variable.
    Variable(String),
    /// An option of the command line.
    Option(&'static str),
}

impl Place {
    /// A whole file.
    pub fn whole(path: &Path) -> Self {
        Self::File { path: path.to_owned(), line: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment {name}"),
            Self::Option(name) => write!(f, "option {name}"),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What is wrong, with the value.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n hint: {}", self.place, self.what, self.remedy)
    }
}

/// All faults of one configuration, by place; never empty.
#[derive(Debug, thiserror::Error)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// The faults, sorted by place.
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

/// Where readers put the faults that they meet.
#[derive(Debug, Default)]
pub(crate) struct Collector(RefCell<Vec<Fault>>);

impl Collector {
    pub(crate) fn add(&self, place: &Place, what: impl Into<String>, remedy: impl Into<String>) {
        let mut faults = self.0.borrow_mut();
        // A file that is nothing but faults would otherwise be answered with megabytes.
        if faults.len() < MAX_FAULTS {
            faults.push(Fault { place: place.clone(), what: what.into(), remedy: remedy.into() });
        }
    }

    /// `value` if no fault was met, otherwise all faults.
    pub(crate) fn finish<T>(self, value: T) -> Result<T, Faults> {
        let mut faults = self.0.into_inner();
        if faults.is_empty() {
            return Ok(value);
        }
        faults.sort();
        faults.dedup();
        Err(Faults(faults))
    }
}

/// Shows at most 60 characters of something from outside, control characters escaped, so that a hostile value can
/// neither flood a terminal nor steer it.
pub(crate) fn shown(text: &str) -> String {
    let mut out = String::from("\"");
    for (n, c) in text.chars().enumerate() {
        if n == 60 {
            out.push('…');
            break;
        }
        // Direction marks would show a name in another order than it has.
        if c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
        {
            out.push_str(&c.escape_unicode().to_string());
        } else if c == '"' {
            out.push_str("\\\"");
        } else {
            out.push(c);
        }
    }
    out.push('"');
    out
}

const MAX_FAULTS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_sorted_and_once() {
        let faults = Collector::default();
        let at = |line| Place::File { path: "f".into(), line };
        faults.add(&at(9), "late", "r");
        faults.add(&at(2), "early", "r");
        faults.add(&at(9), "late", "r");
        let text = faults.finish(()).unwrap_err().to_string();
        assert_eq!(text, "f:2: early\n hint: r\nf:9: late\n hint: r");
    }

    #[test]
    fn a_hostile_value_cannot_steer_the_terminal() {
        assert_eq!(shown("a\u{1b}[2J\u{202e}b\"c"), "\"a\\u{1b}[2J\\u{202e}b\\\"c\"");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 63);
    }
}
