//! The way to a TPM: whole commands out, whole responses in, each by a deadline.
//!
//! `/dev/tpmrm0` and swtpm's Unix socket carry the same bytes; the device gives an answer in one read, the socket
//! perhaps in several. Both are used without blocking: behind a socket a TPM that hangs costs its deadline and no more.
//!
//! Of a device that is not so. Linux holds the file's mutex while the driver waits for the chip, poll(2) and read(2)
//! take it and cannot be interrupted, and close(2) waits for the command (drivers/char/tpm/tpm-dev-common.c:
//! `tpm_dev_async_work`, `tpm_common_poll`, `tpm_common_release`). A chip that hangs in a command costs what the driver
//! gives it, which may be minutes; the deadline is looked at between commands. Who must not wait that long has a thread
//! for the call, and leaves it behind.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use host::{BootTime, Clock};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use zeroize::Zeroizing;

/// Longest answer that is taken: the buffer of the kernel's driver, and of swtpm.
pub const MAX_RESPONSE_BYTES: usize = 4096;

/// Carries commands to a TPM and its answers back.
pub trait Transport: Send {
    /// Sends one command and gives the whole answer, as it came.
    ///
    /// # Errors
    /// [`TransportError`]. After an error the answer may still come: nothing more can be sent this way.
    fn transmit(
        &mut self,
        command: &[u8],
        deadline: BootTime,
        clock: &dyn Clock,
    ) -> Result<Zeroizing<Vec<u8>>, TransportError>;

    /// Whether what was loaded over it is flushed for us when it is closed, and not before, as the kernel's resource
    /// manager does.
    fn flushes(&self) -> bool {
        false
    }
}

/// A character device or a Unix socket.
#[derive(Debug)]
pub struct Channel {
    fd: OwnedFd,
    flushes: bool,
    broken: bool,
}

impl Channel {
    /// Opens the device or connects to the socket at `path`.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn open(path: &Path, deadline: BootTime, clock: &dyn Clock) -> Result<Self, TransportError> {
        match Self::kind(path)? {
            FileType::CharacterDevice => {
                // O_NONBLOCK: else write(2) itself would wait for the answer, whole, with the mutex held.
                let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| match e {
                    Errno::NOENT | Errno::NODEV | Errno::NXIO => TransportError::NotPresent,
                    e => TransportError::Os { doing: "opening it", source: e.into() },
                })?;
                let managed = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"tpmrm"));
                Ok(Self { fd, flushes: managed, broken: false })
            }
            FileType::Socket => Ok(Self { fd: connect(path, deadline, clock)?, flushes: false, broken: false }),
            _ => Err(TransportError::NoTpm),
        }
    }

    /// Looks whether a device or a socket is there, and asks nobody.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn look(path: &Path) -> Result<(), TransportError> {
        match Self::kind(path)? {
            FileType::CharacterDevice | FileType::Socket => Ok(()),
            _ => Err(TransportError::NoTpm),
        }
    }

    fn kind(path: &Path) -> Result<FileType, TransportError> {
        let stat = rustix::fs::stat(path).map_err(|e| match e {
            Errno::NOENT | Errno::NOTDIR => TransportError::NotPresent,
            e => TransportError::Os { doing: "looking at it", source: e.into() },
        })?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    fn send(&self, mut command: &[u8], deadline: BootTime, clock: &dyn Clock) -> Result<(), TransportError> {
        while !command.is_empty() {
            self.wait(PollFlags::OUT, deadline, clock)?;
            match rustix::io::write(&self.fd, command) {
                Ok(0) => return Err(TransportError::Closed),
                Ok(n) => command = command.get(n..).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(e) => return Err(failed("sending a command", e)),
            }
        }
        Ok(())
    }

    fn receive(&self, deadline: BootTime, clock: &dyn Clock) -> Result<Zeroizing<Vec<u8>>, TransportError> {
        // One byte more than an answer can have, so that a longer one is seen to be longer.
        let mut answer = Zeroizing::new(vec![0; MAX_RESPONSE_BYTES + 1]);
        let mut filled = 0;
        loop {
            self.wait(PollFlags::IN, deadline, clock)?;
            match rustix::io::read(&self.fd, &mut answer[filled..]) {
                Ok(0) => return Err(TransportError::Closed),
                Ok(n) => filled += n,
                Err(Errno::INTR | Errno::AGAIN) => continue,
                Err(e) => return Err(failed("reading an answer", e)),
            }
            let size = declared(&answer).min(MAX_RESPONSE_BYTES + 1);
            if filled >= 6 && filled >= size || filled > MAX_RESPONSE_BYTES {
                answer.truncate(filled);
                return Ok(answer);
            }
        }
    }

    fn wait(&self, what: PollFlags, deadline: BootTime, clock: &dyn Clock) -> Result<(), TransportError> {
        loop {
            let left = deadline.since(clock.boottime());
            if left.is_zero() {
                return Err(TransportError::TimedOut);
            }
            let limit = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: i64::from(i32::MAX), tv_nsec: 0 });
            match poll(&mut [PollFd::from_borrowed_fd(self.fd.as_fd(), what)], Some(&limit)) {
                Err(Errno::INTR) | Ok(0) => {}
                Ok(_) => return Ok(()),
                Err(e) => return Err(failed("waiting", e)),
            }
        }
    }
}

