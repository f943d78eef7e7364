//! A software TPM of its own for one test: a real TPM 2.0 (libtpms) behind a Unix socket, with a state that outlives a
//! restart.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use host::{Clock, Disk, OsClock, OsDisk};

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

    /// Where it is switched on and off.
    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("ctrl")
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

    /// The power is cut at a moment at which its memory was `state`, and comes back.
    ///
    /// # Panics
    /// If its memory cannot be written.
    pub fn power_cut_at(&mut self, state: &[u8]) {
        self.stop();
        OsDisk.replace(&self.memory(), state, 0o600, None).expect("a scratch directory is written to");
        self.child = spawn(&self.dir);
        self.wait_until_it_listens();
    }

    /// The file that it keeps its own memory in: seeds, kept keys, indices. It is written before a command is answered.
    pub fn memory(&self) -> PathBuf {
        self.dir.path().join("tpm2-00.permall")
    }

    /// The handles of the NV indices that it has (TPM2_GetCapability of TPM_CAP_HANDLES, 64 at most).
    ///
    /// # Panics
    /// If it does not tell.
    pub fn nv_indices(&self) -> Vec<u32> {
        let answer = self.send(&bytes("8001000000160000017a000000010100000000000040"));
        assert_eq!(answer.get(6..10), Some(&[0; 4][..]), "swtpm does not tell its indices: {answer:02x?}");
        // Behind the header: whether there are more, the capability, how many.
        answer[19..].chunks_exact(4).map(|h| u32::from_be_bytes([h[0], h[1], h[2], h[3]])).collect()
    }

    /// It takes connections and answers nothing, until [`Swtpm::wakes_up`].
    ///
    /// # Panics
    /// If it has ended.
    pub fn falls_asleep(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// It answers again, also what was asked meanwhile.
    ///
    /// # Panics
    /// If it has ended.
    pub fn wakes_up(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("swtpm runs");
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

    /// Takes away the storage key that it keeps (TPM2_EvictControl by the owner).
    pub fn forget_storage_key(&self) {
        self.command("80020000002300000120 40000001 81000001 00000009400000090000000000 81000001");
    }

    /// Has it keep another storage key in that place, of the same kind and from the same seed (TPM2_CreatePrimary with
    /// another `unique`, and TPM2_EvictControl).
    ///
    /// # Panics
    /// If it keeps one already.
    pub fn keep_other_storage_key(&self) {
        let unique = format!("0020{z}0020{z}", z = "01".repeat(32));
        let template = format!("0023000b000304720000000600800043001000030010{unique}");
        let made = self.send(&bytes(&format!(
            "800200000083 00000131 40000001 00000009400000090000000000 0004 00000000 005a{template} 0000 00000000"
        )));
        assert_eq!(made.get(6..10), Some(&[0; 4][..]), "swtpm makes no key: {made:02x?}");
        let handle = made[10..14].iter().map(|b| format!("{b:02x}")).collect::<String>();
        self.command(&format!("80020000002300000120 40000001 {handle} 00000009400000090000000000 81000001"));
        self.command(&format!("80010000000e00000165 {handle}"));
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
        ask_tpm(&self.socket(), command)
    }

    fn command(&self, hex: &str) {
        let answer = self.send(&bytes(hex));
        assert_eq!(answer.get(6..10), Some(&[0; 4][..]), "swtpm refuses {hex}: {answer:02x?}");
    }

    /// _TPM_Init over the control channel (swtpm_ioctl(8), CMD_INIT).
    fn init(&mut self) {
        let mut control = UnixStream::connect(self.control()).expect("swtpm has a control channel");
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

/// Sends a command to the TPM behind a socket, over a connection of its own, and gives the answer.
///
/// # Panics
/// If there is none.
pub fn ask_tpm(socket: &Path, command: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("swtpm takes connections");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket has a timeout");
    stream.write_all(command).expect("swtpm takes commands");
    let mut answer = vec![0; 10];
    stream.read_exact(&mut answer).expect("swtpm answers");
    let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]) as usize;
    answer.resize(size.clamp(10, 4096), 0);
    stream.read_exact(&mut answer[10..]).expect("swtpm answers");
    answer
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

const PATIENCE: Duration = Duration::from_secs(120);
