//! Putting a file of configuration where its server reads it: whole or not at all, and never open to others.

use std::io;
use std::path::Path;

use host::{Disk, FileKind, Owner};

use crate::{PathError, PlaceError, check_parents};

/// Writes `bytes` to `path` with mode 0600, durable on return; a reader, and a power cut, sees the old file or the new
/// one.
///
/// The file belongs to `owner`, or to whoever owns its directory, so that the server there can read it. A directory
/// that is missing is made, 0700, for the same owner, and those above it, 0755. All of them must belong to root, to
/// `us`, or to that owner, and be closed to others: nobody else can then put a link in the way.
///
/// # Errors
/// [`InstallError`]; what stood at `path` stands there still.
pub fn install(disk: &dyn Disk, us: u32, path: &Path, bytes: &[u8], owner: Option<Owner>) -> Result<(), InstallError> {
    let failed = |what, path: &Path, cause| InstallError::Io(PathError::new(what, path, cause));
    let dir = path.parent().ok_or_else(|| failed("write", path, io::ErrorKind::InvalidInput.into()))?;
    let found = disk.meta(dir).map_err(|e| failed("look at", dir, e))?;
    // Only root can give a file away; for others this is no change, or an error that says so.
    let owner = owner.or_else(|| found.filter(|m| us == 0 && m.kind == FileKind::Dir).map(|m| m.owner));
    check_parents(disk, dir, owner.map_or(us, |o| o.uid))?;
    if found.is_none() {
        make(disk, dir, 0o700).map_err(|e| failed("make", dir, e))?;
        if let Some(owner) = owner {
            disk.chown(dir, owner).map_err(|e| failed("give away", dir, e))?;
        }
    }
    disk.replace(path, bytes, 0o600, owner).map_err(|e| failed("write", path, e))
}

/// Makes a directory and those above it that are missing; [`check_parents`] has seen those that are not.
fn make(disk: &dyn Disk, dir: &Path, mode: u32) -> io::Result<()> {
    if let Some(above) = dir.parent()
        && disk.meta(above)?.is_none()
    {
        make(disk, above, 0o755)?;
    }
    disk.create_dir(dir, mode)
}

/// Why a file is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Somebody else could change what lies there.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl InstallError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Place(e) => e.hint(),
            Self::Io(_) => "see that the directory above is there and that the disk has room",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use host::OsDisk;

    use super::*;

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn a_file_is_closed_and_its_servers_own() {
        let dir = testkit::scratch_dir();
        let path = dir.path().join("redis/conf/redis.conf");
        let owner = (us() == 0).then_some(Owner { uid: 999, gid: 1000 });
        install(&OsDisk, us(), &path, b"one", owner).unwrap();
        let see = |p: &Path| OsDisk.meta(p).unwrap().unwrap();
        assert_eq!((see(&path).mode, see(path.parent().unwrap()).mode), (0o600, 0o700));
        assert_eq!(see(&dir.path().join("redis")).mode, 0o755);
        if let Some(owner) = owner {
            assert_eq!((see(&path).owner, see(path.parent().unwrap()).owner), (owner, owner));
        }
        // The next time nobody says whose it is: its directory does.
        install(&OsDisk, us(), &path, b"two", None).unwrap();
        assert_eq!(see(&path).owner, see(path.parent().unwrap()).owner);
        assert_eq!(&OsDisk.read(&path, 9).unwrap()[..], b"two");
        assert_eq!(OsDisk.list(path.parent().unwrap()).unwrap(), ["redis.conf"], "nothing is left beside it");
    }

    #[test]
    fn a_link_is_displaced_and_not_written_through() {
        let dir = testkit::scratch_dir();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("acl"));
        OsDisk.write_new(&victim, b"v", 0o644, None).unwrap();
        symlink(&victim, &path).unwrap();
        install(&OsDisk, us(), &path, b"secret", None).unwrap();
        assert_eq!(&OsDisk.read(&victim, 9).unwrap()[..], b"v");
        assert_eq!(OsDisk.meta(&path).unwrap().unwrap().mode, 0o600, "a loose mode is not kept");
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        let dir = testkit::scratch_dir();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = install(&OsDisk, us(), &open.join("f"), b"x", None);
        assert!(matches!(refused, Err(InstallError::Place(PlaceError::Writable { .. }))), "{refused:?}");
        symlink("/tmp", dir.path().join("link")).unwrap();
        let refused = install(&OsDisk, us(), &dir.path().join("link/f"), b"x", None);
        assert!(matches!(refused, Err(InstallError::Place(PlaceError::NotADirectory { link: true, .. }))));
    }
}
