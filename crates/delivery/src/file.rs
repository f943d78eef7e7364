//! Delivery by file, as EdgeX's services expect it.
//!
//! ```text
//! <run_dir>/secrets/                      ours, 0711: one may pass, not look around
//! <run_dir>/secrets/<service>/            ours, group of the service, 0750: the service may read, not plant
//! <run_dir>/secrets/<service>/secrets-token.json    the service's, 0400
//! <run_dir>/secrets/<service>/ca.pem                ours, 0444
//! ```
//! The directory stays ours, so that the service cannot put a link where the next token will be written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{Disk, FileKind, Meta, Owner};

use crate::{Backing, Channel, DeliverError, Delivered, Medium, Parcel, Recipient, Standing, check_parents};

/// Name of the token's file: EdgeX's.
pub const TOKEN_FILE: &str = "secrets-token.json";
/// Name of the CA's file beside it.
pub const CA_FILE: &str = "ca.pem";
/// Everybody may know whom to trust.
const CA_MODE: u32 = 0o444;

/// Directories below `<run_dir>/secrets`.
pub struct FileChannel {
    disk: Arc<dyn Disk>,
    medium: Arc<dyn Medium>,
    secrets: PathBuf,
    us: u32,
    on_disk: bool,
}

impl std::fmt::Debug for FileChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileChannel({})", self.secrets.display())
    }
}

impl FileChannel {
    /// Delivers below `run_dir`, as the user `us`. `danger_on_disk` allows a place that is not in memory.
    pub fn new(disk: Arc<dyn Disk>, medium: Arc<dyn Medium>, run_dir: &Path, us: u32, danger_on_disk: bool) -> Self {
        Self { disk, medium, secrets: run_dir.join("secrets"), us, on_disk: danger_on_disk }
    }

    /// The directory of a service.
    pub fn directory(&self, to: &Recipient) -> PathBuf {
        self.secrets.join(to.service())
    }

    /// Makes `<run_dir>/secrets` where it is missing, and sees that it is a place for tokens.
    ///
    /// # Errors
    /// [`DeliverError`]: not in memory, or not safe.
    pub fn prepare(&self) -> Result<(), DeliverError> {
        self.inspect()?;
        for (dir, mode) in [(self.run_dir(), 0o755), (self.secrets.as_path(), 0o711)] {
            if self.meta(dir)?.is_none() {
                self.disk.create_dir(dir, mode).map_err(|e| DeliverError::at("make", dir, e))?;
            }
        }
        Ok(())
    }

    /// Sees whether `<run_dir>/secrets` is a place for tokens, or would be one when it is made. Makes nothing.
    ///
    /// # Errors
    /// As [`FileChannel::prepare`].
    pub fn inspect(&self) -> Result<(), DeliverError> {
        check_parents(&*self.disk, &self.secrets, self.us)?;
        // What is not there yet is made in the nearest directory that is, on its file system; but `run_dir` itself
        // alone.
        let mut there = self.secrets.as_path();
        while self.meta(there)?.is_none() {
            let Some(parent) = there.parent() else { break };
            if there == self.run_dir() {
                self.disk.check_writable(parent).map_err(|e| DeliverError::at("make", there, e))?;
            }
            there = parent;
        }
        let backing = self.medium.backing(there).map_err(|e| DeliverError::at("look at", there, e))?;
        if backing == Backing::Disk && !self.on_disk && host::in_force("tokens-in-memory") {
            return Err(DeliverError::OnDisk { path: self.secrets.clone() });
        }
        Ok(())
    }

    fn run_dir(&self) -> &Path {
        self.secrets.parent().unwrap_or(Path::new("/"))
    }

    /// Makes the service's directory, or sees that the one there is ours and fits.
    fn prepare_directory(&self, to: &Recipient) -> Result<PathBuf, DeliverError> {
        let dir = self.directory(to);
        let (mode, group) = directory_rights(to);
        if let Some(found) = self.meta(&dir)? {
            self.check_ours(&dir, &found)?;
            if found.mode == mode && group.is_none_or(|g| g == found.owner.gid) {
                return Ok(dir);
            }
            // The plan has changed owner or mode: the token in there was for somebody else.
            self.disk.remove_tree(&dir).map_err(|e| DeliverError::at("remove", &dir, e))?;
        }
        // Until it has its group it is empty; a crash in between leaves a directory that does not fit and is made anew.
        self.disk.create_dir(&dir, mode).map_err(|e| DeliverError::at("make", &dir, e))?;
        if let Some(gid) = group {
            self.disk.chown(&dir, Owner { uid: self.us, gid }).map_err(|e| DeliverError::at("give", &dir, e))?;
        }
        Ok(dir)
    }

