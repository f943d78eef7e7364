//! The keeper: has the KEK of the slot that opened the store, for as long as the kernel runs and nobody seals.
//!
//! ```text
//! K | store id 16 | slot u16 | KEK 32   -> 1                       keep this, in place of any other
//! F | store id 16                       -> 1 | slot u16 | KEK 32   or 0: nothing for that store
//! X                                     -> 1                       forget, and end
//! ```
//! On a Unix socket in the directory of the admin socket, which is ours alone; the kernel says who asks, and nobody
//! else's user is answered. It weakens what the hardware gives: root of this boot can ask as `up` does.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use boot::driver::KekKeeper;
use clap::Args;
use host::{Disk, OsDisk};
use seal::{SlotId, SlotKek, StoreId};
use secret::{Kek, LockedBytes, Secret};
use zeroize::Zeroizing;

use super::{PATIENCE, ready, reap, start};
use crate::failure::Failure;

/// Started by `up`.
#[derive(Args)]
pub(crate) struct Keeper {
    /// Where it listens.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
}

/// The keeper as `up` sees it.
pub(crate) struct KeeperProcess {
    socket: PathBuf,
}

impl KeeperProcess {
    /// With its socket beside the admin socket.
    pub(crate) fn beside(admin_socket: &Path) -> Self {
        Self { socket: admin_socket.with_file_name("keeper.sock") }
    }

    /// That of the admin socket, where no `up` has made it yet.
    fn make_directory(&self) -> io::Result<()> {
        let Some(directory) = self.socket.parent() else { return Ok(()) };
        match OsDisk.create_dir(directory, 0o700) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    /// Somebody who listens there and is our own user; `None` if nobody does.
    fn connect(&self) -> io::Result<Option<UnixStream>> {
        let stream = match UnixStream::connect(&self.socket) {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        patient(&stream, ASKER_PATIENCE)?;
        if !is_ours(&stream)? {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user listens on the keeper's socket"));
        }
        Ok(Some(stream))
    }
}

impl KekKeeper for KeeperProcess {
    fn keep(&self, store: &StoreId, kek: &SlotKek) -> io::Result<()> {
        let mut stream = match self.connect()? {
            Some(stream) => stream,
            None => {
                self.make_directory()?;
                let arguments = [OsString::from("--socket"), self.socket.clone().into()];
                reap(start("keeper", &arguments, errors())?);
                self.connect()?.ok_or(io::ErrorKind::ConnectionRefused)?
            }
        };
        let mut message = Zeroizing::new(Vec::with_capacity(KEEP_BYTES));
        message.push(KEEP);
        message.extend_from_slice(&store.0);
        message.extend_from_slice(&kek.slot.0.to_be_bytes());
        message.extend_from_slice(kek.kek.expose());
        stream.write_all(&message)?;
        answered(&mut stream)
    }

    fn fetch(&self, store: &StoreId) -> io::Result<Option<SlotKek>> {
        let Some(mut stream) = self.connect()? else { return Ok(None) };
        stream.write_all(&[&[FETCH], store.0.as_slice()].concat())?;
        let [has] = read(&mut stream)?;
        if has == 0 {
            return Ok(None);
        }
        let slot = SlotId(u16::from_be_bytes(read(&mut stream)?));
        let kek = Secret::try_init_with(|kek: &mut [u8; 32]| stream.read_exact(kek))?;
        Ok(Some(SlotKek { slot, kek: Kek::new(kek) }))
    }

    fn forget(&self) -> io::Result<()> {
        let Some(mut stream) = self.connect()? else { return Ok(()) };
        stream.write_all(&[FORGET])?;
        answered(&mut stream)
    }
}

/// What is kept: for which store, of which slot.
struct Kept {
    store: [u8; 16],
    slot: [u8; 2],
    kek: LockedBytes,
}

/// Serves until it is to forget.
pub(in crate::commands) fn run(keeper: &Keeper) -> Result<(), Failure> {
    crate::process::log("warn");
    crate::process::lock_memory();
    let failed = |e: io::Error| {
        let failure = Failure::fault(format!("the keeper cannot listen on {}: {e}", keeper.socket.display()));
        // Whoever started it hears this alone.
        crate::output::line(&failure.fact);
        failure
    };
    // What lies there belongs to a keeper that has ended: a live one would have been asked and not started again.
    match std::fs::remove_file(&keeper.socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = UnixListener::bind(&keeper.socket).map_err(failed)?;
    ready();
    crate::process::give_back_start();
    serve(listener, &keeper.socket).map_err(failed)
}

/// Answers one after the other, until it is to forget: then the key is wiped, and nobody can ask any more, before it
/// says so. A start that follows at once finds no keeper, and not one that is about to end.
fn serve(listener: UnixListener, socket: &Path) -> io::Result<()> {
    let mut kept = None;
    loop {
        match listener.accept().and_then(|(stream, _)| answer(stream, &mut kept)) {
            Ok(None) => {}
            Ok(Some(mut last)) => {
                drop(kept);
                // The name first: whoever connects by it from now on is told that nobody is there.
                let removed = std::fs::remove_file(socket);
                drop(listener);
                last.write_all(&[1])?;
                return removed;
            }
            Err(e) => tracing::warn!("the keeper refuses: {e}"),
        }
    }
}

/// Where the keeper complains. It outlives whoever started it, so that a pipe behind `up` would end only with the
/// keeper; the journal of systemd is nobody's pipe.
fn errors() -> Stdio {
    let variables = crate::locate::environment();
    let journal = variables.value("JOURNAL_STREAM").and_then(|text| {
        let stat = rustix::fs::fstat(io::stderr()).ok()?;
        (text == format!("{}:{}", stat.st_dev, stat.st_ino)).then_some(Stdio::inherit())
    });
    journal.unwrap_or_else(Stdio::null)
}

/// One request. Who asks it to forget is answered when it has.
fn answer(mut stream: UnixStream, kept: &mut Option<Kept>) -> io::Result<Option<UnixStream>> {
    patient(&stream, PATIENCE)?;
    if !is_ours(&stream)? && host::in_force("keeper-peer-checked") {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user asks"));
    }
    let [verb] = read(&mut stream)?;
    match verb {
        KEEP => {
            let (store, slot) = (read(&mut stream)?, read(&mut stream)?);
            let mut kek = LockedBytes::zeroed(KEK_BYTES);
            stream.read_exact(kek.expose_mut())?;
            *kept = Some(Kept { store, slot, kek });
            stream.write_all(&[1])?;
        }
        FETCH => {
            let store: [u8; 16] = read(&mut stream)?;
            match kept.as_ref().filter(|k| k.store == store) {
                Some(Kept { slot, kek, .. }) => {
                    stream.write_all(&[1])?;
                    stream.write_all(slot)?;
                    stream.write_all(kek.expose())?;
                }
                None => stream.write_all(&[0])?,
            }
        }
        FORGET => {
            *kept = None;
            return Ok(Some(stream));
        }
        _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "no request of the keeper's")),
    }
    Ok(None)
}

fn read<const N: usize>(stream: &mut UnixStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn answered(stream: &mut UnixStream) -> io::Result<()> {
    match read(stream)? {
        [1] => Ok(()),
        [_] => Err(io::Error::new(io::ErrorKind::InvalidData, "the keeper has not done it")),
    }
}

/// A peer that says nothing holds up others for so long, and no longer.
fn patient(stream: &UnixStream, limit: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))
}

