//! A key file: 32 random octets beside the store. Whoever copies the disk has both; it is for demo and tests.
//!
//! ```text
//! magic "EKKEY1\0\0" 8 | name 16, random, public | octets 32, random, secret
//! ```

use std::path::PathBuf;
use std::sync::Arc;

use host::{Disk, Entropy, FileKind};
use secret::SecretBytes;
use zeroize::Zeroizing;

use super::{
    Auth, Capabilities, Closed, Deadline, Evidence, Fit, KeySource, Left, PolicyRequest, Provisioned, Released,
    SourceError, Wanted,
};
use crate::ikm::Ikm;
use crate::slot::{SlotPublic, SourceKind};

/// The source `software`.
pub struct SoftwareSource {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    entropy: Arc<dyn Entropy>,
}

impl SoftwareSource {
    /// The key file at `path`, which [`KeySource::provision`] makes.
    pub fn new(path: impl Into<PathBuf>, disk: Arc<dyn Disk>, entropy: Arc<dyn Entropy>) -> Self {
        Self { path: path.into(), disk, entropy }
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    fn os(&self, source: std::io::Error) -> SourceError {
        SourceError::Os { what: self.shown(), source }
    }

    /// The whole file, once everything about it but its name has been checked.
    fn read(&self) -> Result<Zeroizing<Vec<u8>>, SourceError> {
        let what = self.shown();
        let meta = self
            .disk
            .meta(&self.path)
            .map_err(|e| self.os(e))?
            .ok_or_else(|| SourceError::NotPresent { what: what.clone() })?;
        if meta.kind != FileKind::File {
            return Err(SourceError::NotTrusted { path: what, defect: "it is not a regular file".into() });
        }
        if meta.mode & 0o077 != 0 {
            let defect = format!("its mode {:03o} lets others in; 600 is expected", meta.mode);
            return Err(SourceError::NotTrusted { path: what, defect });
        }
        let bytes = match self.disk.read(&self.path, FILE_BYTES) {
            Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => return Err(SourceError::NotAKeyFile { what }),
            other => other.map_err(|e| self.os(e))?,
        };
        if bytes.len() != FILE_BYTES || !bytes.starts_with(MAGIC) {
            return Err(SourceError::NotAKeyFile { what });
        }
        Ok(bytes)
    }

    /// The key material, of a file whose length was checked.
    fn ikm(&self, bytes: &[u8]) -> Result<Ikm, SourceError> {
        let octets = bytes.get(MAGIC.len() + NAME_BYTES..).unwrap_or_default();
        Ikm::new(SecretBytes::new(octets.to_vec()), None)
            .map_err(|source| SourceError::Ikm { what: self.shown(), source })
    }

    fn evidence(&self, name: &str) -> Evidence {
        Evidence(vec![("key file", self.shown()), ("key name", name.to_owned())])
    }
}

impl std::fmt::Debug for SoftwareSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SoftwareSource({})", self.path.display())
    }
}

impl KeySource for SoftwareSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Software
    }

    /// By the name of the key file, if the file is there and can be read.
    fn fits(&self, slot: &SlotPublic) -> Fit {
        match (slot.kind(), self.read()) {
            (SourceKind::Software, Ok(bytes)) => Fit::by_name(slot.item(TAG_NAME) == Some(name_of(&bytes))),
            (SourceKind::Software, Err(_)) => Fit::Maybe,
            _ => Fit::No,
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    /// A new file's directory, or the file that there is.
    fn look(&self, wish: Wanted, _auth: &dyn Auth) -> Result<(), SourceError> {
        match wish {
            Wanted::Provision => {
                let dir = self.path.parent().unwrap_or(&self.path);
                self.disk.check_writable(dir).map_err(|e| self.os(e))
            }
            Wanted::Release => self.read().map(drop),
        }
    }

    /// Also before provisioning, when the file is not there yet.
    fn probe(&mut self, _deadline: Deadline) -> Result<Evidence, SourceError> {
        match self.read() {
            Ok(bytes) => Ok(self.evidence(&hex::encode(name_of(&bytes)))),
            Err(SourceError::NotPresent { .. }) => Ok(self.evidence("not made yet")),
            Err(e) => Err(e),
        }
    }

    /// Makes the file, durably. An existing one is never displaced.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        _auth: &dyn Auth,
        _deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(SourceKind::Software, &self.capabilities())?;
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        self.entropy.fill(&mut bytes[MAGIC.len()..]);
        // The slot is of use only with the file: on return the file survives a power cut.
        self.disk.place(&self.path, &bytes[..], 0o600, None).map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => SourceError::AlreadyThere { what: self.shown() },
            _ => self.os(e),
        })?;
        // As the disk gives it back, not as it was meant.
        let bytes = self.read()?;
        let name = name_of(&bytes).to_vec();
        let public =
            SlotPublic::new(SourceKind::Software, None, vec![(TAG_NAME, name)]).expect("one item of 16 bytes fits");
        Ok(Provisioned { public, ikm: self.ikm(&bytes)? })
    }

    fn release(&mut self, slot: &SlotPublic, _auth: &dyn Auth, _deadline: Deadline) -> Result<Released, SourceError> {
        let expected = match (slot.kind(), slot.item(TAG_NAME)) {
            (SourceKind::Software, Some(name)) => name,
            _ => return Err(SourceError::OtherSlot { kind: SourceKind::Software }),
        };
        let bytes = self.read()?;
        let (what, found) = (self.shown(), name_of(&bytes));
        if found != expected {
            return Err(SourceError::WrongDevice { what, found: hex::encode(found), expected: hex::encode(expected) });
        }
        let evidence = self.evidence(&hex::encode(found));
        Ok(Released { ikm: self.ikm(&bytes)?, evidence, remaining_this_boot: None })
    }

    fn close(&mut self, _slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        Ok(Closed::releases_on())
    }

    /// Whoever destroys the file is not the source: a slot may be gone, and its file be another's.
    fn left_of(&mut self, _slot: &SlotPublic, _auth: &dyn Auth, _deadline: Deadline) -> Result<Left, SourceError> {
        let what = self.shown();
        Ok(match self.disk.meta(&self.path).map_err(|e| self.os(e))? {
            None => Left::Nothing(format!("{what} is not there")),
            Some(_) => Left::Copies(format!("{what} is there")),
        })
    }
}

