//! A crate may use the floors below it, never its own floor or one above (ARCHITECTURE.md, The house).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Checks the workspace, and that the check itself still refuses what it must.
pub(crate) fn check() -> Result<()> {
    let root = crate::root();
    let faults = faults_of(&root.join("Cargo.toml"))?;
    for fault in &faults {
        eprintln!("floors: {fault}");
    }
    ensure!(faults.is_empty(), "{} faults in the workspace's floors", faults.len());
    for (fixture, expected) in [
        ("upward", "uses floor 3"),
        ("level", "uses floor 1"),
        ("tools", "uses a tool of tests"),
        ("nowhere", "names no floor"),
        ("aside", "uses what stands beside the house"),
    ] {
        let manifest = root.join("xtask/fixtures/floors").join(fixture).join("Cargo.toml");
        let faults = faults_of(&manifest)?;
        let refused = faults.iter().any(|f| f.contains(expected));
        ensure!(refused, "fixture {fixture} must be refused with {expected:?}, but gave {faults:?}");
    }
    println!("floors: every crate uses only floors below its own; 5 fixtures refused");
    Ok(())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    metadata: Option<serde_json::Value>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    path: Option<String>,
}

#[derive(Clone, Copy)]
enum Floor {
    /// Part of the executable.
    Number(i64),
    /// Beside the house: an executable of its own, which uses floors 0 and 1 and which nothing uses.
    Side,
    /// For development alone.
    Tool,
}

/// What stands beside the house uses floors 0 and 1.
const SIDE_USES_BELOW: i64 = 2;

fn faults_of(manifest: &Path) -> Result<Vec<String>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata of {}: {}", manifest.display(), String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let mut faults = Vec::new();
    let mut floors = BTreeMap::new();
    for package in &metadata.packages {
        match package.metadata.as_ref().and_then(|m| m.pointer("/edgekeep/floor")) {
            Some(serde_json::Value::Number(n)) if n.as_i64().is_some() => {
                floors.insert(package.name.as_str(), Floor::Number(n.as_i64().unwrap_or_default()));
            }
            Some(serde_json::Value::String(s)) if s == "dev" => {
                floors.insert(package.name.as_str(), Floor::Tool);
            }
            Some(serde_json::Value::String(s)) if s == "side" => {
                floors.insert(package.name.as_str(), Floor::Side);
            }
            _ => faults.push(format!("{} names no floor in [package.metadata.edgekeep]", package.name)),
        }
    }
    for package in &metadata.packages {
        let own = match floors.get(package.name.as_str()).copied() {
            Some(Floor::Number(own)) => own,
            Some(Floor::Side) => SIDE_USES_BELOW,
            Some(Floor::Tool) | None => continue,
        };
        for dependency in package.dependencies.iter().filter(|d| d.path.is_some() && d.kind.as_deref() != Some("dev")) {
            match floors.get(dependency.name.as_str()) {
                Some(Floor::Number(other)) if *other >= own => {
                    faults.push(format!("{} (floor {own}) uses floor {other}: {}", package.name, dependency.name));
                }
                Some(Floor::Side) => {
                    faults.push(format!("{} uses what stands beside the house: {}", package.name, dependency.name));
                }
                Some(Floor::Tool) => faults.push(format!("{} uses a tool of tests: {}", package.name, dependency.name)),
                _ => {}
            }
        }
    }
    Ok(faults)
}