impl Transport for Channel {
    fn transmit(
        &mut self,
        command: &[u8],
        deadline: BootTime,
        clock: &dyn Clock,
    ) -> Result<Zeroizing<Vec<u8>>, TransportError> {
        if self.broken {
            return Err(TransportError::Closed);
        }
        // Until the answer is here, the next one that comes is this one's.
        self.broken = true;
        self.send(command, deadline, clock)?;
        let answer = self.receive(deadline, clock)?;
        // What is beyond its end would be read as the next one's.
        self.broken = answer.len() != declared(&answer);
        Ok(answer)
    }

    fn flushes(&self) -> bool {
        self.flushes
    }
}

/// How long an answer says that it is: tag 2, size 4. What that means is the parser's; here it only tells when to stop
/// reading.
fn declared(answer: &[u8]) -> usize {
    let size = answer.get(2..6).and_then(|size| size.try_into().ok()).map(u32::from_be_bytes);
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

/// Connects by the deadline: swtpm serves one at a time and lets others wait in a short queue.
fn connect(path: &Path, deadline: BootTime, clock: &dyn Clock) -> Result<OwnedFd, TransportError> {
    let os = |doing| move |e: Errno| failed(doing, e);
    let address = SocketAddrUnix::new(path).map_err(os("naming its socket"))?;
    loop {
        let left = deadline.since(clock.boottime());
        if left.is_zero() {
            return Err(TransportError::TimedOut);
        }
        let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(os("making a socket"))?;
        // unix(7): connect(2) waits this long for room in the queue.
        sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(left.max(Duration::from_millis(1))))
            .map_err(os("making a socket"))?;
        match rustix::net::connect(&fd, &address) {
            Ok(()) => {
                rustix::io::ioctl_fionbio(&fd, true).map_err(os("making a socket"))?;
                return Ok(fd);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(TransportError::TimedOut),
            // The file of a swtpm that is not running.
            Err(Errno::CONNREFUSED | Errno::NOENT) => return Err(TransportError::NotPresent),
            Err(e) => return Err(failed("connecting", e)),
        }
    }
}

fn failed(doing: &'static str, errno: Errno) -> TransportError {
    match errno {
        Errno::PIPE | Errno::CONNRESET => TransportError::Closed,
        // The driver's own limit for the command has passed.
        Errno::TIME | Errno::TIMEDOUT => TransportError::TimedOut,
        Errno::NODEV | Errno::NXIO => TransportError::NotPresent,
        e => TransportError::Os { doing, source: e.into() },
    }
}

/// Why the way to a TPM failed.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No device, or nobody behind the socket.
    #[error("it is not there")]
    NotPresent,
    /// A regular file or a directory.
    #[error("it is neither a character device nor a socket")]
    NoTpm,
    /// The deadline passed.
    #[error("no answer came in time")]
    TimedOut,
    /// It went away in the middle, or an earlier command got no answer.
    #[error("it was closed")]
    Closed,
    /// A system call failed.
    #[error("{doing} failed")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsClock;
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn by(clock: &dyn Clock, ms: u64) -> BootTime {
        clock.boottime().plus(Duration::from_millis(ms))
    }

    /// Answers one connection's first command with `pieces`, then waits until the other side hangs up.
    struct Served {
        dir: tempfile::TempDir,
        thread: std::thread::JoinHandle<Vec<u8>>,
    }

    impl Served {
        fn new(pieces: Vec<Vec<u8>>) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let listener = UnixListener::bind(dir.path().join("sock")).unwrap();
            let thread = std::thread::spawn(move || {
                let (mut s, _) = listener.accept().unwrap();
                // A test that has failed over there ends here too.
                s.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let mut command = Vec::new();
                // The other side may have hung up before it has sent it, or with our bytes unread.
                let _ = (&s).take(12).read_to_end(&mut command);
                for piece in pieces {
                    let _ = s.write_all(&piece);
                }
                let _ = s.read_to_end(&mut Vec::new());
                command
            });
            Self { dir, thread }
        }

        fn open(&self, clock: &dyn Clock) -> Result<Channel, TransportError> {
            Channel::open(&self.dir.path().join("sock"), by(clock, 10_000), clock)
        }

        fn ask(&self) -> Result<Vec<u8>, TransportError> {
            let clock = OsClock::new().unwrap();
            let mut channel = self.open(&clock)?;
            channel.transmit(b"twelve bytes", by(&clock, 10_000), &clock).map(|a| a.to_vec())
        }

        /// The command that came, when the channel has been dropped.
        fn heard(self) -> Vec<u8> {
            // If nobody ever came, it waits for this one no longer.
            drop(UnixStream::connect(self.dir.path().join("sock")));
            self.thread.join().unwrap()
        }
    }

    #[test]
    fn an_answer_in_pieces_is_put_together() {
        let tpm = Served::new(vec![vec![0x80], vec![1, 0, 0], vec![0, 10, 0, 0, 0], vec![0]]);
        assert_eq!(tpm.ask().unwrap(), [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0]);
        assert_eq!(tpm.heard(), b"twelve bytes");
    }

    #[test]
    fn a_tpm_that_hangs_costs_its_deadline() {
        let tpm = Served::new(vec![vec![0x80, 1, 0, 0]]);
        let clock = OsClock::new().unwrap();
        let channel = tpm.open(&clock).unwrap();
        // As `transmit` does; but a machine with other work has its time until the command is sent.
        channel.send(b"twelve bytes", by(&clock, 10_000), &clock).unwrap();
        assert!(matches!(channel.receive(by(&clock, 60), &clock), Err(TransportError::TimedOut)));
        drop(channel);
        assert_eq!(tpm.heard(), b"twelve bytes");
    }

    #[test]
    fn a_flood_ends() {
        let tpm = Served::new(vec![vec![0xff; 3 * MAX_RESPONSE_BYTES]]);
        assert_eq!(tpm.ask().unwrap().len(), MAX_RESPONSE_BYTES + 1);
        assert_eq!(tpm.heard(), b"twelve bytes");
    }

    #[test]
    fn nothing_is_sent_after_an_answer_with_more_behind_it() {
        for (what, answer) in [
            ("a flood", vec![0xff; MAX_RESPONSE_BYTES + 900]),
            ("two at once", [0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0].repeat(2)),
        ] {
            let tpm = Served::new(vec![answer]);
            let clock = OsClock::new().unwrap();
            let mut channel = tpm.open(&clock).unwrap();
            let transmit = |channel: &mut Channel| channel.transmit(b"twelve bytes", by(&clock, 10_000), &clock);
            assert!(transmit(&mut channel).unwrap().len() > 10);
            // What is left of it would be waited for, or taken for an answer.
            assert!(matches!(transmit(&mut channel), Err(TransportError::Closed)), "{what}");
            drop(channel);
            assert_eq!(tpm.heard(), b"twelve bytes");
        }
    }

    #[test]
    fn nothing_is_sent_after_an_answer_that_did_not_come() {
        let clock = OsClock::new().unwrap();
        // Where the machine's other work has taken the time before the command was sent, it is given more.
        let heard = [30, 300, 3000, 30_000].into_iter().find_map(|ms| {
            let tpm = Served::new(vec![]);
            let mut channel = tpm.open(&clock).unwrap();
            let late = channel.transmit(b"twelve bytes", by(&clock, ms), &clock);
            assert!(matches!(late, Err(TransportError::TimedOut)));
            // The late answer to the first would be taken for the second's.
            let next = channel.transmit(b"twelve bytes", by(&clock, 10_000), &clock);
            assert!(matches!(next, Err(TransportError::Closed)));
            drop(channel);
            Some(tpm.heard()).filter(|heard| !heard.is_empty())
        });
        assert_eq!(heard.expect("the command is sent in time"), b"twelve bytes");
    }

    #[test]
    fn what_is_no_tpm() {
        let dir = tempfile::tempdir().unwrap();
        let clock = OsClock::new().unwrap();
        let open = |path: &Path| Channel::open(path, by(&clock, 1000), &clock).map(|_| ());
        assert!(matches!(open(&dir.path().join("none")), Err(TransportError::NotPresent)));
        assert!(matches!(open(dir.path()), Err(TransportError::NoTpm)));
        let socket = dir.path().join("sock");
        drop(UnixListener::bind(&socket).unwrap());
        assert!(matches!(open(&socket), Err(TransportError::NotPresent)), "a socket with nobody behind it");
    }
}
