//! Certificates that others made and that a caller shows: who they say he is, who vouches for them, and which were
//! taken back.
//!
//! ```text
//! facts     what one certificate says, as text                      total: any bytes give facts or an error
//! anchors   authorities, and single certificates that are trusted   chains are judged by rustls' library alone
//! revoked   the serial numbers of a revocation list
//! ```
//! That the caller has the key of his certificate is proven by the TLS handshake and by nothing here.

mod anchors;
mod facts;
mod revoked;

pub use anchors::{AnchorError, Anchors, MAX_ANCHOR_BYTES, MAX_ANCHORS, NotVouched};
pub use facts::{MAX_PEER_BYTES, PeerError, PeerFacts};
pub use revoked::{CrlError, MAX_CRL_BYTES, MAX_REVOKED, revoked};
