//! Configuration: edgekeep.toml and EdgeX's own files, parsed once into types.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(dead_code, unused_imports)]

mod document;
mod fault;

pub use fault::{Fault, Faults, Place};
