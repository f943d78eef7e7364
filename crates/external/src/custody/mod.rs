//! The key shares of a store on our disk: EdgeX's `resp-init.json`, with `kdf-salt.dat` beside it.
//!
//! ```text
//! prepare   directory, salt, and a note of intent as large as the file will be: all of it synced, before anybody is asked
//! save      temporary file, synced, renamed, directory synced; read back, and opened again
//! load      opened on every path; what does not fit the configuration is refused by its own name, and nothing is changed
//! convert   clear to wrapped, and back where a person says so; from one hook to another
//! next      new shares beside the old ones, until the store has said which it takes
//! ```
//! No configuration, and no run of a set-up, leads from wrapped shares to clear ones on disk.

mod convert;
mod error;
mod first_root;
mod next;

use std::io;
use std::path::{Path, PathBuf};

use host::{Disk, Entropy, FileKind, Meta};
use seal::Ikm;
use seal::edgex::{ClearShares, EdgexLabel, EdgexSalt, MAX_INIT_FILE_BYTES, PlainSharesAllowed, Shares, WrappedShares};
use zeroize::Zeroizing;

pub use convert::Encrypted;
pub use error::CustodyError;

/// How shares are kept.
#[derive(Debug)]
pub enum Keeping {
    /// Wrapped under what a hook gave.
    Wrapped(Ikm),
    /// In clear: there is no hook.
    Plain(PlainSharesAllowed),
}

/// The place of one store's shares.
pub struct Custody<'a> {
    disk: &'a dyn Disk,
    entropy: &'a dyn Entropy,
    dir: PathBuf,
    file: PathBuf,
    us: u32,
    keeping: Keeping,
}

/// Shares as they were found.
#[derive(Debug)]
pub struct Held {
    /// In clear.
    pub shares: ClearShares,
    /// How the file has them.
    pub on_disk: OnDisk,
}

/// How a file has its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisk {
    /// In clear.
    Plain,
    /// Wrapped by this generation of EdgeX.
    Wrapped(EdgexLabel),
}

impl<'a> Custody<'a> {
    /// Shares in `dir`/`file`, kept as `keeping` says; `us` is the user that runs this.
    pub fn new(
        disk: &'a dyn Disk,
        entropy: &'a dyn Entropy,
        dir: &Path,
        file: &str,
        us: u32,
        keeping: Keeping,
    ) -> Self {
        Self { disk, entropy, dir: dir.to_owned(), file: dir.join(file), us, keeping }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Makes the directory where it is missing, and takes it for this process alone: two that unseal, or make, one
    /// store would each believe to have its only shares.
    ///
    /// # Errors
    /// [`CustodyError::Busy`], [`CustodyError::Disk`].
    pub fn claim(&self) -> Result<Box<dyn Send>, CustodyError> {
        self.make_dir()?;
        let lock = self.dir.join(LOCK);
        match self.disk.lock(&lock) {
            Ok(Some(held)) => Ok(held),
            Ok(None) => Err(CustodyError::Busy { dir: self.dir.clone() }),
            Err(source) => Err(self.failed("lock", &lock, source)),
        }
    }

    /// Takes the making of a store for this process alone. It may be at it for one that had the claim, and is no more.
    ///
    /// # Errors
    /// [`CustodyError::Disk`].
    pub(crate) fn claim_making(&self) -> Result<Option<Box<dyn Send>>, CustodyError> {
        self.make_dir()?;
        let lock = self.dir.join(MAKING);
        self.disk.lock(&lock).map_err(|source| self.failed("lock", &lock, source))
    }

    /// Whether a process is at the making of the store, be it for one that is no more.
    ///
    /// # Errors
    /// [`CustodyError::Disk`].
    pub fn is_being_made(&self) -> Result<bool, CustodyError> {
        self.claim_making().map(|free| free.is_none())
    }

    /// Hands what the shares are kept under to another process of ours; nothing if they are kept in clear.
    ///
    /// # Errors
    /// What the pipe says.
    pub fn hand_over(&self, pipe: &mut dyn io::Write) -> io::Result<()> {
        match &self.keeping {
            Keeping::Wrapped(ikm) => ikm.hand_over(pipe),
            Keeping::Plain(_) => Ok(()),
        }
    }

    /// Reads and opens the shares.
    ///
    /// # Errors
    /// [`CustodyError`]; nothing was changed, and no salt was made.
    pub fn load(&self) -> Result<Held, CustodyError> {
        let Some(meta) = self.meta(&self.file)? else {
            let cut_short = self.is_noted()?;
            return Err(CustodyError::Missing { file: self.file.clone(), cut_short });
        };
        if meta.kind != FileKind::File {
            return Err(CustodyError::NoFile { file: self.file.clone() });
        }
        let (found, bytes) = self.read(&self.file)?;
        let held = match (found, &self.keeping) {
            (Shares::Wrapped(wrapped), Keeping::Wrapped(ikm)) => self.open(wrapped, ikm)?,
            (Shares::Clear(shares), Keeping::Plain(_)) => Held { shares, on_disk: OnDisk::Plain },
            // With the hook's name gone from the environment a guess would be to go on in clear. Never.
            (Shares::Wrapped(_), Keeping::Plain(_)) => {
                return Err(CustodyError::WrappedWithoutHook { file: self.file.clone() });
            }
            // To wrap them here would hide that they lay in clear until now, and may lie in every copy of this disk.
            (Shares::Clear(shares), Keeping::Wrapped(_)) => {
                if host::in_force("no-clear-shares-with-hook") {
                    return Err(CustodyError::ClearWithHook { file: self.file.clone() });
                }
                Held { shares, on_disk: OnDisk::Plain }
            }
        };
        self.tighten(&meta, &bytes)?;
        // A run that got this far needs no note of one that was cut short.
        self.forget_intent()?;
        Ok(held)
    }

    /// Takes the initial root token out of the file, where an older set-up left one. The shares stay as they are:
    /// wrapped ones are not opened for it, and clear ones only stay clear.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub fn drop_root_token(&self, shares: &mut ClearShares) -> Result<bool, CustodyError> {
        if shares.root_token.take().is_none() {
            return Ok(false);
        }
        let file = match (self.read(&self.file)?.0, &self.keeping) {
            (Shares::Wrapped(mut wrapped), _) => {
                wrapped.root_token = None;
                wrapped.encode()
            }
            (Shares::Clear(clear), Keeping::Plain(allowed)) => clear.plain_file(*allowed),
            (Shares::Clear(_), Keeping::Wrapped(_)) => {
                return Err(CustodyError::ClearWithHook { file: self.file.clone() });
            }
        };
        self.put(&self.file, &file)?;
        Ok(true)
    }

