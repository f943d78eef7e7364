//! What a mount must be able to do.

use std::future::Future;
use std::pin::Pin;

/// A future of an object-safe `async fn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Placeholder until the stages stand.
pub trait Engine: Send + Sync {}

/// Placeholder until the stages stand.
#[derive(Debug)]
pub struct EngineError;

/// Placeholder until the stages stand.
#[derive(Debug)]
pub struct Outcome;
