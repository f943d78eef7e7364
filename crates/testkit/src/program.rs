//! Programs that a test writes, and has run.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Lays a program down, in the place of whatever stood there; whoever is started next may run it at once.
///
/// A process of its own writes it. If this one had it open for writing while another of its threads starts a process,
/// that one would have it open too until its exec, and execve(2) refuses a file that somebody may write to (ETXTBSY):
/// with two threads that do nothing but start processes, one program in eight was refused.
///
/// # Panics
/// If it cannot be written.
pub fn lay_program(path: &Path, text: &str, mode: u32) {
    let script = "umask 077; cat >\"$0.new\" && chmod \"$1\" \"$0.new\" && mv -f \"$0.new\" \"$0\"";
    let mut shell = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(path)
        .arg(format!("{mode:o}"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let written = shell.stdin.take().expect("it is piped").write_all(text.as_bytes());
    let ended = shell.wait();
    assert!(written.is_ok() && ended.is_ok_and(|s| s.success()), "{} cannot be written", path.display());
}

/// Lays a copy of a program down, for the same reason by a process of its own.
///
/// # Panics
/// If it cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--").args([from, to]).status();
    assert!(copied.is_ok_and(|s| s.success()), "{} cannot be copied to {}", from.display(), to.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_laid_down_or_copied_is_run_and_has_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let dir = crate::scratch_dir();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        for code in [3, 4] {
            lay_program(&one, &format!("#!/bin/sh\nexit {code}\n"), 0o710);
            assert_eq!(Command::new(&one).status().unwrap().code(), Some(code));
        }
        assert_eq!(one.metadata().unwrap().permissions().mode() & 0o7777, 0o710);
        copy_program(&one, &two);
        assert_eq!(Command::new(&two).status().unwrap().code(), Some(4));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }
}
