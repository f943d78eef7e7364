//! Authorisation by callback: a source that wants a PIN asks for it at the moment it needs it, once, and says how many
//! tries are left. A PIN never stands in a configuration, an argument or an environment variable.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use host::Disk;
use secret::SecretBytes;
use zeroize::Zeroizing;

use super::{SourceError, secret_file};

/// What a source asks for.
#[derive(Clone, Copy, Debug)]
pub struct AuthRequest<'a> {
    /// The source or token, for whoever is asked: a device path, a label and serial number.
    pub what: &'a str,
    /// How many wrong answers it still takes, where it says so.
    pub tries_left: Option<u32>,
}

/// Who answers. Called at most once in a release, so that a wrong answer in a file costs one try and not all of them.
pub trait Auth: Send + Sync {
    /// The PIN.
    ///
    /// # Errors
    /// [`AuthError`] when there is none to give.
    fn pin(&self, request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError>;

    /// Whether there would be one, as far as it can be seen without asking anybody.
    ///
    /// # Errors
    /// As [`Auth::pin`].
    fn look(&self, request: &AuthRequest<'_>) -> Result<(), AuthError> {
        let _ = request;
        Ok(())
    }
}

/// Somebody who is asked once, and whose PIN serves every attempt at one release.
pub(super) struct AskedOnce<'a> {
    auth: &'a dyn Auth,
    told: OnceLock<SecretBytes>,
}

impl<'a> AskedOnce<'a> {
    pub(super) fn new(auth: &'a dyn Auth) -> Self {
        Self { auth, told: OnceLock::new() }
    }
}

impl Auth for AskedOnce<'_> {
    fn pin(&self, request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError> {
        let told = match self.told.get() {
            Some(told) => told,
            None => {
                let told = self.auth.pin(request)?;
                self.told.get_or_init(|| told)
            }
        };
        Ok(SecretBytes::new(told.expose().to_vec()))
    }

    fn look(&self, request: &AuthRequest<'_>) -> Result<(), AuthError> {
        self.auth.look(request)
    }
}

/// Nobody to ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoAuth;

impl Auth for NoAuth {
    fn pin(&self, _request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError> {
        Err(AuthError::NobodyToAsk)
    }
}

/// A PIN in a file: of a stick, or a credential that systemd put there.
pub struct PinFile {
    path: PathBuf,
    disk: Arc<dyn Disk>,
}

impl PinFile {
    /// The file at `path`: its text, without a line feed at the end.
    pub fn new(path: impl Into<PathBuf>, disk: Arc<dyn Disk>) -> Self {
        Self { path: path.into(), disk }
    }

    fn unfit(&self, defect: String) -> AuthError {
        AuthError::Unfit { path: self.path.display().to_string(), defect }
    }
}

impl std::fmt::Debug for PinFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PinFile({})", self.path.display())
    }
}

impl Auth for PinFile {
    fn pin(&self, _request: &AuthRequest<'_>) -> Result<SecretBytes, AuthError> {
        let bytes = match secret_file::read_secret(&*self.disk, &self.path, MAX_PIN_BYTES + 1) {
            Err(SourceError::BadOutput { .. }) => Zeroizing::new(vec![0; MAX_PIN_BYTES + 1]),
            Err(SourceError::Os { what, source }) => return Err(AuthError::Os { path: what, source }),
            Err(SourceError::NotTrusted { path, defect }) => return Err(AuthError::Unfit { path, defect }),
            Err(SourceError::NotPresent { .. }) => return Err(self.unfit("it is not there".into())),
            Err(other) => return Err(self.unfit(other.to_string())),
            Ok(bytes) => bytes,
        };
        pin_of(&bytes).ok_or_else(|| self.unfit(format!("a PIN of 1 to {MAX_PIN_BYTES} bytes is expected")))
    }

    fn look(&self, request: &AuthRequest<'_>) -> Result<(), AuthError> {
        self.pin(request).map(drop)
    }
}

/// The one line of a text, without its line feed.
pub(super) fn pin_of(text: &[u8]) -> Option<SecretBytes> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    (1..=MAX_PIN_BYTES).contains(&line.len()).then(|| SecretBytes::new(line.to_vec()))
}

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A PIN is wanted, and the configuration names nobody who has it.
    #[error("a PIN is asked for, and nothing says where it is")]
    NobodyToAsk,
    /// The place is none for a PIN, or has none.
    #[error("the PIN in {path} cannot be used: {defect}")]
    Unfit {
        /// The file or descriptor.
        path: String,
        /// What is wrong with it.
        defect: String,
    },
    /// A system call failed.
    #[error("the PIN file {path} cannot be read")]
    Os {
        /// The file.
        path: String,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
}

/// Longest PIN: what PKCS #11 tokens take.
pub(super) const MAX_PIN_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use host::OsDisk;

    fn pin(path: &Path) -> Result<SecretBytes, AuthError> {
        PinFile::new(path, Arc::new(OsDisk)).pin(&AuthRequest { what: "test", tries_left: None })
    }

    fn defect(path: &Path) -> String {
        match pin(path) {
            Err(AuthError::Unfit { defect, .. }) => defect,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_of_a_file_that_nobody_else_reads() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: &[u8], mode| {
            let path = dir.path().join(name);
            OsDisk.write_new(&path, bytes, mode, None).unwrap();
            path
        };
        assert_eq!(pin(&file("plain", b"1234", 0o600)).unwrap().expose(), b"1234");
        assert_eq!(pin(&file("line", b"12 34\n", 0o400)).unwrap().expose(), b"12 34");
        assert_eq!(pin(&file("long", &[b'1'; 255], 0o600)).unwrap().len(), 255);
        let expected = "a PIN of 1 to 255 bytes is expected";
        for (name, bytes) in [("none", &b""[..]), ("empty", b"\n"), ("longer", &[b'1'; 256]), ("flood", &[b'1'; 9000])]
        {
            assert_eq!(defect(&file(name, bytes, 0o600)), expected, "{name}");
        }
        assert_eq!(defect(&file("open", b"1234", 0o604)), "its mode 604 lets others in; 400 is expected");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("plain"), &link).unwrap();
        assert_eq!(defect(&link), "it is not a regular file");
        assert_eq!(defect(&dir.path().join("missing")), "it is not there");
    }

    #[test]
    fn a_file_or_directory_of_somebody_elses() {
        if testkit::is_root_skipped() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        OsDisk.write_new(&path, b"1234", 0o600, None).unwrap();
        let theirs = |at: &Path, uid| OsDisk.chown(at, host::Owner { uid, gid: 0 }).unwrap();
        for at in [path.as_path(), dir.path()] {
            theirs(at, 4242);
            assert_eq!(defect(&path), "it belongs to user 4242; root or user 0 is expected");
            theirs(at, 0);
        }
        assert!(pin(&path).is_ok());
    }

    #[test]
    fn nobody_to_ask() {
        let asked = NoAuth.pin(&AuthRequest { what: "test", tries_left: None });
        assert!(matches!(asked, Err(AuthError::NobodyToAsk)));
    }
}
