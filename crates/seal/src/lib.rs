//! Key sources, derivation, key slots, recovery.
