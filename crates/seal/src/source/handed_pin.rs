//! A PIN on a descriptor that the process was started with: a pipe, a file in memory, whatever whoever starts it has put there.
//!
//! It is taken once, at the start and before there is any child: read to its end, and closed in whatever the process starts. What it
//! held stays in locked pages as long as the process lives, for a source that is asked again.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use secret::SecretBytes;
use zeroize::Zeroizing;

use super::auth::{Auth, AuthError, AuthRequest, MAX_PIN_BYTES, pin_of};

/// The PIN behind a descriptor, by its number. Clones are the same PIN; two are alike that have one number.
#[derive(Clone)]
pub struct HandedPin {
    number: u16,
    taken: Arc<OnceLock<Result<SecretBytes, String>>>,
}

impl HandedPin {
    /// Nothing is read yet.
    pub fn new(number: u16) -> Self {
        Self { number, taken: Arc::default() }
    }

    /// Reads it, the first time; to be called before anything is started. What fails is told to whoever asks for the PIN.
    pub fn take(&self) {
        self.taken.get_or_init(|| {
            let fd = memory::inherited(self.number.into()).ok_or("nothing was handed over under this number")?;
            read(fd.into()).map_err(|defect| defect.to_string())
        });
    }
}

impl Auth for HandedPin {
    fn pin(&self, _request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError> {
        let unfit = |defect: String| AuthError::Unfit { path: self.to_string(), defect };
        match self.taken.get() {
            Some(Ok(pin)) => Ok(SecretBytes::new(pin.expose().to_vec())),
            Some(Err(defect)) => Err(unfit(defect.clone())),
            None => Err(unfit("it is taken when edgekeep starts, and was not named then".into())),
        }
    }
}

impl std::fmt::Display for HandedPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "descriptor {}", self.number)
    }
}

impl std::fmt::Debug for HandedPin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HandedPin({})", self.number)
    }
}

impl PartialEq for HandedPin {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for HandedPin {}

/// One line, to the end of the file. A writer that neither writes nor goes away is not waited for long: the device would hang.
fn read(mut file: File) -> Result<SecretBytes, &'static str> {
    let mut bytes = Zeroizing::new(vec![0; MAX_PIN_BYTES + 2]);
    let mut filled = 0;
    loop {
        let mut ready = [PollFd::new(&file, PollFlags::IN)];
        match poll(&mut ready, Some(&PATIENCE)) {
            Ok(0) => return Err("whoever has its other end neither writes nor closes it"),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Err("it cannot be waited for"),
        }
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err("it cannot be read"),
        }
        if filled == bytes.len() {
            break;
        }
    }
    pin_of(&bytes[..filled]).ok_or("a PIN of 1 to 255 bytes is expected")
}

/// For the other end.
const PATIENCE: Timespec = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
const LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};

    use super::*;

    /// A pipe whose end is handed over, under the number that it has.
    fn handed(text: &[u8]) -> (HandedPin, OwnedFd) {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text).unwrap();
        let fd = OwnedFd::from(reader);
        // As somebody else would leave it.
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        (HandedPin::new(u16::try_from(fd.as_raw_fd()).unwrap()), fd)
    }

    fn pin(handed: &HandedPin) -> Result<Vec<u8>, String> {
        let asked = handed.pin(&AuthRequest { what: "test", tries_left: None });
        asked.map(|pin| pin.expose().to_vec()).map_err(|e| e.to_string())
    }

    #[test]
    fn it_is_read_once_and_closed_in_children() {
        let (handed, fd) = handed(b"12 34\n");
        assert!(pin(&handed).unwrap_err().contains("is taken when edgekeep starts"));
        handed.take();
        assert_eq!(pin(&handed).unwrap(), b"12 34");
        assert_eq!(pin(&handed.clone()).unwrap(), b"12 34", "asked again, it is remembered");
        assert_eq!(rustix::io::fcntl_getfd(&fd).unwrap(), rustix::io::FdFlags::CLOEXEC);
        let again = HandedPin::new(u16::try_from(fd.as_fd().as_raw_fd()).unwrap());
        again.take();
        assert!(pin(&again).unwrap_err().contains("a PIN of 1 to 255 bytes"), "nothing is left in the pipe");
        assert_eq!(format!("{handed:?} {handed}"), format!("HandedPin({0}) descriptor {0}", fd.as_raw_fd()));
    }

    #[test]
    fn what_is_no_pin() {
        for text in [&b""[..], b"\n", &[b'1'; 257], &[b'1'; 256]] {
            let (handed, _fd) = handed(text);
            handed.take();
            assert!(pin(&handed).unwrap_err().ends_with("a PIN of 1 to 255 bytes is expected"), "{} bytes", text.len());
        }
        let (longest, _fd) = handed(&[b'1'; 255]);
        longest.take();
        assert_eq!(pin(&longest).unwrap().len(), 255);
        let none = HandedPin::new(999);
        none.take();
        assert!(pin(&none).unwrap_err().contains("descriptor 999 cannot be used: nothing was handed over"));
    }
}
