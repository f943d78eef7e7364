//! Fakes and contract suites, for tests alone.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod block_on;
mod clock;
mod entropy;

pub use block_on::block_on;
pub use clock::FakeClock;
pub use entropy::SeededEntropy;
