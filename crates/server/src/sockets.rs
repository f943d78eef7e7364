//! The two Unix sockets: the services' and the admin's.
//!
//! Who is at the other end is the kernel's word (SO_PEERCRED), asked before the first byte is read.

use std::io;
use std::path::{Path, PathBuf};

use host::{Disk, FileKind, ListenFault};
use tokio::net::{UnixListener, UnixStream};

/// A peer of the admin socket: root, or the user that edgekeep runs as. Made by the check alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminPeer {
    uid: u32,
    pid: u32,
}

impl AdminPeer {
    /// The peer of `stream`, if it may administer.
    pub(crate) fn check(stream: &UnixStream) -> Result<Self, PeerRefused> {
        let peer = UnixPeer::of(stream).map_err(PeerRefused::Unknown)?;
        let ours = rustix::process::geteuid().as_raw();
        if peer.uid == 0 || peer.uid == ours {
            Ok(Self { uid: peer.uid, pid: peer.pid })
        } else {
            Err(PeerRefused::Stranger { uid: peer.uid, pid: peer.pid })
        }
    }

    /// Its user id.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// Its process id at the moment it connected; 0 if it lives in a namespace of processes that we cannot see.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Why a peer of the admin socket is sent away, for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerRefused {
    #[error("the kernel does not say who it is: {0}")]
    Unknown(io::Error),
    #[error("uid {uid} (pid {pid}) is neither root nor the user of edgekeep")]
    Stranger { uid: u32, pid: u32 },
}

/// Who the kernel says is at the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnixPeer {
    pub(crate) uid: u32,
    pub(crate) pid: u32,
}

impl UnixPeer {
    /// tokio reads the credentials as plain numbers; rustix's type cannot hold the pid 0 that the kernel gives for a
    /// peer in another container.
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid().and_then(|p| u32::try_from(p).ok()).unwrap_or(0);
        Ok(Self { uid: credentials.uid(), pid })
    }
}

/// Who may connect to a socket, as far as its file decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every local user: the token is what lets one in.
    Everyone,
    /// Root and ourselves: the directory is 0700, and each peer is checked.
    Owner,
}

/// Binds a socket at `path`.
pub(crate) fn bind(disk: &dyn Disk, path: &Path, reach: Reach) -> Result<UnixListener, SocketError> {
    let failed = |cause: io::Error| SocketError::Bind { path: path.to_owned(), cause };
    let dir = path.parent().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    prepare_dir(disk, dir, reach)?;
    let mode = match reach {
        Reach::Everyone => 0o666,
        Reach::Owner => 0o600,
    };
    let listener = host::listen_at(path, mode).map_err(|fault| match fault {
        ListenFault::InUse { path } => SocketError::InUse { path },
        ListenFault::NotASocket { path, .. } => SocketError::NotASocket { path },
        ListenFault::TooLong { path } => SocketError::TooLong { path },
        ListenFault::Io(cause) => failed(cause),
    })?;
    UnixListener::from_std(listener).map_err(failed)
}

/// The admin socket's directory is ours and closed to everyone else, or it is not used. That of the API socket must not
/// be open to changes by others, for who may rename in it may put a socket of his own in our place.
fn prepare_dir(disk: &dyn Disk, dir: &Path, reach: Reach) -> Result<(), SocketError> {
    if check_dir(disk, dir, reach)? {
        return Ok(());
    }
    let mode = match reach {
        Reach::Everyone => 0o755,
        Reach::Owner => 0o700,
    };
    disk.create_dir(dir, mode).map_err(|cause| SocketError::Directory { path: dir.to_owned(), cause })
}

