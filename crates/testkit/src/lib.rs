//! Fakes and contract suites, for tests alone.

#![cfg_attr(test, allow(clippy::unwrap_used))]
