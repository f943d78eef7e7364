//! Real components: found, or missed by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Whether `EDGEKEEP_TEST_SKIP` names this component. Says so when it does.
pub(crate) fn is_skipped(name: &str) -> bool {
    let skipped = std::env::var("EDGEKEEP_TEST_SKIP").is_ok_and(|list| list.split(',').any(|s| s.trim() == name));
    if skipped {
        println!("skipped by EDGEKEEP_TEST_SKIP: {name}");
    }
    skipped
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// A program that scripts/test.sh installs.
///
/// # Panics
/// With its name and where it comes from, if it is not there.
pub(crate) fn program(name: &str, package: &str, places: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(name));
    let found = on_path.chain(places.iter().map(|p| Path::new(p).join(name))).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}, or EDGEKEEP_TEST_SKIP it by name"))
}

/// A program of the Python environment that scripts/test.sh makes.
///
/// # Panics
/// If it is not there.
pub(crate) fn in_venv(name: &str) -> PathBuf {
    let path = root().join(".test/venv/bin").join(name);
    assert!(path.is_file(), "{} is missing: scripts/test.sh makes it", path.display());
    path
}

/// EdgeX's own configuration files, which lie beside the repository and are no part of it.
///
/// # Panics
/// If they are not there.
pub(crate) fn sample(name: &str) -> PathBuf {
    let path = root().join("../shared/samples").join(name);
    assert!(path.is_file(), "{name} is missing: EdgeX's sample files belong in {}", path.parent().unwrap().display());
    // A configuration takes no path with `..`.
    path.canonicalize().unwrap()
}

/// Runs a command to its end and shows what it said if it failed.
///
/// # Panics
/// If it fails.
pub(crate) fn must(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
