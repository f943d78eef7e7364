//! What the machine gives us, as arguments: time, randomness and disks.
//!
//! Everything above takes [`Clock`], [`Entropy`] and [`Disk`] as parameters, so that a test can hold the time still,
//! repeat the random bytes, and cut the power after any write. Only this crate asks the operating system for any of the
//! three.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod causes;
mod clock;
mod disk;
mod entropy;
mod mitigation;
mod place;

pub use causes::with_causes;
pub use clock::{BootId, BootTime, Clock, OsClock, WallTime};
pub use disk::{Disk, DiskFile, FileKind, Meta, OsDisk, Owner, temporary_beside};
pub use entropy::{Entropy, OsEntropy};
pub use mitigation::{SWITCH, in_force};
pub use place::{ListenFault, MAX_PATH_BYTES, check_socket_path, listen_at};
