//! Tokens with a number of uses: each request is paid for before it is looked at.

use store::{Batch, CommitError, Cond, Op};

use super::Tokens;
use super::entry::{TokenEntry, TokenId};
use crate::error::EngineError;

/// What a request paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Nothing: its token has no such limit, or is no token.
    No,
    /// One use.
    One,
    /// The last use: the token is revoked when the request is done.
    Last,
}

impl Tokens {
    /// Takes one use off, durably, before the request runs: a crash may lose the use, never give one twice.
    pub(crate) async fn spend(&self, id: TokenId) -> Result<Spent, EngineError> {
        for _ in 0..TRIES {
            match self.live(id).await? {
                Some(live) if live.entry().uses_left.is_some() => {}
                _ => return Ok(Spent::No),
            }
            // The cached entry may be one use behind.
            let Some(found) = self.ground.store.get(&id.path()).await? else { return Ok(Spent::No) };
            let mut entry = TokenEntry::decode(found.value.expose())?;
            let Some(left) = entry.uses_left.and_then(|left| left.checked_sub(1)) else { return Ok(Spent::No) };
            entry.uses_left = Some(left);
            let conds = vec![Cond::VersionIs(id.path(), found.version)];
            let committed =
                self.ground.store.commit(Batch { conds, ops: vec![Op::Put(id.path(), entry.encode())] }).await;
            self.changed();
            match committed {
                Ok(_) if left == 0 => return Ok(Spent::Last),
                Ok(_) => return Ok(Spent::One),
                Err(CommitError::Conflict) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(EngineError::busy("many requests spend the uses of one token"))
    }
}

const TRIES: usize = 16;
