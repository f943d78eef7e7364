//! The demands of EdgeX's documents against the ways of running: a passing test, or `open`, in each cell.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::testlog::{DEFAULT_LOG, TestLog};

/// The ways of running, in the order of the table.
const WAYS: [&str; 5] = ["bare", "systemd", "docker", "podman", "snap"];

#[derive(Deserialize)]
struct Table {
    demand: Vec<Demand>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Demand {
    id: String,
    text: String,
    /// Holds in every way of running: the test does not depend on it.
    #[serde(default)]
    all: Vec<String>,
    #[serde(default)]
    bare: Vec<String>,
    #[serde(default)]
    systemd: Vec<String>,
    #[serde(default)]
    docker: Vec<String>,
    #[serde(default)]
    podman: Vec<String>,
    #[serde(default)]
    snap: Vec<String>,
}

/// Prints the table; a named test that did not run and pass shows as `open`.
pub(crate) fn print(log: Option<&str>) -> Result<()> {
    let path = crate::root().join("docs/acceptance.toml");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let table: Table = toml::from_str(&text)?;
    let log = TestLog::read(&crate::root().join(log.unwrap_or(DEFAULT_LOG)))?;
    println!("{:<5} {:<60} {}", "id", "demand", WAYS.map(|w| format!("{w:<8}")).join(" "));
    let (mut proven, mut cells) = (0, 0);
    for d in &table.demand {
        let mut line = Vec::new();
        for own in [&d.bare, &d.systemd, &d.docker, &d.podman, &d.snap] {
            let tests: Vec<&String> = d.all.iter().chain(own.iter()).collect();
            let holds = !tests.is_empty() && tests.iter().all(|t| log.passed(t) == Some(true));
            cells += 1;
            proven += usize::from(holds);
            line.push(format!("{:<8}", if holds { "tested" } else { "open" }));
        }
        let text: String = d.text.chars().take(60).collect();
        println!("{:<5} {text:<60} {}", d.id, line.join(" "));
        for test in d.all.iter().chain(&d.bare).chain(&d.systemd).chain(&d.docker).chain(&d.podman).chain(&d.snap) {
            println!("      {test}");
        }
    }
    println!("acceptance: {} demands, {proven} of {cells} cells tested", table.demand.len());
    Ok(())
}
