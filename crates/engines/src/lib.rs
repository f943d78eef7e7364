//! The HTTP paths of kv, token, userpass, cert, identity, sys: a folder an engine, a file a path.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cert;
mod glob;
mod identity;
mod input;
mod kv;
mod listing;
mod sys;
mod terms;
mod token;
mod userpass;

pub use cert::Cert;
pub use identity::Identity;
pub use kv::Kv;
pub use sys::{Facts, Phase, Shares, SysEngine};
pub use token::TokenEngine;
pub use userpass::{HashPool, PoolFull, ThreadPool, Userpass};

use std::sync::Arc;

use pipeline::{Directory, Engine, Services};

/// All engines of one store, and the directory of its entities: what [`pipeline::Core::open`] takes.
pub fn all(
    services: &Arc<Services>,
    facts: Facts,
    pool: Arc<dyn HashPool>,
) -> (Vec<Arc<dyn Engine>>, Arc<dyn Directory>) {
    let identity = Arc::new(Identity::new(Arc::clone(&services.mounts)));
    let engines: Vec<Arc<dyn Engine>> = vec![
        Arc::new(SysEngine::new(Arc::clone(services), facts)),
        Arc::new(TokenEngine::new(Arc::clone(services))),
        Arc::clone(&identity) as Arc<dyn Engine>,
        Arc::new(Kv),
        Arc::new(Userpass::new(pool)),
        Arc::new(Cert),
    ];
    (engines, identity)
}
