//! How a token reaches its one service, and how one sees later that it is still there.
//!
//! ```text
//! Parcel (token, CA)  ->  Channel::deliver  ->  Delivered (place, digest)  ->  kept by the boot as a receipt
//!                         Channel::verify   <-  the receipt, at each start of edgekeep
//! ```
//! A channel knows no policy: whom it delivers to, with what owner and mode, it is told by a [`Recipient`]. Today there
//! is one channel, [`FileChannel`]: a directory for each service on a tmpfs. [`peers`] writes what the servers read to
//! which a credential is the key.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod channel;
#[cfg(test)]
mod contract;
mod endpoint;
mod file;
mod parcel;
mod path_error;
pub mod peers;
mod place;
mod token_dir;

pub use channel::{Channel, DeliverError, Delivered, Recipient, RecipientError, Standing};
pub use endpoint::{ENDPOINT_FILE, Endpoint, EndpointError};
pub use file::{CA_FILE, FileChannel, TOKEN_FILE, directory_mode};
pub use parcel::{Parcel, token_in};
pub use path_error::PathError;
pub use place::{Backing, Medium, OsMedium, PlaceError, RunDir, check_parents};
pub use token_dir::TokenDir;
