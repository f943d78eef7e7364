//! Which key a segment is under.
//!
//! A change of the store's root key brings the audit a new key, and the ring goes on in a new segment under it. What lies
//! before stays as it is, and needs its former key to be proven. Whoever has that key cannot change it for all that:
//! every link goes into the next one, and the first header under the new key has the last of them. To end a chain of
//! other records in the same link, he would need a second preimage of SHA-256.
//!
//! ```text
//! generation    0 .. 4         5 .. 11        12 ..
//! key           former[0]      former[1]      newest           former: (key, 5), (key, 12)
//! ```

use super::chain::ChainKey;
use super::segment::RESERVE_SLOT;

/// The keys of a ring.
#[derive(Debug)]
pub struct ChainKeys {
    newest: ChainKey,
    /// With the first generation that each is not for, rising.
    former: Vec<(ChainKey, u64)>,
}

impl ChainKeys {
    /// Of a ring that has had one key.
    pub fn new(key: ChainKey) -> Self {
        Self { newest: key, former: Vec::new() }
    }

    /// With `next` from generation `begins` on, which is not lower than where today's key begins.
    #[must_use]
    pub fn turned(mut self, next: ChainKey, begins: u64) -> Self {
        self.turn(next, begins);
        self
    }

    pub(crate) fn turn(&mut self, next: ChainKey, begins: u64) {
        let begins = begins.max(self.begins());
        self.former.push((std::mem::replace(&mut self.newest, next), begins));
    }

    /// The first generation under the newest key.
    pub fn begins(&self) -> u64 {
        self.former.last().map_or(0, |(_, end)| *end)
    }

    /// For all that is written.
    pub(crate) fn newest(&self) -> &ChainKey {
        &self.newest
    }

    /// The key before the newest.
    pub(crate) fn latest_former(&self) -> Option<&ChainKey> {
        self.former.last().map(|(key, _)| key)
    }

    /// The one key that a segment may be under. The reserve counts for itself, and is under the newest: what lay in it
    /// has gone into the ring (`Ring::turn`).
    pub(crate) fn of(&self, slot: u32, generation: u64) -> &ChainKey {
        let former = self.former.iter().find(|(_, end)| generation < *end || !host::in_force("former-audit-key-ends"));
        match former {
            Some((key, _)) if slot != RESERVE_SLOT => key,
            _ => &self.newest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_one_key() {
        let key = |n: u8| ChainKey::new(&[n; 32]);
        let keys = ChainKeys::new(key(1)).turned(key(2), 5).turned(key(3), 12);
        let code = |key: &ChainKey| key.start(&[0; 16]);
        let of = |slot, generation| code(keys.of(slot, generation));
        for (generations, expected) in [(0..5, 1), (5..12, 2), (12..20, 3)] {
            for generation in generations {
                assert_eq!(of(0, generation), code(&key(expected)), "generation {generation}");
                assert_eq!(of(RESERVE_SLOT, generation), code(&key(3)), "the reserve");
            }
        }
        assert_eq!((keys.begins(), of(0, u64::MAX)), (12, code(&key(3))));
    }

    #[test]
    fn a_key_never_begins_before_the_one_that_it_follows() {
        let key = |n: u8| ChainKey::new(&[n; 32]);
        assert_eq!(ChainKeys::new(key(1)).turned(key(2), 9).turned(key(3), 4).begins(), 9);
    }
}
