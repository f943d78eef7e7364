//! Debian's tpm2-tools beside a software TPM: what whoever is root on a device has at hand, and not of our writing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use crate::Swtpm;

/// The tools, and a directory for the files that they hand each other.
pub struct Tpm2Tools {
    dir: tempfile::TempDir,
}

impl Tpm2Tools {
    /// For this TPM, over its restarts.
    pub fn new(tpm: &Swtpm) -> Self {
        let dir = crate::scratch_dir();
        // libtss2-tcti-swtpm looks for the control channel beside the socket.
        for (name, target) in [("tpm", tpm.socket()), ("tpm.ctrl", tpm.control())] {
            symlink(target, dir.path().join(name)).expect("a new directory is writable");
        }
        Self { dir }
    }

    /// Runs a tool, its words parted by spaces; files are named in the directory of the tools.
    ///
    /// # Errors
    /// What a tool said that did not end well.
    ///
    /// # Panics
    /// If tpm2-tools is not installed, by name.
    pub fn run(&self, line: &str) -> Result<String, String> {
        let said = self.spawn(line);
        // There is no resource manager in front of this TPM, and three objects fill it.
        let _ = self.spawn("tpm2_flushcontext --transient-object");
        said
    }

    fn spawn(&self, line: &str) -> Result<String, String> {
        let mut words = line.split_ascii_whitespace();
        let output = Command::new(words.next().unwrap_or_default())
            .args(words)
            .env("TPM2TOOLS_TCTI", format!("swtpm:path={}", self.path("tpm").display()))
            .current_dir(self.dir.path())
            .output()
            .expect("the tests of other tools at the TPM need tpm2-tools: apt-get install tpm2-tools");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Lays a file down for the tools.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("the directory of the tools is writable");
    }

    /// A file that a tool has made.
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).expect("the tool has made its file")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}
