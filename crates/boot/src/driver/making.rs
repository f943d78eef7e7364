//! The making of another's store by a process of its own. It answers with its key shares a second or more after it was
//! asked, to whoever asked and to nobody else: that one must not end when `up` does.
//!
//! ```text
//! up      starts it, hands it what the shares are kept under, waits for its end -> unseals by what lies on the disk
//! maker   alone at it (flock) -> sys/init -> shares kept, first root token kept -> ends
//! next up waits while a maker is at it
//! ```

use std::pin::Pin;

use external::{BringUpError, Custody, Keeping, make_and_keep};
use seal::Ikm;

use super::environment::Environment;
use super::owner::custody_by;
use super::reach;
use crate::plan::{Plan, Terms};

/// Who starts such a process.
pub trait StoreMaker: Send + Sync {
    /// Starts it, hands it what `custody` keeps shares under, and waits for its end.
    ///
    /// # Errors
    /// What the process said, as [`BringUpError::Beside`].
    fn make<'a>(&'a self, custody: &'a Custody<'_>) -> Pin<Box<dyn Future<Output = Result<(), BringUpError>> + 'a>>;
}

/// Is that process: makes the store that the plan owns, and leaves its shares in the state directory, under `key`.
///
/// # Errors
/// [`BringUpError`].
pub async fn make_store(plan: &Plan, env: &Environment, key: Ikm) -> Result<(), BringUpError> {
    let beside = |fact: String| BringUpError::Beside { fact, hint: "see [store] in the configuration".into() };
    let Some(store) = plan.store.external() else { return Err(beside("the store is edgekeep's own".into())) };
    let Terms::Owner { counts, .. } = store.terms else {
        return Err(beside("somebody else makes that store".into()));
    };
    let custody = custody_by(env, &plan.state_dir(), Keeping::Wrapped(key));
    let line = reach::line(&*env.disk, store).map_err(beside)?;
    make_and_keep(&line.vault, &custody, counts).await
}
