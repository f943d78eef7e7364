//! [`host::Disk`] over the recorded directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use host::{Disk, DiskFile, Meta, OsDisk, Owner};
use zeroize::Zeroizing;

use super::log::{Event, Ino};
use super::{CrashDisk, Shared, locked};

impl CrashDisk {
    fn below(&self, path: &Path) -> PathBuf {
        below(self.root(), path)
    }

    fn open_recorded(&self, path: &Path) -> Ino {
        let below = self.below(path);
        let mut shared = self.lock();
        shared.log.find(&below).unwrap_or_else(|| shared.log.create(&below, false, 0o600))
    }
}

/// A path of this disk as the log knows it.
pub(super) fn below(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root)
        .unwrap_or_else(|_| panic!("{} is not on the recorded disk {}", path.display(), root.display()))
        .to_owned()
}

impl Disk for CrashDisk {
    fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        OsDisk.meta(path)
    }

    fn read(&self, path: &Path, max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        OsDisk.read(path, max)
    }

    fn read_with_meta(&self, path: &Path, max: usize) -> io::Result<(Meta, Zeroizing<Vec<u8>>)> {
        OsDisk.read_with_meta(path, max)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }

    fn create_dir(&self, path: &Path, mode: u32) -> io::Result<()> {
        let mut shared = self.lock();
        shared.before_write()?;
        OsDisk.create_dir(path, mode)?;
        shared.log.create(&self.below(path), true, mode);
        Ok(())
    }

    fn write_new(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
        let mut shared = self.lock();
        shared.before_write()?;
        OsDisk.write_new(path, bytes, mode, owner)?;
        let ino = shared.log.create(&self.below(path), false, mode);
        if !bytes.is_empty() {
            shared.log.events.push(Event::Write { ino, offset: 0, bytes: bytes.to_vec() });
        }
        Ok(())
    }

    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OsDisk.open_rw(path)?;
        let ino = self.open_recorded(path);
        Ok(Box::new(RecordedFile { file, ino, path: path.to_owned(), shared: Arc::clone(&self.shared) }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.lock();
        let recorded = shared.before_sync(path)?;
        // What is real here is the log; the temporary files need no fsync of their own.
        let ino = shared.log.find(&self.below(path)).ok_or(io::ErrorKind::NotFound)?;
        if recorded {
            shared.log.events.push(Event::SyncFile { ino });
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.lock();
        let recorded = shared.before_sync(path)?;
        let ino = shared.log.find(&self.below(path)).ok_or(io::ErrorKind::NotFound)?;
        if recorded {
            shared.log.events.push(Event::SyncDir { ino });
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path, replace: bool) -> io::Result<()> {
        let mut shared = self.lock();
        shared.before_write()?;
        let volume = |path: &Path| shared.log.find(&self.below(path)).map(|ino| shared.log.volume(ino));
        if volume(from.parent().unwrap_or(from)) != volume(to.parent().unwrap_or(to)) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        OsDisk.rename(from, to, replace)?;
        shared.log.rename(&self.below(from), &self.below(to));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.lock();
        OsDisk.remove_file(path)?;
        shared.log.remove(&self.below(path));
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut shared = self.lock();
        OsDisk.remove_dir(path)?;
        shared.log.remove(&self.below(path));
        Ok(())
    }

    fn chown(&self, path: &Path, owner: Owner) -> io::Result<()> {
        OsDisk.chown(path, owner)
    }

    fn device(&self, path: &Path) -> io::Result<u64> {
        let shared = self.lock();
        let ino = shared.log.find(&self.below(path)).ok_or(io::ErrorKind::NotFound)?;
        Ok(shared.log.volume(ino) as u64)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send>>> {
        let held = OsDisk.lock(path)?;
        self.open_recorded(path);
        Ok(held)
    }
}

struct RecordedFile {
    file: Box<dyn DiskFile>,
    ino: Ino,
    path: PathBuf,
    shared: Arc<Mutex<Shared>>,
}

impl DiskFile for RecordedFile {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut shared = locked(&self.shared);
        shared.before_write()?;
        self.file.write_at(bytes, offset)?;
        let offset = usize::try_from(offset).expect("test files are small");
        shared.log.events.push(Event::Write { ino: self.ino, offset, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut shared = locked(&self.shared);
        if shared.before_sync(&self.path)? {
            shared.log.events.push(Event::SyncFile { ino: self.ino });
        }
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut shared = locked(&self.shared);
        shared.before_write()?;
        self.file.allocate(len)?;
        let length = usize::try_from(self.file.len()?).expect("test files are small");
        shared.log.events.push(Event::Truncate { ino: self.ino, length });
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