    /// Sees that shares can be kept here, and makes everything that they will need: directory, salt, room. Tells
    /// whether a note of an earlier run stands there: that run may have had the store made.
    ///
    /// # Errors
    /// [`CustodyError`]; above all if there is a file already: it may be the only key of another store.
    pub fn prepare(&self) -> Result<bool, CustodyError> {
        self.make_dir()?;
        if self.has_shares()? {
            return Err(CustodyError::OtherStores { file: self.file.clone() });
        }
        if let Keeping::Wrapped(_) = self.keeping {
            self.salt_for_wrapping()?;
        }
        // As large as the file can become for 255 shares of 33 bytes, in either form: what fits now fits then.
        let intent = self.intent();
        let noted_before = self.is_noted()?;
        self.disk
            .replace(&intent, &vec![b' '; MAX_INIT_FILE_BYTES], 0o600, None)
            .map_err(|source| self.failed("write", &intent, source))?;
        Ok(noted_before)
    }

    /// Keeps shares: durable, read back, and opened again on return.
    ///
    /// # Errors
    /// [`CustodyError`]; the shares are still the caller's, who may try again.
    pub fn save(&self, shares: &ClearShares) -> Result<(), CustodyError> {
        let bytes = match &self.keeping {
            Keeping::Plain(allowed) => shares.plain_file(*allowed),
            Keeping::Wrapped(ikm) => shares.wrap(ikm, &self.salt_for_wrapping()?, self.entropy).encode(),
        };
        self.put(&self.file, &bytes)?;
        self.forget_intent()
    }

    /// What a file holds, and its bytes.
    fn read(&self, file: &Path) -> Result<(Shares, Zeroizing<Vec<u8>>), CustodyError> {
        let bytes = self.disk.read(file, MAX_INIT_FILE_BYTES).map_err(|source| self.failed("read", file, source))?;
        let shares =
            Shares::parse(&bytes).map_err(|source| CustodyError::Unreadable { file: file.to_owned(), source })?;
        Ok((shares, bytes))
    }

    /// Writes a file of shares, and proves that what was written opens.
    fn put(&self, file: &Path, bytes: &[u8]) -> Result<(), CustodyError> {
        let opens = |shares| match (shares, &self.keeping) {
            (Shares::Wrapped(wrapped), Keeping::Wrapped(ikm)) => self.open(wrapped, ikm).is_ok(),
            (Shares::Clear(_), Keeping::Plain(_)) => true,
            _ => false,
        };
        self.put_so_that(file, bytes, opens)
    }

