//! Whether a source of this process may have given key material, and the end of it: one latch for all of them.
//!
//! ```text
//! open --a source is about to give--> passed      for good: what came of it is not asked
//! open --`shut`--> shut                           for good: no source gives anything any more
//! ```
//! Of the two the first to come decides, so that "nothing was released" stays true of a call that still hangs in the
//! hardware.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::SourceError;

/// Shared by the sources of a process; clones are the same latch.
#[derive(Clone, Debug, Default)]
pub struct ReleaseLatch(Arc<AtomicU8>);

impl ReleaseLatch {
    /// Shuts it, unless something may have been released. Whether nothing was, and nothing will be.
    pub fn shut(&self) -> bool {
        self.turn(SHUT) == SHUT || !host::in_force("release-latched")
    }

    /// To be called before the first command that may give key material, or count a release.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] if it is shut: that command must not be sent.
    pub(super) fn pass(&self, what: &str) -> Result<(), SourceError> {
        match self.turn(PASSED) {
            SHUT => Err(SourceError::Unreachable { what: what.into(), defect: "edgekeep is ending".into() }),
            _ => Ok(()),
        }
    }

    /// Where it stands after somebody wanted it to stand at `wanted`.
    fn turn(&self, wanted: u8) -> u8 {
        self.0
            .compare_exchange(OPEN, wanted, Ordering::AcqRel, Ordering::Acquire)
            .map_or_else(|stands| stands, |_| wanted)
    }
}

const OPEN: u8 = 0;
const PASSED: u8 = 1;
const SHUT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_first_decides() {
        let (released, ended) = (ReleaseLatch::default(), ReleaseLatch::default());
        let same = released.clone();
        released.pass("a TPM").unwrap();
        assert!(!same.shut(), "something may have been released");
        same.pass("a TPM").unwrap();
        assert!(ended.shut() && ended.shut());
        let refused = ended.pass("a TPM").unwrap_err();
        assert_eq!(refused.to_string(), "a TPM cannot be reached: edgekeep is ending");
    }
}
