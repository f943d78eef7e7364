//! A token in memory: checked once, then good until a commit touches any token.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use policy::Compiled;
use store::{StoreTime, Version};

use super::entry::{TokenEntry, TokenId};
use crate::mounts::Mounts;
use crate::sink::ActorRecord;

/// What a token may do now.
#[derive(Debug)]
pub struct Acl {
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) identity_policies: Vec<String>,
}

/// The numbers of policies, identities and mounts under which something was compiled.
pub(crate) type Generation = [u64; 3];

/// The policies, and when they were compiled. `None`: the token's entity is gone.
type CachedAcl = Option<(Generation, Option<Arc<Acl>>)>;

/// A token that was in the store, with its ancestors, when it was loaded.
pub struct LiveToken {
    id: TokenId,
    entry: TokenEntry,
    version: Version,
    parent: Option<Arc<LiveToken>>,
    /// Milliseconds of the store's time; `u64::MAX` for never. Renewals move it.
    expires_ms: AtomicU64,
    /// The last renewal by the wall clock, nanoseconds since 1970; zero for none.
    renewed_wall: AtomicI64,
    token_code: OnceLock<String>,
    accessor_code: String,
    acl: Mutex<CachedAcl>,
}

impl LiveToken {
    pub(crate) fn new(
        id: TokenId,
        entry: TokenEntry,
        version: Version,
        parent: Option<Arc<LiveToken>>,
        expires_ms: Option<u64>,
        accessor_code: String,
    ) -> Self {
        let renewed = entry.renewed_wall.and_then(|w| i64::try_from(w).ok()).unwrap_or(0);
        Self {
            id,
            entry,
            version,
            parent,
            expires_ms: AtomicU64::new(expires_ms.unwrap_or(u64::MAX)),
            renewed_wall: AtomicI64::new(renewed),
            token_code: OnceLock::new(),
            accessor_code,
            acl: Mutex::new(None),
        }
    }

    /// What the store keeps of it. Its end may have moved since: see [`LiveToken::expires`].
    pub fn entry(&self) -> &TokenEntry {
        &self.entry
    }

    /// Its place in the store.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// When it ends; `None` for never.
    pub fn expires(&self) -> Option<StoreTime> {
        Some(self.expires_ms.load(Ordering::Acquire)).filter(|ms| *ms != u64::MAX).map(StoreTime)
    }

    /// Seconds left at `now`, rounded down; zero for a token that never ends.
    pub fn ttl_seconds(&self, now: StoreTime) -> u64 {
        self.expires().map_or(0, |end| now.until(end).as_secs())
    }

    /// The last renewal by the wall clock, nanoseconds since 1970.
    pub fn renewed_wall(&self) -> Option<i128> {
        Some(self.renewed_wall.load(Ordering::Acquire)).filter(|w| *w != 0).map(i128::from)
    }

    /// Whether it, and all that it descends from, still stand at `now`: before their ends (a token lives in the
    /// half-open time before its end), and where they logged in at a mount, that mount is there.
    pub(crate) fn is_alive(&self, now: StoreTime, mounts: &Mounts) -> bool {
        self.expires().is_none_or(|end| now < end || !host::in_force("tokens-expire"))
            && self
                .entry
                .mount
                .as_ref()
                .is_none_or(|accessor| mounts.has(accessor) || !host::in_force("logins-end-with-mount"))
            && self.parent.as_ref().is_none_or(|p| p.is_alive(now, mounts))
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// How many ancestors it has.
    pub(crate) fn depth(&self) -> usize {
        self.parent.as_ref().map_or(0, |p| p.depth() + 1)
    }

    pub(crate) fn renewed(&self, expires_ms: u64, wall: i128) {
        self.expires_ms.store(expires_ms, Ordering::Release);
        self.renewed_wall.store(i64::try_from(wall).unwrap_or(i64::MAX), Ordering::Release);
    }

    pub(crate) fn set_token_code(&self, code: impl FnOnce() -> String) {
        self.token_code.get_or_init(code);
    }

    pub(crate) fn record(&self) -> ActorRecord<'_> {
        ActorRecord::Token {
            token_code: self.token_code.get().map_or("", String::as_str),
            accessor_code: &self.accessor_code,
            display_name: &self.entry.display_name,
            policies: &self.entry.policies,
            entity_id: &self.entry.entity_id,
        }
    }

    pub(crate) fn cached_acl(&self, generation: Generation) -> Option<Option<Arc<Acl>>> {
        let cached = self.acl.lock().unwrap_or_else(PoisonError::into_inner);
        cached.as_ref().filter(|(of, _)| *of == generation).map(|(_, acl)| acl.clone())
    }

    pub(crate) fn cache_acl(&self, generation: Generation, acl: Option<Arc<Acl>>) {
        *self.acl.lock().unwrap_or_else(PoisonError::into_inner) = Some((generation, acl));
    }
}

impl std::fmt::Debug for LiveToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LiveToken({:?} {})", self.id, self.entry.display_name)
    }
}
