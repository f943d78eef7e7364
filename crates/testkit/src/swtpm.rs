//! A software TPM of its own for one test: a real TPM 2.0 (libtpms) behind a Unix socket, with a state that outlives a restart.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use host::{Clock, OsClock};

/// swtpm in a process of its own, which ends with this value.
pub struct Swtpm {
    dir: tempfile::TempDir,
    child: Child,
}

impl Swtpm {
    /// A new TPM, switched on.
    ///
    /// # Panics
    /// If swtpm is not installed, by name, or does not start.
    pub fn start() -> Self {
        let dir = crate::scratch_dir();
        let child = spawn(&dir);
        let tpm = Self { dir, child };
        tpm.wait_until_it_listens();
        tpm
    }

    /// Where it takes commands, one connection at a time.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// The device is started anew: registers are cleared, seeds and indices kept.
    pub fn reboot(&mut self) {
        self.command("80010000000c000001450000"); // Shutdown(CLEAR), as the kernel sends it
        self.power_cut();
    }

    /// As [`Swtpm::reboot`], without a word to the TPM before.
    pub fn power_cut(&mut self) {
        self.stop();
        self.child = spawn(&self.dir);
        self.wait_until_it_listens();
    }

    /// Suspend to memory and resume (S3): Shutdown(STATE), power off and on, Startup(STATE).
    pub fn suspend_and_resume(&mut self) {
        self.command("80010000000c000001450001");
        self.init();
        self.command("80010000000c000001440001");
    }

    /// What a wire on the reset line of a discrete TPM does: Startup(CLEAR) while the machine runs on.
    pub fn reset_line(&mut self) {
        self.init();
        self.command("80010000000c000001440000");
    }

    /// Makes it another TPM: all seeds new (TPM2_Clear by the platform).
    pub fn clear(&self) {
        self.command("80020000001b000001264000000c00000009400000090000000000");
    }

    /// Extends a register of the SHA-256 bank by `byte`, 32 times.
    pub fn extend(&self, pcr: u8, byte: u8) {
        let digest = format!("{byte:02x}").repeat(32);
        self.command(&format!("800200000041000001820000 00{pcr:02x}00000009400000090000000000 00000001000b{digest}"));
    }

    /// Resets a register, where software may (TPM2_PCR_Reset); whether it could.
    pub fn try_reset(&self, pcr: u8) -> bool {
        let answer = self.send(&bytes(&format!("80020000001b0000013d000000{pcr:02x}00000009400000090000000000")));
        answer.get(6..10) == Some(&[0; 4])
    }

    /// Sends a command as it is, and gives the answer.
    ///
    /// # Panics
    /// If there is none.
    pub fn send(&self, command: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.socket()).expect("swtpm takes connections");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        stream.write_all(command).expect("swtpm takes commands");
        let mut answer = vec![0; 10];
        stream.read_exact(&mut answer).expect("swtpm answers");
        let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]) as usize;
        answer.resize(size.clamp(10, 4096), 0);
        stream.read_exact(&mut answer[10..]).expect("swtpm answers");
        answer
    }

    fn command(&self, hex: &str) {
        let answer = self.send(&bytes(hex));
        assert_eq!(answer.get(6..10), Some(&[0; 4][..]), "swtpm refuses {hex}: {answer:02x?}");
    }

    /// _TPM_Init over the control channel (swtpm_ioctl(8), CMD_INIT).
    fn init(&mut self) {
        let mut control = UnixStream::connect(self.dir.path().join("ctrl")).expect("swtpm has a control channel");
        control.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
        control.write_all(&[0, 0, 0, 2, 0, 0, 0, 0]).expect("swtpm takes control commands");
        let mut result = [0xff; 4];
        control.read_exact(&mut result).expect("swtpm answers");
        assert_eq!(result, [0; 4], "swtpm cannot be initialised anew");
    }

    fn wait_until_it_listens(&self) {
        let clock = OsClock::new().expect("a test runs on Linux");
        let start = clock.boottime();
        while UnixStream::connect(self.socket()).is_err() {
            assert!(clock.boottime().since(start) < PATIENCE, "swtpm does not start");
            std::thread::yield_now();
        }
    }

    fn stop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for name in ["sock", "ctrl"] {
            let _ = std::fs::remove_file(self.dir.path().join(name));
        }
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(dir: &tempfile::TempDir) -> Child {
    let at = |name: &str| dir.path().join(name).display().to_string();
    Command::new("swtpm")
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .args(["--tpmstate", &format!("dir={}", dir.path().display())])
        .args(["--server", &format!("type=unixio,path={}", at("sock"))])
        .args(["--ctrl", &format!("type=unixio,path={}", at("ctrl"))])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests of the TPM need swtpm: apt-get install swtpm")
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| *b != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("digits")).collect()
}

const PATIENCE: Duration = Duration::from_secs(20);
