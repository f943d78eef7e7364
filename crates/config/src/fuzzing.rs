//! Doors for fuzzers: the same readers on any text, without files.

use std::path::Path;

use boot::plan::Plan;

use crate::edgex;
use crate::environment::Environment;
use crate::fault::{Collector, Faults};
use crate::places::Places;
use crate::section::Source;
use crate::{demo, document, settings};

/// edgekeep.toml.
///
/// # Errors
/// The faults.
pub fn config_toml(text: &str) -> Result<Plan, Faults> {
    let (faults, environment, file) = (Collector::default(), Environment::default(), Path::new("edgekeep.toml"));
    let source = Source { file, faults: &faults, environment: &environment };
    let mut places = Places::new(file);
    let root = document::toml(text).map_err(|e| syntax(source, e))?;
    let plan = settings::read(source, &root, Path::new("/run/edgekeep"), &mut places).plan;
    crate::check_policies(&plan, &places, &faults);
    places.report(&plan, &faults);
    faults.finish(plan)
}

/// `token-config.json`, on top of an empty plan.
///
/// # Errors
/// The faults.
pub fn token_config(text: &str) -> Result<Plan, Faults> {
    on_empty_plan(text, document::json, edgex::token_config_of)
}

/// The set-up's `configuration.yaml`, on top of an empty plan.
///
/// # Errors
/// The faults.
pub fn edgex_yaml(text: &str) -> Result<Plan, Faults> {
    on_empty_plan(text, document::yaml, edgex::credentials_of)
}

fn on_empty_plan(
    text: &str,
    parse: impl FnOnce(&str) -> Result<document::Node, Vec<document::Syntax>>,
    read: impl FnOnce(Source<'_>, &document::Node, &mut Plan, &mut Places),
) -> Result<Plan, Faults> {
    let (faults, environment, file) = (Collector::default(), Environment::default(), Path::new("file"));
    let source = Source { file, faults: &faults, environment: &environment };
    let mut places = Places::new(file);
    let root = parse(text).map_err(|e| syntax(source, e))?;
    let mut plan = demo(&demo::Demo { data_dir: Path::new("/d"), run_dir: Path::new("/r"), listen: None })
        .expect("the demo has no faults");
    plan.services.clear();
    read(source, &root, &mut plan, &mut places);
    crate::check_policies(&plan, &places, &faults);
    places.report(&plan, &faults);
    faults.finish(plan)
}

fn syntax(source: Source<'_>, errors: Vec<document::Syntax>) -> Faults {
    let faults = Collector::default();
    for e in errors {
        faults.add(&source.at(e.line), e.what, "correct the syntax of this line");
    }
    faults.finish(()).expect_err("a parser that fails says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of damage: the same at every run.
    fn damaged(text: &str, seed: u64) -> String {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below.max(1) as u64).unwrap()
        };
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=next(4) {
            let at = next(chars.len());
            match next(4) {
                0 => chars.truncate(at),
                1 => drop(chars.splice(at..(at + next(20)).min(chars.len()), [])),
                2 => {
                    let part: Vec<char> = chars[at..(at + next(40)).min(chars.len())].to_vec();
                    drop(chars.splice(at..at, part));
                }
                _ => chars[at] = ['"', '{', '[', '\n', ':', '\0', '.', '/', '=', '-'][next(10)],
            }
            if chars.is_empty() {
                break;
            }
        }
        chars.into_iter().collect()
    }

    #[test]
    fn damaged_files_are_read_or_refused() {
        let toml = include_str!("../../../docs/edgekeep.toml");
        let json = include_str!("../../../tests/golden/config/edgex-entries/res-file-token-provider/token-config.json");
        let yaml = include_str!("../../../tests/golden/config/edgex-entries/res/configuration.yaml");
        let mut refused = 0;
        for seed in 0..400 {
            refused += usize::from(config_toml(&damaged(toml, seed)).is_err());
            refused += usize::from(token_config(&damaged(json, seed)).is_err());
            refused += usize::from(edgex_yaml(&damaged(yaml, seed)).is_err());
        }
        assert!(refused > 400, "damage is noticed: {refused}");
        assert!(config_toml(toml).is_ok());
    }

    /// Whatever is accepted can be carried out: names that lead nowhere else, and no fault left.
    #[test]
    fn what_is_accepted_has_no_fault_left() {
        for seed in 0..400 {
            if let Ok(plan) = config_toml(&damaged(include_str!("../../../docs/edgekeep.toml"), seed)) {
                assert_eq!(plan.faults(), []);
                assert!(plan.services.iter().all(|s| !s.name.as_str().contains(['/', '\0'])));
            }
        }
    }
}
