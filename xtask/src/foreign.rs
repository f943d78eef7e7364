//! Which code of other languages the executables are built from: a package that names a library of the system or brings
//! one (`links`), or that asks for a C compiler in its build. What is not listed here is refused, so that none comes in
//! behind another dependency.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Each executable that is shipped, and the packages with C code that it may have.
const EXECUTABLES: [(&str, &[&str]); 2] = [
    // Ciphers and TLS; the store's file.
    ("edgekeep", &["aws-lc-rs", "aws-lc-sys", "libsqlite3-sys"]),
    // The standard's headers (cryptoki-sys). The token's own library is opened at run time, in this process alone.
    ("edgekeep-ikm-pkcs11", &["aws-lc-rs", "aws-lc-sys", "cryptoki-sys"]),
];

/// Programs that build other languages' code, as build scripts ask for them.
const COMPILERS: [&str; 3] = ["cc", "cmake", "bindgen"];

/// What is shipped as static executable is built for this.
const TARGET: &str = "x86_64-unknown-linux-musl";

/// Checks both executables, with the features that they are built with.
pub(crate) fn check() -> Result<()> {
    let metadata: Metadata = serde_json::from_slice(&cargo(&[
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        TARGET,
    ])?)?;
    // Both ways: a list that is too long would hide that nothing is found any more.
    let foreign: Vec<&Package> = metadata.packages.iter().filter(|p| p.is_foreign()).collect();
    for (executable, allowed) in EXECUTABLES {
        let found = of_executable(executable, &foreign)?;
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        ensure!(
            found == allowed,
            "{executable} is built from C code in {found:?}, and {allowed:?} is what it may have: see Cargo.toml for why, and change \
             xtask/src/foreign.rs on purpose"
        );
    }
    println!(
        "foreign: C code only of aws-lc and SQLite in the executable, of aws-lc and PKCS #11's headers in its helper"
    );
    Ok(())
}

/// The names of those that the executable has.
fn of_executable<'a>(executable: &str, foreign: &[&'a Package]) -> Result<BTreeSet<&'a str>> {
    let tree = ["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&[&tree[..], &["--target", TARGET, "--package", executable]].concat())?;
    let tree = String::from_utf8(tree)?;
    // Each line is `name vVERSION`, and perhaps more in brackets.
    let has = |p: &Package| {
        let line = format!("{} v{}", p.name, p.version);
        tree.lines().any(|l| l == line || l.strip_prefix(&line).is_some_and(|rest| rest.starts_with(' ')))
    };
    ensure!(tree.lines().count() > 10, "cargo tree names no dependencies of {executable}");
    Ok(foreign.iter().filter(|p| has(p)).map(|p| p.name.as_str()).collect())
}

fn cargo(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .current_dir(crate::root())
        .output()
        .context("cargo")?;
    if !output.status.success() {
        bail!("cargo {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    links: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

impl Package {
    fn is_foreign(&self) -> bool {
        let compiles = |d: &Dependency| d.kind.as_deref() == Some("build") && COMPILERS.contains(&d.name.as_str());
        self.links.is_some() || self.dependencies.iter().any(compiles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_the_system_and_a_compiler_are_both_noticed() {
        let package = |links: Option<&str>, build: Option<&str>| Package {
            name: "p".into(),
            version: "1.0.0".into(),
            links: links.map(Into::into),
            dependencies: build
                .map(|b| Dependency { name: b.into(), kind: Some("build".into()) })
                .into_iter()
                .collect(),
        };
        assert!(package(Some("z"), None).is_foreign());
        assert!(package(None, Some("cc")).is_foreign());
        assert!(!package(None, Some("autocfg")).is_foreign());
    }
}
