//! What `cargo test` said: which tests ran in this run, which of them passed, and which only said that they were
//! skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// Where `scripts/test.sh` leaves what the run said.
pub(crate) const DEFAULT_LOG: &str = "target/test-log.txt";

/// Tests of one run by full name: `crate::module::test`, the crate being the library's or the test file's name.
#[derive(Debug, Default)]
pub(crate) struct TestLog {
    tests: BTreeMap<String, bool>,
    skipped: BTreeSet<String>,
}

impl TestLog {
    /// Reads the log of a run of `cargo test` (both streams in one file).
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: run scripts/test.sh first, it leaves its log there", path.display()))?;
        Ok(Self::parse(&text))
    }

    /// Whether the test ran, and passed. One that was skipped did neither.
    pub(crate) fn passed(&self, name: &str) -> Option<bool> {
        self.tests.get(name).copied().filter(|_| !self.was_skipped(name))
    }

    /// Whether the test said that `EDGEKEEP_TEST_SKIP` names what it needs.
    pub(crate) fn was_skipped(&self, name: &str) -> bool {
        self.skipped.contains(name)
    }

    fn parse(text: &str) -> Self {
        let mut log = Self::default();
        let mut krate = String::new();
        let mut torn = Torn::default();
        for line in text.lines().map(str::trim) {
            if let Some(binary) = line.strip_prefix("Running ").and_then(|l| l.rsplit_once('(')).map(|(_, b)| b) {
                // target/debug/deps/policy-0123456789abcdef)
                let file = binary.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
                file.rsplit_once('-').map_or(file, |(name, _)| name).clone_into(&mut krate);
                torn = Torn::default();
                continue;
            }
            if let Some((_, rest)) = line.split_once(SKIPPED) {
                // `component: module::test`; anywhere in its line, because tests that run side by side write into one
                // log.
                let test = rest.split_once(": ").map_or(rest, |(_, test)| test);
                log.skipped.insert(format!("{krate}::{}", test.trim()));
            }
            if line.starts_with("test result: ") {
                let passed = std::mem::take(&mut torn).ended();
                if line.starts_with("test result: ok. ") {
                    log.tests.extend(passed.into_iter().map(|name| (name, true)));
                }
            } else if let Some((name, outcome)) = line.strip_prefix("test ").and_then(named) {
                let name = format!("{krate}::{}", name.trim_end_matches(" - should panic"));
                let said_ok = outcome.starts_with("ok");
                torn.begins((!is_whole(outcome)).then(|| Open { name: name.clone(), said_ok, passed: None }));
                log.tests.insert(name, outcome == "ok");
            } else {
                torn.goes_on(line);
            }
        }
        log
    }
}

/// Of `name ... outcome`. The name may stand alone: its test, or whatever that has started, wrote in between.
fn named(rest: &str) -> Option<(&str, &str)> {
    rest.split_once(" ... ").or_else(|| Some((rest.strip_suffix(" ...")?, "")))
}

fn is_whole(outcome: &str) -> bool {
    outcome == "ok" || is_bad(outcome)
}

fn is_bad(outcome: &str) -> bool {
    outcome == "FAILED" || outcome == "ignored" || outcome.starts_with("ignored, ")
}

/// Lines of one test binary into which somebody else wrote. libtest writes name, outcome and the end of the line each
/// by itself; but nothing of another test in between.
#[derive(Default)]
struct Torn {
    open: Option<Open>,
    /// Those whose `ok` came later. They have passed if the binary then says that nothing has failed: an `ok` by
    /// itself may be anybody's.
    mended: Vec<String>,
}

/// The last name whose outcome did not stand behind it.
struct Open {
    name: String,
    /// Whether what does stand there begins with an `ok`.
    said_ok: bool,
    passed: Option<bool>,
}

impl Torn {
    fn begins(&mut self, open: Option<Open>) {
        let done = std::mem::replace(&mut self.open, open).filter(|open| open.passed == Some(true));
        self.mended.extend(done.map(|open| open.name));
    }

    fn goes_on(&mut self, line: &str) {
        let Some(open) = &mut self.open else { return };
        let last = line.rsplit(' ').next().unwrap_or_default();
        if is_bad(line) || is_bad(last) {
            open.passed = Some(false);
        } else if last == "ok" || open.said_ok && line.is_empty() {
            // An empty line is the end of one whose outcome others have written behind.
            open.passed.get_or_insert(true);
        }
    }

