//! Space that is kept for taking away: a revocation or a deletion must not wait for a disk to be cleaned.
//!
//! SQLite writes what is removed to its log first, so that on a full disk nothing could be removed, least of all the
//! token of an intruder who has filled it. So a file beside the store holds the space that removals need. When one
//! meets a full disk the file goes, and the removal is tried again in its place. Until the file is there again nothing
//! is put: what it left behind is for removals alone.
//!
//! The file has no content and is not synced: a cut costs nothing but making it again at the next start.

use std::path::PathBuf;
use std::sync::Arc;

use host::{Disk, FileKind};

/// The file, and whether it is there.
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Of the store at `database`. Without room for it a store opens all the same, and takes removals alone.
    pub(crate) fn open(disk: &Arc<dyn Disk>, database: &std::path::Path) -> Self {
        let mut reserve = Self { disk: Arc::clone(disk), path: database.with_extension("reserve"), held: false };
        reserve.held = reserve.is_whole() || reserve.make();
        if !reserve.held {
            tracing::warn!(path = %reserve.path.display(), "no room for the reserve of the store: it takes removals alone");
        }
        reserve
    }

    /// Gives up the reserve of a store that is not open, and cannot be for want of room; `false` if there is none, or
    /// it stays.
    pub(crate) fn release(disk: &dyn Disk, database: &std::path::Path) -> bool {
        let path = database.with_extension("reserve");
        let there = disk.meta(&path).is_ok_and(|meta| meta.is_some_and(|m| m.kind == FileKind::File));
        let released = there && host::in_force("removals-have-room") && disk.remove_file(&path).is_ok();
        if released {
            tracing::warn!("the disk is full: the store's reserve is given up, so that it opens");
        }
        released
    }

    /// Gives its space to whoever writes next; `false` if that was done already, or cannot be.
    pub(crate) fn give_up(&mut self) -> bool {
        if !self.held || !host::in_force("removals-have-room") {
            return false;
        }
        self.held = false;
        match self.disk.remove_file(&self.path) {
            Ok(()) => {
                tracing::warn!("the disk is full: the store's reserve is given up for what is removed");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the store's reserve cannot be given up");
                false
            }
        }
    }

    /// Whether it is there, or can be made again by now: then there is room to put something.
    pub(crate) fn stands(&mut self) -> bool {
        self.held = self.held || self.make();
        self.held
    }

    fn is_whole(&self) -> bool {
        let meta = self.disk.meta(&self.path).ok().flatten();
        meta.is_some_and(|m| m.kind == FileKind::File && m.len == RESERVE_BYTES)
    }

    fn make(&self) -> bool {
        // What is there is no reserve: half made, or not ours.
        if self.disk.meta(&self.path).is_ok_and(|m| m.is_some()) && self.disk.remove_file(&self.path).is_err() {
            return false;
        }
        let made = self.disk.write_new(&self.path, &[], 0o600, None).and_then(|()| {
            let mut file = self.disk.open_rw(&self.path)?;
            file.allocate(RESERVE_BYTES)
        });
        if made.is_err() {
            // Half of it would be space that nobody has.
            let _ = self.disk.remove_file(&self.path);
        }
        made.is_ok()
    }
}

impl std::fmt::Debug for Reserve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reserve({})", if self.held { "held" } else { "given up" })
    }
}

/// As much as the log may hold of earlier commits (1000 pages) that the database has no room for yet: once they are in
/// it, the log is free for removals, any number of them.
const RESERVE_BYTES: u64 = 4 << 20;
