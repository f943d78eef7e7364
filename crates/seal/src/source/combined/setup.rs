//! What goes together: how many parts, of which kinds.

use super::slot::may_be_part;
use crate::slot::SourceKind;

/// Most parts of a combination.
pub const MAX_PARTS: usize = 8;

/// Refuses kinds of parts that do not go together.
///
/// # Errors
/// [`CombinedSetupError`].
pub fn check_parts(kinds: &[SourceKind], threshold: Option<u8>) -> Result<(), CombinedSetupError> {
    let count = kinds.len();
    if !(2..=MAX_PARTS).contains(&count) {
        return Err(CombinedSetupError::Parts { count });
    }
    if let Some(threshold) = threshold.filter(|t| *t == 0 || usize::from(*t) > count) {
        return Err(CombinedSetupError::Threshold { threshold, count });
    }
    match kinds.iter().position(|kind| !may_be_part(*kind)) {
        Some(at) => Err(CombinedSetupError::Kind { number: at + 1, kind: kinds[at] }),
        None => Ok(()),
    }
}

/// Sources that make no combination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CombinedSetupError {
    /// One alone, or more than a slot has room for.
    #[error("a combination of {count} sources; 2 to {MAX_PARTS} are taken")]
    Parts {
        /// How many were named.
        count: usize,
    },
    /// Zero, or more than there are parts.
    #[error("a threshold of {threshold} with {count} sources")]
    Threshold {
        /// The threshold.
        threshold: u8,
        /// How many parts there are.
        count: usize,
    },
    /// A combination within a combination, or the recovery key.
    #[error("part {number} is of kind `{kind}`, which is no part of a combination")]
    Kind {
        /// Which, from 1.
        number: usize,
        /// Its kind.
        kind: SourceKind,
    },
}
