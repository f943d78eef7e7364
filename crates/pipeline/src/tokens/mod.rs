//! The tokens: made, found, renewed, revoked.
//!
//! ```text
//! sys/token/<code of the token>          the entry: policies, parent, times
//! sys/accessor/<accessor>                the code, so that an accessor leads to the entry
//! sys/child/<code of parent>/<code>      the tree, downwards
//! ```
//! **A token lives only while all its ancestors do**, and the mounts where they logged in, which is looked at in one
//! place. So revoking a tree is one commit that removes its top, however large the tree: what hangs below is dead at
//! that moment and swept later.
//!
//! **Renewals are gathered.** A renewal every half hour, of twenty services, would write a device's flash a thousand
//! times a day. So an entry carries two ends: `expires`, as promised when it was written, and `keep_until`, up to one
//! TTL later (24 h at most). A renewal that ends before `keep_until` is only noted in memory. What is promised is
//! always durable, for `keep_until` is never before it; after a crash, when the notes are lost, `keep_until` is what
//! counts. So a crash never kills a live token; it may let a renewable one live longer by at most the head room, never
//! past its hard limit (`explicit_max_ttl`, `max_ttl`). A clean stop writes the exact ends down, and then they count.
//!
//! **Two classes.** A token that `boot` made for a service carries the kernel's boot id and is refused in every other
//! boot from the first request on, without a write.

mod entry;
mod issue;
mod keep;
mod live;
mod renew;
mod revoke;
mod spend;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secret::Token;
use store::{StorePath, StoreTime};

pub use entry::{TokenEntry, TokenId};
pub use issue::{Issued, NewToken};
pub(crate) use live::Generation;
pub use live::{Acl, LiveToken};
pub use renew::{Renewed, TtlRules};
pub(crate) use spend::{Spent, Use};

use crate::authz::Authorized;
use crate::engine::BoxFuture;
use crate::error::EngineError;
use crate::mounts::Mounts;
use crate::txn::{Ground, Txn};

/// The tokens of a store.
pub struct Tokens {
    ground: Arc<Ground>,
    mounts: Arc<Mounts>,
    boot_id: String,
    live: Mutex<HashMap<TokenId, Arc<LiveToken>>>,
    /// Counts the commits that changed or removed a token.
    generation: AtomicU64,
    /// Renewals that are not written down yet.
    noted: Mutex<HashMap<TokenId, keep::Note>>,
    /// This life of the process: the store's sequence number when it began, which no other life that wrote anything
    /// has.
    life: AtomicU64,
    /// The life before stopped cleanly, so that no renewal was lost.
    after_clean_stop: AtomicBool,
    sweep: tokio::sync::Mutex<keep::Sweep>,
    under_way: spend::UnderWay,
}

impl Tokens {
    pub(crate) fn new(ground: &Arc<Ground>, mounts: &Arc<Mounts>) -> Self {
        Self {
            ground: Arc::clone(ground),
            mounts: Arc::clone(mounts),
            boot_id: ground.clock.boot_id().to_string(),
            live: Mutex::default(),
            generation: AtomicU64::new(0),
            noted: Mutex::default(),
            life: AtomicU64::new(0),
            after_clean_stop: AtomicBool::new(false),
            sweep: tokio::sync::Mutex::default(),
            under_way: spend::UnderWay::default(),
        }
    }

    /// Where a token is kept.
    pub fn id(&self, token: &Token) -> TokenId {
        TokenId(self.ground.store.mac("token", &[token.expose().as_bytes()]))
    }

    /// The token that the caller presented, for the replies that give it back. Only an engine built with the tokens can
    /// ask.
    pub fn presented<'r>(&self, request: &'r Authorized<'_>) -> Option<&'r Token> {
        request.token()
    }

