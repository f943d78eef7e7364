//! THREATS.md holds what it says: a row is tested by tests that ran, or accepted, or open; and the tests bite.
//!
//! A row of the table is `| id | threat | priority | what we do | proof |`. The proof is one of `tests: a::b::c, d::e
//! [mitigation-name]; f::g [another]; h::i`, `accepted: reason`, `open: what is missing`. The name in brackets is that
//! of `host::in_force("mitigation-name")`: with it off, the tests before it must fail. Tests without a name must have
//! passed, and no more is asked of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::testlog::{DEFAULT_LOG, TestLog};

struct Row {
    id: String,
    proof: Proof,
}

enum Proof {
    Tested(Vec<Attack>),
    Accepted,
    Open,
    Nothing,
}

/// Tests that attack a threat, and the mitigation that they meet.
#[derive(Debug, PartialEq)]
struct Attack {
    tests: Vec<String>,
    mitigation: Option<String>,
}

/// Fails where a row has no proof, or names a test that did not run and pass.
pub(crate) fn check(log: Option<&str>) -> Result<()> {
    let rows = rows()?;
    let log = TestLog::read(&crate::root().join(log.unwrap_or(DEFAULT_LOG)))?;
    let (mut tested, mut accepted, mut open) = (0, 0, 0);
    let mut faults = Vec::new();
    for row in &rows {
        match &row.proof {
            Proof::Nothing => faults.push(format!("{}: neither tests, nor accepted, nor open", row.id)),
            Proof::Accepted => accepted += 1,
            Proof::Open => open += 1,
            Proof::Tested(attacks) => {
                let tests = attacks.iter().flat_map(|a| &a.tests);
                let missing: Vec<&String> = tests.filter(|t| log.passed(t) != Some(true)).collect();
                if missing.is_empty() {
                    tested += 1;
                } else if missing.iter().all(|t| log.was_skipped(t)) {
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
        let Proof::Tested(attacks) = &row.proof else { continue };
        for (test, mitigation) in attacks.iter().flat_map(Attack::bites) {
            if !done.insert((test.to_owned(), mitigation.to_owned())) {
                continue;
            }
            match fails_without(test, mitigation) {
                Ok(true) => {
                    println!("bite: {}: {test} fails without {mitigation}", row.id);
                    bitten += 1;
                }
                Ok(false) => toothless.push(format!("{}: {test} passes without {mitigation}", row.id)),
                // One test that does not compile must not hide what the others do.
                Err(e) => toothless.push(format!("{}: {test}: {e:#}", row.id)),
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

impl Attack {
    /// Each test with the mitigation that is to be switched off for it.
    fn bites(&self) -> impl Iterator<Item = (&str, &str)> {
        self.mitigation.iter().flat_map(|m| self.tests.iter().map(move |t| (t.as_str(), m.as_str())))
    }

    /// `a::b, c::d [mitigation]`; `None` where no test is named.
    fn parse(text: &str) -> Option<Self> {
        let (list, mitigation) = match text.rsplit_once('[') {
            Some((list, name)) => (list, Some(name.trim().trim_end_matches(']').trim().to_owned())),
            None => (text, None),
        };
        let tests: Vec<String> =
            list.split(',').map(|t| t.trim().trim_matches('`').to_owned()).filter(|t| !t.is_empty()).collect();
        (!tests.is_empty()).then_some(Self { tests, mitigation })
    }
}

fn fails_without(test: &str, mitigation: &str) -> Result<bool> {
    let (krate, name) = test.split_once("::").with_context(|| format!("{test} names no crate"))?;
    let target = target(&crate::root(), krate)?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::root()).args(["test", "--quiet"]).args(target).args(["--features", "host/bite"]);
    let output = cargo.args(["--", "--exact", name]).env("EDGEKEEP_BITE", mitigation).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.contains("running 1 test") {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("could not be run: {}", said.lines().find(|l| l.starts_with("error")).unwrap_or("there is no such test"));
    }
    Ok(!output.status.success())
}

/// Cargo's arguments for the tests whose names begin with `krate`: the executable, a library, or an integration test.
fn target(root: &Path, krate: &str) -> Result<Vec<String>> {
    let arguments = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    match krate {
        "edgekeep" => return Ok(arguments(&["--package", "edgekeep", "--bin", "edgekeep"])),
        "e2e" => return Ok(arguments(&["--package", "edgekeep", "--test", "e2e"])),
        _ => {}
    }
    let crates = root.join("crates");
    if crates.join(krate).join("src/lib.rs").is_file() {
        return Ok(arguments(&["--package", &format!("edgekeep-{krate}"), "--lib"]));
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&crates).with_context(|| crates.display().to_string())? {
        let dir = entry?.path();
        let tests = dir.join("tests");
        if tests.join(format!("{krate}.rs")).is_file() || tests.join(krate).join("main.rs").is_file() {
            found.extend(dir.file_name().and_then(|n| n.to_str()).map(str::to_owned));
        }
    }
    match &found[..] {
        // The executable's crate is the one whose package has no second half to its name.
        [cli] if cli == "cli" => Ok(arguments(&["--package", "edgekeep", "--test", krate])),
        [one] => Ok(arguments(&["--package", &format!("edgekeep-{one}"), "--test", krate])),
        [] => bail!("no crate and no integration test is called {krate}"),
        several => bail!("{krate} is an integration test of several crates: {several:?}"),
    }
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
        list.split(';').map(Attack::parse).collect::<Option<Vec<_>>>().map_or(Proof::Nothing, Proof::Tested)
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
        let row = parse("| a1 | reads | H | TLS | tests: `seal::x::y`, pki::z [pinned-ca]; e2e::a |").unwrap();
        let Proof::Tested(attacks) = row.proof else { panic!("not tested") };
        let bites: Vec<_> = attacks.iter().flat_map(Attack::bites).collect();
        assert_eq!(bites, [("seal::x::y", "pinned-ca"), ("pki::z", "pinned-ca")]);
        assert_eq!(attacks[1], Attack { tests: vec!["e2e::a".into()], mitigation: None });
        for empty in ["tests:", "tests: [pinned-ca]", "tests: a::b [x];"] {
            let row = parse(&format!("| a1 | reads | H | TLS | {empty} |")).unwrap();
            assert!(matches!(row.proof, Proof::Nothing), "{empty}");
        }
    }

    #[test]
    fn a_test_is_found_in_its_package() {
        let words = |krate| target(&crate::root(), krate).unwrap().join(" ");
        assert_eq!(words("seal"), "--package edgekeep-seal --lib");
        assert_eq!(words("attacks"), "--package edgekeep-store --test attacks");
        assert_eq!(words("exchanges"), "--package edgekeep-engines --test exchanges");
        assert_eq!(words("refusals"), "--package edgekeep --test refusals");
        assert_eq!(words("e2e"), "--package edgekeep --test e2e");
        assert_eq!(words("edgekeep"), "--package edgekeep --bin edgekeep");
        assert!(target(&crate::root(), "nosuch").is_err());
    }
}
