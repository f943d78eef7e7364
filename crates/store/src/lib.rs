//! The encrypted, authenticated, transactional store.
//!
//! ```text
//! get, list, commit  ->  barrier (names hidden, values sealed, all of it under one root)  ->  Backend (untrusted bytes)
//! ```
//! A [`Store`] exists only with its keys: sealed means that there is no `Store`.
//!
//! What the head vouches for is proven once, at [`Store::open`], and kept in an index; from then on every answer is
//! checked against the index at the moment it is given, absences and the completeness of lists too. One thread writes
//! ([`Store::commit`] hands over to it); reads are answered from the cache without suspending, or by a few reading
//! threads.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
mod batch;
mod cache;
mod entry;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(test)]
mod golden;
mod head;
mod index;
mod keyring;
mod labels;
mod lock;
mod memo;
mod names;
mod open;
mod path;
mod plan;
mod readers;
mod reserve;
mod root;
#[cfg(test)]
mod root_change;
mod shared;
pub mod sqlite;
mod store;
mod time;
mod wear;
mod writer;
#[cfg(test)]
mod writer_faults;

pub use batch::{Batch, CommitError, Committed, Cond, Entry, Op, ReadError, Version};
pub use head::{BootEpoch, Head, Profile, SlotSet};
pub use open::{CreateError, NewStore, OpenError, StoreConfig};
pub use path::{MAX_COMPONENT_BYTES, StorePath, StorePathError};
pub use store::{RotateError, Store};
pub use time::StoreTime;
pub use wear::KeyWear;