    fn check_ours(&self, path: &Path, found: &Meta) -> Result<(), DeliverError> {
        let what = match found.kind {
            _ if !host::in_force("token-directory-ours") => return Ok(()),
            FileKind::Dir if found.owner.uid == self.us => return Ok(()),
            FileKind::Dir => format!("a directory of uid {}", found.owner.uid),
            FileKind::File => "a file".to_owned(),
            FileKind::Symlink => "a symbolic link".to_owned(),
            FileKind::Other => "a device, pipe or socket".to_owned(),
        };
        Err(DeliverError::Foreign { path: path.into(), found: what })
    }

    fn meta(&self, path: &Path) -> Result<Option<Meta>, DeliverError> {
        self.disk.meta(path).map_err(|e| DeliverError::at("look at", path, e))
    }
}

impl Channel for FileChannel {
    fn deliver(&self, to: &Recipient, parcel: &Parcel) -> Result<Delivered, DeliverError> {
        self.prepare()?;
        let dir = self.prepare_directory(to)?;
        // The CA first: who finds a token also finds whom to show it to.
        let ca = dir.join(CA_FILE);
        place(&*self.disk, &ca, parcel.ca_pem(), CA_MODE, None).map_err(|e| DeliverError::at("write", &ca, e))?;
        let token = dir.join(TOKEN_FILE);
        let text = parcel.expose_token_json();
        place(&*self.disk, &token, text, to.mode, to.owner).map_err(|e| DeliverError::at("write", &token, e))?;
        Ok(Delivered { place: token, digest: secret::crypto::sha256(&[text]) })
    }

    fn verify(&self, to: &Recipient, delivered: &Delivered) -> Result<Standing, DeliverError> {
        check_parents(&*self.disk, &self.secrets, self.us)?;
        let dir = self.directory(to);
        let token = dir.join(TOKEN_FILE);
        if delivered.place != token {
            return Ok(Standing::Missing);
        }
        let Some(found) = self.meta(&dir)? else { return Ok(Standing::Missing) };
        self.check_ours(&dir, &found)?;
        let (mode, group) = directory_rights(to);
        if found.mode != mode || group.is_some_and(|g| g != found.owner.gid) {
            return Ok(Standing::Changed { what: "the rights of its directory" });
        }
        let Some(file) = self.meta(&token)? else { return Ok(Standing::Missing) };
        let owner = to.owner.map_or(self.us, |o| o.uid);
        if file.kind != FileKind::File || file.owner.uid != owner || file.mode != to.mode {
            return Ok(Standing::Changed { what: "its owner or mode" });
        }
        let text = match self.disk.read(&token, MAX_TOKEN_FILE_BYTES) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => return Ok(Standing::Changed { what: "its length" }),
            Err(e) => return Err(DeliverError::at("read", &token, e)),
        };
        let same = secret::crypto::sha256(&[&text]) == delivered.digest;
        Ok(if same || !host::in_force("delivered-tokens-verified") {
            Standing::Intact
        } else {
            Standing::Changed { what: "its content" }
        })
    }

    fn keep_ca(&self, to: &Recipient, ca_pem: &[u8]) -> Result<bool, DeliverError> {
        check_parents(&*self.disk, &self.secrets, self.us)?;
        let dir = self.directory(to);
        if let Some(found) = self.meta(&dir)? {
            self.check_ours(&dir, &found)?;
        }
        let ca = dir.join(CA_FILE);
        let fits = match self.meta(&ca)? {
            Some(m) if m.kind == FileKind::File && m.owner.uid == self.us && m.mode == CA_MODE => {
                match self.disk.read(&ca, ca_pem.len()) {
                    Ok(found) => *found == *ca_pem,
                    Err(e) if e.kind() == io::ErrorKind::FileTooLarge => false,
                    Err(e) => return Err(DeliverError::at("read", &ca, e)),
                }
            }
            _ => false,
        };
        if fits || !host::in_force("delivered-ca-verified") {
            return Ok(false);
        }
        place(&*self.disk, &ca, ca_pem, CA_MODE, None).map_err(|e| DeliverError::at("write", &ca, e))?;
        Ok(true)
    }

    fn withdraw(&self, to: &Recipient) -> Result<(), DeliverError> {
        check_parents(&*self.disk, &self.secrets, self.us)?;
        let dir = self.directory(to);
        let Some(found) = self.meta(&dir)? else { return Ok(()) };
        self.check_ours(&dir, &found)?;
        self.disk.remove_tree(&dir).map_err(|e| DeliverError::at("remove", &dir, e))
    }
}