/// Whether `path` is a place for a socket, whose directory is there, or is made in one that is there or is `made`
/// before. Makes nothing; whether somebody answers there is not asked.
pub(crate) fn check_place(disk: &dyn Disk, path: &Path, reach: Reach, made: &Path) -> Result<(), SocketError> {
    let dir = path.parent().unwrap_or(path);
    let parent = dir.parent().unwrap_or(dir);
    if !check_dir(disk, dir, reach)? && dir != made && parent != made {
        disk.check_writable(parent).map_err(|cause| SocketError::Directory { path: dir.to_owned(), cause })?;
    }
    match disk.meta(path) {
        Ok(Some(meta)) if meta.kind != FileKind::Other => Err(SocketError::NotASocket { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Whether the directory is there. One that is there must be fit.
fn check_dir(disk: &dyn Disk, dir: &Path, reach: Reach) -> Result<bool, SocketError> {
    let failed = |cause: io::Error| SocketError::Directory { path: dir.to_owned(), cause };
    let Some(meta) = disk.meta(dir).map_err(failed)? else { return Ok(false) };
    let ours = rustix::process::geteuid().as_raw();
    let forbidden = match reach {
        Reach::Everyone => 0o022,
        Reach::Owner => 0o077,
    };
    let owned = meta.owner.uid == ours || (meta.owner.uid == 0 && reach == Reach::Everyone);
    if (meta.kind != FileKind::Dir || !owned || meta.mode & forbidden != 0)
        && host::in_force("socket-directories-closed")
    {
        return Err(SocketError::Unsafe {
            path: dir.to_owned(),
            mode: meta.mode,
            uid: meta.owner.uid,
            wanted: if reach == Reach::Owner { "0700" } else { "0755" },
        });
    }
    Ok(true)
}

/// A Unix socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process answers there.
    #[error("another process answers at {path}; stop it, or choose another path")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something other than a socket is there; it is not removed.
    #[error("{path} is there and is no socket; move it away, or choose another path")]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// Others may change the directory, or enter that of the admin socket.
    #[error("{path} has mode {mode:04o} and owner {uid}; it must be a directory of ours with mode {wanted}")]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// The mode it should have.
        wanted: &'static str,
    },
    /// The kernel takes no path of this length.
    #[error("{path} is too long for a socket: with 5 bytes more it must stay within 107")]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be made or read.
    #[error("cannot prepare the directory {path}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen at {path}")]
    Bind {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsDisk;

    /// Sockets of tokio need a runtime.
    fn in_runtime<T>(f: impl FnOnce(&Path) -> T) -> T {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        f(dir.path())
    }

    fn mode(path: &Path) -> u32 {
        OsDisk.meta(path).unwrap().unwrap().mode
    }

    #[test]
    fn the_admin_socket_and_its_directory_are_closed() {
        in_runtime(|dir| {
            let path = dir.join("admin/admin.sock");
            let _listener = bind(&OsDisk, &path, Reach::Owner).unwrap();
            assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
            assert_eq!(OsDisk.list(path.parent().unwrap()).unwrap(), ["admin.sock"]);
        });
    }

    #[test]
    fn an_open_directory_is_refused() {
        in_runtime(|dir| {
            for (name, mode, reach) in
                [("a", 0o755, Reach::Owner), ("b", 0o710, Reach::Owner), ("c", 0o1777, Reach::Everyone)]
            {
                let open = dir.join(name);
                OsDisk.create_dir(&open, mode).unwrap();
                let refused = bind(&OsDisk, &open.join("s"), reach).unwrap_err();
                assert!(matches!(refused, SocketError::Unsafe { .. }), "{name}: {refused}");
            }
            std::os::unix::fs::symlink(dir.join("a"), dir.join("link")).unwrap();
            assert!(matches!(bind(&OsDisk, &dir.join("link/s"), Reach::Everyone), Err(SocketError::Unsafe { .. })));
        });
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        in_runtime(|dir| {
            let path = dir.join("d/api.sock");
            let live = bind(&OsDisk, &path, Reach::Everyone).unwrap();
            assert!(matches!(bind(&OsDisk, &path, Reach::Everyone), Err(SocketError::InUse { .. })));
            drop(live);
            let _again = bind(&OsDisk, &path, Reach::Everyone).unwrap();
            assert_eq!(mode(&path), 0o666);
        });
    }

    #[test]
    fn a_file_in_its_place_is_left_alone() {
        in_runtime(|dir| {
            let path = dir.join("notes.txt");
            OsDisk.write_new(&path, b"mine", 0o600, None).unwrap();
            assert!(matches!(bind(&OsDisk, &path, Reach::Everyone), Err(SocketError::NotASocket { .. })));
            assert_eq!(&OsDisk.read(&path, 9).unwrap()[..], b"mine");
            let long = dir.join("x".repeat(120));
            assert!(matches!(bind(&OsDisk, &long, Reach::Everyone), Err(SocketError::TooLong { .. })));
        });
    }
}
