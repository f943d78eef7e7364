//! `--longRun`: a store that crashed, or was sealed, is unsealed again; nothing is started or restarted.
//!
//! The hook is run when the store is found sealed, and its key material let go after: between two such moments there is
//! none in memory.

use client::Remote;
use config::SetupFace;
use external::{Custody, Patient, Standing, Stop, monitor};
use host::{Clock, OsClock, OsDisk, OsEntropy};

use super::hook;
use crate::edgex::face::Ground;

/// Watches until a signal.
pub(super) async fn watch(face: &SetupFace, ground: &Ground, vault: &Patient<Remote>, clock: &OsClock, stop: &Stop) {
    let custody = async || {
        let keeping = hook::keeping(face, ground, false).map_err(|failure| failure.fact)?;
        Ok(Custody::new(&OsDisk, &OsEntropy, &face.shares_dir, &face.shares_file, ground.uid(), keeping))
    };
    let stopped = monitor(vault, custody, face.reunseal, clock.boot_id(), stop, tell).await;
    // It ends by a signal, and by nothing else.
    let Err(external::Stopped) = stopped;
}

fn tell(standing: &Standing) {
    match standing {
        Standing::Serving => tracing::info!("the store serves"),
        Standing::Unsealed => tracing::warn!("the store was found sealed, and was unsealed"),
        Standing::Waiting(why) => tracing::warn!(why, "the store does not serve; it is looked at again"),
        Standing::Refused { fact, hint } => tracing::error!(why = fact, hint, "the store is sealed, and stays so"),
        Standing::Stranger(why) => tracing::error!(why, "who answers there is not the store; nothing is sent"),
    }
}
