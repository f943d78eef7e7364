//! A disk in memory that can lose its power, fill up, fail and lie: fast enough for thousands of cuts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use host::{Disk, DiskFile, FileKind, Meta, Owner};
use zeroize::Zeroizing;

/// A disk whose writes are durable only after a sync.
#[derive(Clone, Default)]
pub(super) struct FakeDisk(Arc<Mutex<Files>>);

#[derive(Clone, Default)]
pub(super) struct Files {
    pub(super) files: BTreeMap<PathBuf, FakeFile>,
    pub(super) operations: u64,
    /// The power goes before this operation: it and all later ones fail.
    pub(super) cut_at: Option<u64>,
    /// This operation alone fails, and does nothing.
    pub(super) fails_at: Option<u64>,
    /// No write or sync of this file succeeds.
    pub(super) bad_file: Option<PathBuf>,
    pub(super) writes_fail: bool,
    pub(super) syncs_fail: bool,
    pub(super) writes: u64,
    pub(super) syncs: u64,
}

#[derive(Clone, Default)]
pub(super) struct FakeFile {
    pub(super) durable: Vec<u8>,
    /// Writes since the last sync.
    pub(super) pending: Vec<(usize, Vec<u8>)>,
}

impl FakeFile {
    pub(super) fn seen(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (at, new) in &self.pending {
            put(&mut bytes, *at, new);
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    if bytes.len() < at + new.len() {
        bytes.resize(at + new.len(), 0);
    }
    bytes[at..at + new.len()].copy_from_slice(new);
}

impl Files {
    pub(super) fn step(&mut self) -> io::Result<()> {
        self.operations += 1;
        match self.cut_at {
            Some(cut) if self.operations > cut => Err(io::Error::other("no power")),
            _ if self.fails_at == Some(self.operations) => Err(io::Error::other("medium error")),
            _ => Ok(()),
        }
    }
}

impl Files {
    fn is_good(&self, path: &Path) -> io::Result<()> {
        if self.bad_file.as_deref() == Some(path) { Err(io::Error::other("bad sector")) } else { Ok(()) }
    }
}

impl FakeDisk {
    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Files> {
        self.0.lock().unwrap()
    }

    /// The disk as the next boot finds it: of each unsynced write, those 512-byte blocks that `keeps` chooses.
    pub(super) fn after_power_cut(&self, mut keeps: impl FnMut() -> bool) -> Self {
        let mut files = self.lock().files.clone();
        for file in files.values_mut() {
            for (at, bytes) in std::mem::take(&mut file.pending) {
                let mut from = 0;
                while from < bytes.len() {
                    let to = bytes.len().min((at + from) / 512 * 512 + 512 - at);
                    if keeps() {
                        put(&mut file.durable, at + from, &bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
        Self(Arc::new(Mutex::new(Files { files, ..Files::default() })))
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.lock();
        let file = files.files.get_mut(&Path::new("audit").join(name)).unwrap();
        file.durable = file.seen();
        file.pending.clear();
        change(&mut file.durable);
    }
}

struct FakeHandle(FakeDisk, PathBuf);

impl DiskFile for FakeHandle {
    fn read_at(&self, out: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock().files.get(&self.1).map(FakeFile::seen).unwrap_or_default();
        let from = bytes.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        disk.is_good(&self.1)?;
        disk.writes += 1;
        if disk.writes_fail {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.files.entry(self.1.clone()).or_default().pending.push((offset as usize, bytes.to_vec()));
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        let mut disk = self.0.lock();
        disk.step()?;
        disk.is_good(&self.1)?;
        disk.syncs += 1;
        if disk.syncs_fail {
            return Err(io::Error::other("medium error"));
        }
        let file = disk.files.entry(self.1.clone()).or_default();
        file.durable = file.seen();
        file.pending.clear();
        Ok(())
    }

    fn allocate(&mut self, len: u64) -> io::Result<()> {
        let mut disk = self.0.lock();
        let file = disk.files.entry(self.1.clone()).or_default();
        if file.durable.len() < len as usize {
            file.durable.resize(len as usize, 0);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().files.get(&self.1).map_or(0, |f| f.seen().len() as u64))
    }
}

impl Disk for FakeDisk {
    fn meta(&self, path: &Path) -> io::Result<Option<Meta>> {
        Ok(self.lock().files.get(path).map(|f| Meta {
            kind: FileKind::File,
            mode: 0o600,
            owner: Owner { uid: 0, gid: 0 },
            len: f.seen().len() as u64,
        }))
    }
    fn read(&self, path: &Path, _max: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        Ok(Zeroizing::new(self.lock().files.get(path).map(FakeFile::seen).ok_or(io::ErrorKind::NotFound)?))
    }
    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn create_dir(&self, _: &Path, _: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn write_new(&self, _: &Path, _: &[u8], _: u32, _: Option<Owner>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn open_rw(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.lock().files.entry(path.to_owned()).or_default();
        Ok(Box::new(FakeHandle(self.clone(), path.to_owned())))
    }
    fn sync_file(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn rename(&self, _: &Path, _: &Path, _: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.lock().files.remove(path);
        Ok(())
    }
    fn remove_dir(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn chown(&self, _: &Path, _: Owner) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send>>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
