//! A Unix socket's place in the file system, which is taken from nobody.
//!
//! A socket is made beside its place, given its mode and renamed over what an earlier process left, so that at no
//! moment is it missing, or there with another mode. Where somebody answers, nothing is touched. The kernel alone has
//! sockets, and none outlasts a power cut: they are no writes of a [`Disk`].

use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::{Disk, FileKind, OsDisk, temporary_beside};

/// Listens at `path`, whose file gets `mode`. The listener does not block.
///
/// # Errors
/// [`ListenFault`]; what is there stays as it is.
pub fn listen_at(path: &Path, mode: u32) -> Result<UnixListener, ListenFault> {
    let temporary = check_socket_path(path)?;
    if let Some(meta) = OsDisk.meta(path)? {
        if meta.kind != FileKind::Other {
            return Err(ListenFault::NotASocket { path: path.to_owned(), uid: meta.owner.uid });
        }
        if answers(path)? && crate::in_force("live-sockets-kept") {
            return Err(ListenFault::InUse { path: path.to_owned() });
        }
    }
    if OsDisk.meta(&temporary)?.is_some() {
        // Left by a crash between bind and rename.
        OsDisk.remove_file(&temporary)?;
    }
    let listener = UnixListener::bind(&temporary)?;
    listener.set_nonblocking(true)?;
    rustix::fs::chmodat(CWD, &temporary, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(io::Error::from)?;
    OsDisk.rename(&temporary, path, true)?;
    Ok(listener)
}

/// Whether a socket can have this name: the name beside it, under which it is made. Nothing on the disk is looked at.
///
/// # Errors
/// [`ListenFault::TooLong`]; [`ListenFault::Io`] for a path without a name.
pub fn check_socket_path(path: &Path) -> Result<PathBuf, ListenFault> {
    let temporary = temporary_beside(path)?;
    if temporary.as_os_str().len() > MAX_PATH_BYTES {
        return Err(ListenFault::TooLong { path: path.to_owned() });
    }
    Ok(temporary)
}

/// Whether a process listens there, be it too busy to accept. Never waits for it: one that was stopped would hold up
/// the start.
fn answers(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN) => Ok(true),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Why nobody listens there for us.
#[derive(Debug, thiserror::Error)]
pub enum ListenFault {
    /// Another process answers there.
    #[error("another process answers at {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something other than a socket is there; it is not removed.
    #[error("{} is there and is no socket; it is uid {uid}'s", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The kernel takes no path of this length.
    #[error("{} is too long for a socket: with 5 bytes more it must stay within {MAX_PATH_BYTES}", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// And a zero: `sockaddr_un` of Linux.
pub const MAX_PATH_BYTES: usize = 107;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let live = listen_at(&path, 0o666).unwrap();
        assert!(matches!(listen_at(&path, 0o600), Err(ListenFault::InUse { .. })));
        assert_eq!(OsDisk.meta(&path).unwrap().unwrap().mode, 0o666);
        assert_eq!(OsDisk.list(dir.path()).unwrap(), ["s"]);
        drop(live);
        let _again = listen_at(&path, 0o600).unwrap();
        assert_eq!(OsDisk.meta(&path).unwrap().unwrap().mode, 0o600);
    }

    #[test]
    fn one_that_is_too_busy_to_accept_is_alive_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert!(matches!(listen_at(&path, 0o600), Err(ListenFault::InUse { .. })));
    }

    #[test]
    fn what_is_no_socket_or_has_no_room_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        OsDisk.write_new(&path, b"mine", 0o600, None).unwrap();
        assert!(matches!(listen_at(&path, 0o600), Err(ListenFault::NotASocket { .. })));
        assert_eq!(&OsDisk.read(&path, 9).unwrap()[..], b"mine");
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(listen_at(&long, 0o600), Err(ListenFault::TooLong { .. })));
    }
}
