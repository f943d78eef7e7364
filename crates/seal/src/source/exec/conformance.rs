//! Whether a vendor's executable is a hook, by its behaviour: run several times, under the rules that hold at a boot.
//!
//! Nothing of its output is kept, shown or logged. A hook that counts its releases uses them up here.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::Clock;

use super::{HOOK_LIMIT, hex_line};
use crate::ikm::{FULL_IKM_BYTES, Ikm, IkmError, MIN_IKM_BYTES, ShortIkmAllowed};
use crate::source::SourceError;
use crate::source::process::{Asked, Trusted, watch};

/// What was found of one property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It could not be looked at, for what failed before.
    NotSeen,
    /// It will be taken, and should be otherwise.
    Poor,
    /// No store is made with such a hook.
    Bad,
}

/// One property, and what was found of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is looked at.
    pub name: &'static str,
    /// What was found.
    pub verdict: Verdict,
    /// In words; empty where there is nothing to add.
    pub told: String,
}

/// The report on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conformance {
    /// The hook.
    pub path: PathBuf,
    /// How often it was run.
    pub runs: usize,
    /// All properties, in the order of a run.
    pub checks: Vec<Check>,
}

impl Conformance {
    /// Whether it is taken as a hook.
    pub fn conforms(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Bad)
    }
}

impl fmt::Display for Conformance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = if self.runs == 1 { "once".to_owned() } else { format!("{} times", self.runs) };
        writeln!(f, "{}, run {times}", self.path.display())?;
        for Check { name, verdict, told } in &self.checks {
            let mark = match verdict {
                Verdict::Good => "good",
                Verdict::NotSeen => "-",
                Verdict::Poor => "poor",
                Verdict::Bad => "BAD",
            };
            let colon = if told.is_empty() { "" } else { ": " };
            writeln!(f, "  {mark:<5} {name}{colon}{told}")?;
        }
        let good = self.conforms();
        f.write_str(if good {
            "It conforms to the hook's contract."
        } else {
            "It does not conform to the hook's contract."
        })
    }
}

/// Runs the hook at `path` `runs` times (at least twice), each for `limit` at most and with `env` for its whole environment.
pub fn conformance(
    path: &Path,
    env: &[(String, String)],
    runs: usize,
    limit: Duration,
    clock: &dyn Clock,
) -> Conformance {
    let mut report = Report::default();
    let hook = match Trusted::open(path) {
        Ok(hook) => {
            report.good("nobody else could have written it");
            Some(hook)
        }
        Err(e) => {
            report.bad("nobody else could have written it", host::with_causes(&e));
            None
        }
    };
    let mut ran = 0;
    let mut all = Vec::new();
    for _ in 0..runs.max(2) {
        let Some(hook) = &hook else { break };
        ran += 1;
        let one = Run::of(hook, env, limit.min(HOOK_LIMIT), clock);
        // One that hangs would hang each time.
        let hung = matches!(one.printed, Err(SourceError::TimedOut { .. }));
        all.push(one);
        if hung {
            break;
        }
    }
    report.ending(&all);
    report.output(&all);
    report.key_material(&all);
    report.manners(&all);
    Conformance { path: path.to_owned(), runs: ran, checks: report.checks }
}

/// One run of it.
struct Run {
    printed: Result<secret::SecretBytes, SourceError>,
    /// What is wrong with what it printed, where it ended as it should.
    defect: Option<&'static str>,
    complains: bool,
    left_behind: bool,
}

impl Run {
    fn of(hook: &Trusted, env: &[(String, String)], limit: Duration, clock: &dyn Clock) -> Self {
        let (printed, seen) = watch(hook, Asked { env, input: None, limit }, clock);
        let (printed, defect) = match printed {
            Ok(line) => match hex_line::octets(&line) {
                Ok(octets) => (Ok(octets), None),
                Err(defect) => (Ok(secret::SecretBytes::new(Vec::new())), Some(defect)),
            },
            // It was cut short: how it would have ended is not known.
            Err(e) => {
                let defect = if let SourceError::BadOutput { defect, .. } = &e { Some(*defect) } else { None };
                (Err(e), defect)
            }
        };
        Self { printed, defect, complains: seen.complains(), left_behind: seen.left_behind }
    }
}

