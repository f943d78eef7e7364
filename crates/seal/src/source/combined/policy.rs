//! What a combination can hold to, and which part enforces what.
//!
//! A policy holds for a combination when it holds whichever parts are used: every set of parts that is enough must have
//! one in it that enforces it. With `n` parts, `t` of them needed and `m` that can, that is `n - m < t`. So `all` can
//! what one of its parts can, and `threshold` only what too few parts cannot.

use super::Part;
use crate::source::{Capabilities, PolicyRequest};

/// What `needed` of `parts` can hold to.
pub(super) fn joint(parts: &[Part], needed: usize) -> Capabilities {
    let always = |can: fn(&Capabilities) -> bool| parts.iter().filter(|p| !can(&p.can)).count() < needed;
    Capabilities {
        device_bound: always(|c| c.device_bound),
        measured: always(|c| c.measured),
        // Two parts that count, of which one is needed, would give twice what was agreed.
        most_releases_per_boot: match needed == parts.len() {
            true => parts.iter().map(|p| p.can.most_releases_per_boot).max().unwrap_or(0),
            false => 0,
        },
        time_window: always(|c| c.time_window),
        pin: always(|c| c.pin),
        revocable_remotely: always(|c| c.revocable_remotely),
        needs_network: always(|c| c.needs_network),
        // What the others give is of no use without the one that nobody could listen to.
        bus_encrypted: always(|c| c.bus_encrypted),
    }
}

/// One part's policy: its own, and of the combination's all that it can enforce.
pub(super) fn share(whole: &PolicyRequest, own: &PolicyRequest, can: &Capabilities) -> PolicyRequest {
    let stricter = |a: Option<_>, b: Option<_>| match (a, b) {
        (Some(a), Some(b)) => Some(std::cmp::min(a, b)),
        (a, b) => a.or(b),
    };
    let limit = whole.releases_per_boot.filter(|n| n.get() <= can.most_releases_per_boot);
    let window = whole.window.filter(|_| can.time_window);
    PolicyRequest {
        pcrs: if can.measured { own.pcrs.union(whole.pcrs) } else { own.pcrs },
        releases_per_boot: stricter(own.releases_per_boot, limit),
        window: match (own.window, window) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        },
        pin: own.pin || (whole.pin && can.pin),
    }
}