    fn ended(mut self) -> Vec<String> {
        self.begins(None);
        self.mended
    }
}

/// What a skipped test says (`testkit::is_skipped`).
const SKIPPED: &str = "skipped by EDGEKEEP_TEST_SKIP: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_a_test_by_crate_and_path() {
        let log = TestLog::parse(
            "     Running unittests src/lib.rs (target/debug/deps/policy-01ab)\n\nrunning 2 tests\n\
             test hcl::tests::depth ... ok\ntest hcl::tests::width ... FAILED\ntest late ... ignored\n",
        );
        assert_eq!(log.passed("policy::hcl::tests::depth"), Some(true));
        assert_eq!(log.passed("policy::hcl::tests::width"), Some(false));
        assert_eq!(log.passed("policy::late"), Some(false));
        assert_eq!(log.passed("policy::hcl::tests::height"), None);
    }

    #[test]
    fn a_test_that_was_skipped_has_not_passed() {
        let log = TestLog::parse(
            "skipped by EDGEKEEP_TEST_SKIP: openssl\n     Running tests/tls.rs (target/debug/deps/tls-01ab)\n\
             skipped by EDGEKEEP_TEST_SKIP: openssl: by_openssl\ntest by_openssl ... ok\ntest by_rustls ... ok\n",
        );
        assert_eq!((log.passed("tls::by_openssl"), log.was_skipped("tls::by_openssl")), (None, true));
        assert_eq!((log.passed("tls::by_rustls"), log.was_skipped("tls::by_rustls")), (Some(true), false));
    }
    fn of(lines: &str, result: &str) -> TestLog {
        let begin = "     Running unittests src/lib.rs (target/debug/deps/k-01ab)\n\nrunning 2 tests\n";
        TestLog::parse(&format!("{begin}{lines}\n\n{result}. 1 passed; 0 failed; 0 ignored\n\n"))
    }

    const GOOD: &str = "test result: ok";

    #[test]
    fn a_line_into_which_others_wrote_is_put_together() {
        for torn in [
            "test a ... \nok\ntest b ... FAILED",
            "test a ... a child speaks\nok\ntest b ... FAILED",
            "test a ... a child speaks\nand again ok\ntest b ... FAILED",
            "test a ... oka child speaks\n\ntest b ... FAILED",
            "test a ... oka child speaks\nand again\n\ntest b ... FAILED",
            "test b ... ignored, for a reason\ntest a - should panic ... one ... two\nok",
        ] {
            let log = of(torn, GOOD);
            assert_eq!((log.passed("k::a"), log.passed("k::b")), (Some(true), Some(false)), "{torn}");
        }
    }

    #[test]
    fn what_is_in_doubt_has_not_passed() {
        for doubtful in [
            "test a ...",
            "test a ... a child speaks",
            "test a ... all is ok",
            "test a ... oka child speaks\ntest b ... ok",
            // The next test's, or another binary's.
            "test a ... \ntest b ... \nok",
            "test a ... \n     Running tests/b.rs (target/debug/deps/b-01ab)\nok",
            // What failed or was not run says so in the end.
            "test a ... a child says ok\nFAILED\nok",
            "test a ... a child says\nand again FAILED\nok",
            "test a ... \nok\nignored",
            "test a ... okay\nignored\n\nok",
            "test a ... okay\nignored, for a reason\nok",
        ] {
            assert_eq!(of(doubtful, GOOD).passed("k::a"), Some(false), "{doubtful}");
        }
        // An `ok` that may be a child's, where something has failed or nobody says that nothing has.
        for result in ["test result: FAILED", "error: test failed", ""] {
            for torn in ["test a ... \nok", "test a ... oka child speaks\n"] {
                assert_eq!(of(torn, result).passed("k::a"), Some(false), "{torn} {result}");
            }
        }
    }

    #[test]
    fn a_skipped_test_whose_line_was_torn_has_not_passed() {
        let log = of("test a ... skipped by EDGEKEEP_TEST_SKIP: openssl: a\nok\ntest b ... ok", GOOD);
        assert_eq!((log.passed("k::a"), log.was_skipped("k::a"), log.passed("k::b")), (None, true, Some(true)));
    }
}
