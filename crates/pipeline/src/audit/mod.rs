//! The default audit device: a ring of preallocated segments whose records are chained by HMAC.
//!
//! ```text
//! device  records of a turn -> one write        flood, limit  what proves nothing, by rate and asker
//! record  a line of JSON, never a value         ring    segments, the next over the oldest
//! frame, segment, chain  the bytes on the disk  open    the end again, after any crash     read  prove it all
//! keys    which segment is under which          turn    a new key, in a new segment
//! ```
//! What it proves, to whoever has the key: nothing was changed, added, moved or taken out between the oldest record and
//! the newest. What it cannot prove alone is that the newest record is the last: whoever cuts the tail off leaves a
//! shorter log that is whole. The store's sequence numbers in it, compared both ways at the opening, are what tells of
//! that.

mod chain;
mod device;
mod flood;
mod frame;
mod keys;
mod limit;
mod open;
mod parts;
mod read;
mod record;
mod ring;
mod segment;
mod turn;

pub use chain::ChainKey;
pub use device::{AuditDevice, SyncPolicy};
pub use frame::{Kind, MAX_BODY_BYTES};
pub use keys::{ChainKeys, Turned};
pub use open::{Alarm, OpenError, Opened};
pub use read::{Entry, ReadRingError, Verification, verify, verify_segment};
pub use ring::{Beginning, CreateError, Ring, RingSize};

#[cfg(test)]
mod tests;
