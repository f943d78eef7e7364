//! What every way of delivery can do, and what it answers.

use std::io;
use std::path::{Path, PathBuf};

use host::Owner;

use crate::{Parcel, PathError, PlaceError};

/// A way to a service.
pub trait Channel: Send + Sync {
    /// Puts the parcel where its service finds it, whole or not at all: a reader sees the parcel before or this one.
    /// Delivering again replaces.
    ///
    /// # Errors
    /// [`DeliverError`]; what was there before is then still there.
    fn deliver(&self, to: &Recipient, parcel: &Parcel) -> Result<Delivered, DeliverError>;

    /// Whether the token that was delivered is there and unchanged.
    ///
    /// # Errors
    /// [`DeliverError`] when that cannot be seen.
    fn verify(&self, to: &Recipient, delivered: &Delivered) -> Result<Standing, DeliverError>;

    /// Sees that the CA's certificate lies beside an intact delivery, and puts it there again if it is gone or another.
    /// Whether it was put there. The token stays as it is: its service may be using it.
    ///
    /// # Errors
    /// [`DeliverError`].
    fn keep_ca(&self, to: &Recipient, ca_pem: &[u8]) -> Result<bool, DeliverError>;

    /// Takes back what was delivered; nothing happens where nothing is.
    ///
    /// # Errors
    /// [`DeliverError`].
    fn withdraw(&self, to: &Recipient) -> Result<(), DeliverError>;
}

/// Whom a parcel is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    service: String,
    /// Who may read; `None` is the user that edgekeep runs as.
    pub owner: Option<Owner>,
    /// Mode of the token's file.
    pub mode: u32,
}

impl Recipient {
    /// A service by its name, which becomes one component of a path.
    ///
    /// # Errors
    /// [`RecipientError`] if the name could be anything but one visible component.
    pub fn new(service: &str, owner: Option<Owner>, mode: u32) -> Result<Self, RecipientError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let sound = (1..=64).contains(&service.len()) && !service.starts_with('.') && service.chars().all(plain);
        if sound || !host::in_force("names-are-names") {
            Ok(Self { service: service.to_owned(), owner, mode })
        } else {
            Err(RecipientError)
        }
    }

    /// Its name.
    pub fn service(&self) -> &str {
        &self.service
    }
}

/// Not the name of a service. Checked again here, because a slip would be a file elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a service's name: expected 1 to 64 letters, digits, '_', '.' or '-', not beginning with a dot")]
pub struct RecipientError;

/// What was delivered where. No secret: the digest is of text with 142 random bits in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Where, for people and for `edgekeep env`.
    pub place: PathBuf,
    /// SHA-256 of the token's file.
    pub digest: [u8; 32],
}

/// How a delivery stands now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it was delivered.
    Intact,
    /// Not there: a new tmpfs, or somebody removed it.
    Missing,
    /// There, with other content, owner or mode.
    Changed {
        /// Which of them.
        what: &'static str,
    },
}

/// Why nothing was delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The place is not safe.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The place is not in memory.
    #[error("{} is not on a tmpfs: the token would be kept by a disk", path.display())]
    OnDisk {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else's directory, a link or a file stands where the service's directory should.
    #[error("{} is {found}, not a directory of ours", path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
    /// The system refused.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl DeliverError {
    /// The system refused `what` at `path`.
    pub(crate) fn at(what: &'static str, path: &Path, cause: io::Error) -> Self {
        PathError::new(what, path, cause).into()
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Place(e) => e.hint(),
            Self::OnDisk { .. } => {
                "set run_dir to a directory on a tmpfs such as /run/edgekeep, or accept it by danger_tokens_on_disk"
            }
            Self::Foreign { .. } => "find out who put it there, remove it, and start again",
            Self::Io(_) => "edgekeep must run as root to give files to other users; otherwise see the cause",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipient_is_one_component() {
        for bad in ["", ".", "..", ".hidden", "a/b", "a\0", "a\n", "a b", &"x".repeat(65)] {
            assert_eq!(Recipient::new(bad, None, 0o400), Err(RecipientError), "{bad:?}");
        }
        assert_eq!(Recipient::new("core-data", None, 0o400).unwrap().service(), "core-data");
    }
}
