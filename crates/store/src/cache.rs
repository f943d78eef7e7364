//! Sealed values that were read or written lately, bounded by their bytes.
//!
//! Ciphertext only: the cache is no place where a clear secret lies. An entry is asked for by id *and* tag, and the tag
//! comes from the index, so that a stale one is simply not found. Second chance (clock) decides who leaves.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::backend::Id;
use crate::entry::Tag;
use crate::index::IdMap;

/// A bounded cache; a capacity of 0 keeps nothing.
#[derive(Debug)]
pub(crate) struct Cache {
    capacity_bytes: usize,
    bytes: usize,
    entries: IdMap<Cached>,
    hand: VecDeque<Id>,
}

#[derive(Debug)]
struct Cached {
    tag: Tag,
    bytes: Arc<[u8]>,
    used: bool,
}

impl Cache {
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        Self { capacity_bytes, bytes: 0, entries: IdMap::default(), hand: VecDeque::new() }
    }

    pub(crate) fn get(&mut self, id: &Id, tag: &Tag) -> Option<Arc<[u8]>> {
        let cached = self.entries.get_mut(id).filter(|c| c.tag == *tag)?;
        cached.used = true;
        Some(Arc::clone(&cached.bytes))
    }

    /// Keeps a value, if it is not out of proportion: one reader of large values shall not empty the cache for all.
    pub(crate) fn put(&mut self, id: Id, tag: Tag, bytes: Arc<[u8]>) {
        let cost = cost(&bytes);
        if cost > self.capacity_bytes / 8 {
            self.remove(&id);
            return;
        }
        match self.entries.insert(id, Cached { tag, bytes, used: false }) {
            Some(old) => self.bytes -= self::cost(&old.bytes),
            None => self.hand.push_back(id),
        }
        self.bytes += cost;
        while self.bytes > self.capacity_bytes {
            let Some(oldest) = self.hand.pop_front() else { break };
            match self.entries.get_mut(&oldest) {
                Some(cached) if cached.used => {
                    cached.used = false;
                    self.hand.push_back(oldest);
                }
                Some(_) => self.forget(&oldest),
                None => {}
            }
        }
    }

    pub(crate) fn remove(&mut self, id: &Id) {
        if self.entries.contains_key(id) {
            self.forget(id);
            self.hand.retain(|other| other != id);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.capacity_bytes);
    }

    fn forget(&mut self, id: &Id) {
        if let Some(old) = self.entries.remove(id) {
            self.bytes -= cost(&old.bytes);
        }
    }
}

/// The value and about what the maps around it cost.
fn cost(bytes: &[u8]) -> usize {
    bytes.len() + 128
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &mut Cache, n: u8, length: usize) {
        cache.put([n; 16], [n; 16], vec![n; length].into());
    }

    #[test]
    fn a_stale_tag_is_not_found() {
        let mut cache = Cache::new(100_000);
        put(&mut cache, 1, 10);
        assert!(cache.get(&[1; 16], &[1; 16]).is_some());
        assert!(cache.get(&[1; 16], &[2; 16]).is_none());
        cache.remove(&[1; 16]);
        assert!(cache.get(&[1; 16], &[1; 16]).is_none());
    }

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_used() {
        let mut cache = Cache::new(10_000);
        put(&mut cache, 0, 900);
        for n in 1..=200 {
            assert!(cache.get(&[0; 16], &[0; 16]).is_some(), "asked for each time, before {n}");
            put(&mut cache, n, 900);
            assert!(cache.bytes <= 10_000);
            assert_eq!(cache.entries.len(), cache.hand.len());
        }
        put(&mut cache, 201, 5_000);
        assert!(cache.get(&[201; 16], &[201; 16]).is_none(), "out of proportion");
    }
}
