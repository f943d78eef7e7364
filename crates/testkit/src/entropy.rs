//! Random bytes that come again with the same seed.

use std::sync::Mutex;

use host::Entropy;

/// SplitMix64 (Steele, Lea, Flood 2014) under a lock: good enough to spread test data, good for nothing else.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }

    /// The next number.
    pub fn number(&self) -> u64 {
        let mut state = self.0.lock().expect("no test panics while it draws");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is at least 1; its slight unevenness is of no matter to a test.
    pub fn below(&self, bound: usize) -> usize {
        usize::try_from(self.number() % u64::try_from(bound.max(1)).expect("a bound fits"))
            .expect("it is below the bound")
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.number().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let bytes = |seed| {
            let mut out = [0; 21];
            SeededEntropy::new(seed).fill(&mut out);
            out
        };
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
    }
}
