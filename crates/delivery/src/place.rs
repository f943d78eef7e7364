//! Where tokens may lie: in memory, below directories that nobody else can change.
//!
//! Files are then named by path. That is sound because of [`check_parents`]: where every directory on the way belongs
//! to root or to us and no one else may write there (or the sticky bit keeps our entries ours), nobody can swap a
//! component between two of our calls, and there is no race to win.

use std::io;
use std::path::{Component, Path, PathBuf};

use host::{Disk, FileKind};

/// What a file system keeps its bytes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// tmpfs or ramfs: gone with the power (and, for tmpfs, possibly in the swap).
    Memory,
    /// Anything else.
    Disk,
}

/// Tells what is behind a path. An argument, so that tests need no mounts.
pub trait Medium: Send + Sync {
    /// The backing of an existing path.
    fn backing(&self, path: &Path) -> io::Result<Backing>;
}

/// `statfs(2)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsMedium;

impl Medium for OsMedium {
    fn backing(&self, path: &Path) -> io::Result<Backing> {
        // The magic numbers fit 32 bits, whatever the platform's type for them is (linux/magic.h).
        let kind = rustix::fs::statfs(path)?.f_type as u32;
        Ok(if kind == TMPFS_MAGIC || kind == RAMFS_MAGIC { Backing::Memory } else { Backing::Disk })
    }
}

/// Checks every directory from the root down to `path`, `path` itself included, as far as they exist.
///
/// # Errors
/// [`PlaceError`] for a relative path, a link on the way, a foreign owner, or a directory that others can write to.
pub fn check_parents(disk: &dyn Disk, path: &Path, us: u32) -> Result<(), PlaceError> {
    let plain = path.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !plain {
        return Err(PlaceError::NotAbsolute { path: path.into() });
    }
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    for dir in way {
        let cause = |cause| PlaceError::Unreadable { path: dir.into(), cause };
        let Some(meta) = disk.meta(dir).map_err(cause)? else { return Ok(()) };
        if meta.kind != FileKind::Dir && host::in_force("token-parents-no-link") {
            return Err(PlaceError::NotADirectory { path: dir.into(), link: meta.kind == FileKind::Symlink });
        }
        if meta.owner.uid != 0 && meta.owner.uid != us && host::in_force("token-parents-owned") {
            return Err(PlaceError::ForeignOwner { path: dir.into(), uid: meta.owner.uid });
        }
        if meta.mode & 0o022 != 0 && meta.mode & 0o1000 == 0 && host::in_force("token-parents-closed") {
            return Err(PlaceError::Writable { path: dir.into(), mode: meta.mode });
        }
    }
    Ok(())
}

/// Why a directory is no place for tokens.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Relative, or with `.` or `..` in it.
    #[error("{} is not a plain absolute path", path.display())]
    NotAbsolute {
        /// The path.
        path: PathBuf,
    },
    /// A link or a file on the way.
    #[error("{} is {}", path.display(), if *link { "a symbolic link" } else { "not a directory" })]
    NotADirectory {
        /// The component.
        path: PathBuf,
        /// Whether it is a link.
        link: bool,
    },
    /// Its owner could swap what is below.
    #[error("{} belongs to uid {uid}", path.display())]
    ForeignOwner {
        /// The component.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others could swap what is below.
    #[error("{} has mode {mode:04o}: others can write there", path.display())]
    Writable {
        /// The component.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The system refused.
    #[error("cannot look at {}", path.display())]
    Unreadable {
        /// The component.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// No directory in memory was found.
    #[error("no tmpfs to put tokens on; looked at {looked_at}")]
    NoMemory {
        /// The places and what is wrong with each.
        looked_at: String,
    },
}

impl PlaceError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotAbsolute { .. } => "write the path from the root, without . and ..",
            Self::NotADirectory { .. } => "name the real directory: links are not followed on the way to a token",
            Self::ForeignOwner { .. } => {
                "use a directory whose parents belong to root or to the user that runs edgekeep"
            }
            Self::Writable { .. } => "take the write permission of group and others away, or set the sticky bit",
            Self::Unreadable { .. } => "give the user that runs edgekeep the right to search it",
            Self::NoMemory { .. } => "mount a tmpfs on /run, or set run_dir to a directory on one",
        }
    }
}

/// A run directory that was chosen because nobody had named one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    /// The directory; it may not exist yet.
    pub path: PathBuf,
    /// What people should know about the choice.
    pub note: Option<&'static str>,
}

