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

use super::{Deadline, Evidence, KeySource, PolicyRequest, Released, SourceError};
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

    /// Also before provisioning, when the file is not there yet.
    fn probe(&self) -> Result<Evidence, SourceError> {
        let name = match self.read() {
            Ok(bytes) => hex::encode(name_of(&bytes)),
            Err(SourceError::NotPresent { .. }) => "not made yet".into(),
            Err(e) => return Err(e),
        };
        Ok(Evidence(vec![("key file", self.shown()), ("key name", name)]))
    }

    /// Makes the file, durably. An existing one is never displaced.
    fn provision(&mut self, policy: &PolicyRequest) -> Result<SlotPublic, SourceError> {
        policy.must_be_empty(SourceKind::Software)?;
        if self.disk.meta(&self.path).map_err(|e| self.os(e))?.is_some() {
            return Err(SourceError::AlreadyThere { what: self.shown() });
        }
        let mut bytes = Zeroizing::new([0; FILE_BYTES]);
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        self.entropy.fill(&mut bytes[MAGIC.len()..]);
        // The slot is of use only with the file: on return the file survives a power cut.
        self.disk.replace(&self.path, &bytes[..], 0o600, None).map_err(|e| self.os(e))?;
        let name = name_of(&bytes[..]).to_vec();
        Ok(SlotPublic::new(SourceKind::Software, None, vec![(TAG_NAME, name)]).expect("one item of 16 bytes fits"))
    }

    fn release(&mut self, slot: &SlotPublic, _deadline: Deadline) -> Result<Released, SourceError> {
        let expected = match (slot.kind(), slot.item(TAG_NAME)) {
            (SourceKind::Software, Some(name)) => name,
            _ => return Err(SourceError::OtherSlot { kind: SourceKind::Software }),
        };
        let bytes = self.read()?;
        let (what, found) = (self.shown(), name_of(&bytes));
        if found != expected {
            return Err(SourceError::OtherKey { what, found: hex::encode(found), expected: hex::encode(expected) });
        }
        let octets = SecretBytes::new(bytes[MAGIC.len() + NAME_BYTES..].to_vec());
        let ikm = Ikm::new(octets, None).map_err(|source| SourceError::Ikm { what, source })?;
        Ok(Released { ikm, evidence: self.probe()?, remaining_this_boot: None })
    }

    fn close(&mut self, _slot: &SlotPublic) -> Result<(), SourceError> {
        Ok(())
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
        let slot = s.provision(&PolicyRequest::default()).unwrap();
        assert_eq!(OsDisk.meta(&path).unwrap().unwrap().mode, 0o600);
        let (a, b) = (s.release(&slot, soon()).unwrap(), s.release(&slot, soon()).unwrap());
        assert!(a.ikm.ct_eq(&b.ikm));
    }

    #[test]
    fn refusals_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let mut s = source(&path);
        let limit = PolicyRequest { releases_per_boot: NonZeroU8::new(1), ..Default::default() };
        assert!(matches!(s.provision(&limit), Err(SourceError::PolicyUnenforceable { what: "releases_per_boot", .. })));
        let window = PolicyRequest { window: Some(Duration::from_secs(60)), ..Default::default() };
        assert!(matches!(s.provision(&window), Err(SourceError::PolicyUnenforceable { what: "window", .. })));
        assert!(OsDisk.meta(&path).unwrap().is_none(), "a refused policy leaves no key behind");

        let slot = s.provision(&PolicyRequest::default()).unwrap();
        assert!(matches!(s.provision(&PolicyRequest::default()), Err(SourceError::AlreadyThere { .. })));
        assert!(matches!(
            s.release(&SlotPublic::bare(SourceKind::Exec), soon()),
            Err(SourceError::OtherSlot { kind: SourceKind::Software })
        ));

        let other_path = dir.path().join("other");
        source(&other_path).provision(&PolicyRequest::default()).unwrap();
        assert!(matches!(source(&other_path).release(&slot, soon()), Err(SourceError::OtherKey { .. })));
        assert!(matches!(source(&dir.path().join("none")).release(&slot, soon()), Err(SourceError::NotPresent { .. })));

        let junk = dir.path().join("junk");
        OsDisk.write_new(&junk, &[7; FILE_BYTES], 0o600, None).unwrap();
        assert!(matches!(source(&junk).release(&slot, soon()), Err(SourceError::NotAKeyFile { .. })));
        let long = dir.path().join("long");
        OsDisk.write_new(&long, &[7; 9000], 0o600, None).unwrap();
        assert!(matches!(source(&long).release(&slot, soon()), Err(SourceError::NotAKeyFile { .. })));

        let open = dir.path().join("open");
        OsDisk.write_new(&open, &OsDisk.read(&path, FILE_BYTES).unwrap(), 0o640, None).unwrap();
        assert!(matches!(source(&open).release(&slot, soon()), Err(SourceError::NotTrusted { .. })));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(source(&link).release(&slot, soon()), Err(SourceError::NotTrusted { .. })));
    }
}
