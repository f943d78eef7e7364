//! The few things that edgekeep does to files, each one a call that a test can record, refuse or cut short.
//!
//! Durability is never implied: `write_new` and `rename` change what the next reader sees, `sync_file` and `sync_dir`
//! decide what survives a power cut. [`Disk::replace`] is the one composition of them that replaces a file safely.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use zeroize::Zeroizing;

/// Numeric owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// What a path names; a symbolic link is never followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link: refused wherever a file is expected.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// What `lstat` says.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// File, directory, link or other.
    pub kind: FileKind,
    /// Permission bits, 0o7777.
    pub mode: u32,
    /// Who owns it.
    pub owner: Owner,
    /// Bytes.
    pub len: u64,
}

/// An open file for reading and writing in place (the audit ring).
pub trait DiskFile: Send {
    /// Bytes at `offset`; fewer than `out.len()` only at the end of the file.
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`; not durable until [`DiskFile::sync_data`].
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// `fdatasync(2)`.
    fn sync_data(&mut self) -> io::Result<()>;
    /// Reserves `len` bytes so that later writes within them need no space.
    fn allocate(&mut self, len: u64) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A place for files. No call follows a symbolic link in the last component of a path.
pub trait Disk: Send + Sync {
    /// What `path` is, or `None` when nothing is there.
    fn meta(&self, path: &Path) -> io::Result<Option<Meta>>;
    /// The whole file, at most `max` bytes; a longer file is an error, so that a flooded file cannot fill memory.
    fn read(&self, path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>>;
    /// As [`Disk::read`], with what the file is that was read, whatever has its name since: for a reader who asks first
    /// whose it is. Of what is no regular file nothing is read.
    ///
    /// # Errors
    /// As [`Disk::read`].
    fn read_with_meta(&self, path: &Path, max: usize) -> io::Result<(Meta, Zeroizing<Vec<u8>>)> {
        let meta = self.meta(path)?.ok_or(io::ErrorKind::NotFound)?;
        let bytes = if meta.kind == FileKind::File { self.read(path, max)? } else { Zeroizing::default() };
        Ok((meta, bytes))
    }
    /// Names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes one directory with exactly `mode`, whatever the umask.
    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Makes a new file (an existing one is an error) with exactly `mode`, then its owner, then its bytes: the bytes
    /// are never there for anyone but the owner.
    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()>;
    /// Opens an existing or new file (0600) for writing in place.
    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// `fsync(2)` of a file.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// `fsync(2)` of a directory: names made, renamed or removed in it are durable on return.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Atomic rename; `replace = false` refuses to displace anything.
    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()>;
    /// Removes one file or link.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes one empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Sets owner of an existing directory or file, not following links.
    fn chown(&self, path: &Path, owner: Owner) -> io::Result<()>;
    /// Takes an exclusive lock on a file, which is made if it is not there; it lives as long as the returned value.
    /// `None` when another process holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>>;

    /// Whether names can be made in a directory, or a file be written to, by this process: what stands in the way
    /// otherwise. Writes nothing (`faccessat2(2)`), and promises nothing: the disk may be full.
    fn check_writable(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS)?)
    }

    /// Which file system a path lies on (`st_dev`), links followed: two places with one number are lost together.
    fn device(&self, path: &Path) -> io::Result<u64> {
        Ok(rustix::fs::stat(path)?.st_dev)
    }

    /// Which file a path names (`st_dev` and `st_ino`, a link not followed), or `None` when nothing is there: another
    /// one in its place has another number.
    fn which(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some((found.st_dev, found.st_ino))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Sets the permission bits of a directory or file, not following a link.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?)
    }

    /// Puts `bytes` at `path` so that a reader, and a power cut at any moment, sees the old file or the new one whole.
    ///
    /// Durable on return: temporary file, its bytes synced, renamed, directory synced.
    fn replace(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
        put(self, path, bytes, (mode, owner), true)
    }

    /// As [`Disk::replace`], where nothing is yet: what is there, or comes there meanwhile, is never displaced.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] then, and what the disk says.
    fn place(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
        if self.meta(path)?.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        put(self, path, bytes, (mode, owner), false)
    }

    /// Removes a directory and all below it, not following links.
    fn remove_tree(&self, path: &Path) -> io::Result<()> {
        match self.meta(path)? {
            None => Ok(()),
            Some(m) if m.kind == FileKind::Dir => {
                for name in self.list(path)? {
                    self.remove_tree(&path.join(name))?;
                }
                self.remove_dir(path)
            }
            Some(_) => self.remove_file(path),
        }
    }
}

fn put<D: Disk + ?Sized>(
    disk: &D,
    path: &Path,
    bytes: &[u8],
    (mode, owner): (u32, Option<Owner>),
    replaces: bool,
) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = temporary_beside(path)?;
    if disk.meta(&temporary)?.is_some() {
        // Left by a crash between write and rename; nobody reads it, and its content is not trusted.
        disk.remove_file(&temporary)?;
    }
    disk.write_new(&temporary, bytes, mode, owner)?;
    disk.sync_file(&temporary)?;
    if let Err(e) = disk.rename(&temporary, path, replaces) {
        // Nothing hangs on it, and it may hold a secret.
        let _ = disk.remove_file(&temporary);
        return Err(e);
    }
    disk.sync_dir(dir)
}

/// The name that [`Disk::replace`] writes before it renames: `.NAME.new` in the same directory.
///
/// # Errors
/// If `path` has no name that is UTF-8.
pub fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(format!(".{name}.new")))
}

/// The machine's own file systems.
#[derive(Debug, Default, Clone, Copy)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(meta_of(&stat))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn read(&self, path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        let (fd, meta) = open(path)?;
        read(path, &fd, &meta, max)
    }

    fn read_with_meta(&self, path: &Path, max: usize) -> io::Result<(Meta, Zeroizing<Vec<u8>>)> {
        let (fd, meta) = open(path)?;
        let bytes = if meta.kind == FileKind::File { read(path, &fd, &meta, max)? } else { Zeroizing::default() };
        Ok((meta, bytes))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            names.push(entry?.file_name().into_string().map_err(|n| {
                io::Error::other(format!("{}: a name that is not UTF-8: {}", dir.display(), n.display()))
            })?);
        }
        Ok(names)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        // Made closed, then given its mode: the umask must not decide, and nobody may enter in between.
        rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700))?;
        let fd = rustix::fs::open(
            path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
        if let Some(o) = owner {
            rustix::fs::fchown(&fd, Some(rustix::fs::Uid::from_raw(o.uid)), Some(rustix::fs::Gid::from_raw(o.gid)))?;
        }
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match rustix::io::write(&fd, rest) {
                Ok(n) => rest = &rest[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?;
        Ok(Box::new(OsFile(std::fs::File::from(fd))))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::fsync(&fd)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(rustix::fs::fsync(&fd)?)
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, flags)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(CWD, path, AtFlags::empty())?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?)
    }

    fn chown(&self, path: &Path, owner: Owner) -> io::Result<()> {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
        Ok(rustix::fs::chownat(CWD, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let open =
            |flags| rustix::fs::open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::from_raw_mode(0o600));
        let fd = match open(OFlags::RDWR | OFlags::CREATE) {
            // What is mounted read-only can be locked all the same, if it is there.
            Err(rustix::io::Errno::ROFS) => open(OFlags::RDONLY).map_err(|_| rustix::io::Errno::ROFS)?,
            opened => opened?,
        };
        // A child that the holder was just starting has the lock until it has become another program, if the holder
        // dies meanwhile.
        for left in (0..FORK_TRIES).rev() {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Box::new(fd))),
                Err(rustix::io::Errno::WOULDBLOCK) if left > 0 => {
                    // Nothing wakes whoever waits for so little: `poll` of no descriptor is a pause.
                    // A signal ends it early, which only makes the next look come sooner.
                    let _ = rustix::event::poll(&mut [], Some(&FORK_PAUSE));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok((!crate::in_force("one-holder")).then(|| Box::new(fd) as Box<dyn Send>))
    }
}

/// 0.3 s for what takes a millisecond, or a tenth of a second where twelve want two cores.
const FORK_TRIES: usize = 60;
const FORK_PAUSE: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

struct OsFile(std::fs::File);

impl DiskFile for OsFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let mut filled = 0;
        while filled < out.len() {
            match self.0.read_at(&mut out[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(filled)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, rustix::fs::FallocateFlags::empty(), 0, len) {
            // Not every file system reserves; then a full disk is met at the write, and refused there.
            Err(rustix::io::Errno::OPNOTSUPP) => self.0.set_len(len),
            other => Ok(other?),
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

fn meta_of(stat: &rustix::fs::Stat) -> Meta {
    Meta {
        kind: match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::RegularFile => FileKind::File,
            rustix::fs::FileType::Directory => FileKind::Dir,
            rustix::fs::FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Other,
        },
        mode: stat.st_mode & 0o7777,
        owner: Owner { uid: stat.st_uid, gid: stat.st_gid },
        len: u64::try_from(stat.st_size).unwrap_or(0),
    }
}

/// To be read, without waiting for a writer where it is a pipe.
fn open(path: &Path) -> io::Result<(OwnedFd, Meta)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let meta = meta_of(&rustix::fs::fstat(&fd)?);
    Ok((fd, meta))
}

fn read(path: &Path, fd: &OwnedFd, meta: &Meta, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let size = usize::try_from(meta.len).unwrap_or(usize::MAX);
    let too_large =
        || io::Error::new(io::ErrorKind::FileTooLarge, format!("{} is larger than {max} bytes", path.display()));
    if size > max {
        return Err(too_large());
    }
    // One allocation that never grows: a growing buffer would leave copies of secrets behind.
    let mut bytes = Zeroizing::new(vec![0u8; max.min(size.max(4096)) + 1]);
    let mut filled = 0;
    loop {
        match rustix::io::read(fd, &mut bytes[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        if filled == bytes.len() {
            return Err(too_large());
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        OsDisk.meta(path).unwrap().unwrap().mode
    }

    #[test]
    fn replace_keeps_mode_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        OsDisk.write_new(&dir.path().join(".f.new"), b"left by a crash", 0o644, None).unwrap();
        OsDisk.replace(&file, b"one", 0o600, None).unwrap();
        OsDisk.replace(&file, b"two", 0o440, None).unwrap();
        assert_eq!(&OsDisk.read(&file, 10).unwrap()[..], b"two");
        assert_eq!(mode_of(&file), 0o440);
        assert_eq!(OsDisk.list(dir.path()).unwrap(), ["f"]);
    }

    #[test]
    fn a_symlink_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, link) = (dir.path().join("victim"), dir.path().join("link"));
        OsDisk.write_new(&victim, b"v", 0o600, None).unwrap();
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        assert!(OsDisk.read(&link, 10).is_err());
        assert!(OsDisk.write_new(&link, b"x", 0o600, None).is_err());
        assert!(OsDisk.open_rw(&link).is_err());
        OsDisk.replace(&link, b"x", 0o600, None).unwrap();
        assert_eq!(&OsDisk.read(&victim, 10).unwrap()[..], b"v", "replace displaces the link and does not follow it");
    }

    #[test]
    fn what_is_there_is_not_displaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        OsDisk.place(&file, b"first", 0o640, None).unwrap();
        assert_eq!(mode_of(&file), 0o640);
        assert_eq!(OsDisk.place(&file, b"later", 0o600, None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // As where it comes between the look and the rename.
        let raced = put(&OsDisk, &file, b"later", (0o600, None), false).unwrap_err();
        assert_eq!(raced.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(OsDisk.read(&file, 100).unwrap().as_slice(), b"first");
        assert_eq!(OsDisk.list(dir.path()).unwrap(), ["f"], "nothing is left beside it");
    }

    #[test]
    fn what_was_read_is_told_with_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("f"), dir.path().join("l"));
        OsDisk.write_new(&file, b"text", 0o640, None).unwrap();
        let (meta, bytes) = OsDisk.read_with_meta(&file, 100).unwrap();
        assert_eq!((meta.kind, meta.mode, meta.len, bytes.as_slice()), (FileKind::File, 0o640, 4, &b"text"[..]));
        let (meta, bytes) = OsDisk.read_with_meta(dir.path(), 100).unwrap();
        assert_eq!((meta.kind, bytes.len()), (FileKind::Dir, 0));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(OsDisk.read_with_meta(&link, 100).is_err());
    }

    #[test]
    fn a_flooded_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        OsDisk.write_new(&file, &[7; 101], 0o600, None).unwrap();
        assert_eq!(OsDisk.read(&file, 100).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(OsDisk.read(&file, 101).unwrap().len(), 101);
    }

    #[test]
    fn one_holder_of_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = OsDisk.lock(&path).unwrap();
        assert!(held.is_some());
        assert!(OsDisk.lock(&path).unwrap().is_none());
        drop(held);
        assert!(OsDisk.lock(&path).unwrap().is_some());
    }
}
