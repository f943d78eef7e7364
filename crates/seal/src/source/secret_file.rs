//! Files that hold a secret, or decide whom to trust: a credential, a PIN, the device's private key, a CA. Whose they
//! are is looked at before what they say.

use std::path::Path;

use host::{Disk, FileKind, Meta};
use zeroize::Zeroizing;

use super::SourceError;

/// Reads a file that nobody else may write to or read, in a directory that nobody else may write to.
///
/// # Errors
/// [`SourceError`] with the path; a file of more than `max` bytes is not read.
pub(super) fn read_secret(disk: &dyn Disk, path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    read(disk, path, max, &[lets_others_write, lets_others_read])
}

/// Reads a file that nobody else may write to, in a directory like that.
///
/// # Errors
/// As [`read_secret`].
pub(super) fn read_public(disk: &dyn Disk, path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    read(disk, path, max, &[lets_others_write])
}

/// Looks at a secret file and its directory, and does not read it.
///
/// # Errors
/// As [`read_secret`].
pub(super) fn check_secret(disk: &dyn Disk, path: &Path) -> Result<(), SourceError> {
    check_directory(disk, directory_of(path))?;
    is_trusted(path, &meta(disk, path)?, &[lets_others_write, lets_others_read])
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn check_directory(disk: &dyn Disk, path: &Path) -> Result<(), SourceError> {
    let meta = meta(disk, path)?;
    if meta.kind != FileKind::Dir {
        return Err(distrust(path, "it is not a directory".into()));
    }
    lets_others_write(&meta).map_or(Ok(()), |defect| Err(distrust(path, defect)))
}

type Defect = fn(&Meta) -> Option<String>;

fn is_trusted(path: &Path, meta: &Meta, defects: &[Defect]) -> Result<(), SourceError> {
    if meta.kind != FileKind::File {
        return Err(distrust(path, "it is not a regular file".into()));
    }
    defects.iter().find_map(|defect| defect(meta)).map_or(Ok(()), |defect| Err(distrust(path, defect)))
}

/// What was read is what was looked at: between two looks at a name another file can take it.
fn read(disk: &dyn Disk, path: &Path, max: usize, defects: &[Defect]) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let what = || path.display().to_string();
    check_directory(disk, directory_of(path))?;
    let (meta, bytes) = disk.read_with_meta(path, max).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => SourceError::NotPresent { what: what() },
        // open(2) of a link that is not followed.
        _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            distrust(path, "it is not a regular file".into())
        }
        std::io::ErrorKind::FileTooLarge => {
            SourceError::BadOutput { what: what(), defect: "it is longer than what belongs there" }
        }
        _ => SourceError::Os { what: what(), source },
    })?;
    is_trusted(path, &meta, defects).map(|()| bytes)
}

fn meta(disk: &dyn Disk, path: &Path) -> Result<Meta, SourceError> {
    let what = || path.display().to_string();
    let found = disk.meta(path).map_err(|source| SourceError::Os { what: what(), source })?;
    found.ok_or_else(|| SourceError::NotPresent { what: what() })
}

/// By its mode or its owner.
fn lets_others_write(meta: &Meta) -> Option<String> {
    let ours = rustix::process::geteuid().as_raw();
    if !host::in_force("secret-file-trusted") {
        return None;
    }
    if meta.owner.uid != 0 && meta.owner.uid != ours {
        return Some(format!("it belongs to user {}; root or user {ours} is expected", meta.owner.uid));
    }
    (meta.mode & 0o022 != 0).then(|| format!("others may write to it (mode {:03o})", meta.mode))
}

/// Where the file system has access lists, systemd leaves a credential root's and lets the unit's user read it by a
/// list; the group bits of the mode then show the list's mask, and not the group's right.
fn lets_others_read(meta: &Meta) -> Option<String> {
    let listed = meta.owner.uid == 0 && meta.owner.gid == 0 && meta.mode & 0o077 == 0o040;
    let closed = meta.mode & 0o077 == 0 || listed || !host::in_force("secret-file-trusted");
    (!closed).then(|| format!("its mode {:03o} lets others in; 400 is expected", meta.mode))
}

fn distrust(path: &Path, defect: String) -> SourceError {
    SourceError::NotTrusted { path: path.display().to_string(), defect }
}

#[cfg(test)]
mod tests {
    use host::OsDisk;

    use super::*;

    fn defect<T>(result: Result<T, SourceError>) -> (String, String) {
        match result {
            Err(SourceError::NotTrusted { path, defect }) => (path, defect),
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("it is trusted"),
        }
    }

    /// What decides whom to trust may be read by all, and lies where nobody else can put another in its place.
    #[test]
    fn a_public_file_and_its_directory_are_nobody_elses_to_write() {
        let dir = testkit::scratch_dir();
        let (place, file) = (dir.path().join("etc"), dir.path().join("etc/ca.pem"));
        OsDisk.create_dir(&place, 0o755).unwrap();
        OsDisk.write_new(&file, b"text", 0o644, None).unwrap();
        assert_eq!(read_public(&OsDisk, &file, 10).unwrap().as_slice(), b"text");
        assert!(defect(read_secret(&OsDisk, &file, 10)).1.contains("644"));
        OsDisk.set_mode(&file, 0o666).unwrap();
        assert!(defect(read_public(&OsDisk, &file, 10)).1.contains("others may write to it"));
        OsDisk.set_mode(&file, 0o600).unwrap();
        OsDisk.set_mode(&place, 0o777).unwrap();
        for result in [read_public(&OsDisk, &file, 10).map(drop), check_secret(&OsDisk, &file)] {
            let (path, defect) = defect(result);
            assert_eq!((path, defect.contains("others may write to it")), (place.display().to_string(), true));
        }
    }

    #[test]
    fn what_is_no_file_or_not_there() {
        let dir = testkit::scratch_dir();
        let (file, link) = (dir.path().join("key"), dir.path().join("link"));
        assert!(matches!(read_secret(&OsDisk, &file, 10), Err(SourceError::NotPresent { .. })));
        OsDisk.write_new(&file, b"longer than ten", 0o600, None).unwrap();
        assert!(matches!(read_secret(&OsDisk, &file, 10), Err(SourceError::BadOutput { .. })));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        OsDisk.create_dir(&dir.path().join("below"), 0o700).unwrap();
        for path in [link, dir.path().join("below")] {
            assert_eq!(defect(read_secret(&OsDisk, &path, 10)).1, "it is not a regular file");
        }
    }
}
