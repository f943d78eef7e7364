//! Regions of pages, handed out in chunks. They live as long as the process does.

use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::chunks::{CHUNK_BYTES, Chunks};
use crate::pages::{Pages, Protection, page_size};

/// Pages, and what of them is taken.
struct Region {
    pages: Pages,
    chunks: Chunks,
}

static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());

/// Bytes of some region that are one owner's until [`Hold::release`].
pub(crate) struct Hold {
    pub(crate) start: NonNull<u8>,
    region: usize,
    first: usize,
    count: usize,
}

impl Hold {
    /// Takes `len` bytes, all of them zero.
    pub(crate) fn take(len: usize) -> io::Result<Self> {
        let count = len.div_ceil(CHUNK_BYTES).max(1);
        let mut regions = regions();
        let found = regions.iter_mut().enumerate().find_map(|(n, r)| r.chunks.take(count).map(|first| (n, first)));
        let (region, first) = match found {
            Some(found) => found,
            None => {
                let pages = count.div_ceil(page_size() / CHUNK_BYTES).max(PAGES);
                // A kernel that has refused the better pages once is not asked for each region again.
                let best = regions.last().map_or(Protection::Secret, |r| r.pages.protection);
                let pages = Pages::new(pages, best)?;
                let mut chunks = Chunks::new(pages.len() / CHUNK_BYTES);
                let first = chunks.take(count).ok_or(io::ErrorKind::OutOfMemory)?;
                regions.push(Region { pages, chunks });
                (regions.len() - 1, first)
            }
        };
        let start = regions[region].pages.address(first * CHUNK_BYTES);
        Ok(Self { start, region, first, count })
    }

    /// Gives the bytes back; the owner has wiped them.
    pub(crate) fn release(&self) {
        regions()[self.region].chunks.give_back(self.first, self.count);
    }
}

/// How secrets are kept now: the weakest of all regions. Before the first secret it says what the kernel would give.
pub fn protection() -> Protection {
    // One is taken if there is none: so it is asked and not guessed.
    if regions().is_empty()
        && let Ok(hold) = Hold::take(1)
    {
        hold.release();
    }
    regions().iter().map(|r| r.pages.protection).max().unwrap_or(Protection::Swappable)
}

/// A panic between two lines of ours leaves chunks taken that nobody has: never the reverse.
fn regions() -> MutexGuard<'static, Vec<Region>> {
    REGIONS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pages of a region: 512 keys.
const PAGES: usize = 4;
