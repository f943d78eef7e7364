//! What readers, the writer and the callers' tasks have in common.
//!
//! `published` is what is committed, proven and may be shown. The writer alone changes it, after the commit is durable
//! and before anyone is told.

use std::sync::{Arc, Mutex, RwLock};

use host::{Clock, Entropy};

use crate::backend::{Id, NameRow};
use crate::batch::{Entry, ReadError};
use crate::cache::Cache;
use crate::entry::{self, Tag};
use crate::head::{BootEpoch, Head};
use crate::index::{Index, Leaf};
use crate::keyring::Keys;
use crate::lock::{Locked, lock};
use crate::names::{HiddenName, Kind};
use crate::time::Timeline;
use crate::wear::KeyWear;

/// One store's state in memory.
pub(crate) struct Shared {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) timeline: Timeline,
    pub(crate) wear: KeyWear,
    published: RwLock<Option<Published>>,
    cache: Mutex<Cache>,
    /// A boot epoch that the next commit is to record.
    pub(crate) pending_boot: Mutex<Option<BootEpoch>>,
}

/// What the last commit has left.
pub(crate) struct Published {
    pub(crate) keys: Arc<Keys>,
    pub(crate) index: Index,
    pub(crate) head: Head,
}

impl Shared {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        timeline: Timeline,
        published: Published,
        cache_bytes: usize,
        wear: KeyWear,
    ) -> Self {
        Self {
            clock,
            entropy,
            timeline,
            wear,
            published: RwLock::new(Some(published)),
            cache: Mutex::new(Cache::new(cache_bytes)),
            pending_boot: Mutex::new(None),
        }
    }

    /// Looks at what is published; `None` once sealed.
    pub(crate) fn look<T>(&self, at: impl FnOnce(&Published) -> T) -> Option<T> {
        self.published.reading().as_ref().map(at)
    }

    /// Changes what is published; `None` once sealed.
    pub(crate) fn publish<T>(&self, change: impl FnOnce(&mut Published) -> T) -> Option<T> {
        self.published.writing().as_mut().map(change)
    }

    pub(crate) fn keys(&self) -> Option<Arc<Keys>> {
        self.look(|p| Arc::clone(&p.keys))
    }

    /// Drops keys, index and cache: from here on there is nothing to answer with.
    pub(crate) fn seal(&self) {
        *self.published.writing() = None;
        lock(&self.cache).clear();
    }

    pub(crate) fn cached(&self, id: &Id, tag: &Tag) -> Option<Arc<[u8]>> {
        lock(&self.cache).get(id, tag)
    }

    pub(crate) fn keep(&self, id: Id, tag: Tag, bytes: Arc<[u8]>) {
        lock(&self.cache).put(id, tag, bytes);
    }

    pub(crate) fn forget(&self, id: &Id) {
        lock(&self.cache).remove(id);
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared(..)")
    }
}

/// The entry in bytes that were read for `leaf`; [`Unlike`] where they are not the ones that the head vouches for.
pub(crate) fn entry_in(keys: &Keys, name: &HiddenName, leaf: &Leaf, bytes: Option<&[u8]>) -> Result<Entry, Unlike> {
    let bytes = bytes.ok_or(Unlike("an entry's value is gone"))?;
    if entry::tag_of(bytes) != Some(leaf.tag) && host::in_force("reads-proven") {
        return Err(Unlike("an entry's value is not the one last written"));
    }
    let value = entry::open(keys, name, leaf.version, bytes).map_err(|rejected| Unlike(rejected.0))?;
    Ok(Entry { value, version: leaf.version })
}

/// The list in rows that were read for a directory, sorted; [`Unlike`] where they are not all, or not those vouched
/// for.
pub(crate) fn list_in(published: &Published, dir: &Id, rows: &[NameRow]) -> Result<Vec<String>, Unlike> {
    if u32::try_from(rows.len()) != Ok(published.index.children(dir)) {
        return Err(Unlike("a directory does not hold as many names as the head vouches for"));
    }
    let mut names = Vec::with_capacity(rows.len());
    for row in rows {
        let is_dir =
            published.index.vouches(row).ok_or(Unlike("a directory holds a name that no commit left there"))?;
        let kind = if is_dir { Kind::Dir } else { Kind::Entry };
        let mut name = published
            .keys
            .names()
            .show(dir, &row.name, kind)
            .ok_or(Unlike("a directory holds a name that belongs elsewhere"))?;
        if is_dir {
            name.push('/');
        }
        names.push((name, is_dir));
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Unlike("a directory holds a name twice"));
    }
    Ok(names.into_iter().map(|(name, _)| name).collect())
}

/// What was read is not what the head vouches for: a commit has come between, or somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unlike(pub(crate) &'static str);

impl From<Unlike> for ReadError {
    fn from(unlike: Unlike) -> Self {
        Self::Tampered { what: unlike.0 }
    }
}