/// Whether the other end belongs to our own user, as the kernel says.
fn is_ours(stream: &UnixStream) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid == rustix::process::geteuid())
}

/// The keeper serves one after the other: two who say nothing may be before us, and it must forget all the same.
const ASKER_PATIENCE: Duration = Duration::from_secs(3);
const KEEP: u8 = b'K';
const FETCH: u8 = b'F';
const FORGET: u8 = b'X';
const KEK_BYTES: usize = 32;
const KEEP_BYTES: usize = 1 + 16 + 2 + KEK_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([7; 16]);

    fn kek(fill: u8) -> SlotKek {
        SlotKek { slot: SlotId(3), kek: Kek::new(Secret::init_with(|k| k.fill(fill))) }
    }

    /// A keeper's end of a socket, served in this process.
    fn served(socket: &Path) -> std::thread::JoinHandle<io::Result<()>> {
        let listener = UnixListener::bind(socket).unwrap();
        let socket = socket.to_owned();
        std::thread::spawn(move || serve(listener, &socket))
    }

    #[test]
    fn what_is_kept_is_that_stores_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = KeeperProcess::beside(&dir.path().join("admin.sock"));
        assert!(keeper.fetch(&STORE).unwrap().is_none(), "nobody is there");
        keeper.forget().unwrap();
        let process = served(&keeper.socket);
        assert!(keeper.fetch(&STORE).unwrap().is_none());
        keeper.keep(&STORE, &kek(1)).unwrap();
        keeper.keep(&STORE, &kek(2)).unwrap();
        let got = keeper.fetch(&STORE).unwrap().unwrap();
        assert_eq!((got.slot, got.kek.expose()), (SlotId(3), &[2; 32]));
        assert!(keeper.fetch(&StoreId([8; 16])).unwrap().is_none(), "another store's");
        // Whoever talks nonsense, or nothing, changes nothing.
        for nonsense in [&b"Q"[..], b"K", b"", b"F123"] {
            UnixStream::connect(&keeper.socket).unwrap().write_all(nonsense).unwrap();
        }
        assert!(keeper.fetch(&STORE).unwrap().is_some());
        // One who says nothing and stays is before us.
        let silent = UnixStream::connect(&keeper.socket).unwrap();
        keeper.forget().unwrap();
        // At once, whatever the keeper does next: nobody is there to be asked, and another may take its place.
        assert!(UnixStream::connect(&keeper.socket).is_err() && !keeper.socket.exists());
        drop(UnixListener::bind(&keeper.socket).unwrap());
        drop(silent);
        process.join().unwrap().unwrap();
    }
}
