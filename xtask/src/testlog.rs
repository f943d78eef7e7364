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
        for line in text.lines().map(str::trim) {
            if let Some(binary) = line.strip_prefix("Running ").and_then(|l| l.rsplit_once('(')).map(|(_, b)| b) {
                // target/debug/deps/policy-0123456789abcdef)
                let file = binary.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
                file.rsplit_once('-').map_or(file, |(name, _)| name).clone_into(&mut krate);
            } else if let Some((_, rest)) = line.split_once(SKIPPED) {
                // `component: module::test`; anywhere in its line, because tests that run side by side write into one
                // log.
                let test = rest.split_once(": ").map_or(rest, |(_, test)| test);
                log.skipped.insert(format!("{krate}::{}", test.trim()));
            } else if let Some(rest) = line.strip_prefix("test ") {
                let Some((name, outcome)) = rest.rsplit_once(" ... ") else { continue };
                let name = name.trim_end_matches(" - should panic");
                // The test's own output may stand between name and outcome: only a whole `ok` counts as passed.
                log.tests.insert(format!("{krate}::{name}"), outcome == "ok");
            }
        }
        log
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
}
