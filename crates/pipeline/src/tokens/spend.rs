//! Tokens with a number of uses: each request is paid for before it is looked at.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use store::{Batch, CommitError, Cond, Op};

use super::Tokens;
use super::entry::{TokenEntry, TokenId};
use crate::error::EngineError;

/// What a request paid with its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Nothing: its token has no such limit, or is no token.
    No,
    /// Nothing: the path is open to all, and asks for no use.
    Open,
    /// One use, durably.
    One,
    /// Nothing, for nothing was left: whatever a cache still says, the token is good for nothing.
    Refused,
}

impl Spent {
    /// Whether a request that paid this may go by a token with so many uses left.
    pub(crate) fn pays_for(self, uses_left: Option<u64>) -> bool {
        match uses_left {
            None => true,
            Some(left) => self == Self::One || (self == Self::Open || !host::in_force("uses-counted")) && left > 0,
        }
    }
}

/// A use that was paid for, from before its payment until its request is done.
#[derive(Debug)]
pub(crate) struct Use<'t> {
    under_way: &'t UnderWay,
    id: TokenId,
}

/// How many uses of each token are under way: while there is one, the token stays, used up or not.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<HashMap<TokenId, usize>>);

impl Tokens {
    /// Takes one use off, durably, before the request runs: a crash may lose the use, never give one twice.
    pub(crate) async fn spend(&self, id: TokenId) -> Result<(Spent, Option<Use<'_>>), EngineError> {
        for _ in 0..TRIES {
            match self.live(id).await? {
                Some(live) if live.entry().uses_left.is_some() => {}
                _ => return Ok((Spent::No, None)),
            }
            // Before the payment: whoever pays for the last use must see this one under way.
            let using = self.under_way.enter(id);
            // The cached entry may be one use behind, until whoever spent that use comes to say so.
            let Some(found) = self.ground.store.get(&id.path()).await? else { return Ok((self.used_up(), None)) };
            let mut entry = TokenEntry::decode(found.value.expose())?;
            let Some(left) = entry.uses_left.and_then(|left| left.checked_sub(1)) else {
                return Ok((self.used_up(), None));
            };
            entry.uses_left = Some(left);
            let conds = vec![Cond::VersionIs(id.path(), found.version)];
            let committed =
                self.ground.store.commit(Batch { conds, ops: vec![Op::Put(id.path(), entry.encode())] }).await;
            self.changed();
            match committed {
                Ok(_) => return Ok((Spent::One, Some(using))),
                Err(CommitError::Conflict) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(EngineError::busy("many requests spend the uses of one token"))
    }

    /// The token of a use that is over, if it was the last of those under way and there is none left to come.
    pub(crate) async fn used_last(&self, used: Use<'_>) -> Result<Option<TokenId>, EngineError> {
        let id = used.id;
        drop(used);
        if self.under_way.lock().contains_key(&id) {
            return Ok(None);
        }
        let Some(found) = self.ground.store.get(&id.path()).await? else { return Ok(None) };
        Ok((TokenEntry::decode(found.value.expose())?.uses_left == Some(0)).then_some(id))
    }

    /// The store has no use for this request, though a cache had one.
    fn used_up(&self) -> Spent {
        if host::in_force("uses-counted") {
            self.changed();
        }
        Spent::Refused
    }
}

impl UnderWay {
    fn enter(&self, id: TokenId) -> Use<'_> {
        *self.lock().entry(id).or_insert(0) += 1;
        Use { under_way: self, id }
    }

    /// Counts are whole even if a thread died while it held the lock.
    fn lock(&self) -> MutexGuard<'_, HashMap<TokenId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is given up, its client gone, ends its use as well.
impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        if let Some(count) = under_way.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.id);
            }
        }
    }
}

const TRIES: usize = 16;
