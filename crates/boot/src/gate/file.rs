//! Whether a file that somebody else writes is all there, as far as looking can tell.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use host::{Disk, FileKind};

/// One file, looked at again and again. It is complete when it has bytes, and as many as at the look before: a writer
/// that is not done makes it longer, and one that was killed at the start leaves it empty.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    /// Its length at the look before; none before the first, which is as good as empty.
    last: AtomicU64,
}

impl FileWatch {
    /// Nothing is looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: AtomicU64::new(0) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Looks once. A directory or socket has no end that could be missing: it is complete when it is there.
    ///
    /// # Errors
    /// [`Incomplete`].
    pub fn look(&self, disk: &dyn Disk) -> Result<(), Incomplete> {
        // Looked at, not opened: a pipe would block and a device might act.
        let meta = disk.meta(&self.path)?.ok_or(Incomplete::Missing)?;
        match meta.kind {
            FileKind::Dir | FileKind::Other => return Ok(()),
            FileKind::Symlink => return Err(Incomplete::Link),
            FileKind::File if !host::in_force("gate-file-complete") => return Ok(()),
            FileKind::File => {}
        }
        let before = self.last.swap(meta.len, Ordering::Relaxed);
        match meta.len {
            0 => Err(Incomplete::Empty),
            bytes if before == bytes => Ok(()),
            bytes => Err(Incomplete::Growing { bytes }),
        }
    }
}

/// Not there, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Incomplete {
    /// Nothing is there.
    #[error("not there")]
    Missing,
    /// A file without a byte.
    #[error("empty")]
    Empty,
    /// Other than at the look before, or looked at for the first time.
    #[error("has {bytes} bytes and may be growing")]
    Growing {
        /// Its length.
        bytes: u64,
    },
    /// A link, which is not followed.
    #[error("a symbolic link")]
    Link,
    /// The system refused.
    #[error("cannot be looked at")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use host::OsDisk;

    use super::*;

    #[test]
    fn a_file_that_exists_is_not_yet_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("redis.conf");
        let watch = FileWatch::new(&path);
        let look = || watch.look(&OsDisk);
        assert!(matches!(look(), Err(Incomplete::Missing)));
        for (bytes, why) in [(&b""[..], "a writer that truncates first"), (b"acl", "half"), (b"aclfile /x", "more")] {
            OsDisk.replace(&path, bytes, 0o600, None).unwrap();
            assert!(matches!(look(), Err(Incomplete::Empty | Incomplete::Growing { .. })), "{why}");
        }
        look().unwrap();
        OsDisk.remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(matches!(look(), Err(Incomplete::Link)));
        FileWatch::new(dir.path()).look(&OsDisk).unwrap();
    }
}
