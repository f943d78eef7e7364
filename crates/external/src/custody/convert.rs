//! From one way of keeping shares to another, at somebody's word.
//!
//! The file is replaced whole: a cut at any moment leaves the shares in the one form or in the other.

use seal::Ikm;
use seal::edgex::{ClearShares, PlainSharesAllowed, Shares};

use super::{Custody, CustodyError, Keeping};

/// What became of shares that were to be wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encrypted {
    /// They lay in clear, and are wrapped now. A note says until the next rekey that they were seen.
    Now,
    /// They were wrapped under other key material, and are under ours now.
    Rewrapped,
    /// They were wrapped already.
    Already,
}

impl Custody<'_> {
    /// Wraps shares that lie in clear, in place of them; with `former`, shares that are wrapped under that instead of
    /// ours. A root token in the file stays until there is another ([`Custody::drop_root_token`]): it may be somebody's
    /// last resort.
    ///
    /// The bytes of before may stand in free blocks of a disk and in its copies; only new shares end them. The note
    /// that says so is durable before the first wrapped byte (`a_cut_between_wrapping_and_rekeying_is_remembered`).
    ///
    /// # Errors
    /// [`CustodyError`]; the file of before is then still there, whole.
    pub fn encrypt_existing(&self, former: Option<&Ikm>) -> Result<Encrypted, CustodyError> {
        let ikm = self.ikm()?;
        self.must_exist()?;
        match (self.read(&self.file)?.0, former) {
            (Shares::Clear(shares), _) => {
                self.note_rekey_due()?;
                self.put_wrapped(shares, ikm)?;
                Ok(Encrypted::Now)
            }
            (Shares::Wrapped(wrapped), None) => self.open(wrapped, ikm).map(|_| Encrypted::Already),
            (Shares::Wrapped(wrapped), Some(former)) => {
                // The new shares of a rekey that was cut short are under the former too, and would be lost.
                self.must_be_settled()?;
                self.put_wrapped(self.open(wrapped, former)?.shares, ikm)?;
                Ok(Encrypted::Rewrapped)
            }
        }
    }

    /// Puts wrapped shares back in clear, as EdgeX without a hook has them. `false`: they lie in clear already.
    ///
    /// # Errors
    /// [`CustodyError`]; the wrapped file is then still there, whole.
    pub fn decrypt_existing(&self, allowed: PlainSharesAllowed) -> Result<bool, CustodyError> {
        self.must_exist()?;
        self.must_be_settled()?;
        match self.read(&self.file)?.0 {
            Shares::Clear(_) => Ok(false),
            Shares::Wrapped(wrapped) => {
                let shares = self.open(wrapped, self.ikm()?)?.shares;
                let same = |back| matches!(back, Shares::Clear(c) if c.login().user == shares.login().user);
                self.put_so_that(&self.file, &shares.plain_file(allowed), same)?;
                // Clear shares have no need of a note that they were seen once.
                self.forget_rekey()?;
                Ok(true)
            }
        }
    }

    fn put_wrapped(&self, mut shares: ClearShares, ikm: &Ikm) -> Result<(), CustodyError> {
        let salt = self.salt_for_wrapping()?;
        let root_token = shares.root_token.take();
        let mut wrapped = shares.wrap(ikm, &salt, self.entropy);
        wrapped.root_token = root_token;
        self.put(&self.file, &wrapped.encode())
    }

    fn ikm(&self) -> Result<&Ikm, CustodyError> {
        match &self.keeping {
            Keeping::Wrapped(ikm) => Ok(ikm),
            Keeping::Plain(_) => Err(CustodyError::NoHook { file: self.file.clone() }),
        }
    }

    fn must_exist(&self) -> Result<(), CustodyError> {
        match self.meta(&self.file)? {
            Some(_) => Ok(()),
            None => Err(CustodyError::Missing { file: self.file.clone(), cut_short: false }),
        }
    }
}
