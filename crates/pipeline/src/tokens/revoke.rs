//! Taking tokens back, with all that they made.

use super::Tokens;
use super::entry::{self, TokenEntry, TokenId};
use crate::error::EngineError;
use crate::txn::Txn;

impl Tokens {
    /// Revokes a token and its tree; `false` if it is not there. With the commit all of the tree is dead, though of a
    /// very large one some entries are swept later.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn revoke(&self, id: TokenId, txn: &mut Txn) -> Result<bool, EngineError> {
        let Some(top) = self.entry_of(id, txn).await? else { return Ok(false) };
        self.remove(id, &top, txn);
        let mut below = vec![id];
        let mut left = TREE_AT_ONCE;
        while let Some(parent) = below.pop() {
            for name in txn.list_at(&parent.children()).await? {
                let Some(child) = TokenId::parse(&name) else { continue };
                // What does not fit into one commit is dead without its ancestor, and the sweep finds it.
                if left == 0 {
                    return Ok(true);
                }
                left -= 1;
                txn.delete_at(parent.child(child));
                if let Some(found) = self.entry_of(child, txn).await? {
                    self.remove(child, &found, txn);
                    below.push(child);
                }
            }
        }
        Ok(true)
    }

    /// Revokes a token and lets its children stand by themselves; `false` if it is not there, or is at its end: its
    /// children ended with it, and to free them then would be to bring them to life.
    ///
    /// # Errors
    /// 400 with more children than one commit can free.
    pub async fn revoke_orphan(&self, id: TokenId, txn: &mut Txn) -> Result<bool, EngineError> {
        if self.live(id).await?.is_none() && host::in_force("no-life-after-end") {
            return Ok(false);
        }
        let Some(top) = self.entry_of(id, txn).await? else { return Ok(false) };
        let children = txn.list_at(&id.children()).await?;
        if children.len() > TREE_AT_ONCE {
            let told = format!("the token has {} children; at most {TREE_AT_ONCE} can be made orphans", children.len());
            return Err(EngineError::bad_request(told));
        }
        for child in children.iter().filter_map(|name| TokenId::parse(name)) {
            txn.delete_at(id.child(child));
            // Its parent goes in the same commit: at no moment does it hang below what is not there.
            if let Some(mut found) = self.entry_of(child, txn).await? {
                found.parent = None;
                txn.put_at(child.path(), found.encode());
            }
        }
        self.remove(id, &top, txn);
        Ok(true)
    }

    async fn entry_of(&self, id: TokenId, txn: &mut Txn) -> Result<Option<TokenEntry>, EngineError> {
        let bytes = txn.get_at(&id.path()).await?;
        bytes.map(|b| TokenEntry::decode(b.expose())).transpose()
    }

    fn remove(&self, id: TokenId, found: &TokenEntry, txn: &mut Txn) {
        txn.delete_at(id.path());
        txn.delete_at(entry::accessor_path(&found.accessor));
        if let Some(parent) = found.parent {
            txn.delete_at(parent.child(id));
        }
    }
}

/// Tokens in one commit: a condition and three operations each stay below the store's 1024.
const TREE_AT_ONCE: usize = 200;
