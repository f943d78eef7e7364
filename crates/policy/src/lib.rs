//! The policy language: text in, compiled rules in, decision out.

#![cfg_attr(test, allow(clippy::unwrap_used))]
