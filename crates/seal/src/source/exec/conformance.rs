//! Whether a vendor's executable is a hook, by its behaviour: run several times, under the rules that hold at a boot.
//!
//! Nothing of its output is kept, shown or logged. The first run asks for the hook's [status](super::status): one that
//! counts its releases, and says so, is not run for its key. One that counts and does not say so must be known to the
//! caller ([`Runs::Once`]).

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host::Clock;

use super::status::HookStatus;
use super::{Deadline, HOOK_LIMIT, hex_line, with_question};
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

/// How often a hook gives its key for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// So often, at least twice. A hook that says that it counts its releases gives it not at all.
    Several(usize),
    /// Once, for it counts its releases.
    Once,
}

impl Conformance {
    /// Whether nothing speaks against it.
    pub fn conforms(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::Bad)
    }

    /// Whether everything was looked at.
    fn is_whole(&self) -> bool {
        self.checks.iter().all(|check| check.verdict != Verdict::NotSeen)
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
        f.write_str(match (self.conforms(), self.is_whole()) {
            (true, true) => "It conforms to the hook's contract.",
            (true, false) => "Nothing speaks against it. What is marked with - was not tried.",
            (false, _) => "It does not conform to the hook's contract.",
        })
    }
}

/// Runs the hook at `path`, each time for `limit` at most and with `env` for its whole environment; the first run asks
/// what it has left.
pub fn conformance(
    path: &Path,
    env: &[(String, String)],
    runs: Runs,
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
    let all = hook.map_or_else(Vec::new, |hook| Trial { hook, env, limit, clock }.of(runs));
    report.count(&all, runs);
    report.ending(&all);
    report.output(&all);
    report.key_material(&all);
    report.manners(&all);
    Conformance { path: path.to_owned(), runs: all.len(), checks: report.checks }
}

/// A hook that is tried.
struct Trial<'a> {
    hook: Trusted,
    env: &'a [(String, String)],
    limit: Duration,
    clock: &'a dyn Clock,
}

impl Trial<'_> {
    fn of(&self, runs: Runs) -> Vec<Run> {
        let mut all = vec![self.asked()];
        let keys = match (all[0].status, runs) {
            (Some(HookStatus::Counted { .. }), Runs::Several(_)) | (Some(HookStatus::Counted { left: 0, .. }), _) => 0,
            // It was run for its key, not knowing the question.
            (None, Runs::Once) => 0,
            (Some(_), Runs::Once) => 1,
            (Some(HookStatus::Uncounted), Runs::Several(runs)) => runs.max(2),
            (None, Runs::Several(runs)) => runs.max(2) - 1,
        };
        for _ in 0..keys {
            // One that hangs would hang each time.
            if all.iter().any(Run::hung) {
                break;
            }
            all.push(Run::of(&self.hook, self.env, self.deadline(), self.clock));
        }
        if matches!(all[0].status, Some(HookStatus::Counted { .. })) && keys > 0 {
            all.push(self.asked());
        }
        all
    }

    fn asked(&self) -> Run {
        Run::of(&self.hook, &with_question(self.env), self.deadline(), self.clock)
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.clock, self.limit.min(HOOK_LIMIT))
    }
}

/// One run of it.
struct Run {
    /// Its key; nothing, where it has said what it has left instead.
    printed: Result<secret::SecretBytes, SourceError>,
    status: Option<HookStatus>,
    /// What is wrong with what it printed, where it ended as it should.
    defect: Option<&'static str>,
    complains: bool,
    left_behind: bool,
}