#[derive(Default)]
struct Report {
    checks: Vec<Check>,
}

impl Report {
    fn add(&mut self, name: &'static str, verdict: Verdict, told: impl Into<String>) {
        self.checks.push(Check { name, verdict, told: told.into() });
    }

    fn good(&mut self, name: &'static str) {
        self.add(name, Verdict::Good, "");
    }

    fn bad(&mut self, name: &'static str, told: impl Into<String>) {
        self.add(name, Verdict::Bad, told);
    }

    fn ending(&mut self, runs: &[Run]) {
        const TIME: &str = "it ends in time";
        const STATUS: &str = "it ends with status 0";
        let fault = runs.iter().find_map(|run| run.printed.as_ref().err().map(|e| (e, run.left_behind)));
        match fault {
            None if runs.is_empty() => [TIME, STATUS].into_iter().for_each(|name| self.add(name, Verdict::NotSeen, "")),
            None => [TIME, STATUS].into_iter().for_each(|name| self.good(name)),
            Some((SourceError::TimedOut { limit, .. }, left_behind)) => {
                let why = if left_behind { "; a process that it left behind holds its output" } else { "" };
                self.bad(TIME, format!("not within {limit:?}{why}"));
                self.add(STATUS, Verdict::NotSeen, "");
            }
            Some((SourceError::BadOutput { .. }, _)) => {
                [TIME, STATUS].into_iter().for_each(|name| self.add(name, Verdict::NotSeen, "it was cut short"));
            }
            Some((SourceError::HookFailed { status, .. }, _)) => {
                self.good(TIME);
                self.bad(STATUS, status.clone());
            }
            Some((e, _)) => {
                self.add(TIME, Verdict::NotSeen, "");
                self.bad(STATUS, host::with_causes(e));
            }
        }
    }

    fn output(&mut self, runs: &[Run]) {
        const NAME: &str = "it prints one line of lower-case hexadecimal digits";
        match runs.iter().find_map(|run| run.defect) {
            Some(defect) => self.bad(NAME, defect),
            None if runs.iter().any(|run| run.printed.is_ok()) => self.good(NAME),
            None => self.add(NAME, Verdict::NotSeen, ""),
        }
    }

    fn key_material(&mut self, runs: &[Run]) {
        const LENGTH: &str = "32 octets or more";
        const RANDOM: &str = "not one octet again and again";
        const SAME: &str = "the same octets each time";
        let octets: Vec<&secret::SecretBytes> =
            runs.iter().filter(|run| run.defect.is_none()).filter_map(|run| run.printed.as_ref().ok()).collect();
        let Some(first) = octets.first() else {
            return [LENGTH, RANDOM, SAME].into_iter().for_each(|name| self.add(name, Verdict::NotSeen, ""));
        };
        let count = |n: usize| if n == 1 { "1 octet".to_owned() } else { format!("{n} octets") };
        match first.len() {
            n if n < MIN_IKM_BYTES => self.bad(LENGTH, count(n)),
            n if n < FULL_IKM_BYTES => {
                self.add(LENGTH, Verdict::Poor, format!("{}, which only danger_short_ikm takes", count(n)));
            }
            n => self.add(LENGTH, Verdict::Good, count(n)),
        }
        let short = Some(ShortIkmAllowed::danger_short_ikm());
        match Ikm::new(secret::SecretBytes::new(first.expose().to_vec()), short) {
            Err(IkmError::Constant) => self.bad(RANDOM, ""),
            Err(IkmError::TooShort { .. }) => self.add(RANDOM, Verdict::NotSeen, ""),
            Ok(_) | Err(IkmError::TooLong { .. }) => self.good(RANDOM),
        }
        match octets.len() {
            1 => self.add(SAME, Verdict::NotSeen, ""),
            _ if octets.iter().all(|other| secret::crypto::ct_eq(other.expose(), first.expose())) => self.good(SAME),
            _ => self.bad(SAME, "they differ"),
        }
    }

