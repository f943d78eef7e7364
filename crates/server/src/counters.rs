//! What the listeners count: numbers that tell an attack from a quiet day. No label holds anything that a stranger
//! sent.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the start of the process.
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $($(#[$doc])* pub(crate) $name: Counter),* }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// Reads them all.
            pub(crate) fn read(&self) -> Counts {
                Counts { $($name: self.$name.0.load(Relaxed)),* }
            }
        }
    };
}

counters! {
    /// Connections taken.
    connections,
    /// Connections refused because their address or user had too many.
    crowded,
    /// TLS handshakes that failed or did not end in time.
    handshakes_failed,
    /// Peers of the admin socket that were neither root nor ourselves.
    admin_refused,
    /// Connections cut because a head or a reply did not move.
    cut,
    /// Requests whose head or body was refused by the parser.
    malformed,
    /// Requests handed to the store, or answered while sealed.
    requests,
    /// Requests that did not end in time.
    late,
}

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}
