//! A request as a chain of types. Each stage is a file and takes by value what the one before it made:
//!
//! ```text
//! Request -> Received       core.rs       an id, a moment, nothing known of who asks
//!         -> Routed         route.rs      the mount with the longest path
//!         -> Authenticated  authn.rs      the actor, and its policies as they are now
//!         -> Authorized     authz.rs      one rule of them allows it: the proof that an engine demands
//!         -> Announced      announce.rs   the audit has the request
//!         -> Done           run.rs        the engine's work, durable in one commit
//!         -> Recorded       record.rs     the audit has the outcome: the only thing that a listener can send
//! ```
//! A refusal at any stage goes to `record.rs` with all that was known of the request there.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod audit;

mod announce;
mod authn;
mod authz;
mod boot;
mod core;
mod directory;
mod engine;
mod error;
mod generate_root;
mod lease;
mod mounts;
mod outcome;
mod policies;
mod received;
mod record;
mod recovery;
mod route;
mod run;
mod services;
mod sink;
mod tokens;
mod txn;

pub use authn::{Actor, BootRole};
pub use authz::Authorized;
pub use boot::{BootMounts, InProcess, PathNotPlain};
pub use core::Core;
pub use directory::{Alias, Directory, NoDirectory, Standing};
pub use engine::{Access, BoxFuture, Engine, Operation};
pub use error::EngineError;
pub use lease::Lease;
pub use mounts::{MountEntry, MountTable, Mounted, Mounts, NewMount};
pub use outcome::{After, Grant, Outcome};
pub use policies::{Policies, PolicyEntry};
pub use record::Recorded;
pub use recovery::LocalAct;
pub use services::{Services, added, sanitized};
pub use sink::{
    ActorRecord, AuditRefused, AuditSink, IssuedRecord, MountRecord, NoAudit, RequestId, RequestRecord, ResponseRecord,
};
pub use tokens::{Acl, Issued, LiveToken, NewToken, Renewed, TokenEntry, TokenId, Tokens, TtlRules};
pub use txn::Txn;
