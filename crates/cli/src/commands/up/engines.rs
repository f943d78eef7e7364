//! Which engines a store of ours has.

use std::sync::Arc;

use boot::driver::Assemble;
use engines::{Facts, HashPool, ThreadPool};

use crate::failure::Failure;

/// All engines, over a pool for the slow hashes of passwords that people chose.
pub(super) fn assemble() -> Result<Assemble, Failure> {
    // Each hash holds a core for some 50 ms: half of them stay free for services, and what waits longer is told "busy".
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let pool = ThreadPool::new((cores / 2).max(1), WAITING_HASHES)
        .map_err(|e| Failure::fault(format!("the threads for password hashes do not start: {e}")))?;
    let pool = Arc::new(pool);
    Ok(Arc::new(move |services| {
        engines::all(services, facts(services.cluster_id()), Arc::clone(&pool) as Arc<dyn HashPool>)
    }))
}

fn facts(cluster_id: String) -> Facts {
    Facts {
        version: env!("CARGO_PKG_VERSION").into(),
        build_date: super::build::date().to_rfc3339(),
        cluster_name: "edgekeep".into(),
        cluster_id,
        shares: None,
    }
}

const WAITING_HASHES: usize = 16;
