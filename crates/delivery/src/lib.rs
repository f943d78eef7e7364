//! How a token or credential reaches its service.

#![cfg_attr(test, allow(clippy::unwrap_used))]
