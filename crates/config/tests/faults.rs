//! What a person sees who made mistakes: each folder of `tests/golden/config` is a configuration with faults, and
//! `faults.txt` in it is the whole answer. `EDGEKEEP_BLESS=1` rewrites them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::{Path, PathBuf};

use config::{Environment, Inputs};
use host::{Disk, OsDisk};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/config")
}

/// Copies a case to a place where modes and owners are what the test needs, whatever the checkout made of them.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            OsDisk.write_new(&target, &std::fs::read(entry.path()).unwrap(), 0o600, None).unwrap();
        }
    }
}

fn faults_of(case: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    copy(case, dir.path());
    let text = std::fs::read_to_string(case.join("environment")).unwrap_or_default();
    let environment = Environment::of(text.lines().filter_map(|l| l.split_once('=')));
    let edgex = ["res", "res-file-token-provider"].iter().any(|d| case.join(d).exists());
    let loaded = config::load(&Inputs {
        disk: &OsDisk,
        environment: &environment,
        uid: OsDisk.meta(dir.path()).unwrap().unwrap().owner.uid,
        file: &dir.path().join("edgekeep.toml"),
        edgex_dir: edgex.then(|| dir.path()),
        data_dir: None,
        terminal: false,
    });
    let faults = loaded.err().unwrap_or_else(|| panic!("{} has no fault", case.display())).to_string();
    faults.replace(&format!("{}/", dir.path().display()), "") + "\n"
}

#[test]
fn every_fault_is_told_at_once_with_line_and_remedy() {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(golden()).unwrap().map(|e| e.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 8, "the cases are in tests/golden/config");
    for case in cases {
        let (faults, expected) = (faults_of(&case), case.join("faults.txt"));
        if std::env::var_os("EDGEKEEP_BLESS").is_some() {
            std::fs::write(&expected, &faults).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap();
        assert_eq!(faults, expected, "{}", case.display());
    }
}
