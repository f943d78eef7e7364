//! THREATS.md holds what it says: a row is tested by tests that ran, or accepted, or open; and the tests bite.
//!
//! A row of the table is `| id | threat | priority | what we do | proof |`. The proof is one of
//! `tests: a::b::c, d::e [mitigation-name]`, `accepted: reason`, `open: what is missing`. The name in brackets is that of
//! `host::in_force("mitigation-name")`: with it off, the tests of the row must fail.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::testlog::{DEFAULT_LOG, TestLog};

struct Row {
    id: String,
    proof: Proof,
}

enum Proof {
    Tested { tests: Vec<String>, mitigation: Option<String> },
    Accepted,
    Open,
    Nothing,
}

/// Fails where a row has no proof, or names a test that did not run and pass.
pub(crate) fn check(log: Option<&str>) -> Result<()> {
    let rows = rows()?;
    let log = TestLog::read(&crate::root().join(log.unwrap_or(DEFAULT_LOG)))?;
    let skipped = skipped();
    let (mut tested, mut accepted, mut open) = (0, 0, 0);
    let mut faults = Vec::new();
    for row in &rows {
        match &row.proof {
            Proof::Nothing => faults.push(format!("{}: neither tests, nor accepted, nor open", row.id)),
            Proof::Accepted => accepted += 1,
            Proof::Open => open += 1,
            Proof::Tested { tests, .. } => {
                let missing: Vec<&String> = tests.iter().filter(|t| log.passed(t) != Some(true)).collect();
                if missing.is_empty() {
                    tested += 1;
                } else if missing.iter().all(|t| skipped.iter().any(|s| t.contains(s.as_str()))) {
                    println!("threats: {} counts as open: {missing:?} was skipped by EDGEKEEP_TEST_SKIP", row.id);
                    open += 1;
                } else {
                    faults.push(format!("{}: did not run and pass: {missing:?}", row.id));
                }
            }
        }
    }
    for fault in &faults {
        eprintln!("threats: {fault}");
    }
    println!("threats: {} rows: {tested} tested, {accepted} accepted, {open} open", rows.len());
    ensure!(faults.is_empty(), "{} rows of THREATS.md do not hold", faults.len());
    Ok(())
}

/// Runs each row's tests with the mitigation off; a test that still passes proves nothing.
pub(crate) fn bite(only: Option<&str>) -> Result<()> {
    let (mut toothless, mut bitten) = (Vec::new(), 0);
    let mut done = BTreeSet::new();
    for row in rows()?.iter().filter(|r| only.is_none_or(|id| id == r.id)) {
        let Proof::Tested { tests, mitigation: Some(mitigation) } = &row.proof else { continue };
        for test in tests {
            if !done.insert((test.clone(), mitigation.clone())) {
                continue;
            }
            if fails_without(test, mitigation)? {
                println!("bite: {}: {test} fails without {mitigation}", row.id);
                bitten += 1;
            } else {
                toothless.push(format!("{}: {test} passes without {mitigation}", row.id));
            }
        }
    }
    for t in &toothless {
        eprintln!("bite: {t}");
    }
    println!("bite: {bitten} tests fail when their mitigation is off, {} do not", toothless.len());
    ensure!(toothless.is_empty(), "{} tests prove nothing", toothless.len());
    Ok(())
}

fn fails_without(test: &str, mitigation: &str) -> Result<bool> {
    let (krate, name) = test.split_once("::").with_context(|| format!("{test} names no crate"))?;
    let package =
        if krate == "e2e" || krate == "edgekeep" { "edgekeep".to_owned() } else { format!("edgekeep-{krate}") };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::root()).args(["test", "--quiet", "--package", &package, "--features", "host/bite"]);
    if krate == "e2e" {
        cargo.args(["--test", "e2e"]);
    }
    let output = cargo.args(["--", "--exact", name]).env("EDGEKEEP_BITE", mitigation).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        text.contains("running 1 test"),
        "{test} could not be run: {}{}",
        text,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(!output.status.success())
}

fn skipped() -> Vec<String> {
    let text = std::env::var("EDGEKEEP_TEST_SKIP").unwrap_or_default();
    text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect()
}

fn rows() -> Result<Vec<Row>> {
    let path = crate::root().join("THREATS.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rows: Vec<Row> = text.lines().filter_map(parse).collect();
    let mut seen = BTreeSet::new();
    for row in &rows {
        ensure!(seen.insert(&row.id), "THREATS.md has two rows {}", row.id);
    }
    ensure!(!rows.is_empty(), "THREATS.md has no rows");
    Ok(rows)
}

/// A row of a threat table: five cells, of which the third is a priority.
fn parse(line: &str) -> Option<Row> {
    let cells: Vec<&str> = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let [id, _threat, priority, _what, proof] = cells[..] else { return None };
    if !matches!(priority, "H" | "M" | "L") {
        return None;
    }
    let proof = if let Some(list) = proof.strip_prefix("tests:") {
        let (list, mitigation) = match list.rsplit_once('[') {
            Some((list, name)) => (list, Some(name.trim_end_matches(']').trim().to_owned())),
            None => (list, None),
        };
        let tests: Vec<String> =
            list.split(',').map(|t| t.trim().trim_matches('`').to_owned()).filter(|t| !t.is_empty()).collect();
        if tests.is_empty() { Proof::Nothing } else { Proof::Tested { tests, mitigation } }
    } else if proof.strip_prefix("accepted:").is_some_and(|r| !r.trim().is_empty()) {
        Proof::Accepted
    } else if proof.strip_prefix("open:").is_some_and(|r| !r.trim().is_empty()) {
        Proof::Open
    } else {
        Proof::Nothing
    };
    Some(Row { id: id.to_owned(), proof })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_without_proof_is_seen() {
        let row = parse("| a1 | reads | H | TLS | |").unwrap();
        assert!(matches!(row.proof, Proof::Nothing));
        assert!(matches!(parse("| a1 | reads | H | TLS | accepted: |").unwrap().proof, Proof::Nothing));
        assert!(parse("| id | threat | priority | what | proof |").is_none());
    }

    #[test]
    fn tests_and_their_mitigation() {
        let row = parse("| a1 | reads | H | TLS | tests: `seal::x::y`, pki::z [pinned-ca] |").unwrap();
        let Proof::Tested { tests, mitigation } = row.proof else { panic!("not tested") };
        assert_eq!(tests, ["seal::x::y", "pki::z"]);
        assert_eq!(mitigation.as_deref(), Some("pinned-ca"));
    }
}
