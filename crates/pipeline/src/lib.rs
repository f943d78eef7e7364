//! A request as a chain of types: routed, authenticated, authorised, announced, done, recorded.

mod engine;

pub use engine::{BoxFuture, Engine, EngineError, Outcome};
