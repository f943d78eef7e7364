//! `kdf-salt.dat`.

use std::io;
use std::path::{Path, PathBuf};

use host::{Disk, Entropy};

/// The file's name, beside `resp-init.json`.
pub const SALT_FILE: &str = "kdf-salt.dat";

const BYTES: usize = 32;

/// The salt of all shares of one `resp-init.json`: no secret, and as needed as the IKM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdgexSalt(pub(super) [u8; BYTES]);

impl EdgexSalt {
    /// Reads the salt, for decrypting. A missing one is said to be missing: a new one would open nothing, and would
    /// hide that the old one is lost.
    ///
    /// # Errors
    /// [`SaltError`].
    pub fn load(disk: &dyn Disk, dir: &Path) -> Result<Self, SaltError> {
        let path = dir.join(SALT_FILE);
        let os = |source| SaltError::Disk { path: path.clone(), source };
        let Some(meta) = disk.meta(&path).map_err(os)? else {
            return Err(SaltError::Missing { path });
        };
        if meta.len != BYTES as u64 {
            return Err(SaltError::Length { path, bytes: meta.len });
        }
        let bytes = disk.read(&path, BYTES).map_err(os)?;
        let salt = bytes.as_slice().try_into().map_err(|_| SaltError::Length { path, bytes: bytes.len() as u64 })?;
        Ok(Self(salt))
    }

    /// Reads the salt, or makes it where there is none, for encrypting. A new one is durable on return, before any
    /// share is wrapped with it: a power cut must not leave shares without their salt.
    ///
    /// # Errors
    /// [`SaltError`]; a salt that is there and not sound is never displaced.
    pub fn load_or_make(disk: &dyn Disk, dir: &Path, entropy: &dyn Entropy) -> Result<Self, SaltError> {
        match Self::load(disk, dir) {
            Err(SaltError::Missing { path }) => {
                let mut salt = [0; BYTES];
                entropy.fill(&mut salt);
                disk.replace(&path, &salt, 0o600, None).map_err(|source| SaltError::Disk { path, source })?;
                Ok(Self(salt))
            }
            other => other,
        }
    }
}

/// Why there is no salt.
#[derive(Debug, thiserror::Error)]
pub enum SaltError {
    /// Not there.
    #[error("the salt {} is missing", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// Not 32 bytes.
    #[error("the salt {} has {bytes} bytes instead of 32", path.display())]
    Length {
        /// Where it is.
        path: PathBuf,
        /// How many it has.
        bytes: u64,
    },
    /// The disk failed.
    #[error("the salt {} cannot be read or written", path.display())]
    Disk {
        /// Where it is.
        path: PathBuf,
        /// The failure.
        #[source]
        source: io::Error,
    },
}

impl SaltError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } => {
                "put kdf-salt.dat back from the backup that resp-init.json is from; without it the key shares are lost"
            }
            Self::Length { bytes, .. } if *bytes > BYTES as u64 => {
                "EdgeX used the first 32 bytes: keep a copy, and cut the file to 32 bytes if nothing else explains its length"
            }
            Self::Length { .. } => "put kdf-salt.dat back from a backup",
            Self::Disk { .. } => "see the cause",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Counting;
    use host::OsDisk;

    #[test]
    fn made_for_encrypting_and_never_for_decrypting() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(EdgexSalt::load(&OsDisk, dir.path()), Err(SaltError::Missing { .. })));
        assert!(OsDisk.list(dir.path()).unwrap().is_empty(), "decrypting leaves no salt behind");
        let made = EdgexSalt::load_or_make(&OsDisk, dir.path(), &Counting::default()).unwrap();
        assert_eq!(OsDisk.meta(&dir.path().join(SALT_FILE)).unwrap().unwrap().mode, 0o600);
        assert_eq!(EdgexSalt::load_or_make(&OsDisk, dir.path(), &Counting::from(9)).unwrap(), made);
        assert_eq!(EdgexSalt::load(&OsDisk, dir.path()).unwrap(), made);
    }

    #[test]
    fn a_salt_of_another_length_is_refused_and_kept() {
        for bytes in [0, 31, 33, 64] {
            let dir = tempfile::tempdir().unwrap();
            OsDisk.write_new(&dir.path().join(SALT_FILE), &vec![1; bytes], 0o600, None).unwrap();
            let refused = EdgexSalt::load_or_make(&OsDisk, dir.path(), &Counting::default()).unwrap_err();
            assert!(matches!(refused, SaltError::Length { bytes: n, .. } if n == bytes as u64));
            assert_eq!(OsDisk.meta(&dir.path().join(SALT_FILE)).unwrap().unwrap().len, bytes as u64);
        }
    }
}
