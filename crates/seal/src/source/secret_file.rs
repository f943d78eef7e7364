//! Files that hold a secret, or decide whom to trust: a credential, a PIN, the device's private key, a CA. Whose they are is
//! looked at before what they say.

use std::path::Path;

use host::{Disk, FileKind, Meta};
use zeroize::Zeroizing;

use super::SourceError;

/// Reads a file that nobody else may write to or read.
///
/// # Errors
/// [`SourceError`] with the path; a file of more than `max` bytes is not read.
pub(super) fn read_secret(disk: &dyn Disk, path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    check(disk, path, &[lets_others_write, lets_others_read])?;
    read(disk, path, max)
}

/// Reads a file that nobody else may write to.
///
/// # Errors
/// As [`read_secret`].
pub(super) fn read_public(disk: &dyn Disk, path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    check(disk, path, &[lets_others_write])?;
    read(disk, path, max)
}

/// Looks at a secret file and does not read it.
///
/// # Errors
/// As [`read_secret`].
pub(super) fn check_secret(disk: &dyn Disk, path: &Path) -> Result<(), SourceError> {
    check(disk, path, &[lets_others_write, lets_others_read])
}

/// Looks at a directory that nobody else may write to.
///
/// # Errors
/// As [`read_secret`].
pub(super) fn check_directory(disk: &dyn Disk, path: &Path) -> Result<(), SourceError> {
    let meta = meta(disk, path)?;
    if meta.kind != FileKind::Dir {
        return Err(distrust(path, "it is not a directory".into()));
    }
    lets_others_write(&meta).map_or(Ok(()), |defect| Err(distrust(path, defect)))
}

fn check(disk: &dyn Disk, path: &Path, defects: &[fn(&Meta) -> Option<String>]) -> Result<(), SourceError> {
    let meta = meta(disk, path)?;
    if meta.kind != FileKind::File {
        return Err(distrust(path, "it is not a regular file".into()));
    }
    defects.iter().find_map(|defect| defect(&meta)).map_or(Ok(()), |defect| Err(distrust(path, defect)))
}

fn read(disk: &dyn Disk, path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, SourceError> {
    let what = || path.display().to_string();
    match disk.read(path, max) {
        Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => {
            Err(SourceError::BadOutput { what: what(), defect: "it is longer than what belongs there" })
        }
        other => other.map_err(|source| SourceError::Os { what: what(), source }),
    }
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

/// Where the file system has access lists, systemd leaves a credential root's and lets the unit's user read it by a list; the
/// group bits of the mode then show the list's mask, and not the group's right.
fn lets_others_read(meta: &Meta) -> Option<String> {
    let listed = meta.owner.uid == 0 && meta.owner.gid == 0 && meta.mode & 0o077 == 0o040;
    let closed = meta.mode & 0o077 == 0 || listed || !host::in_force("secret-file-trusted");
    (!closed).then(|| format!("its mode {:03o} lets others in; 400 is expected", meta.mode))
}

fn distrust(path: &Path, defect: String) -> SourceError {
    SourceError::NotTrusted { path: path.display().to_string(), defect }
}
