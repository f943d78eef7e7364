//! What edgekeep and its helper `ikm-pkcs11` say to each other: one [`Request`] on the helper's standard input, one
//! [`Reply`] on its standard output, and the helper ends.
//!
//! ```text
//! edgekeep-pkcs11 1 release        edgekeep-pkcs11 1 released
//! module /usr/lib/opensc.so        ikm 64acd828...
//! ...                              end
//! end
//! ```
//! A vendor's module is foreign C code in a foreign process; so the reply is outside bytes, as everything else that is
//! not ours, and both parsers are total and bounded. Lines stand in one order, each name once; what is unknown is
//! refused, and another version is told apart. Binary values are lower-case hexadecimal. docs/formats.md has the whole
//! grammar.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod lines;
mod reply;
mod request;

pub use lines::{MAX_MESSAGE_BYTES, MessageError};
pub use reply::{Refusal, Reply, TokenFacts};
pub use request::{Errand, Key, Mode, Request, TokenName, Wish};
