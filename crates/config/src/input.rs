//! Reading a configuration file: whoever may change it decides what runs on this device, so it must not be anybody.

use std::path::Path;

use host::{Disk, FileKind};

use crate::document::{Node, Syntax};
use crate::fault::{Collector, Place};

/// Reads a file that must be there; on a fault there is nothing to read.
pub(crate) fn read(
    disk: &dyn Disk,
    uid: u32,
    path: &Path,
    syntax: impl FnOnce(&str) -> Result<Node, Vec<Syntax>>,
    faults: &Collector,
) -> Option<Node> {
    let place = Place::whole(path);
    let meta = match disk.meta(path) {
        Ok(Some(meta)) => meta,
        Ok(None) => {
            faults.add(&place, "there is no such file", "name a file that exists, or let `edgekeep setup` write one");
            return None;
        }
        Err(e) => {
            faults.add(&place, format!("cannot be read: {e}"), "check the path and the rights of its directories");
            return None;
        }
    };
    if meta.kind != FileKind::File {
        let remedy = "put a regular file there; a link could be pointed elsewhere between two looks";
        faults.add(&place, "is not a regular file", remedy);
        return None;
    }
    if meta.mode & 0o022 != 0 && host::in_force("config-not-writable") {
        let what = format!("has mode {:04o}: others may change it, and with it what runs here", meta.mode);
        faults.add(&place, what, format!("chmod go-w {}", path.display()));
    }
    if meta.owner.uid != 0 && meta.owner.uid != uid {
        let what = format!("belongs to user {}, who is neither root nor user {uid} who runs this", meta.owner.uid);
        faults.add(&place, what, format!("chown {uid} {}", path.display()));
    }
    let bytes = match disk.read(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(e) => {
            faults.add(&place, format!("cannot be read: {e}"), "check its rights and its size (1 MiB at most)");
            return None;
        }
    };
    let Ok(text) = std::str::from_utf8(&bytes) else {
        faults.add(&place, "is not UTF-8 text", "save it as UTF-8");
        return None;
    };
    match syntax(text) {
        Ok(node) => Some(node),
        Err(errors) => {
            for e in errors {
                let at = Place::File { path: path.to_owned(), line: e.line };
                faults.add(&at, e.what, "correct the syntax of this line");
            }
            None
        }
    }
}

/// A thousand services fit; memory is bounded.
const MAX_FILE_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use host::OsDisk;

    fn faults_of(mode: u32, uid: u32, bytes: &[u8]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.toml");
        OsDisk.write_new(&path, bytes, mode, None).unwrap();
        let faults = Collector::default();
        read(&OsDisk, uid, &path, crate::document::toml, &faults);
        faults
            .finish(())
            .err()
            .map(|f| f.to_string().replace(&path.display().to_string(), "f.toml"))
            .unwrap_or_default()
    }

    fn me() -> u32 {
        let dir = tempfile::tempdir().unwrap();
        OsDisk.meta(dir.path()).unwrap().unwrap().owner.uid
    }

    #[test]
    fn a_file_that_others_may_change_is_a_fault() {
        assert_eq!(faults_of(0o644, me(), b"a = 1"), "");
        assert!(faults_of(0o666, me(), b"a = 1").contains("others may change it"));
        assert!(faults_of(0o664, me(), b"a = 1").contains("chmod go-w"));
    }

    #[test]
    fn a_file_that_is_no_text_is_a_fault() {
        assert!(faults_of(0o600, me(), b"a = \"\xff\"").contains("UTF-8"));
        assert!(faults_of(0o600, me(), &vec![b'#'; MAX_FILE_BYTES + 1]).contains("larger than"));
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let faults = Collector::default();
        assert!(read(&OsDisk, me(), &link, crate::document::toml, &faults).is_none());
        assert!(faults.finish(()).unwrap_err().to_string().contains("not a regular file"));
    }
}
