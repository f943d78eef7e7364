//! A small TPM 2.0 client: what it takes to seal a secret to a device's state, and to have it back.
//!
//! ```text
//! Transport        whole commands out, whole responses in, by a deadline: /dev/tpmrm0 or swtpm's socket
//! wire, frame      numbers, sized buffers, commands and responses; the reader is total
//! session          salted with a key whose name is known; parameters encrypted, every answer authenticated
//! Tpm              the commands, as verbs; what is loaded is flushed on every path
//! storage_key      the key above all others: made from the seed, or kept
//! assertions       sessions, and what they assert, as verbs
//! nv, authority    indices in the TPM that keep a secret or count; keys that approve of policies
//! policy           the digests that the TPM will compute, computed beforehand
//! ```
//! Marshalling is by hand: some twenty commands of fixed shape take less text than the adapters to a general library
//! would, and there is nothing in the parser but what these answers need. References are to the TCG's TPM 2.0 Library,
//! revision 1.59.
//!
//! Whoever sits on the bus is an adversary: an answer is believed only where a session's HMAC covers it, and a session
//! is only as good as the key that its salt was made for. So that key is named beforehand ([`PinnedKey`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod assertions;
mod authority;
mod channel;
mod code;
mod error;
mod frame;
mod nv;
mod pcr;
mod pcr_file;
pub mod policy;
mod public;
mod session;
mod storage_key;
mod tpm;
mod wire;

pub use authority::{AuthorityKey, Signature};
pub use channel::{Channel, MAX_RESPONSE_BYTES, Transport, TransportError};
pub use code::{Refusal, ResponseCode};
pub use error::TpmError;
pub use frame::{Answer, Shape, parse_response};
pub use nv::{NvHandle, NvIndex, NvState, PinCounter};
pub use pcr::{PCRS, PcrSet, PcrSetError, PcrValues, extended};
pub use pcr_file::PcrFileError;
pub use policy::PolicyDigest;
pub use public::{AuthValue, KeptKey, Name, PinnedKey, SealedObject, StorageKey};
pub use session::Session;
pub use tpm::{Clocks, Loaded, Lockout, Tpm};
