//! Power cuts: a disk that records what is done to it, and can show what a cut at any moment may have left.
//!
//! ```text
//! host::Disk calls ─┐
//!                   ├─> real files in a temporary directory, and one log of writes, names and syncs
//! SQLite (VFS)    ──┘                                              │
//!                         cut after the n-th event, what was not synced (Unsynced), which names last (NameRule), a seed
//!                                                                  └─> Image: a tree of files as the next boot finds it
//! ```
//! The models follow what file systems promise, not what they mostly do: until a sync, any part of a write may be on
//! disk.

mod disk;
mod image;
mod log;
mod vfs;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use host::Disk as _;
pub use image::{Cut, Image, NameRule, Unsynced};
use log::{Event, Log};

/// A recorded disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct CrashDisk {
    dir: Arc<tempfile::TempDir>,
    shared: Arc<Mutex<Shared>>,
    vfs: Arc<str>,
}

/// An error that a test puts in the way.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Syncs of paths that end so report success and do nothing: the kept mutant of a missing fsync.
    SyncsLie(String),
    /// Once so many more writes were made, each further one finds the disk full.
    FullAfterWrites(usize),
    /// Once so many more file syncs were made, the next one fails, as on a medium error; those after it succeed.
    OneSyncFailsAfter(usize),
}

#[derive(Debug)]
struct Shared {
    log: Log,
    lies: Vec<String>,
    writes_left: Option<usize>,
    syncs_left: Option<usize>,
}

impl CrashDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::holding(&Image::default())
    }

    /// A disk that durably holds `image`: for a second cut, in the middle of recovering from a first.
    pub fn holding(image: &Image) -> Self {
        let dir = Arc::new(crate::scratch_dir());
        image.write_to(dir.path());
        let log = Log::starting_from(image);
        let shared = Arc::new(Mutex::new(Shared { log, lies: Vec::new(), writes_left: None, syncs_left: None }));
        let vfs = vfs::register(dir.path(), &shared);
        Self { dir, shared, vfs }
    }

    /// The directory that the disk's paths begin with.
    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// A path on this disk.
    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// The SQLite VFS that records into this disk. Good for one connection with `locking_mode = EXCLUSIVE`.
    pub fn vfs(&self) -> &str {
        &self.vfs
    }

    /// How many events there are: a cut is at 0 to this many, both included.
    pub fn events(&self) -> usize {
        self.lock().log.events.len()
    }

    /// Notes that `number` was acknowledged to somebody: from here on a cut must not lose it.
    pub fn mark(&self, number: u64) {
        self.lock().log.mark(number);
    }

    /// The last number noted before a cut.
    pub fn marked_before(&self, at: usize) -> Option<u64> {
        self.lock().log.marked_before(at)
    }

    /// Puts a fault in the way from now on.
    pub fn inject(&self, fault: Fault) {
        let mut shared = self.lock();
        match fault {
            Fault::SyncsLie(end) => shared.lies.push(end),
            Fault::FullAfterWrites(writes) => shared.writes_left = Some(writes),
            Fault::OneSyncFailsAfter(syncs) => shared.syncs_left = Some(syncs),
        }
    }

    /// Takes all faults out of the way.
    pub fn heal(&self) {
        let mut shared = self.lock();
        shared.lies.clear();
        (shared.writes_left, shared.syncs_left) = (None, None);
    }

    /// Makes a directory that is a file system of its own, as a stick is: another device, and a journal that no sync
    /// elsewhere writes. It is there at every cut; what is in it is lost or kept as anywhere.
    pub fn mount(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        self.create_dir(&path, 0o700).expect("a stick is mounted in an empty place");
        self.sync_dir(path.parent().unwrap_or(self.root())).expect("no fault is injected yet");
        let mut shared = self.lock();
        let ino = shared.log.find(Path::new(below)).expect("it was just made");
        shared.log.mount(ino);
        path
    }

    /// What the next boot may find.
    pub fn image(&self, cut: &Cut) -> Image {
        Image::after(&self.lock().log, cut)
    }

    /// What the next process finds when this one was killed after so many events: the kernel goes on, and nothing is
    /// lost.
    pub fn killed(&self, at: usize) -> Image {
        Image::of_all(&self.lock().log, at)
    }

    /// What is there now, as if all had been synced.
    pub fn everything(&self) -> Image {
        self.killed(self.events())
    }

    /// Puts `image` in the place of the real files, for a start that is not recorded: paths are the same as before. The
    /// record stays as it is, so this can be done for each of its cuts; to go on recording, see [`CrashDisk::holding`].
    pub fn restore(&self, image: &Image) {
        for entry in std::fs::read_dir(self.root()).expect("the directory is ours") {
            let path = entry.expect("the directory is ours").path();
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.expect("the directory is ours");
        }
        image.write_to(self.root());
    }

    /// All bytes that were ever written, with the path at which each file was made: what no cut can have on its disk,
    /// unless it is here.
    pub fn written(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let shared = self.lock();
        let log = &shared.log;
        let written = |event: &Event| match event {
            Event::Write { ino, bytes, .. } => Some((log.born(*ino).to_owned(), bytes.clone())),
            _ => None,
        };
        log.events.iter().filter_map(written).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        locked(&self.shared)
    }
}

impl Default for CrashDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn before_write(&mut self) -> std::io::Result<()> {
        match &mut self.writes_left {
            Some(0) => Err(std::io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Whether a sync of `path` is to be recorded; an error where it is to fail.
    fn before_sync(&mut self, path: &Path) -> std::io::Result<bool> {
        match &mut self.syncs_left {
            Some(0) => {
                self.syncs_left = None;
                return Err(std::io::Error::other("injected: the medium failed"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(!self.lies_about(path))
    }

    fn lies_about(&self, path: &Path) -> bool {
        let text = path.to_string_lossy();
        self.lies.iter().any(|end| text.ends_with(end.as_str()))
    }
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().expect("no test panics while it holds the disk")
}

#[cfg(test)]
mod tests;
