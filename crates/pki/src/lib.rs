//! X.509 as pure functions.

#![cfg_attr(test, allow(clippy::unwrap_used))]
