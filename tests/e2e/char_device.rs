//! A TPM as the kernel shows it, a character device: in its place a terminal in raw mode, which carries the octets of a
//! software TPM to and fro.
//!
//! One that is named `tpmrm…` keeps the room of an open file as Linux does (drivers/char/tpm/tpm2-space.c): three objects
//! and three sessions. It evicts nothing; at the fourth everything that was loaded goes, and the command fails. What is
//! loaded goes at the close too.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, inotify};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use testkit::Swtpm;

/// Gone when it is dropped.
pub(crate) struct CharDevice {
    path: PathBuf,
    sent: Arc<Mutex<Vec<u32>>>,
    over: Arc<AtomicBool>,
    overfull: Arc<AtomicBool>,
    bridge: Option<std::thread::JoinHandle<()>>,
}

impl CharDevice {
    /// `dir/name`, in front of `tpm`, which takes so much longer for each command.
    pub(crate) fn new(tpm: &Swtpm, dir: &Path, name: &str, slowness: Duration) -> Self {
        let front = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&front).unwrap();
        unlockpt(&front).unwrap();
        let terminal = ptsname(&front, Vec::new()).unwrap();
        let raw = rustix::fs::open(&*terminal, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let mut settings = tcgetattr(&raw).unwrap();
        settings.make_raw();
        tcsetattr(&raw, OptionalActions::Now, &settings).unwrap();
        let path = dir.join(name);
        std::os::unix::fs::symlink(terminal.to_str().unwrap(), &path).unwrap();
        // Not by POLLHUP: who opens it again at once is not told apart from who never closed it.
        let closes = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC).unwrap();
        let (sent, over) = (Arc::<Mutex<Vec<u32>>>::default(), Arc::new(AtomicBool::new(false)));
        let overfull = Arc::new(AtomicBool::new(false));
        drop(raw);
        inotify::add_watch(&closes, &*terminal, inotify::WatchFlags::CLOSE).unwrap();
        let bridge = Bridge {
            front: front.into(),
            closes,
            behind: tpm.socket(),
            manages: name.starts_with("tpmrm"),
            slowness,
            held: Vec::new(),
            sent: Arc::clone(&sent),
            over: Arc::clone(&over),
            overfull: Arc::clone(&overfull),
        };
        Self { path, sent, over, overfull, bridge: Some(std::thread::spawn(|| bridge.run())) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The codes of the commands that came, since this was asked last.
    pub(crate) fn commands(&self) -> Vec<u32> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

impl Drop for CharDevice {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let bridged = self.bridge.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(bridged.is_some_and(|bridged| bridged.is_ok()), "the bridge to the TPM broke");
            assert!(!self.overfull.load(Ordering::SeqCst), "more was loaded at once than Linux keeps of an open file");
        }
    }
}

struct Bridge {
    front: File,
    closes: OwnedFd,
    behind: PathBuf,
    manages: bool,
    slowness: Duration,
    held: Vec<u32>,
    sent: Arc<Mutex<Vec<u32>>>,
    over: Arc<AtomicBool>,
    overfull: Arc<AtomicBool>,
}

impl Bridge {
    fn run(mut self) {
        let mut command = Vec::new();
        while !self.over.load(Ordering::SeqCst) {
            let mut seen = [PollFd::from_borrowed_fd(self.front.as_fd(), PollFlags::IN)];
            let moment = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            if poll(&mut seen, Some(&moment)).unwrap() == 0 {
                continue;
            }
            if !seen[0].revents().contains(PollFlags::IN) {
                // Nobody has it open, which poll(2) says at once and again and again.
                pause(Duration::from_millis(5));
                continue;
            }
            let mut some = [0; 4096];
            let Ok(n) = self.front.read(&mut some) else { continue };
            command.extend_from_slice(&some[..n]);
            if command.len() >= 10 && command.len() >= number(&command[2..6]) as usize {
                let answer = self.answered(&std::mem::take(&mut command));
                self.front.write_all(&answer).unwrap();
            }
        }
    }

    fn answered(&mut self, command: &[u8]) -> Vec<u8> {
        if self.was_closed() {
            self.flush_all();
        }
        let code = number(&command[6..10]);
        self.sent.lock().unwrap().push(code);
        pause(self.slowness);
        let mut answer = testkit::ask_tpm(&self.behind, command);
        if !self.manages || number(&answer[6..10]) != 0 {
            return answer;
        }
        match code {
            FLUSH_CONTEXT => self.held.retain(|handle| *handle != number(&command[10..14])),
            CREATE_PRIMARY | LOAD | LOAD_EXTERNAL | START_AUTH_SESSION => {
                let handle = number(&answer[10..14]);
                // A session that its last command has ended is forgotten when its number is seen again, or is not there.
                let mut held = std::mem::take(&mut self.held);
                held.retain(|held| !is_same(*held, handle) && (is_object(*held) || self.has_session(*held)));
                held.push(handle);
                self.held = held;
                if self.held.iter().filter(|held| is_object(**held) == is_object(handle)).count() > ROOM {
                    self.overfull.store(true, Ordering::SeqCst);
                    self.flush_all();
                    // read(2) fails with ENOMEM there. A terminal cannot, so more comes than an answer has: nothing can
                    // be sent this way any more either.
                    answer = [&[0x80, 1, 0, 0, 0, 10, 0, 0, 9, 3][..], &[0]].concat();
                }
            }
            _ => {}
        }
        answer
    }

    /// Whether somebody has closed it since this was asked last.
    fn was_closed(&self) -> bool {
        let mut events = [MaybeUninit::uninit(); 512];
        let mut events = inotify::Reader::new(&self.closes, &mut events);
        let mut any = false;
        while events.next().is_ok() {
            any = true;
        }
        any
    }

    /// Whether the TPM still has a session (TPM2_GetCapability, TPM_CAP_HANDLES from this one on; policy sessions are
    /// told among the loaded ones, 0x02).
    fn has_session(&self, handle: u32) -> bool {
        let asked = (handle & 0x00FF_FFFF | 0x0200_0000).to_be_bytes();
        let ask = [&[0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7A, 0, 0, 0, 1][..], &asked, &[0, 0, 0, 1]].concat();
        let answer = testkit::ask_tpm(&self.behind, &ask);
        answer.get(19..23).is_some_and(|found| is_same(number(found), handle))
    }

    fn flush_all(&mut self) {
        for handle in std::mem::take(&mut self.held) {
            let flush = [&[0x80, 1, 0, 0, 0, 14][..], &FLUSH_CONTEXT.to_be_bytes(), &handle.to_be_bytes()].concat();
            testkit::ask_tpm(&self.behind, &flush);
        }
    }
}

/// An HMAC and a policy session have one row of numbers between them.
fn is_same(one: u32, other: u32) -> bool {
    is_object(one) == is_object(other) && one & 0x00FF_FFFF == other & 0x00FF_FFFF
}

fn is_object(handle: u32) -> bool {
    handle >> 24 == 0x80
}

/// `struct tpm_space` (include/linux/tpm.h), objects and sessions each.
const ROOM: usize = 3;

#[expect(clippy::disallowed_methods, reason = "hardware that takes its time")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().unwrap())
}

const CREATE_PRIMARY: u32 = 0x131;
const LOAD: u32 = 0x157;
const LOAD_EXTERNAL: u32 = 0x167;
const START_AUTH_SESSION: u32 = 0x176;
pub(crate) const FLUSH_CONTEXT: u32 = 0x165;
