//! Why shares are not to be had, each with the way out.

use std::io;
use std::path::PathBuf;

use seal::edgex::{OpenSharesError, SaltError, SharesError};

/// Why shares were not read, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The store is initialised, and its shares are not here.
    #[error("the store is initialised, and {} is not there", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
        /// Whether a run of ours was cut short between asking for the shares and having them on the disk.
        cut_short: bool,
    },
    /// The store is not initialised, and there are shares.
    #[error("the store is not initialised, and {} holds the key shares of another", file.display())]
    OtherStores {
        /// The file.
        file: PathBuf,
    },
    /// A link, a directory ...
    #[error("{} is not a regular file", file.display())]
    NoFile {
        /// The path.
        file: PathBuf,
    },
    /// Not what EdgeX writes.
    #[error("{} cannot be read as key shares", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        source: SharesError,
    },
    /// A hook is configured, and the file is in clear.
    #[error("a hook is configured, and {} holds the key shares in clear", file.display())]
    ClearWithHook {
        /// The file.
        file: PathBuf,
    },
    /// Shares are to be wrapped, and there is nothing to wrap them under.
    #[error("no hook is configured to wrap {} under", file.display())]
    NoHook {
        /// The file.
        file: PathBuf,
    },
    /// The file is wrapped, and there is no hook.
    #[error("{} is wrapped, and no hook is configured", file.display())]
    WrappedWithoutHook {
        /// The file.
        file: PathBuf,
    },
    /// The salt is missing, or damaged.
    #[error(transparent)]
    Salt(#[from] SaltError),
    /// Other key material, another salt, changed shares.
    #[error("{} does not open", file.display())]
    NotOpened {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: OpenSharesError,
    },
    /// What was read back is not what was written.
    #[error("{} is not what was just written to it", file.display())]
    NotAsWritten {
        /// The file.
        file: PathBuf,
    },
    /// A rekey was cut short, and the store has not been asked yet which of two sets of shares it takes.
    #[error("a rekey was cut short: {} may hold the store's shares, or not", file.display())]
    Unsettled {
        /// The new shares.
        file: PathBuf,
    },
    /// Another process has the directory.
    #[error("another set-up is at work in {}", dir.display())]
    Busy {
        /// The directory.
        dir: PathBuf,
    },
    /// The disk failed.
    #[error("cannot {what} {}", path.display())]
    Disk {
        /// The verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl CustodyError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { cut_short: true, .. } => "a run was cut short while the store was being made: its shares are lost, \
                and nothing was ever kept under them. If no other set-up has used this store since, delete its storage and start again"
                .into(),
            Self::Missing { cut_short: false, .. } => "put the file back from a backup, with kdf-salt.dat. If somebody else \
                initialised this store, ask them for its shares"
                .into(),
            Self::OtherStores { file } => format!(
                "is this the right store, and has it kept its storage? Only if the other store is gone for good: mv {0} {0}.old",
                file.display()
            ),
            Self::NoFile { .. } => "put the file itself there; links are not followed".into(),
            Self::Unreadable { .. } => "put it back from a backup".into(),
            Self::ClearWithHook { .. } => "run `edgekeep seal encrypt-existing` once, with the same environment: it wraps the shares, and \
                has the store replace them, because whoever has an old copy of this disk has them too"
                .into(),
            Self::NoHook { .. } => "set EDGEX_IKM_HOOK to the program that reads this device's key material".into(),
            Self::WrappedWithoutHook { .. } => "set EDGEX_IKM_HOOK again. To do without a hook from now on, run \
                `edgekeep seal decrypt-existing` with it set"
                .into(),
            Self::Salt(e) => e.hint().into(),
            Self::NotOpened { source: source @ OpenSharesError::WrongIkmOrSalt, .. } => format!(
                "{}. If the hook's key material was replaced: `edgekeep seal encrypt-existing --former-hook PROGRAM`, with the \
                program that gives what it was",
                source.hint()
            ),
            Self::NotOpened { source, .. } => source.hint().into(),
            Self::NotAsWritten { .. } => "the disk is failing, or somebody else writes there: replace it, or find out".into(),
            Self::Unsettled { .. } => "run security-secretstore-setup first: it asks the store, and settles it".into(),
            Self::Busy { .. } => "wait until it has ended".into(),
            Self::Disk { .. } => "see the cause".into(),
        }
    }
}
