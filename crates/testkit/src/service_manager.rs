//! A stand-in for systemd as a service sees it: takes what is sent to `NOTIFY_SOCKET`, keeps descriptors (`FDSTORE=1`)
//! by SCM_RIGHTS, and hands them to the next start (`LISTEN_FDS`).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// A service manager that ends with this value.
pub struct ServiceManager {
    dir: tempfile::TempDir,
    room: usize,
    kept: Arc<Mutex<Vec<Kept>>>,
}

/// A descriptor under its name.
struct Kept {
    name: String,
    fd: OwnedFd,
}

impl ServiceManager {
    /// One that keeps so many descriptors (`FileDescriptorStoreMax`).
    ///
    /// # Panics
    /// If the machine has no place for a socket.
    pub fn start(room: usize) -> Self {
        let dir = crate::scratch_dir();
        let socket = UnixDatagram::bind(dir.path().join("notify")).expect("a socket in an empty directory");
        let kept: Arc<Mutex<Vec<Kept>>> = Arc::default();
        let theirs = Arc::clone(&kept);
        // Ends with the process: whoever is told to end meanwhile may still have something to say.
        std::thread::spawn(move || while hear(&socket, &theirs, room) {});
        Self { dir, room, kept }
    }

    /// `NOTIFY_SOCKET`.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("notify")
    }

    /// The descriptors that it has now: copies, by their names.
    ///
    /// # Panics
    /// If the machine has no descriptor left.
    pub fn kept(&self) -> Vec<(String, OwnedFd)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|k| (k.name.clone(), k.fd.try_clone().expect("a descriptor is left"))).collect()
    }

    /// The words before a program that it starts. What it keeps, one descriptor at most, goes to the program as
    /// standard input, and from there to its place.
    pub fn words(&self) -> Vec<String> {
        let kept = self.kept();
        let mut words = vec![
            "env".to_owned(),
            format!("NOTIFY_SOCKET={}", self.socket().display()),
            format!("FDSTORE={}", self.room),
        ];
        if let [(name, _)] = &kept[..] {
            let script = format!(
                "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}; export LISTEN_PID LISTEN_FDS \
                 LISTEN_FDNAMES; exec \"$0\" \"$@\""
            );
            words.extend(["sh".to_owned(), "-c".into(), script]);
        }
        words
    }
}

/// One message. `false`: nobody will send another.
fn hear(socket: &UnixDatagram, kept: &Mutex<Vec<Kept>>, room: usize) -> bool {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut with, RecvFlags::CMSG_CLOEXEC);
    let Ok(received) = received else { return false };
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let text = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
    let has = |line: &str| text.lines().any(|l| l == line);
    let name = text.lines().find_map(|l| l.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if has("FDSTOREREMOVE=1") {
        kept.retain(|k| k.name != name);
    } else if has("FDSTORE=1") {
        // Without room they are closed, and nobody is told: as systemd does it.
        let left = room.saturating_sub(kept.len());
        kept.extend(fds.into_iter().take(left).map(|fd| Kept { name: name.clone(), fd }));
    }
    // `BARRIER=1`: its descriptor is closed here, when all before it is done.
    true
}