    fn put_so_that(&self, file: &Path, bytes: &[u8], opens: impl Fn(Shares) -> bool) -> Result<(), CustodyError> {
        let owner = self.meta(&self.file)?.map(|m| m.owner).filter(|o| o.uid != self.us);
        let write = || self.disk.replace(file, bytes, 0o600, owner);
        let written = write().or_else(|e| {
            // The room that the note keeps is for this moment.
            if e.kind() == std::io::ErrorKind::StorageFull {
                self.forget_intent().ok();
                write()
            } else {
                Err(e)
            }
        });
        written.map_err(|source| self.failed("write", file, source))?;
        let back =
            self.disk.read(file, MAX_INIT_FILE_BYTES).map_err(|source| self.failed("read back", file, source))?;
        let same = secret::crypto::ct_eq(&back, bytes);
        if same && Shares::parse(&back).is_ok_and(opens) {
            Ok(())
        } else {
            Err(CustodyError::NotAsWritten { file: file.to_owned() })
        }
    }

    fn open(&self, wrapped: WrappedShares, ikm: &Ikm) -> Result<Held, CustodyError> {
        // Read, never made: a new salt opens nothing, and would hide that the old one is lost.
        let salt = EdgexSalt::load(self.disk, &self.dir)?;
        let (shares, label) = wrapped
            .into_clear(ikm, &salt)
            .map_err(|source| CustodyError::NotOpened { file: self.file.clone(), source })?;
        Ok(Held { shares, on_disk: OnDisk::Wrapped(label) })
    }

    fn salt_for_wrapping(&self) -> Result<EdgexSalt, CustodyError> {
        Ok(EdgexSalt::load_or_make(self.disk, &self.dir, self.entropy)?)
    }

    /// EdgeX sets the mode of a file only when it makes it.
    fn tighten(&self, meta: &Meta, bytes: &[u8]) -> Result<(), CustodyError> {
        if meta.mode & 0o077 == 0 {
            return Ok(());
        }
        tracing::warn!(file = %self.file.display(), mode = %format!("{:04o}", meta.mode), "others could read the key shares");
        let owner = (meta.owner.uid != self.us).then_some(meta.owner);
        self.disk
            .replace(&self.file, bytes, 0o600, owner)
            .map_err(|source| self.failed("close to others", &self.file, source))
    }

    fn forget_intent(&self) -> Result<(), CustodyError> {
        self.forget(&self.intent())
    }

    /// Removes a file of ours if it is there; durable on return.
    fn forget(&self, file: &Path) -> Result<(), CustodyError> {
        if self.meta(file)?.is_none() {
            return Ok(());
        }
        self.disk
            .remove_file(file)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|source| self.failed("remove", file, source))
    }

    /// Whether there is a file, whatever is in it.
    pub fn has_shares(&self) -> Result<bool, CustodyError> {
        Ok(self.meta(&self.file)?.is_some())
    }

    /// Whether a run of ours asked for shares, and did not get as far as to have them on the disk.
    pub(crate) fn is_noted(&self) -> Result<bool, CustodyError> {
        Ok(self.meta(&self.intent())?.is_some())
    }

    /// Init was asked for and refused: nothing was begun.
    pub(crate) fn withdraw_intent(&self) -> Result<(), CustodyError> {
        self.forget_intent()
    }

    fn make_dir(&self) -> Result<(), CustodyError> {
        let mut missing = Vec::new();
        let mut dir = self.dir.as_path();
        while self.meta(dir)?.is_none() {
            missing.push(dir);
            dir = dir.parent().unwrap_or(Path::new("/"));
        }
        for dir in missing.into_iter().rev() {
            self.disk.create_dir(dir, 0o700).map_err(|source| self.failed("make", dir, source))?;
            if let Some(parent) = dir.parent() {
                self.disk.sync_dir(parent).map_err(|source| self.failed("sync", parent, source))?;
            }
        }
        Ok(())
    }

    fn intent(&self) -> PathBuf {
        self.dir.join(INTENT)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        self.disk
    }

    pub(crate) fn meta(&self, path: &Path) -> Result<Option<Meta>, CustodyError> {
        self.disk.meta(path).map_err(|source| self.failed("look at", path, source))
    }

    pub(crate) fn failed(&self, what: &'static str, path: &Path, source: std::io::Error) -> CustodyError {
        CustodyError::Disk { what, path: path.to_owned(), source }
    }
}

impl std::fmt::Debug for Custody<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Custody({})", self.file.display())
    }
}

const LOCK: &str = ".edgekeep-custody.lock";
const MAKING: &str = ".edgekeep-init.lock";
/// Stands from before `sys/init` until its shares are on the disk.
pub const INTENT: &str = ".edgekeep-init.intent";
