//! The HTTP paths of kv, token, userpass, identity, sys.

#![cfg_attr(test, allow(clippy::unwrap_used))]
