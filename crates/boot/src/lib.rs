//! The unattended start as a sans-IO state machine, its driver, the plan, the gates.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod driver;
pub mod gate;
mod join;
pub mod machine;
pub mod plan;
pub mod provision;
#[cfg(test)]
mod testing;