/// The public name, of a file whose length was checked.
fn name_of(bytes: &[u8]) -> &[u8] {
    bytes.get(MAGIC.len()..MAGIC.len() + NAME_BYTES).unwrap_or_default()
}

const MAGIC: &[u8; 8] = b"EKKEY1\0\0";
const NAME_BYTES: usize = 16;
const FILE_BYTES: usize = MAGIC.len() + NAME_BYTES + 32;
/// The key file's name, in the slot's public part.
const TAG_NAME: u16 = 1;

#[cfg(test)]
mod tests {
    use super::super::NoAuth;
    use super::super::contract::key_source_contract;
    use super::*;
    use host::{OsClock, OsDisk, OsEntropy};
    use std::num::NonZeroU8;
    use std::path::Path;
    use std::time::Duration;

    fn source(path: &Path) -> SoftwareSource {
        SoftwareSource::new(path, Arc::new(OsDisk), Arc::new(OsEntropy))
    }

    fn soon() -> Deadline {
        Deadline::after(&OsClock::new().unwrap(), Duration::from_secs(1))
    }

    #[test]
    fn gives_the_same_octets_each_time_and_no_other_user_can_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut s = source(&path);
        let slot = s.provision(&PolicyRequest::default(), &NoAuth, soon()).unwrap().public;
        assert_eq!(OsDisk.meta(&path).unwrap().unwrap().mode, 0o600);
        let (a, b) = (s.release(&slot, &NoAuth, soon()).unwrap(), s.release(&slot, &NoAuth, soon()).unwrap());
        assert!(a.ikm.ct_eq(&b.ikm));
    }

    #[test]
    fn keeps_to_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        key_source_contract(&|| Box::new(source(&path)), &PolicyRequest::default(), &NoAuth);
    }

    #[test]
    fn refusals_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut s = source(&path);
        let limit = PolicyRequest { releases_per_boot: NonZeroU8::new(1), ..Default::default() };
        assert!(matches!(
            s.provision(&limit, &NoAuth, soon()),
            Err(SourceError::PolicyUnenforceable { what: "releases_per_boot", .. })
        ));
        let window = PolicyRequest { window: Some(Duration::from_secs(60)), ..Default::default() };
        assert!(matches!(
            s.provision(&window, &NoAuth, soon()),
            Err(SourceError::PolicyUnenforceable { what: "window", .. })
        ));
        assert!(OsDisk.meta(&path).unwrap().is_none(), "a refused policy leaves no key behind");

        let slot = s.provision(&PolicyRequest::default(), &NoAuth, soon()).unwrap().public;
        assert!(matches!(
            s.provision(&PolicyRequest::default(), &NoAuth, soon()),
            Err(SourceError::AlreadyThere { .. })
        ));
        assert!(matches!(
            s.release(&SlotPublic::bare(SourceKind::Exec), &NoAuth, soon()),
            Err(SourceError::OtherSlot { kind: SourceKind::Software })
        ));

        let other_path = dir.path().join("other");
        source(&other_path).provision(&PolicyRequest::default(), &NoAuth, soon()).unwrap();
        assert!(matches!(source(&other_path).release(&slot, &NoAuth, soon()), Err(SourceError::WrongDevice { .. })));
        assert!(matches!(
            source(&dir.path().join("none")).release(&slot, &NoAuth, soon()),
            Err(SourceError::NotPresent { .. })
        ));

        let junk = dir.path().join("junk");
        OsDisk.write_new(&junk, &[7; FILE_BYTES], 0o600, None).unwrap();
        assert!(matches!(source(&junk).release(&slot, &NoAuth, soon()), Err(SourceError::NotAKeyFile { .. })));
        let long = dir.path().join("long");
        OsDisk.write_new(&long, &[7; 9000], 0o600, None).unwrap();
        assert!(matches!(source(&long).release(&slot, &NoAuth, soon()), Err(SourceError::NotAKeyFile { .. })));

        let open = dir.path().join("open");
        OsDisk.write_new(&open, &OsDisk.read(&path, FILE_BYTES).unwrap(), 0o640, None).unwrap();
        assert!(matches!(source(&open).release(&slot, &NoAuth, soon()), Err(SourceError::NotTrusted { .. })));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(source(&link).release(&slot, &NoAuth, soon()), Err(SourceError::NotTrusted { .. })));
    }
}
