//! The recovery file opens with the ordinary `age` tool (Debian package `age`).

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

use host::{Disk, OsDisk, OsEntropy};
use seal::{AgeRecipients, RecoveryKey, seal_to_recipients};

/// Runs a tool; a missing one fails by name.
fn run(command: &mut Command) -> Output {
    match command.stderr(Stdio::inherit()).output() {
        Ok(output) => output,
        Err(e) => panic!("{:?} cannot be run: {e}. Install the Debian package `age`.", command.get_program()),
    }
}

#[test]
fn the_recovery_file_opens_with_the_age_tool() {
    if testkit::is_skipped("age") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (identity, file) = (dir.path().join("identity"), dir.path().join("recovery.age"));
    let made = run(Command::new("age-keygen").arg("-o").arg(&identity));
    assert!(made.status.success());
    let public = run(Command::new("age-keygen").arg("-y").arg(&identity)).stdout;
    let recipients = AgeRecipients::parse([std::str::from_utf8(&public).unwrap()]).unwrap();

    let key = RecoveryKey::generate(&OsEntropy);
    OsDisk.write_new(&file, &seal_to_recipients(&key, &recipients).unwrap(), 0o600, None).unwrap();
    let opened = run(Command::new("age").arg("-d").arg("-i").arg(&identity).arg(&file));
    assert!(opened.status.success());
    let read = RecoveryKey::parse(std::str::from_utf8(&opened.stdout).unwrap()).unwrap();
    assert_eq!(read.name(), key.name());
    assert_eq!(*read.format(), *key.format());
}
