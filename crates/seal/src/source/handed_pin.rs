//! A PIN on a descriptor that the process was started with: a pipe, a file in memory, whatever whoever starts it has
//! put there.
//!
//! It is taken once, at the start and before there is any child: read to its end, and closed in whatever the process
//! starts. What it held stays in locked pages as long as the process lives, for a source that is asked again.

use std::fs::File;
use std::io::Read;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use host::Clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use secret::{LockedBytes, SecretBytes};

use super::Deadline;
use super::auth::{Auth, AuthError, AuthRequest, MAX_PIN_BYTES, pin_of};

/// The PIN behind a descriptor, by its number. Clones are the same PIN; two are alike that have one number.
#[derive(Clone)]
pub struct HandedPin {
    number: u16,
    taken: Arc<OnceLock<Result<LockedBytes, String>>>,
}

impl HandedPin {
    /// Nothing is read yet.
    pub fn new(number: u16) -> Self {
        Self { number, taken: Arc::default() }
    }

    /// Reads it, the first time; to be called before anything is started. What fails is told to whoever asks for the
    /// PIN.
    pub fn take(&self, clock: &dyn Clock) {
        self.taken.get_or_init(|| {
            let fd = memory::inherited(self.number.into()).ok_or("nothing was handed over under this number")?;
            read(fd.into(), clock).map_err(|defect| defect.to_string())
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

/// One line, to the end of the file. A writer that neither writes nor goes away is not waited for long: the device
/// would hang.
fn read(mut file: File, clock: &dyn Clock) -> Result<LockedBytes, &'static str> {
    // For all of it: a writer that drips is not waited for longer than one that is silent.
    let deadline = Deadline::after(clock, LIMIT);
    let mut bytes = LockedBytes::zeroed(MAX_PIN_BYTES + 2);
    let room = bytes.expose().len();
    let mut filled = 0;
    loop {
        let left = deadline.left(clock);
        if left.is_zero() {
            return Err(TOO_SLOW);
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut ready = [PollFd::new(&file, PollFlags::IN)];
        match poll(&mut ready, Some(&left)) {
            Ok(0) => return Err(TOO_SLOW),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Err("it cannot be waited for"),
        }
        match file.read(&mut bytes.expose_mut()[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return Err("it cannot be read"),
        }
        if filled == room {
            break;
        }
    }
    let pin = pin_of(&bytes.expose()[..filled]).ok_or("a PIN of 1 to 255 bytes is expected")?;
    Ok(pin.locked())
}

/// For the other end.
const LIMIT: Duration = Duration::from_secs(5);
const TOO_SLOW: &str = "whoever has its other end did not write the PIN and close it within 5 s";

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd};
    use std::sync::atomic::{AtomicU64, Ordering};

    use host::{BootId, BootTime, WallTime};
    use rustix::fs::OFlags;
    use testkit::FakeClock;

    use super::*;

    /// At each look it is three seconds later.
    #[derive(Default)]
    struct Passing(AtomicU64);

    impl Clock for Passing {
        fn boot_id(&self) -> BootId {
            BootId([0; 16])
        }
        fn boottime(&self) -> BootTime {
            BootTime(self.0.fetch_add(3000, Ordering::Relaxed))
        }
        fn wall(&self) -> WallTime {
            WallTime(0)
        }
    }

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
        handed.take(&FakeClock::at(0));
        assert_eq!(pin(&handed).unwrap(), b"12 34");
        assert_eq!(pin(&handed.clone()).unwrap(), b"12 34", "asked again, it is remembered");
        assert_eq!(rustix::io::fcntl_getfd(&fd).unwrap(), rustix::io::FdFlags::CLOEXEC);
        let again = HandedPin::new(u16::try_from(fd.as_fd().as_raw_fd()).unwrap());
        again.take(&FakeClock::at(0));
        assert!(pin(&again).unwrap_err().contains("a PIN of 1 to 255 bytes"), "nothing is left in the pipe");
        assert_eq!(format!("{handed:?} {handed}"), format!("HandedPin({0}) descriptor {0}", fd.as_raw_fd()));
    }

    #[test]
    fn what_is_no_pin() {
        for text in [&b""[..], b"\n", &[b'1'; 257], &[b'1'; 256]] {
            let (handed, _fd) = handed(text);
            handed.take(&FakeClock::at(0));
            assert!(pin(&handed).unwrap_err().ends_with("a PIN of 1 to 255 bytes is expected"), "{} bytes", text.len());
        }
        let (longest, _fd) = handed(&[b'1'; 255]);
        longest.take(&FakeClock::at(0));
        assert_eq!(pin(&longest).unwrap().len(), 255);
        let none = HandedPin::new(999);
        none.take(&FakeClock::at(0));
        assert!(pin(&none).unwrap_err().contains("descriptor 999 cannot be used: nothing was handed over"));
    }

    /// Each byte comes in time, and the whole does not: the boot waits for it.
    #[test]
    fn a_pin_that_drips() {
        // One read of such a pipe gives what one write put there.
        let (reader, mut writer) = std::io::pipe().unwrap();
        rustix::fs::fcntl_setfl(&writer, OFlags::DIRECT).unwrap();
        for byte in [b"1", b"2", b"3"] {
            writer.write_all(byte).unwrap();
        }
        drop(writer);
        assert_eq!(read(OwnedFd::from(reader).into(), &Passing::default()).unwrap_err(), TOO_SLOW);
    }
}
