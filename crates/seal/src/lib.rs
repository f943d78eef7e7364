//! Key sources, derivation, key slots, recovery.

#![cfg_attr(test, allow(clippy::unwrap_used))]
