//! Memory that keys may live in: never in swap, in a core dump or in a child, and wiped when it is given back.
//!
//! ```text
//! | guard page | secret | secret | free ... | guard page |      a region of four pages; as many regions as are needed
//! ```
//! A region is made of pages that even the kernel does not map for itself (`memfd_secret(2)`), where it has them: then
//! neither `/proc/PID/mem` nor a debugger of root's reads them. Otherwise of anonymous pages, locked with `mlock(2)`,
//! left out of core dumps and wiped in a child. Where neither is allowed, secrets are kept all the same, and
//! [`protection`] says how.
//!
//! The only crate with `unsafe` code: whoever audits that reads `pages.rs`, `region.rs`, `bytes.rs`, `shared.rs` and
//! `text.rs`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bytes;
mod chunks;
mod pages;
mod region;
mod shared;
mod text;

pub use bytes::LockedBytes;
pub use pages::Protection;
pub use region::protection;
pub use shared::{SharedBytes, inherited};
pub use text::give_back_start;
