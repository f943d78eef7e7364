//! How long one data key lasts.
//!
//! AES-256-GCM with random nonces: at most 2^32 times under one key (NIST SP 800-38D, 8.3). The writer counts what it
//! encrypts and the head keeps the count; a start, which has the root key in its hands, replaces a key long before.
//! What runs without a restart until the very end is refused further values rather than let two of them meet under one
//! nonce.

/// When a data key is replaced, and when it may not be used any more; counted in values encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyWear {
    /// [`rotate_if_worn`](crate::Store::rotate_if_worn) replaces a key that has encrypted so many.
    pub replace: u64,
    /// No value more is encrypted under it.
    pub end: u64,
}

impl Default for KeyWear {
    fn default() -> Self {
        Self { replace: 1 << 28, end: 1 << 32 }
    }
}

impl KeyWear {
    /// Whether `more` values may follow `so_far`.
    pub(crate) fn allows(self, so_far: u64, more: u64) -> bool {
        so_far.saturating_add(more) <= self.end || !host::in_force("data-keys-end")
    }
}
