//! The HTTP paths of kv, token, userpass, identity, sys: a folder an engine, a file a path.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod input;
mod token;

pub use token::TokenEngine;
