//! The environment as an argument, and the rule by which it overrides edgekeep.toml.
//!
//! `EDGEKEEP_` + section + `_` + key, in capitals, overrides the key of a section that exists once:
//! `EDGEKEEP_DATA_DIR`, `EDGEKEEP_LISTEN_ADDRESS`, `EDGEKEEP_SOURCE_PATH`. Lists are comma-separated. Tables that
//! repeat (`[[service]]`, `[[credential]]`, `[[gate]]`) have no such form. A value that does not convert is a fault,
//! and so is an `EDGEKEEP_` name that no key has: a misspelt override that is passed over would be believed to hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use crate::fault::{Collector, Place, shown};
use crate::nearest::nearest;

/// Variables of the process, taken once.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    unreadable: BTreeSet<String>,
    known: RefCell<BTreeSet<String>>,
}

impl Environment {
    /// Takes the variables, as `std::env::vars_os` gives them.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(environment.variables.insert(name, value)),
                Err(_) => drop(environment.unreadable.insert(name)),
            }
        }
        environment
    }

    /// An environment from text, for tests and for callers that compose one.
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(variables.into_iter().map(|(n, v)| (n.into(), v.into())))
    }

    /// The value of a variable of any name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The value of an override; remembers that the name is one that a key has.
    pub(crate) fn overriding(&self, name: &str) -> Option<&str> {
        self.known.borrow_mut().insert(name.to_owned());
        self.value(name)
    }

    /// Faults for all `EDGEKEEP_` names that no key asked for.
    pub(crate) fn finish(&self, faults: &Collector) {
        let known = self.known.borrow();
        for name in &self.unreadable {
            if name.starts_with(PREFIX) {
                faults.add(&Place::Variable(name.clone()), "is not UTF-8", "set it to plain text, or unset it");
            }
        }
        for (name, value) in &self.variables {
            let told = host::in_force("overrides-must-override");
            if !told || !name.starts_with(PREFIX) || known.contains(name) || is_no_setting(name) {
                continue;
            }
            let remedy = match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}? otherwise unset it"),
                None => "unset it; names are EDGEKEEP_ + SECTION + _ + KEY".to_owned(),
            };
            faults.add(&Place::Variable(name.clone()), format!("overrides nothing (value {})", shown(value)), remedy);
        }
    }
}

pub(crate) const PREFIX: &str = "EDGEKEEP_";

/// Read by the executable or its tests, and no key of the file.
fn is_no_setting(name: &str) -> bool {
    NOT_SETTINGS.contains(&name) || host::SWITCH == Some(name)
}

const NOT_SETTINGS: [&str; 9] = [
    "EDGEKEEP_CONFIG",
    "EDGEKEEP_LOG",
    "EDGEKEEP_AS",
    "EDGEKEEP_IKM_SLOT",
    "EDGEKEEP_IKM_CONFIG",
    "EDGEKEEP_IKM_ASK",
    "EDGEKEEP_TEST_SKIP",
    "EDGEKEEP_TEST_FIGURES",
    "EDGEKEEP_BLESS",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_override_is_a_fault() {
        let environment = Environment::of([("EDGEKEEP_DATADIR", "/x"), ("EDGEKEEP_LOG", "debug"), ("HOME", "/")]);
        assert_eq!(environment.overriding("EDGEKEEP_DATA_DIR"), None);
        let faults = Collector::default();
        environment.finish(&faults);
        let text = faults.finish(()).unwrap_err().to_string();
        assert_eq!(
            text,
            "environment EDGEKEEP_DATADIR: overrides nothing (value \"/x\")\n hint: did you mean EDGEKEEP_DATA_DIR? otherwise unset it"
        );
    }
}
