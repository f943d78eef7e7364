//! Listeners, HTTP, and the one place where an answer becomes HTTP. Nothing is decided about secrets here.
//!
//! The way of a request, and the file of each step:
//!
//! ```text
//! server      a listener of the right kind is open in this phase         listen, sockets, tls, asking
//! connection  hyper under a watchdog that cuts what does not move         activity, limits, crowd
//! service     sealed? then `sealed` answers; else the Handler
//! head, body  HTTP -> api::Request, or a `Malformed` with its status      target
//! Handler     the pipeline, whose Recorded alone becomes an Answer        unsealed
//! reply       Answer -> HTTP                                              envelope
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activity;
mod admin;
mod asking;
mod body;
mod connection;
mod counters;
mod crowd;
mod doorbell;
mod envelope;
mod head;
mod limits;
mod listen;
mod mutual;
mod reply;
mod sealed;
mod server;
mod service;
mod signals;
mod sockets;
mod target;
mod tls;
mod unsealed;

pub use admin::{AdminFuture, AdminPort, AdminRefusal, AdminStatus, GateStatus, Recovered, SlotWish};
pub use counters::Counts;
pub use doorbell::{Caller, Doorbell, MAX_CONNECTIONS, Ring, RingReply};
pub use envelope::RequestId;
pub use head::{Head, Malformed};
pub use limits::{Limits, SMALL_BODY_BYTES};
pub use listen::{Listen, ListenRefused, Security, Tcp};
pub use mutual::{Certified, Mutual, MutualError};
pub use reply::Answer;
pub use sealed::Sealed;
pub use server::{Addresses, Drained, ListenError, Machine, Server};
pub use service::Handler;
pub use signals::{Signal, Signals};
pub use sockets::{AdminPeer, SocketError};
pub use target::TargetError;
pub use tls::{Identity, IdentityError, TlsVersions};
pub use unsealed::Unsealed;
