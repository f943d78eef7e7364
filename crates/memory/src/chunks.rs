//! Which parts of a region are taken: a bit for each chunk of 32 bytes, which is a key.

/// Bytes of a chunk.
pub(crate) const CHUNK_BYTES: usize = 32;

/// A map of chunks.
pub(crate) struct Chunks {
    taken: Vec<bool>,
}

impl Chunks {
    /// So many, all free.
    pub(crate) fn new(count: usize) -> Self {
        Self { taken: vec![false; count] }
    }

    /// Takes `count` chunks that lie side by side; the first of them.
    pub(crate) fn take(&mut self, count: usize) -> Option<usize> {
        let mut free = 0;
        for at in 0..self.taken.len() {
            free = if self.taken[at] { 0 } else { free + 1 };
            if free == count {
                let first = at + 1 - count;
                self.taken[first..=at].fill(true);
                return Some(first);
            }
        }
        None
    }

    /// Gives them back.
    pub(crate) fn give_back(&mut self, first: usize, count: usize) {
        self.taken[first..first + count].fill(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn side_by_side_and_never_twice() {
        let mut chunks = Chunks::new(8);
        assert_eq!((chunks.take(3), chunks.take(1), chunks.take(4)), (Some(0), Some(3), Some(4)));
        assert_eq!(chunks.take(1), None);
        chunks.give_back(1, 2);
        assert_eq!((chunks.take(3), chunks.take(2), chunks.take(1)), (None, Some(1), None));
        chunks.give_back(0, 8);
        assert_eq!((chunks.take(9), chunks.take(8)), (None, Some(0)));
    }
}
