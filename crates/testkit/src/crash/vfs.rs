//! An SQLite VFS that does what `os_unix.c` does as far as durability goes, and records it.
//!
//! One connection in `locking_mode = EXCLUSIVE`: then WAL needs no shared memory. As in `os_unix.c`, the first sync of
//! a new journal or WAL syncs its directory too, and removing a file does not.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite as _; // brings the SQLite that `sqlite_vfs` is linked against
use sqlite_vfs::{DatabaseHandle, LockKind, OpenAccess, OpenKind, Vfs, WalDisabled};

use super::disk::below;
use super::log::{Event, Ino};
use super::{Shared, locked};

/// Registers a VFS for one disk; SQLite keeps it for the life of the process.
pub(super) fn register(root: &Path, shared: &Arc<Mutex<Shared>>) -> Arc<str> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("crash-{}", COUNT.fetch_add(1, Ordering::Relaxed));
    let vfs = RecordingVfs { root: root.to_owned(), shared: Arc::clone(shared) };
    sqlite_vfs::register(&name, vfs, false).expect("SQLite takes a VFS of a new name");
    name.into()
}

struct RecordingVfs {
    root: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

struct RecordedDatabase {
    file: File,
    path: PathBuf,
    ino: Ino,
    /// Its directory, until the first sync has made its name durable.
    new_in: Option<Ino>,
    lock: LockKind,
    shared: Arc<Mutex<Shared>>,
}

impl Vfs for RecordingVfs {
    type Handle = RecordedDatabase;

    fn open(&self, db: &str, options: sqlite_vfs::OpenOptions) -> io::Result<RecordedDatabase> {
        let path = PathBuf::from(db);
        let (write, create) = match options.access {
            OpenAccess::Read => (false, false),
            OpenAccess::Write => (true, false),
            OpenAccess::Create | OpenAccess::CreateNew => (true, true),
        };
        let mut shared = locked(&self.shared);
        if create && !path.exists() {
            shared.before_write().map_err(full)?;
        }
        let file = OpenOptions::new().read(true).write(write).create(create).mode(0o600).open(&path)?;
        let short = below(&self.root, &path);
        let known = shared.log.find(&short);
        let ino = known.unwrap_or_else(|| shared.log.create(&short, false, 0o600));
        let journal = matches!(options.kind, OpenKind::MainJournal | OpenKind::Wal | OpenKind::SuperJournal);
        let new_in = match (known, journal) {
            (None, true) => shared.log.find(short.parent().unwrap_or(Path::new(""))),
            _ => None,
        };
        Ok(RecordedDatabase { file, path, ino, new_in, lock: LockKind::None, shared: Arc::clone(&self.shared) })
    }

    fn delete(&self, db: &str) -> io::Result<()> {
        let path = Path::new(db);
        let mut shared = locked(&self.shared);
        std::fs::remove_file(path)?;
        shared.log.remove(&below(&self.root, path));
        Ok(())
    }

    fn exists(&self, db: &str) -> io::Result<bool> {
        // As os_unix.c: an empty journal is none.
        Ok(std::fs::metadata(db).is_ok_and(|meta| meta.len() > 0))
    }

    fn temporary_name(&self) -> String {
        unreachable!("temp_store is MEMORY")
    }

    fn random(&self, buffer: &mut [i8]) {
        // WAL salts: they must differ from one another and need no more.
        static SALT: AtomicUsize = AtomicUsize::new(1);
        let chance = crate::SeededEntropy::new(SALT.fetch_add(1, Ordering::Relaxed) as u64);
        for byte in buffer {
            *byte = (chance.number() & 0x7f) as i8;
        }
    }

    fn sleep(&self, duration: Duration) -> Duration {
        duration // nobody else has the file: there is nothing to wait for
    }

    fn full_pathname<'a>(&self, db: &'a str) -> io::Result<Cow<'a, str>> {
        Ok(db.into())
    }
}

impl DatabaseHandle for RecordedDatabase {
    type WalIndex = WalDisabled;

    fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64)? {
                0 => {
                    buffer[filled..].fill(0); // SQLite counts on zeros behind a short read
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                n => filled += n,
            }
        }
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut shared = locked(&self.shared);
        shared.before_write().map_err(full)?;
        self.file.write_all_at(bytes, offset)?;
        let offset = usize::try_from(offset).expect("test files are small");
        shared.log.events.push(Event::Write { ino: self.ino, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&mut self, _data_only: bool) -> io::Result<()> {
        let mut shared = locked(&self.shared);
        if shared.before_sync(&self.path)? {
            shared.log.events.push(Event::SyncFile { ino: self.ino });
        }
        if let Some(ino) = self.new_in.take()
            && !shared.lies_about(self.path.parent().unwrap_or(Path::new("")))
        {
            shared.log.events.push(Event::SyncDir { ino });
        }
        Ok(())
    }

    fn set_len(&mut self, size: u64) -> io::Result<()> {
        let mut shared = locked(&self.shared);
        self.file.set_len(size)?;
        let length = usize::try_from(size).expect("test files are small");
        shared.log.events.push(Event::Truncate { ino: self.ino, length });
        Ok(())
    }

    fn lock(&mut self, lock: LockKind) -> io::Result<bool> {
        self.lock = lock;
        Ok(true)
    }

    fn reserved(&mut self) -> io::Result<bool> {
        Ok(matches!(self.lock, LockKind::Reserved | LockKind::Pending | LockKind::Exclusive))
    }

    fn current_lock(&self) -> io::Result<LockKind> {
        Ok(self.lock)
    }

    fn wal_index(&self, _readonly: bool) -> io::Result<WalDisabled> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// sqlite-vfs turns `WriteZero`, and nothing else, into SQLITE_FULL.
fn full(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::StorageFull { ErrorKind::WriteZero.into() } else { error }
}