/// Replaces a file so that a reader sees the old one or the new one whole. Not synced on purpose: after a power cut the
/// kernel has another boot id, and every token of before is refused and issued anew.
pub(crate) fn place(disk: &dyn Disk, path: &Path, bytes: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = path.with_file_name(format!(".{name}.new"));
    if disk.meta(&temporary)?.is_some() {
        // Left by a crash, or put there: unlinked, never written through.
        disk.remove_file(&temporary)?;
    }
    let written = disk.write_new(&temporary, bytes, mode, owner).and_then(|()| disk.rename(&temporary, path, true));
    if written.is_err() && disk.meta(&temporary)?.is_some() {
        // A full tmpfs must not keep half a token.
        disk.remove_file(&temporary)?;
    }
    written
}

/// Mode of the service's directory, and its group where it is not ours.
fn directory_rights(to: &Recipient) -> (u32, Option<u32>) {
    (directory_mode(to.owner), to.owner.map(|o| o.gid))
}

/// Mode of the directory of a service that runs as `owner`, or as we do: it is ours, and the service's group may enter
/// it.
pub fn directory_mode(owner: Option<Owner>) -> u32 {
    if owner.is_some() { 0o750 } else { 0o700 }
}

/// A token's file is under 2 KiB; a longer one is not ours.
const MAX_TOKEN_FILE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use host::OsDisk;
    use tempfile::TempDir;

    use super::*;
    use crate::PlaceError;
    use crate::parcel::sample;

    struct All(Backing);
    impl Medium for All {
        fn backing(&self, _: &Path) -> io::Result<Backing> {
            Ok(self.0)
        }
    }
    const MEMORY: All = All(Backing::Memory);
    const DISK: All = All(Backing::Disk);

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn channel(dir: &TempDir) -> FileChannel {
        FileChannel::new(Arc::new(OsDisk), Arc::new(MEMORY), &dir.path().join("run"), us(), false)
    }

    fn sensor() -> Recipient {
        Recipient::new("sensor", None, 0o400).unwrap()
    }

    #[test]
    fn keeps_the_contract() {
        let dir = testkit::scratch_dir();
        crate::contract::channel(&channel(&dir), &[sensor(), Recipient::new("uploader", None, 0o600).unwrap()]);
    }

    #[test]
    fn modes_and_owners_are_as_drawn() {
        let dir = testkit::scratch_dir();
        let owner = (us() == 0).then_some(Owner { uid: 1501, gid: 1502 });
        let to = Recipient::new("sensor", owner, 0o400).unwrap();
        channel(&dir).deliver(&to, &sample("s.one")).unwrap();
        let at = |p: &str| fs::symlink_metadata(dir.path().join("run/secrets").join(p)).unwrap();
        let mode = |p: &str| at(p).permissions().mode() & 0o7777;
        assert_eq!(mode("."), 0o711);
        assert_eq!(mode("sensor"), if owner.is_some() { 0o750 } else { 0o700 });
        assert_eq!(mode("sensor/secrets-token.json"), 0o400);
        assert_eq!(mode("sensor/ca.pem"), 0o444);
        if owner.is_some() {
            assert_eq!((at("sensor").uid(), at("sensor").gid()), (0, 1502), "the service cannot plant a link");
            assert_eq!((at("sensor/secrets-token.json").uid(), at("sensor/secrets-token.json").gid()), (1501, 1502));
        }
        assert_eq!(OsDisk.list(&dir.path().join("run/secrets/sensor")).unwrap().len(), 2, "no temporary file is left");
    }

    #[test]
    fn a_disk_is_refused_unless_accepted() {
        let dir = testkit::scratch_dir();
        let run = dir.path().join("run");
        let refused =
            FileChannel::new(Arc::new(OsDisk), Arc::new(DISK), &run, us(), false).deliver(&sensor(), &sample("s.one"));
        assert!(matches!(refused, Err(DeliverError::OnDisk { .. })), "{refused:?}");
        assert!(!run.exists(), "nothing was made");
        FileChannel::new(Arc::new(OsDisk), Arc::new(DISK), &run, us(), true)
            .deliver(&sensor(), &sample("s.one"))
            .unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_refused() {
        let dir = testkit::scratch_dir();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        channel(&dir).deliver(&Recipient::new("other", None, 0o400).unwrap(), &sample("s.other")).unwrap();
        symlink(&victim, dir.path().join("run/secrets/sensor")).unwrap();
        let refused = channel(&dir).deliver(&sensor(), &sample("s.one"));
        assert!(matches!(refused, Err(DeliverError::Foreign { .. })), "{refused:?}");
        assert!(matches!(channel(&dir).withdraw(&sensor()), Err(DeliverError::Foreign { .. })));
        assert_eq!(OsDisk.list(&victim).unwrap().len(), 0);
    }

    #[test]
    fn a_link_in_place_of_secrets_is_refused() {
        let dir = testkit::scratch_dir();
        let victim = dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        // Whatever the umask is: one that a group may write to is refused before anybody looks into it.
        OsDisk.create_dir(&dir.path().join("run"), 0o755).unwrap();
        symlink(&victim, dir.path().join("run/secrets")).unwrap();
        let refused = channel(&dir).deliver(&sensor(), &sample("s.one"));
        assert!(
            matches!(refused, Err(DeliverError::Place(PlaceError::NotADirectory { link: true, .. }))),
            "{refused:?}"
        );
        assert_eq!(OsDisk.list(&victim).unwrap().len(), 0);
    }

    #[test]
    fn planted_links_are_displaced_and_not_written_through() {
        let dir = testkit::scratch_dir();
        let (soft, hard) = (dir.path().join("soft"), dir.path().join("hard"));
        for victim in [&soft, &hard] {
            OsDisk.write_new(victim, b"victim", 0o600, None).unwrap();
        }
        channel(&dir).deliver(&sensor(), &sample("s.one")).unwrap();
        let at = dir.path().join("run/secrets/sensor");
        for name in [TOKEN_FILE, CA_FILE] {
            fs::remove_file(at.join(name)).unwrap();
            symlink(&soft, at.join(name)).unwrap();
            fs::hard_link(&hard, at.join(format!(".{name}.new"))).unwrap();
        }
        let delivered = channel(&dir).deliver(&sensor(), &sample("s.two")).unwrap();
        assert_eq!(fs::read(&soft).unwrap(), b"victim");
        assert_eq!(fs::read(&hard).unwrap(), b"victim");
        assert_eq!(fs::metadata(&hard).unwrap().nlink(), 1, "the planted names are gone");
        assert_eq!(channel(&dir).verify(&sensor(), &delivered).unwrap(), Standing::Intact);
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        if us() != 0 {
            // Only root can make a directory of another user; the check itself is then tested through `us`.
            let dir = testkit::scratch_dir();
            channel(&dir).deliver(&sensor(), &sample("s.one")).unwrap();
            let as_other =
                FileChannel::new(Arc::new(OsDisk), Arc::new(MEMORY), &dir.path().join("run"), us() + 1, false);
            assert!(as_other.deliver(&sensor(), &sample("s.two")).is_err());
            return;
        }
        let dir = testkit::scratch_dir();
        channel(&dir).deliver(&sensor(), &sample("s.one")).unwrap();
        let own = dir.path().join("run/secrets/sensor");
        std::os::unix::fs::chown(&own, Some(4242), None).unwrap();
        let refused = channel(&dir).deliver(&sensor(), &sample("s.two"));
        assert!(matches!(refused, Err(DeliverError::Foreign { .. })), "{refused:?}");
    }

    #[test]
    fn a_world_writable_run_directory_is_refused() {
        let dir = testkit::scratch_dir();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = channel(&dir).deliver(&sensor(), &sample("s.one"));
        assert!(matches!(refused, Err(DeliverError::Place(PlaceError::Writable { .. }))), "{refused:?}");
        assert_eq!(OsDisk.list(&run).unwrap().len(), 0);
    }

    #[test]
    fn what_was_changed_is_seen() {
        let dir = testkit::scratch_dir();
        let c = channel(&dir);
        let delivered = c.deliver(&sensor(), &sample("s.one")).unwrap();
        let (at, token) = (dir.path().join("run/secrets/sensor"), delivered.place.clone());
        let set = |path: &Path, m| fs::set_permissions(path, fs::Permissions::from_mode(m)).unwrap();
        let see = || c.verify(&sensor(), &delivered).unwrap();

        set(&token, 0o444);
        assert_eq!(see(), Standing::Changed { what: "its owner or mode" });
        set(&token, 0o400);
        set(&at, 0o755);
        assert_eq!(see(), Standing::Changed { what: "the rights of its directory" });
        set(&at, 0o700);
        assert_eq!(see(), Standing::Intact);
        OsDisk.replace(&token, b"{}", 0o400, None).unwrap();
        assert_eq!(see(), Standing::Changed { what: "its content" });
        OsDisk.replace(&token, &vec![b'x'; MAX_TOKEN_FILE_BYTES + 1], 0o400, None).unwrap();
        assert_eq!(see(), Standing::Changed { what: "its length" });
        fs::remove_file(&token).unwrap();
        assert_eq!(see(), Standing::Missing);
    }

    #[test]
    fn a_ca_that_is_gone_open_or_another_is_put_back_beside_the_token() {
        let dir = testkit::scratch_dir();
        let (c, parcel) = (channel(&dir), sample("s.one"));
        let delivered = c.deliver(&sensor(), &parcel).unwrap();
        let ca = dir.path().join("run/secrets/sensor").join(CA_FILE);
        let token = fs::metadata(&delivered.place).unwrap().ino();
        let defects: [&dyn Fn(); 5] = [
            &|| fs::remove_file(&ca).unwrap(),
            &|| fs::set_permissions(&ca, fs::Permissions::from_mode(0o666)).unwrap(),
            &|| OsDisk.replace(&ca, b"another", 0o444, None).unwrap(),
            &|| OsDisk.replace(&ca, &[parcel.ca_pem(), b"and one more"].concat(), 0o444, None).unwrap(),
            &|| {
                OsDisk.rename(&ca, &dir.path().join("elsewhere"), false).unwrap();
                std::os::unix::fs::symlink(dir.path().join("elsewhere"), &ca).unwrap();
            },
        ];
        for (i, defect) in defects.iter().enumerate() {
            defect();
            assert!(c.keep_ca(&sensor(), parcel.ca_pem()).unwrap(), "{i}");
            assert!(!c.keep_ca(&sensor(), parcel.ca_pem()).unwrap(), "{i}");
            assert_eq!(fs::read(&ca).unwrap(), parcel.ca_pem(), "{i}");
            assert_eq!(fs::symlink_metadata(&ca).unwrap().mode() & 0o170_777, 0o100_444, "{i}");
        }
        assert_eq!(c.verify(&sensor(), &delivered).unwrap(), Standing::Intact);
        assert_eq!(fs::metadata(&delivered.place).unwrap().ino(), token, "the token was not touched");
    }

    #[test]
    fn another_owner_in_the_plan_makes_the_directory_anew() {
        if testkit::is_root_skipped() {
            return;
        }
        let dir = testkit::scratch_dir();
        let c = channel(&dir);
        let first = Recipient::new("sensor", Some(Owner { uid: 1501, gid: 1501 }), 0o400).unwrap();
        let then = Recipient::new("sensor", Some(Owner { uid: 1601, gid: 1601 }), 0o400).unwrap();
        let delivered = c.deliver(&first, &sample("s.one")).unwrap();
        assert_eq!(c.verify(&then, &delivered).unwrap(), Standing::Changed { what: "the rights of its directory" });
        let delivered = c.deliver(&then, &sample("s.two")).unwrap();
        assert_eq!(c.verify(&then, &delivered).unwrap(), Standing::Intact);
        assert_eq!(fs::metadata(dir.path().join("run/secrets/sensor")).unwrap().gid(), 1601);
    }
}
