//! A person at a terminal.

#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

const BINARY: &str = env!("CARGO_BIN_EXE_edgekeep");
const TOKEN: &str = "s.000000000000000000000000";

/// A token is asked for, not shown while it is typed, and the terminal is as it was. There is no store here: the token
/// is taken, and then nobody answers.
#[test]
fn a_token_that_is_typed_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap();
    let terminal = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut main = File::from(main);

    let mut login = Command::new(BINARY)
        .args(["login", "--no-store"])
        .env_clear()
        .env("VAULT_ADDR", format!("unix://{}", dir.path().join("nobody").display()))
        .current_dir(dir.path())
        .stdin(terminal.try_clone().unwrap())
        .stderr(terminal.try_clone().unwrap())
        .stdout(terminal.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut shown = until(&mut main, "Token (not shown): ");
    assert!(!tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO));
    main.write_all(format!("{TOKEN}\n").as_bytes()).unwrap();
    shown.push_str(&until(&mut main, "error: "));

    assert_eq!(login.wait().unwrap().code(), Some(2), "{shown}");
    assert!(!shown.contains(TOKEN), "{shown}");
    assert!(tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO), "the terminal shows again");
}

/// What the terminal shows, up to `end`.
fn until(main: &mut File, end: &str) -> String {
    let mut shown = Vec::new();
    while !String::from_utf8_lossy(&shown).contains(end) {
        let mut byte = [0];
        main.read_exact(&mut byte).unwrap();
        shown.push(byte[0]);
    }
    String::from_utf8_lossy(&shown).into_owned()
}
