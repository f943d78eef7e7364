//! A systemd credential: octets that `LoadCredentialEncrypted=` decrypts into a directory of the unit's own before it
//! starts.
//!
//! ```text
//! $CREDENTIALS_DIRECTORY/<name>   raw octets, or one line of lower-case hexadecimal digits
//! ```
//! What protects it at rest (a TPM, a key of the host) is systemd's doing and is not known here, so nothing is claimed.
//! The file is believed only where systemd puts such files: nobody else may write to it or to its directory, and nobody
//! else read it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use host::Disk;

use super::{
    Auth, Capabilities, Closed, Deadline, Evidence, Fit, KeySource, PolicyRequest, Provisioned, Released, SourceError,
    Wanted, hex_line, secret_file,
};
use crate::ikm::{Ikm, MAX_IKM_BYTES};
use crate::slot::{SlotPublic, SourceKind};

/// A credential's name, as systemd takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialName(String);

impl FromStr for CredentialName {
    type Err = CredentialNameError;

    /// A file name of 1 to 255 printable ASCII characters (systemd's rule, without the blank and the colon, which
    /// separate the parts of a unit's setting).
    fn from_str(text: &str) -> Result<Self, CredentialNameError> {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
        if plain && (1..=255).contains(&text.len()) && text != "." && text != ".." {
            Ok(Self(text.to_owned()))
        } else {
            Err(CredentialNameError)
        }
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Not the name of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a file name of 1 to 255 printable characters is expected, without `/` and `:`")]
pub struct CredentialNameError;

/// How the octets stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialForm {
    /// As they are.
    Raw,
    /// As one line of lower-case hexadecimal digits.
    Hex,
}

impl CredentialForm {
    const fn number(self) -> u8 {
        match self {
            Self::Raw => 1,
            Self::Hex => 2,
        }
    }
}

/// The source `credential`.
pub struct CredentialSource {
    directory: PathBuf,
    name: CredentialName,
    form: CredentialForm,
    disk: Arc<dyn Disk>,
}

impl CredentialSource {
    /// The credential `name` in `directory`, which is what `$CREDENTIALS_DIRECTORY` names.
    pub fn new(directory: impl Into<PathBuf>, name: CredentialName, form: CredentialForm, disk: Arc<dyn Disk>) -> Self {
        Self { directory: directory.into(), name, form, disk }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(&self.name.0)
    }

    fn shown(&self) -> String {
        self.path().display().to_string()
    }

    /// Looks at whose the directory and the file are; the octets are not read.
    fn check(&self) -> Result<(), SourceError> {
        secret_file::check_secret(&*self.disk, &self.path())
    }

    fn read(&self) -> Result<Ikm, SourceError> {
        let most = match self.form {
            CredentialForm::Raw => MAX_IKM_BYTES,
            CredentialForm::Hex => 2 * MAX_IKM_BYTES + 1,
        };
        let what = || self.shown();
        let bytes = secret_file::read_secret(&*self.disk, &self.path(), most)?;
        let octets = match self.form {
            CredentialForm::Raw => bytes.into(),
            CredentialForm::Hex => {
                hex_line::octets(&bytes).map_err(|defect| SourceError::BadOutput { what: what(), defect })?
            }
        };
        Ikm::new(octets, None).map_err(|source| SourceError::Ikm { what: what(), source })
    }

    fn evidence(&self) -> Evidence {
        Evidence(vec![("credential", self.shown())])
    }

    fn slot(&self) -> SlotPublic {
        let items = vec![(TAG_FORM, vec![VERSION, self.form.number()]), (TAG_NAME, self.name.0.clone().into_bytes())];
        SlotPublic::new(SourceKind::Credential, None, items).expect("a name of 255 bytes fits")
    }
}

impl fmt::Debug for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CredentialSource({})", self.shown())
    }
}

impl KeySource for CredentialSource {
    fn kind(&self) -> SourceKind {
        SourceKind::Credential
    }

    fn look(&self, _wish: Wanted, _auth: &dyn Auth) -> Result<(), SourceError> {
        self.check()
    }

    /// By name and form.
    fn fits(&self, slot: &SlotPublic) -> Fit {
        Fit::by_name(*slot == self.slot())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn probe(&mut self, _deadline: Deadline) -> Result<Evidence, SourceError> {
        self.check()?;
        Ok(self.evidence())
    }

    /// Takes what is there: who made the credential made the key material.
    fn provision(
        &mut self,
        policy: &PolicyRequest,
        _auth: &dyn Auth,
        _deadline: Deadline,
    ) -> Result<Provisioned, SourceError> {
        policy.enforceable(SourceKind::Credential, &self.capabilities())?;
        Ok(Provisioned { public: self.slot(), ikm: self.read()? })
    }

    fn release(&mut self, slot: &SlotPublic, _auth: &dyn Auth, _deadline: Deadline) -> Result<Released, SourceError> {
        let name = match (slot.kind(), slot.item(TAG_FORM), slot.item(TAG_NAME)) {
            (SourceKind::Credential, Some([VERSION, _]), Some(name)) if slot.items().len() == 2 => name,
            _ => return Err(SourceError::OtherSlot { kind: SourceKind::Credential }),
        };
        if *slot != self.slot() {
            // Systemd binds the name into the encryption: another name is another credential.
            let found = format!("{} ({:?})", self.name, self.form);
            let expected =
                format!("{} (form {:?})", String::from_utf8_lossy(name).escape_default(), slot.item(TAG_FORM));
            return Err(SourceError::WrongDevice { what: "the credential".into(), found, expected });
        }
        Ok(Released { ikm: self.read()?, evidence: self.evidence(), remaining_this_boot: None })
    }

    /// The file stays as long as the unit runs.
    fn close(&mut self, _slot: &SlotPublic, _deadline: Deadline) -> Result<Closed, SourceError> {
        Ok(Closed::releases_on())
    }
}

const VERSION: u8 = 1;
const TAG_FORM: u16 = 1;
const TAG_NAME: u16 = 2;

#[cfg(test)]
mod tests;