impl RunDir {
    /// The first that is in memory and safe of: `/run/edgekeep` (for root), `$XDG_RUNTIME_DIR/edgekeep`, and
    /// `/dev/shm/edgekeep-<uid>`, which has a note.
    ///
    /// # Errors
    /// [`PlaceError::NoMemory`] with what is wrong with each: a disk is never fallen back to.
    pub fn choose(disk: &dyn Disk, medium: &dyn Medium, us: u32, xdg: Option<&Path>) -> Result<Self, PlaceError> {
        let mut places = Vec::new();
        if us == 0 {
            places.push((PathBuf::from("/run"), "edgekeep".to_owned(), None));
        }
        if let Some(dir) = xdg {
            places.push((dir.to_path_buf(), "edgekeep".to_owned(), None));
        }
        let note = "there is no tmpfs for run-time files here; tokens are in /dev/shm, which every user can enter";
        places.push((PathBuf::from("/dev/shm"), format!("edgekeep-{us}"), Some(note)));

        let mut looked_at = Vec::new();
        for (parent, name, note) in places {
            let path = parent.join(name);
            let fault = match (medium.backing(&parent), check_parents(disk, &path, us)) {
                (Ok(Backing::Memory), Ok(())) => return Ok(Self { path, note }),
                (Ok(Backing::Memory), Err(e)) => e.to_string(),
                (Ok(Backing::Disk), _) => "is on a disk".to_owned(),
                (Err(e), _) => e.to_string(),
            };
            looked_at.push(format!("{} ({fault})", parent.display()));
        }
        Err(PlaceError::NoMemory { looked_at: looked_at.join(", ") })
    }
}

const TMPFS_MAGIC: u32 = 0x0102_1994;
const RAMFS_MAGIC: u32 = 0x8584_58f6;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use host::OsDisk;

    use super::*;

    struct Fixed(&'static str, Backing);
    impl Medium for Fixed {
        fn backing(&self, path: &Path) -> io::Result<Backing> {
            Ok(if path == Path::new(self.0) { self.1 } else { Backing::Disk })
        }
    }

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn a_world_writable_parent_is_refused_unless_sticky() {
        let dir = testkit::scratch_dir();
        let parent = dir.path().join("p");
        std::fs::create_dir(&parent).unwrap();
        let mode = |m| std::fs::set_permissions(&parent, std::fs::Permissions::from_mode(m)).unwrap();
        mode(0o777);
        let refused = check_parents(&OsDisk, &parent.join("x"), us());
        assert!(matches!(refused, Err(PlaceError::Writable { mode: 0o777, .. })), "{refused:?}");
        mode(0o770);
        assert!(matches!(check_parents(&OsDisk, &parent.join("x"), us()), Err(PlaceError::Writable { .. })));
        mode(0o1777);
        check_parents(&OsDisk, &parent.join("x"), us()).unwrap();
    }

    #[test]
    fn a_link_on_the_way_is_refused() {
        let dir = testkit::scratch_dir();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
        let refused = check_parents(&OsDisk, &dir.path().join("link/x"), us());
        assert!(matches!(refused, Err(PlaceError::NotADirectory { link: true, .. })), "{refused:?}");
    }

    #[test]
    fn a_parent_of_another_user_is_refused() {
        let dir = testkit::scratch_dir();
        let refused = check_parents(&OsDisk, dir.path(), us() + 1);
        if us() == 0 {
            // Everything belongs to root here, whom everybody trusts: give one directory away instead.
            let given = dir.path().join("given");
            std::fs::create_dir(&given).unwrap();
            std::os::unix::fs::chown(&given, Some(4242), Some(4242)).unwrap();
            let refused = check_parents(&OsDisk, &given.join("x"), 0);
            assert!(matches!(refused, Err(PlaceError::ForeignOwner { uid: 4242, .. })), "{refused:?}");
        } else {
            assert!(matches!(refused, Err(PlaceError::ForeignOwner { .. })), "{refused:?}");
        }
    }

    #[test]
    fn dots_and_relative_paths_are_refused() {
        for bad in ["run", "./run", "/run/../etc", "../x"] {
            let refused = check_parents(&OsDisk, Path::new(bad), us());
            assert!(matches!(refused, Err(PlaceError::NotAbsolute { .. })), "{bad}");
        }
    }

    #[test]
    fn the_choice_never_falls_on_a_disk() {
        let chosen = RunDir::choose(&OsDisk, &Fixed("/dev/shm", Backing::Memory), 0, None).unwrap();
        assert_eq!((chosen.path.as_path(), chosen.note.is_some()), (Path::new("/dev/shm/edgekeep-0"), true));
        let none = RunDir::choose(&OsDisk, &Fixed("/", Backing::Disk), 0, Some(Path::new("/xdg"))).unwrap_err();
        let text = none.to_string();
        assert!(["/run", "/xdg", "/dev/shm"].iter().all(|p| text.contains(p)), "{text}");
    }

    #[test]
    fn the_kernel_knows_its_own_memory() {
        assert_eq!(OsMedium.backing(Path::new("/dev/shm")).unwrap(), Backing::Memory);
        assert_eq!(OsMedium.backing(Path::new("/proc")).unwrap(), Backing::Disk);
    }
}
