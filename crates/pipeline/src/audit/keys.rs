//! Which key a segment is under.
//!
//! A change of the store's root key brings the audit a new key, and the ring goes on in a new segment under it. What lies
//! before stays as it is, and needs its former key to be proven. Whoever has that key cannot change it for all that:
//! every link goes into the next one, and the first header under the new key has the last of them. To end a chain of
//! other records in the same link, he would need a second preimage of SHA-256. What he can do is cut the front off: a
//! ring that has gone round has no fixed beginning, so its oldest segments may be missing, or begin later.
//!
//! ```text
//! generation    0 .. 4         5 .. 11        12 ..
//! key           former[0]      former[1]      newest           former: (key, turned at 5), (key, turned at 12)
//! ```

use super::chain::{ChainKey, LINK_BYTES, Link};
use super::segment::RESERVE_SLOT;

/// Where a key has begun: all of its first header. The store keeps it, so that nobody's segments are needed to make that
/// header again, and none is made by what lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The first generation under the key.
    pub generation: u64,
    pub(crate) first_sequence: u64,
    /// The last link under the former key.
    pub(crate) start: Link,
    pub(crate) segments: u32,
    pub(crate) segment_bytes: u32,
}

impl Turned {
    /// Bytes of it, as the store keeps it.
    pub const BYTES: usize = 8 + 8 + LINK_BYTES + 4 + 4;

    /// Generation, first sequence, link, segments, bytes of a segment; numbers big-endian.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.generation.to_be_bytes());
        out[8..16].copy_from_slice(&self.first_sequence.to_be_bytes());
        out[16..48].copy_from_slice(&self.start);
        out[48..52].copy_from_slice(&self.segments.to_be_bytes());
        out[52..].copy_from_slice(&self.segment_bytes.to_be_bytes());
        out
    }

    /// The same again.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let number = |at: usize, n: usize| bytes[at..at + n].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let mut start = [0; LINK_BYTES];
        start.copy_from_slice(&bytes[16..48]);
        Self {
            generation: number(0, 8),
            first_sequence: number(8, 8),
            start,
            segments: number(48, 4) as u32,
            segment_bytes: number(52, 4) as u32,
        }
    }
}

/// The keys of a ring.
#[derive(Debug)]
pub struct ChainKeys {
    newest: ChainKey,
    /// With where the next one began, rising.
    former: Vec<(ChainKey, Turned)>,
}

impl ChainKeys {
    /// Of a ring that has had one key.
    pub fn new(key: ChainKey) -> Self {
        Self { newest: key, former: Vec::new() }
    }

    /// With `next` from there on, behind where today's key begins.
    #[must_use]
    pub fn turned(mut self, next: ChainKey, at: Turned) -> Self {
        self.turn(next, at);
        self
    }

    pub(crate) fn turn(&mut self, next: ChainKey, at: Turned) {
        self.former.push((std::mem::replace(&mut self.newest, next), at));
    }

    /// Where the newest key begins; `None` where it is the only one.
    pub(crate) fn latest(&self) -> Option<Turned> {
        self.former.last().map(|(_, turned)| *turned)
    }

    /// The first generation under the newest key.
    pub fn begins(&self) -> u64 {
        self.latest().map_or(0, |turned| turned.generation)
    }

    /// For all that is written.
    pub(crate) fn newest(&self) -> &ChainKey {
        &self.newest
    }

    /// The one key that a segment may be under. The reserve counts for itself, and is under the newest: what lay in it
    /// has gone into the ring (`Ring::turn`).
    pub(crate) fn of(&self, slot: u32, generation: u64) -> &ChainKey {
        let is_of = |turned: &Turned| generation < turned.generation || !host::in_force("former-audit-key-ends");
        let former = self.former.iter().find(|(_, turned)| is_of(turned));
        match former {
            Some((key, _)) if slot != RESERVE_SLOT => key,
            _ => &self.newest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(generation: u64) -> Turned {
        Turned { generation, first_sequence: 77, start: [8; 32], segments: 3, segment_bytes: 65_536 }
    }

    #[test]
    fn each_generation_has_one_key() {
        let key = |n: u8| ChainKey::new(&[n; 32]);
        let keys = ChainKeys::new(key(1)).turned(key(2), at(5)).turned(key(3), at(12));
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
    fn where_a_key_began_is_kept_whole() {
        let bytes = at(0x0102).to_bytes();
        assert_eq!(
            (&bytes[..9], bytes[15], &bytes[48..]),
            (&[0, 0, 0, 0, 0, 0, 1, 2, 0][..], 77, &[0, 0, 0, 3, 0, 1, 0, 0][..])
        );
        assert_eq!(Turned::from_bytes(&bytes), at(0x0102));
    }
}