    fn manners(&mut self, runs: &[Run]) {
        const QUIET: &str = "nothing on standard error";
        const ALONE: &str = "no process is left behind";
        if runs.is_empty() {
            return [QUIET, ALONE].into_iter().for_each(|name| self.add(name, Verdict::NotSeen, ""));
        }
        match runs.iter().any(|run| run.complains) {
            true => self.add(QUIET, Verdict::Poor, "it says something, which goes to the log at each start"),
            false => self.good(QUIET),
        }
        match runs.iter().any(|run| run.left_behind) {
            true => self.add(ALONE, Verdict::Poor, "there is one, which is killed at each start"),
            false => self.good(ALONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Place;
    use super::*;
    use host::OsClock;

    const IKM: &str = "64acd82883269a5e46b8b0426d5a18e2b006f7d79041a68a4efa5339f25aba80";

    /// Each hook with the report on it, as a golden file: what a vendor reads.
    #[test]
    fn reports() {
        let place = Place::new();
        let report = |name: &str, lines: &str| {
            let hook = place.file(name, &format!("#!/bin/sh\n{lines}\n"), 0o700);
            let limit = if name.starts_with("hang") || name == "holds-its-output" { 300 } else { 10_000 };
            let clock = OsClock::new().unwrap();
            let told = conformance(&hook, &[], 3, Duration::from_millis(limit), &clock).to_string();
            told.replace(hook.parent().unwrap().to_str().unwrap(), "")
        };
        let digits = |octets: usize| format!("printf '{}\\n'", &IKM.repeat(40)[..2 * octets]);
        let mut all = Vec::new();
        for (name, lines) in [
            ("good", format!("printf {IKM}")),
            ("octets-1", digits(1)),
            ("octets-16", digits(16)),
            ("octets-64", digits(64)),
            ("octets-1000", digits(1000)),
            ("hangs", "sleep 60".to_owned()),
            ("floods", "yes 00".to_owned()),
            ("junk", "echo no key today".to_owned()),
            ("upper-case", format!("printf {}", IKM.to_uppercase())),
            ("zeros", format!("printf {}", "00".repeat(32))),
            (
                "drifts",
                "tr -dc 0-9a-f </proc/sys/kernel/random/uuid; printf 0123456789abcdef0123456789abcdef".to_owned(),
            ),
            ("fails", format!("printf {IKM}; exit 3")),
            ("noisy", format!("echo trying >&2; printf {IKM}")),
            ("leaves-a-child", format!("sleep 60 >/dev/null 2>&1 </dev/null & printf {IKM}")),
            ("holds-its-output", format!("sleep 60 & printf {IKM}")),
        ] {
            all.push(report(name, &lines));
        }
        let all = all.join("\n\n") + "\n";
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/cli/ikm-conformance.txt");
        if std::env::var_os("EDGEKEEP_BLESS").is_some() {
            use host::Disk;
            host::OsDisk.replace(&file, all.as_bytes(), 0o644, None).unwrap();
        }
        assert_eq!(all, std::fs::read_to_string(&file).unwrap(), "EDGEKEEP_BLESS=1 writes it anew");
    }

    #[test]
    fn a_hook_that_others_may_change_is_not_run() {
        let place = Place::new();
        let hook = place.file("open", &format!("#!/bin/sh\nprintf {IKM}\n"), 0o722);
        let report = conformance(&hook, &[], 3, HOOK_LIMIT, &OsClock::new().unwrap());
        assert!(!report.conforms());
        assert_eq!(report.runs, 0);
        assert!(report.checks[0].told.contains("others may write to it"), "{report}");
    }
}
