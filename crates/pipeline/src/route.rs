//! Received -> routed: which mount a path belongs to.

use crate::mounts::MountTable;
use crate::received::{Received, Trace};

/// A request whose mount is known, or known to be absent. A stranger must not learn which: it goes on to authentication
/// either way.
pub(crate) struct Routed<'r> {
    pub(crate) trace: Trace<'r>,
    /// Below the mount; the whole path where no mount is.
    pub(crate) path: &'r str,
}

/// Finds the mount with the longest path.
pub(crate) fn route<'r>(received: &'r Received<'r>, table: &MountTable) -> Routed<'r> {
    let full = received.request.path.as_str();
    let mut trace = Trace::new(received);
    let path = match table.route(full) {
        Some((mounted, rest)) => {
            trace.mounted = Some(mounted.clone());
            rest
        }
        None => full,
    };
    Routed { trace, path }
}
