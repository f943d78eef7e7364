//! EdgeX's directory of token files, for services that are pointed at it: `<dir>/<service>/<file>`.
//!
//! ```text
//! <dir>/                    ours, 0711: one may pass, not look around
//! <dir>/<service>/          the service's, 0700; kept when it is there: containers have it mounted
//! <dir>/<service>/<file>    the service's
//! ```
//! EdgeX gives all of it to one user, who can then put anything in the place of anything. Here the directory of
//! directories is taken back, so that a service can change nothing but its own directory; and what is written there
//! follows no link.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{Disk, FileKind, Meta, Owner};

use crate::{DeliverError, Parcel, PlaceError, Recipient, check_parents};

/// The directory.
pub struct TokenDir {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: String,
    us: u32,
    former: Option<Owner>,
}

impl TokenDir {
    /// Tokens go to `dir`/service/`file`, as the user `us`. What belongs to `former`, the user of EdgeX's images, is
    /// taken back.
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, file: &str, us: u32, former: Option<Owner>) -> Self {
        Self { disk, dir: dir.to_owned(), file: file.to_owned(), us, former }
    }

    /// Sees that the directory is there and ours.
    ///
    /// # Errors
    /// [`DeliverError`].
    pub fn prepare(&self) -> Result<(), DeliverError> {
        let mut missing = Vec::new();
        let mut at = self.dir.as_path();
        while self.meta(at)?.is_none() {
            missing.push(at);
            at = at.parent().unwrap_or(Path::new("/"));
        }
        if missing.is_empty() {
            let parent = self.dir.parent().unwrap_or(Path::new("/"));
            check_parents(&*self.disk, parent, self.us)?;
            return self.take_back();
        }
        check_parents(&*self.disk, at, self.us)?;
        for dir in missing.into_iter().rev() {
            self.disk.create_dir(dir, MODE).map_err(|e| DeliverError::at("make", dir, e))?;
        }
        Ok(())
    }

    /// Puts a token where its service finds it: whole or not at all, and durable.
    ///
    /// # Errors
    /// [`DeliverError`]; what was there before is then still there.
    pub fn put(&self, to: &Recipient, parcel: &Parcel) -> Result<PathBuf, DeliverError> {
        let dir = self.directory(to)?;
        let file = dir.join(&self.file);
        self.disk
            .replace(&file, parcel.expose_token_json(), to.mode, to.owner)
            .map_err(|e| DeliverError::at("write", &file, e))?;
        Ok(file)
    }

    fn directory(&self, to: &Recipient) -> Result<PathBuf, DeliverError> {
        let dir = self.dir.join(to.service());
        match self.meta(&dir)? {
            Some(found) => self.check(&dir, &found, to.owner)?,
            None => self.disk.create_dir(&dir, 0o700).map_err(|e| DeliverError::at("make", &dir, e))?,
        }
        if let Some(owner) = to.owner {
            self.disk.chown(&dir, owner).map_err(|e| DeliverError::at("give", &dir, e))?;
        }
        Ok(dir)
    }

    /// What is there may be ours, the service's, or the one user's of EdgeX's images; and nobody else may write there.
    fn check(&self, path: &Path, found: &Meta, service: Option<Owner>) -> Result<(), DeliverError> {
        let known = [Some(self.us), Some(0), service.map(|o| o.uid), self.former.map(|o| o.uid)];
        let what = match found.kind {
            _ if !host::in_force("token-directory-ours") => return Ok(()),
            FileKind::Dir if !known.contains(&Some(found.owner.uid)) => {
                format!("a directory of uid {}", found.owner.uid)
            }
            FileKind::Dir if found.mode & 0o022 != 0 => {
                format!("a directory of mode {:04o}, where others write", found.mode)
            }
            FileKind::Dir => return Ok(()),
            FileKind::File => "a file".to_owned(),
            FileKind::Symlink => "a symbolic link".to_owned(),
            FileKind::Other => "a device, pipe or socket".to_owned(),
        };
        Err(DeliverError::Foreign { path: path.into(), found: what })
    }

    fn take_back(&self) -> Result<(), DeliverError> {
        let dir = self.dir.as_path();
        let Some(found) = self.meta(dir)? else { return Ok(()) };
        self.check(dir, &found, None)?;
        if found.owner.uid == self.us {
            return Ok(());
        }
        if self.us != 0 {
            return if found.owner.uid == 0 {
                Ok(())
            } else {
                Err(PlaceError::ForeignOwner { path: dir.into(), uid: found.owner.uid }.into())
            };
        }
        self.disk.chown(dir, Owner { uid: 0, gid: 0 }).map_err(|e| DeliverError::at("take back", dir, e))?;
        self.disk.set_mode(dir, MODE).map_err(|e| DeliverError::at("take back", dir, e))
    }

    fn meta(&self, path: &Path) -> Result<Option<Meta>, DeliverError> {
        self.disk.meta(path).map_err(|e| DeliverError::at("look at", path, e))
    }
}

