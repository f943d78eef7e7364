//! A whole device whose store is a real OpenBao behind TLS; the clock of the device alone is held.
//!
//! A component that is missing fails the test by its name; `EDGEKEEP_TEST_SKIP=clients` skips them all, and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod device;

mod guest;
mod owner;
mod policy;
mod strangers;
