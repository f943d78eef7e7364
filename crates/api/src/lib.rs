//! The shapes of the Vault HTTP API, with no logic and no I/O: used by the server, the clients and the tests alike.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod body;
mod certificates;
mod duration;
mod operation;
mod path;
mod reply;
mod request;
mod uuid;

pub use body::{Body, BodyError, Fields, MAX_BODY_BYTES};
pub use certificates::{CertificateName, PeerCertificates};
pub use duration::{DurationError, Ttl};
pub use operation::{Capability, Operation};
pub use path::{ApiPath, MAX_PATH_BYTES, PathError};
pub use reply::{Auth, Logical, Payload, Reply, Status};
pub use request::{PeerAddress, Request};
pub use uuid::Uuid;
