//! New shares on their way, and the note that they are wanted.
//!
//! ```text
//! resp-init.json        the old ones, until the store has taken the new
//! resp-init.json.next   the new ones: durable, read back and opened before the store may take them
//! .edgekeep-rekey.due   the old ones lay in clear: stands from before they are wrapped until new ones have their place
//! ```
//! With both files there the store alone knows which counts; whoever learns it from the store settles it here.

use std::path::PathBuf;

use seal::edgex::{ClearShares, Shares};

use super::{Custody, CustodyError, Keeping};

impl Custody<'_> {
    /// The new shares of a rekey that was cut short.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub fn next(&self) -> Result<Option<ClearShares>, CustodyError> {
        let file = self.next_file();
        if self.meta(&file)?.is_none() {
            return Ok(None);
        }
        match (self.read(&file)?.0, &self.keeping) {
            (Shares::Wrapped(wrapped), Keeping::Wrapped(ikm)) => Ok(Some(self.open(wrapped, ikm)?.shares)),
            (Shares::Clear(shares), Keeping::Plain(_)) => Ok(Some(shares)),
            (Shares::Wrapped(_), Keeping::Plain(_)) => Err(CustodyError::WrappedWithoutHook { file }),
            (Shares::Clear(_), Keeping::Wrapped(_)) => Err(CustodyError::ClearWithHook { file }),
        }
    }

    /// Keeps new shares beside the old ones: durable, read back and opened on return.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub(crate) fn keep_next(&self, shares: &ClearShares) -> Result<(), CustodyError> {
        let bytes = match &self.keeping {
            Keeping::Plain(allowed) => shares.plain_file(*allowed),
            Keeping::Wrapped(ikm) => shares.wrap(ikm, &self.salt_for_wrapping()?, self.entropy).encode(),
        };
        self.put(&self.next_file(), &bytes)
    }

    /// The store takes the new shares: they get the place of the old ones, which are gone on return.
    ///
    /// # Errors
    /// [`CustodyError`]; both are there then.
    pub fn take_next(&self) -> Result<(), CustodyError> {
        let next = self.next_file();
        self.disk
            .rename(&next, &self.file, true)
            .and_then(|()| self.disk.sync_dir(&self.dir))
            .map_err(|source| self.failed("put into its place", &next, source))?;
        // Last: a cut before it has the store rekeyed once more than it needs.
        self.forget_rekey()
    }

    /// The store takes the old shares: the new ones were never in force, and never will be.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub fn drop_next(&self) -> Result<(), CustodyError> {
        self.forget(&self.next_file())
    }

    /// Whether the shares lay in clear once, and have not been replaced since.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub fn rekey_is_due(&self) -> Result<bool, CustodyError> {
        Ok(matches!(self.keeping, Keeping::Wrapped(_)) && self.meta(&self.due())?.is_some())
    }

    pub(super) fn note_rekey_due(&self) -> Result<(), CustodyError> {
        let due = self.due();
        self.disk.replace(&due, b"", 0o600, None).map_err(|source| self.failed("write", &due, source))
    }

    pub(super) fn forget_rekey(&self) -> Result<(), CustodyError> {
        self.forget(&self.due())
    }

    pub(super) fn must_be_settled(&self) -> Result<(), CustodyError> {
        let file = self.next_file();
        match self.meta(&file)? {
            None => Ok(()),
            Some(_) => Err(CustodyError::Unsettled { file }),
        }
    }

    fn next_file(&self) -> PathBuf {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".next");
        self.file.with_file_name(name)
    }

    fn due(&self) -> PathBuf {
        self.dir.join(REKEY_DUE)
    }
}

const REKEY_DUE: &str = ".edgekeep-rekey.due";
