//! A token of SoftHSM (Debian's `softhsm2`), with a directory of its own for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A token in software; gone when it is dropped.
pub struct SoftHsm {
    dir: tempfile::TempDir,
    label: String,
    serial: String,
}

impl SoftHsm {
    /// The PIN of its user.
    pub const PIN: &'static str = "87654321";
    /// The module.
    pub const MODULE: &'static str = "/usr/lib/softhsm/libsofthsm2.so";

    /// Makes a token of that label.
    ///
    /// # Panics
    /// When Debian's `softhsm2` is not installed.
    pub fn new(label: &str) -> Self {
        let dir = crate::scratch_dir();
        fs::create_dir(dir.path().join("tokens")).expect("a new directory is writable");
        let mut hsm = Self { dir, label: label.to_owned(), serial: String::new() };
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            hsm.dir.path().join("tokens").display()
        );
        fs::write(hsm.conf(), conf).expect("a new directory is writable");
        hsm.util(&["--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", Self::PIN]);
        hsm.serial = hsm.read_serial();
        hsm
    }

    /// Its label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its serial number.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What the module wants in its environment.
    pub fn env(&self) -> Vec<(String, String)> {
        vec![("SOFTHSM2_CONF".into(), self.conf().display().to_string())]
    }

    /// Takes the token out of its reader.
    pub fn remove(&self) {
        fs::rename(self.dir.path().join("tokens"), self.dir.path().join("taken")).expect("a token can be taken out");
        fs::create_dir(self.dir.path().join("tokens")).expect("the reader stays");
    }

    /// Puts it back, over the empty reader in one step: whoever looks meanwhile finds one or the other.
    pub fn put_back(&self) {
        fs::rename(self.dir.path().join("taken"), self.dir.path().join("tokens")).expect("a token can be put back");
    }

    /// Runs OpenSC's `pkcs11-tool` on it, logged in: another implementation, to look with.
    pub fn tool(&self, args: &[&str]) -> String {
        let mut command = Command::new("pkcs11-tool");
        command.env("SOFTHSM2_CONF", self.conf());
        command.args(["--module", Self::MODULE, "--token-label", &self.label, "--login", "--pin", Self::PIN]);
        run(command.args(args), "opensc")
    }

    /// The directory of the token and its configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn conf(&self) -> PathBuf {
        self.dir.path().join("softhsm2.conf")
    }

    fn util(&self, args: &[&str]) -> String {
        run(Command::new("softhsm2-util").env("SOFTHSM2_CONF", self.conf()).args(args), "softhsm2")
    }

    fn read_serial(&self) -> String {
        let shown = self.util(&["--show-slots"]);
        let serials = shown.lines().filter_map(|l| l.trim().strip_prefix("Serial number:")).map(str::trim);
        let mut serials = serials.filter(|s| !s.is_empty());
        serials.next().expect("an initialised token has a serial number").to_owned()
    }
}

fn run(command: &mut Command, package: &str) -> String {
    let output = command.output().unwrap_or_else(|e| {
        let tool = command.get_program().to_owned();
        panic!("{tool:?}: {e}. Install the Debian package `{package}`, or set EDGEKEEP_TEST_SKIP=softhsm")
    });
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
