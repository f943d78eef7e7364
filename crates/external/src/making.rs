//! The making of a store by a process of its own, which goes on when the one that wanted it is killed.
//!
//! ```text
//! set-up (claim) -> starts it, hands it the key material -> waits for its end -> goes on from what lies on the disk
//! maker          -> alone at it (flock) -> is it still to be made? -> sys/init -> shares kept, first root token kept -> ends
//! next set-up    -> waits while a maker is at it
//! ```

use client::Vault;

use crate::bring_up::{BringUpError, make};
use crate::custody::Custody;
use crate::init::ShareCounts;

/// Has the store made, and leaves its shares and its first root token in custody. Nothing if somebody else is at it, or
/// it is made.
///
/// # Errors
/// [`BringUpError`].
pub async fn make_and_keep<V: Vault>(
    vault: &V,
    custody: &Custody<'_>,
    counts: ShareCounts,
) -> Result<(), BringUpError> {
    let Some(kept) = make(vault, custody, counts).await? else { return Ok(()) };
    // The shares go first, and it was tried before them; whoever waits for us has no other way to it.
    let left = match custody.has_first_root()? {
        true => Ok(()),
        false => kept.root.keep_first(custody, &kept.shares),
    };
    kept.root.leave();
    Ok(left?)
}
