//! `security-secretstore-setup` and `security-file-token-provider` against the real OpenBao, with EdgeX's own
//! configuration files.
//!
//! A component that is missing fails the test by its name; `EDGEKEEP_TEST_SKIP=clients` skips them all, and says so.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs)]

mod bao;
mod place;

mod cluster;
mod figure;
mod kills;
mod long_run;
mod migrate;
mod refusals;
mod runs;
mod tls;
mod tokens;
mod watch;