impl std::fmt::Debug for TokenDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenDir({})", self.dir.display())
    }
}

const MODE: u32 = 0o711;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, chown, symlink};

    use host::OsDisk;

    use super::*;
    use crate::parcel::sample;

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn token_dir(root: &Path, former: Option<Owner>) -> TokenDir {
        TokenDir::new(Arc::new(OsDisk), &root.join("edgex/secrets"), "t.json", us(), former)
    }

    fn to(owner: Option<Owner>) -> Recipient {
        Recipient::new("core-data", owner, 0o600).unwrap()
    }

    #[test]
    fn a_token_replaces_the_one_before_in_the_same_directory() {
        let root = testkit::scratch_dir();
        let tokens = token_dir(root.path(), None);
        tokens.prepare().unwrap();
        let file = tokens.put(&to(None), &sample("s.one")).unwrap();
        let dir = std::fs::metadata(file.parent().unwrap()).unwrap().ino();
        tokens.prepare().unwrap();
        tokens.put(&to(None), &sample("s.two")).unwrap();
        assert!(std::fs::read_to_string(&file).unwrap().contains("s.two"));
        let after = std::fs::metadata(file.parent().unwrap()).unwrap();
        assert_eq!(
            (after.ino(), after.mode() & 0o7777),
            (dir, 0o700),
            "a container that has it mounted sees the new token"
        );
        assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(OsDisk.list(file.parent().unwrap()).unwrap(), ["t.json"]);
    }

    #[test]
    fn what_edgex_gave_to_its_one_user_is_taken_back() {
        if testkit::is_root_skipped() {
            return;
        }
        let edgex = Owner { uid: 2002, gid: 2001 };
        let root = testkit::scratch_dir();
        let dir = root.path().join("edgex/secrets");
        OsDisk.create_dir(&root.path().join("edgex"), 0o755).unwrap();
        for d in [dir.clone(), dir.join("core-data")] {
            OsDisk.create_dir(&d, 0o700).unwrap();
            chown(&d, Some(2002), Some(2001)).unwrap();
        }
        assert!(token_dir(root.path(), None).prepare().is_err(), "nobody said whose it is");
        let tokens = token_dir(root.path(), Some(edgex));
        tokens.prepare().unwrap();
        let meta = OsDisk.meta(&dir).unwrap().unwrap();
        assert_eq!((meta.owner.uid, meta.mode), (0, 0o711));
        let file = tokens.put(&to(Some(edgex)), &sample("s.one")).unwrap();
        assert_eq!(OsDisk.meta(&file).unwrap().unwrap().owner, edgex);
    }

    #[test]
    fn a_link_in_place_of_a_directory_or_file_is_not_followed() {
        let root = testkit::scratch_dir();
        let tokens = token_dir(root.path(), None);
        tokens.prepare().unwrap();
        let (elsewhere, dir) = (root.path().join("elsewhere"), root.path().join("edgex/secrets/core-data"));
        std::fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &dir).unwrap();
        assert!(matches!(tokens.put(&to(None), &sample("s.x")), Err(DeliverError::Foreign { .. })));
        std::fs::remove_file(&dir).unwrap();
        let file = tokens.put(&to(None), &sample("s.x")).unwrap();
        for planted in [file.clone(), file.with_file_name(".t.json.new")] {
            OsDisk.remove_tree(&planted).unwrap();
            symlink(elsewhere.join("victim"), &planted).unwrap();
            tokens.put(&to(None), &sample("s.y")).unwrap();
        }
        assert!(OsDisk.list(&elsewhere).unwrap().is_empty());
    }
}
