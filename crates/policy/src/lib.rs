//! The policy language: text in, compiled rules in, decision out. No I/O, no clock, no logging.
//!
//! ```text
//! HCL 1 or JSON text --Policy::parse--> Policy --Compiled::merge (with the caller's identity)--> Compiled
//! Compiled --decide(Query)--> Granted: the proof that a rule allows it, or Denied: why none does
//! ```
//!
//! Exactly one rule decides a request: the one whose pattern fits the path best. Rules are joined only when their
//! pattern is the same text, and there `deny` wins. So a narrow allowance beats a broad denial, and the reverse.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod builtin;
mod capabilities;
mod compiled;
mod error;
mod hcl;
mod identity;
mod parameters;
mod parse;
mod pattern;
mod query;
mod rule;
mod template;

#[cfg(test)]
mod reference;

pub use builtin::{DEFAULT_NAME, DEFAULT_TEXT, ROOT_NAME};
pub use capabilities::Capabilities;
pub use compiled::{Compiled, MergeError};
pub use error::PolicyError;
pub use identity::{Alias, Entity, Group, Identity};
pub use parse::{MAX_POLICY_BYTES, Policy};
pub use query::{Action, Denied, DeniedWhy, Granted, Query};
