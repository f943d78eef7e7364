//! Programs that are not ours, run within bounds: whose file it is, what it may read, print and leave behind, and for
//! how long.

mod run;
mod trusted;

pub(super) use run::{Asked, MAX_OUTPUT, run, watch};
pub(super) use trusted::Trusted;
