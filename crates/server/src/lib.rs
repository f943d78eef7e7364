//! Listeners, HTTP, the one table from error to reply.

#![cfg_attr(test, allow(clippy::unwrap_used))]
