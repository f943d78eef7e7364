//! Configuration: edgekeep.toml and EdgeX's own files, parsed once into types.

#![cfg_attr(test, allow(clippy::unwrap_used))]