    /// The token with this id if it is good at this moment: there, of this boot, not used up, before its end, its mount
    /// there, and all its ancestors likewise.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn live(&self, id: TokenId) -> Result<Option<Arc<LiveToken>>, EngineError> {
        let live = self.known(id).await?;
        Ok(live.filter(|l| l.entry().uses_left != Some(0) && self.is_alive(l)))
    }

    /// The id of the token that an accessor names.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn by_accessor(&self, accessor: &str, txn: &mut Txn) -> Result<Option<TokenId>, EngineError> {
        let Ok(accessor) = secret::Accessor::parse(accessor) else { return Ok(None) };
        let bytes = txn.get_at(&entry::accessor_path(accessor.as_str())).await?;
        Ok(bytes.and_then(|b| TokenId::parse(std::str::from_utf8(b.expose()).ok()?)))
    }

    /// All accessors, in the order of their names.
    ///
    /// # Errors
    /// [`EngineError`] when the store cannot be read.
    pub async fn accessors(&self, txn: &mut Txn) -> Result<Vec<String>, EngineError> {
        txn.list_at(&entry::accessors_dir()).await
    }

    /// As a token or accessor stands in the audit: `hmac-sha256:` and 64 hexadecimal digits.
    pub fn code(&self, text: &[u8]) -> String {
        format!("hmac-sha256:{}", hex::encode(self.ground.store.mac("audit", &[text])))
    }

    /// Whether a loaded token and its ancestors stand at this moment, used up or not.
    pub(crate) fn is_alive(&self, live: &LiveToken) -> bool {
        live.is_alive(self.now(), &self.mounts)
    }

    /// The loaded token, used up or not. Whether it stands, [`Tokens::is_alive`] says.
    pub(crate) async fn known(&self, id: TokenId) -> Result<Option<Arc<LiveToken>>, EngineError> {
        let cached = self.cache().get(&id).cloned();
        match cached {
            Some(live) => Ok(Some(live)),
            None => self.load(id, 0).await,
        }
    }

    /// A commit changed or removed a token.
    pub(crate) fn changed(&self) {
        let mut cache = self.cache();
        self.generation.fetch_add(1, Ordering::AcqRel);
        cache.clear();
    }

    /// Whether a touched path is a token's entry.
    pub(crate) fn owns(path: &StorePath) -> bool {
        entry::token_of(path).is_some()
    }

    fn load(&self, id: TokenId, depth: usize) -> BoxFuture<'_, Result<Option<Arc<LiveToken>>, EngineError>> {
        Box::pin(async move {
            let generation = self.generation.load(Ordering::Acquire);
            let Some(found) = self.ground.store.get(&id.path()).await? else { return Ok(None) };
            let entry = TokenEntry::decode(found.value.expose())?;
            if entry.boot.as_ref().is_some_and(|boot| *boot != self.boot_id) && host::in_force("boot-epoch") {
                return Ok(None);
            }
            let parent = match entry.parent {
                None => None,
                // Deeper than any that can be made: a loop, so not our writing. Dead is the safe reading.
                Some(_) if depth >= MAX_DEPTH => return Ok(None),
                Some(parent) => {
                    let cached = self.cache().get(&parent).cloned();
                    let found = match cached {
                        Some(live) => Some(live),
                        None => self.load(parent, depth + 1).await?,
                    };
                    match found {
                        Some(live) => Some(live),
                        None => return Ok(None),
                    }
                }
            };
            let (expires_ms, renewed) = self.end_of(id, &entry);
            let accessor_code = self.code(entry.accessor.as_bytes());
            let live = Arc::new(LiveToken::new(id, entry, found.version, parent, expires_ms, accessor_code));
            if let (Some(end), Some(wall)) = (expires_ms, renewed) {
                live.renewed(end, wall);
            }
            let mut cache = self.cache();
            // What was read may be stale if a change was published meanwhile; then it serves this request alone.
            if generation == self.generation.load(Ordering::Acquire) {
                if cache.len() >= MAX_LIVE {
                    cache.clear();
                }
                // One value for each token, so that a renewal is seen by all its descendants.
                return Ok(Some(Arc::clone(cache.entry(id).or_insert(live))));
            }
            Ok(Some(live))
        })
    }

    fn now(&self) -> StoreTime {
        self.ground.store.now()
    }

    fn cache(&self) -> MutexGuard<'_, HashMap<TokenId, Arc<LiveToken>>> {
        // A map of whole values is sound even if a thread died while it held the lock.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(..)")
    }
}

/// Longest line of ancestors.
const MAX_DEPTH: usize = 16;
/// Tokens in memory; a full table is emptied. At about 1 KiB each.
const MAX_LIVE: usize = 2048;
