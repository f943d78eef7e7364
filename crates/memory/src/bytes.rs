//! Secret bytes in locked pages.

use std::fmt;
use std::slice;

use zeroize::Zeroize;

use crate::region::Hold;

/// Bytes that live in a region of locked pages, and nowhere else unless somebody copies them. Wiped when dropped.
pub struct LockedBytes {
    hold: Hold,
    len: usize,
}

// SAFETY: the bytes have one owner, who gives out shared references by `&self` and the exclusive one by `&mut self`;
// the pages they lie in are never unmapped and belong to no thread.
unsafe impl Send for LockedBytes {}
// SAFETY: as above; nothing is changed through `&self`.
unsafe impl Sync for LockedBytes {}

impl LockedBytes {
    /// `len` zeros.
    ///
    /// # Panics
    /// When the kernel has no page left, as any allocation ends.
    pub fn zeroed(len: usize) -> Self {
        let hold = Hold::take(len).unwrap_or_else(|e| panic!("no memory for {len} secret bytes: {e}"));
        Self { hold, len }
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        // SAFETY: `len` bytes at least are held, were zero when the kernel gave them or are wiped since, and nobody
        // else has them.
        unsafe { slice::from_raw_parts(self.hold.start.as_ptr(), self.len) }
    }

    /// The bytes, to be written.
    pub fn expose_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `expose`, and `&mut self` is the only way to them for as long as this lives.
        unsafe { slice::from_raw_parts_mut(self.hold.start.as_ptr(), self.len) }
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.expose_mut().zeroize();
        self.hold.release();
    }
}

impl fmt::Debug for LockedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockedBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_bytes_of_its_own_whatever_their_number() {
        let mut held: Vec<LockedBytes> = (0..3000).map(|n| LockedBytes::zeroed(1 + n % 100)).collect();
        for (n, bytes) in held.iter_mut().enumerate() {
            assert!(bytes.expose().iter().all(|b| *b == 0), "{n}");
            bytes.expose_mut().fill((n % 251) as u8 + 1);
        }
        for (n, bytes) in held.iter().enumerate() {
            assert_eq!(bytes.expose().len(), 1 + n % 100);
            assert!(bytes.expose().iter().all(|b| *b == (n % 251) as u8 + 1), "{n}");
        }
        assert_eq!(LockedBytes::zeroed(0).expose(), b"");
        let long = LockedBytes::zeroed(3 * 4096 * 8);
        assert!(long.expose().iter().all(|b| *b == 0));
    }

    #[test]
    fn what_is_given_back_was_wiped() {
        let mut bytes = LockedBytes::zeroed(4096);
        // What no other test of this process writes, for another may have the chunk a moment later.
        bytes.expose_mut().fill(0xff);
        let start = bytes.hold.start;
        drop(bytes);
        let read = |at| {
            // SAFETY: one of the bytes that were held; their pages stay mapped as long as the process lives.
            let byte = unsafe { start.as_ptr().add(at) };
            // SAFETY: as above, and any value is a byte. Another test may take the chunks and write to them meanwhile:
            // so each is read by itself, and volatile, and nothing is made of what it holds but whether it is ours.
            unsafe { byte.read_volatile() }
        };
        let seen: Vec<u8> = (0..4096).map(read).collect();
        assert!(!seen.windows(64).any(|w| w.iter().all(|b| *b == 0xff)));
    }

    #[test]
    fn threads_take_and_give_back_at_once() {
        let work = |seed: u8| {
            move || {
                for round in 0..500_usize {
                    let mut mine = LockedBytes::zeroed(1 + round % 200);
                    mine.expose_mut().fill(seed);
                    std::thread::yield_now();
                    assert!(mine.expose().iter().all(|b| *b == seed));
                }
            }
        };
        let threads: Vec<_> = (1..=4).map(|n| std::thread::spawn(work(n))).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn nothing_is_printed() {
        assert_eq!(format!("{:?}", LockedBytes::zeroed(3)), "LockedBytes(..)");
    }
}