impl Run {
    fn of(hook: &Trusted, env: &[(String, String)], deadline: Deadline, clock: &dyn Clock) -> Self {
        let (printed, seen) = watch(hook, Asked { env, input: None, deadline }, clock);
        let status = printed.as_ref().ok().and_then(|line| HookStatus::parse(line));
        let (printed, defect) = match printed {
            Ok(_) if status.is_some() => (Ok(secret::SecretBytes::new(Vec::new())), None),
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
        Self { printed, status, defect, complains: seen.complains(), left_behind: seen.left_behind }
    }

    fn hung(&self) -> bool {
        matches!(self.printed, Err(SourceError::TimedOut { .. }))
    }

    /// Whether it has ended well, and was not one for its status.
    fn printed_key(&self) -> bool {
        self.status.is_none() && self.printed.is_ok()
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

    /// What it says of its releases, if it does; and whether that is so.
    fn count(&mut self, runs: &[Run], wanted: Runs) {
        const NAME: &str = "it says how many releases are left";
        let mut said = runs.iter().filter_map(|run| run.status);
        match (said.next(), said.next()) {
            (None, _) if wanted == Runs::Once => self.add(NAME, Verdict::NotSeen, "it does not know the question"),
            (None, _) => {}
            (Some(HookStatus::Uncounted), _) => self.add(NAME, Verdict::Good, "it counts none"),
            (Some(HookStatus::Counted { left, limit }), None) => {
                let told = match wanted {
                    Runs::Several(_) => format!("{left} of {limit}; none was spent on this report"),
                    Runs::Once => format!("{left} of {limit}"),
                };
                self.add(NAME, Verdict::Good, told);
            }
            (Some(HookStatus::Counted { left: before, limit }), Some(HookStatus::Counted { left, limit: after }))
                if Some(left) == before.checked_sub(1) && limit == after =>
            {
                self.add(NAME, Verdict::Good, format!("{before} of {limit}, and {left} after it was run once"));
            }
            (Some(HookStatus::Counted { left, limit }), Some(after)) => {
                let after = match after {
                    HookStatus::Uncounted => "none is counted".to_owned(),
                    HookStatus::Counted { left, limit } => format!("{left} of {limit}"),
                };
                self.bad(NAME, format!("{left} of {limit}; after it was run once: {after}"));
            }
        }
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
            None if runs.iter().any(Run::printed_key) => self.good(NAME),
            None => self.add(NAME, Verdict::NotSeen, ""),
        }
    }

    fn key_material(&mut self, runs: &[Run]) {
        const LENGTH: &str = "32 octets or more";
        const RANDOM: &str = "not one octet again and again";
        const SAME: &str = "the same octets each time";
        let octets: Vec<&secret::SecretBytes> = runs
            .iter()
            .filter(|run| run.defect.is_none() && run.printed_key())
            .filter_map(|run| run.printed.as_ref().ok())
            .collect();
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
            1 => self.add(SAME, Verdict::NotSeen, "it was run once"),
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
            let limit = match name {
                "hangs" => 300,
                // It has printed and ended by then, beside other work too.
                "holds-its-output" => 3000,
                _ => 10_000,
            };
            let clock = OsClock::new().unwrap();
            let runs = if name.ends_with("-once") { Runs::Once } else { Runs::Several(3) };
            let told = conformance(&hook, &[], runs, Duration::from_millis(limit), &clock).to_string();
            told.replace(hook.parent().unwrap().to_str().unwrap(), "")
        };
        // In the place of a TPM's count: a file with a line for each release.
        let count = |limit: u8| {
            let file = place.path("count").display().to_string();
            format!(
                "/usr/bin/touch {file}; n=$(/usr/bin/wc -l <{file}); if [ \"$EDGEKEEP_IKM_ASK\" = status ]; \
                 then echo \"edgekeep-ikm 1 counted $(({limit} - n)) of {limit}\"; exit; fi; \
                 [ $n -lt {limit} ] || exit 1; echo >>{file}; printf {IKM}"
            )
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
            ("good-once", format!("printf {IKM}")),
            ("counts", count(2)),
            ("counts-once", count(2)),
            ("counts-again-once", count(2)),
            ("counts-and-has-none-left-once", count(2)),
            (
                "says-that-it-counts-once",
                format!("[ -n \"$EDGEKEEP_IKM_ASK\" ] && echo edgekeep-ikm 1 counted 2 of 2 || printf {IKM}"),
            ),
            ("counts-none", format!("[ -n \"$EDGEKEEP_IKM_ASK\" ] && echo edgekeep-ikm 1 uncounted || printf {IKM}")),
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
        let report = conformance(&hook, &[], Runs::Several(3), HOOK_LIMIT, &OsClock::new().unwrap());
        assert!(!report.conforms());
        assert_eq!(report.runs, 0);
        assert!(report.checks[0].told.contains("others may write to it"), "{report}");
    }
}
