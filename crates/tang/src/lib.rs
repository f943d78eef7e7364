//! The client's side of Tang: a key that can be had only where a certain server answers, and that the server never
//! learns.
//!
//! ```text
//! once       server: S = sG, in a signed advertisement     client: random c; C = cG, K = cS; keeps C and S, forgets c and K
//! each time  client: random e; sends X = C + eG            server: answers Y = sX             client: K = Y - eS
//! ```
//! The exchange is McCallum and Relyea's. The server sees a random point and an observer two, so that no transport
//! needs to keep it secret; what must be authentic is S, and that is what [`Advertisement::verify`] proves against a
//! pinned key.
//!
//! Bytes in, bytes out: who sends them, and for how long it waits, is the caller's. Only P-521, ES512 and ECMR are
//! spoken, the ones that `tangd` makes.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod advertisement;
mod curve;
mod exchange;
mod jwk;

pub use advertisement::{Advertisement, AdvertisementError, ExchangeKey, MAX_ADVERTISEMENT_BYTES};
pub use exchange::{
    BINDING_BYTES, Binding, CONTENT_TYPE, MAX_REPLY_BYTES, NotABinding, Recovery, ReplyError, SHARE_LABEL, Shared,
};
pub use jwk::{NotAThumbprint, Thumbprint};
