//! What `cargo test` said: which tests ran in this run, and which of them passed.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};

/// Where `scripts/test.sh` leaves what the run said.
pub(crate) const DEFAULT_LOG: &str = "target/test-log.txt";

/// Tests of one run by full name: `crate::module::test`, the crate being the library's or the test file's name.
#[derive(Debug, Default)]
pub(crate) struct TestLog {
    tests: BTreeMap<String, bool>,
}

impl TestLog {
    /// Reads the log of a run of `cargo test` (both streams in one file).
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: run scripts/test.sh first, it leaves its log there", path.display()))?;
        Ok(Self::parse(&text))
    }

    /// Whether the test ran, and passed.
    pub(crate) fn passed(&self, name: &str) -> Option<bool> {
        self.tests.get(name).copied()
    }

    fn parse(text: &str) -> Self {
        let mut log = Self::default();
        let mut krate = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(binary) = line.strip_prefix("Running ").and_then(|l| l.rsplit_once('(')).map(|(_, b)| b) {
                // target/debug/deps/policy-0123456789abcdef)
                let file = binary.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
                file.rsplit_once('-').map_or(file, |(name, _)| name).clone_into(&mut krate);
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
}
