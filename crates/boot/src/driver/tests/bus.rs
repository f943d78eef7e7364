//! What lies between a device and its TPM, for whoever would see or cut what passes there.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};

use secret::crypto::sha256;
use testkit::Swtpm;

use super::*;

/// A bus in front of a TPM: one connection after the other, as a TPM without a resource manager is asked.
pub(super) struct Bus {
    dir: TempDir,
    /// Whether it hangs up where it should.
    pub(super) cuts: Arc<AtomicBool>,
}

/// When it hangs up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Before,
    After,
}

impl Bus {
    /// Hangs up on whoever would close the TPM, for as long as it is told to.
    pub(super) fn refusing_to_close(tpm: &Swtpm) -> Self {
        let closed = sha256(&[b"edgekeep/v1/ikm-closed"]);
        Self::before(tpm, move |command| command.windows(32).any(|w| w == closed).then_some(Cut::Before), || {})
    }

    /// The TPM does what the commands of this code say, and nobody hears of it.
    pub(super) fn losing_the_answer_to(tpm: &Swtpm, code: u32) -> Self {
        Self::before(tpm, move |command| (command[6..10] == code.to_be_bytes()).then_some(Cut::After), || {})
    }

    /// Everything passes; `answered` is called when the TPM has answered, and nobody has heard it yet.
    pub(super) fn watched(tpm: &Swtpm, answered: impl FnMut() + Send + 'static) -> Self {
        Self::before(tpm, |_| None, answered)
    }

    fn before(
        tpm: &Swtpm,
        which: impl Fn(&[u8]) -> Option<Cut> + Send + 'static,
        mut answered: impl FnMut() + Send + 'static,
    ) -> Self {
        let (dir, cuts) = (testkit::scratch_dir(), Arc::new(AtomicBool::new(true)));
        let listener = UnixListener::bind(dir.path().join("bus")).unwrap();
        let (cutting, tpm) = (Arc::clone(&cuts), tpm.socket());
        std::thread::spawn(move || {
            for front in listener.incoming() {
                let (mut front, mut behind) = (front.unwrap(), UnixStream::connect(&tpm).unwrap());
                while let Some(command) = message(&mut front) {
                    let cut = which(&command).filter(|_| cutting.load(Ordering::SeqCst));
                    if cut == Some(Cut::Before) {
                        break;
                    }
                    behind.write_all(&command).unwrap();
                    let answer = message(&mut behind).unwrap();
                    answered();
                    if cut.is_some() || front.write_all(&answer).is_err() {
                        break;
                    }
                }
            }
        });
        Self { dir, cuts }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("bus")
    }
}

/// A whole command or answer; `None` at the end.
fn message(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 10];
    from.read_exact(&mut bytes).ok()?;
    let size = u32::from_be_bytes(bytes[2..6].try_into().unwrap());
    bytes.resize(size as usize, 0);
    from.read_exact(&mut bytes[10..]).ok()?;
    Some(bytes)
}
