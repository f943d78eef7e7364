//! A request as a chain of types: routed, authenticated, authorised, announced, done, recorded.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod engine;

pub use engine::{BoxFuture, Engine, EngineError, Outcome};
