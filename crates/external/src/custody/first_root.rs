//! The first root token of a store that was made just now, until the login of its shares is there: OpenBao 2.6 and
//! later let in nobody else, and a run that is killed between the two would leave a store that nobody can administer.
//!
//! It lies wrapped under all shares together, and so gives nobody more than the shares do. It ends with the run that
//! uses it.

use seal::edgex::ClearShares;
use secret::Token;

use super::{Custody, CustodyError};

impl Custody<'_> {
    /// Keeps it; durable on return.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub(crate) fn keep_first_root(&self, shares: &ClearShares, token: &Token) -> Result<(), CustodyError> {
        let file = self.dir.join(FIRST_ROOT);
        let wrapped = shares.wrap_token(token, self.entropy);
        self.disk.replace(&file, &wrapped, 0o600, None).map_err(|source| self.failed("write", &file, source))
    }

    /// It, if it is there and these shares open it.
    ///
    /// # Errors
    /// [`CustodyError`].
    pub(crate) fn first_root(&self, shares: &ClearShares) -> Result<Option<Token>, CustodyError> {
        if !self.has_first_root()? {
            return Ok(None);
        }
        let file = self.dir.join(FIRST_ROOT);
        let wrapped = self.disk.read(&file, MAX_BYTES).map_err(|source| self.failed("read", &file, source))?;
        Ok(shares.open_token(&wrapped))
    }

    pub(crate) fn has_first_root(&self) -> Result<bool, CustodyError> {
        Ok(self.meta(&self.dir.join(FIRST_ROOT))?.is_some())
    }

    pub(crate) fn forget_first_root(&self) -> Result<(), CustodyError> {
        self.forget(&self.dir.join(FIRST_ROOT))
    }
}

const FIRST_ROOT: &str = ".edgekeep-first-root";
const MAX_BYTES: usize = 8192;
