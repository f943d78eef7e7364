//! One request's view of the store: what it read becomes the condition of what it writes, and it is one commit.
//!
//! Optimistic: nothing is locked, and no transaction of the database is open while a request waits. A commit says "if
//! what I read is still so". If it is not, the request is run again from its authentication on.

use std::collections::BTreeMap;
use std::sync::Arc;

use host::{Clock, Entropy, WallTime};
use secret::SecretBytes;
use store::{Batch, Cond, Op, Store, StorePath, StoreTime, Version};

use crate::error::EngineError;
use crate::tokens::TokenId;

/// What every stage may ask: the store, the clock, random bytes.
pub(crate) struct Ground {
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// Reads and buffered writes of one request, below one place in the store. Paths are text, split at `/`.
pub struct Txn {
    ground: Arc<Ground>,
    base: StorePath,
    seen: Vec<(StorePath, Option<Version>)>,
    writes: BTreeMap<StorePath, Option<SecretBytes>>,
    bearer: Option<(TokenId, Version)>,
}

impl Txn {
    pub(crate) fn new(ground: &Arc<Ground>, base: StorePath) -> Self {
        Self { ground: Arc::clone(ground), base, seen: Vec::new(), writes: BTreeMap::new(), bearer: None }
    }

    /// The value at `path`, with this request's own writes applied.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read; a tampered entry is an error, never an absence.
    pub async fn get(&mut self, path: &str) -> Result<Option<SecretBytes>, EngineError> {
        let path = self.base.join(path)?;
        self.get_at(&path).await
    }

    /// Names directly below `path` (empty for the mount's root), sorted; a name with names below it ends in `/`. This
    /// request's own writes are in it, but a folder that it emptied still is too.
    ///
    /// A list is no condition of the commit: another request may add a name meanwhile.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn list(&mut self, path: &str) -> Result<Vec<String>, EngineError> {
        let path = self.base.join(path)?;
        self.list_at(&path).await
    }

    /// Writes `value` at `path`, when the request commits.
    ///
    /// # Errors
    /// [`EngineError`] if the path is too deep or a name too long.
    pub fn put(&mut self, path: &str, value: SecretBytes) -> Result<(), EngineError> {
        let path = self.base.join(path)?;
        self.put_at(path, value);
        Ok(())
    }

    /// Removes what is at `path`, when the request commits.
    ///
    /// # Errors
    /// [`EngineError`] if the path is too deep or a name too long.
    pub fn delete(&mut self, path: &str) -> Result<(), EngineError> {
        let path = self.base.join(path)?;
        self.delete_at(path);
        Ok(())
    }

    /// The store's time: monotone across boots, untouched by steps of the wall clock. TTLs count in it.
    pub fn now(&self) -> StoreTime {
        self.ground.store.now()
    }

    /// The wall clock, for what people read. Never decide access by it.
    pub fn wall(&self) -> WallTime {
        self.ground.clock.wall()
    }

    /// Random bytes that are fit for keys.
    pub fn fill(&self, out: &mut [u8]) {
        self.ground.entropy.fill(out);
    }

    /// HMAC-SHA-256 under the store's key for `purpose`. The caller makes the parts unambiguous.
    pub fn mac(&self, purpose: &'static str, parts: &[&[u8]]) -> [u8; 32] {
        self.ground.store.mac(purpose, parts)
    }

    /// Runs what follows below another place of the same request; give the result back to [`Txn::leave`].
    pub(crate) fn enter(&mut self, base: StorePath) -> StorePath {
        std::mem::replace(&mut self.base, base)
    }

    /// Goes back to where [`Txn::enter`] came from.
    pub(crate) fn leave(&mut self, outer: StorePath) {
        self.base = outer;
    }

    pub(crate) async fn get_at(&mut self, path: &StorePath) -> Result<Option<SecretBytes>, EngineError> {
        if let Some(own) = self.writes.get(path) {
            return Ok(own.as_ref().map(|v| SecretBytes::new(v.expose().to_vec())));
        }
        let entry = self.ground.store.get(path).await?;
        self.require(path.clone(), entry.as_ref().map(|e| e.version));
        Ok(entry.map(|e| e.value))
    }

    pub(crate) async fn list_at(&mut self, path: &StorePath) -> Result<Vec<String>, EngineError> {
        let mut names = self.ground.store.list(path).await?;
        let depth = path.components().len();
        for (own, value) in &self.writes {
            let Some(rest) = own.components().strip_prefix(path.components()) else { continue };
            let Some(name) = rest.first() else { continue };
            let name = if own.components().len() > depth + 1 { format!("{name}/") } else { name.clone() };
            match (names.binary_search(&name), value) {
                (Err(at), Some(_)) => names.insert(at, name),
                (Ok(at), None) if !name.ends_with('/') => drop(names.remove(at)),
                _ => {}
            }
        }
        Ok(names)
    }

    pub(crate) fn put_at(&mut self, path: StorePath, value: SecretBytes) {
        self.writes.insert(path, Some(value));
    }

    pub(crate) fn delete_at(&mut self, path: StorePath) {
        self.writes.insert(path, None);
    }

    /// Makes it a condition of the commit that `path` still has this version, or is still absent.
    pub(crate) fn require(&mut self, path: StorePath, version: Option<Version>) {
        // The first sight counts: if a second one differs, somebody was in between and the commit must fail.
        if !self.seen.iter().any(|(seen, _)| *seen == path) {
            self.seen.push((path, version));
        }
    }

    /// Makes it a condition of the commit that the caller's token is what it was when it was let in: no write of a
    /// revoked token takes effect after the revocation.
    pub(crate) fn on_behalf_of(&mut self, token: TokenId, version: Version) {
        self.bearer = Some((token, version));
    }

    /// Whether nothing was at `path` when this request looked.
    pub(crate) fn saw_absent(&self, path: &StorePath) -> bool {
        self.seen.iter().any(|(seen, version)| seen == path && version.is_none())
    }

    /// Whether there is nothing to commit.
    pub(crate) fn is_read_only(&self) -> bool {
        self.writes.is_empty()
    }

    /// The paths that a commit will touch.
    pub(crate) fn touched(&self) -> impl Iterator<Item = &StorePath> {
        self.writes.keys()
    }

    pub(crate) fn into_batch(mut self) -> Batch {
        if let Some((token, version)) = self.bearer {
            self.require(token.path(), Some(version));
        }
        let conds = self.seen.into_iter().map(|(path, version)| match version {
            Some(version) => Cond::VersionIs(path, version),
            None => Cond::Absent(path),
        });
        let ops = self.writes.into_iter().map(|(path, value)| match value {
            Some(value) => Op::Put(path, value),
            None => Op::Delete(path),
        });
        Batch { conds: conds.collect(), ops: ops.collect() }
    }
}

impl std::fmt::Debug for Txn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Txn({} read, {} to write)", self.seen.len(), self.writes.len())
    }
}
