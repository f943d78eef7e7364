//! The whole executable, driven as its users drive it, against real clients and real servers.
//!
//! A component that is missing fails the test by its name; `EDGEKEEP_TEST_SKIP=redis,postgres,...` skips it by name,
//! and the threats that it covers count as open in that run.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod char_device;
mod chip;
mod device;
mod ikm;
mod part;
mod server;
mod wire;

mod bootstrapper;
mod check;
mod clients;
mod clock;
mod combined;
mod containers;
mod credentials;
mod entry;
mod external;
mod factory;
mod keeper;
mod memory;
mod namespaces;
mod operator;
mod processors;
mod refusals;
mod residue;
mod restarts;
mod signals;
mod slots;
mod sources;
mod systemd;
mod tpm;
