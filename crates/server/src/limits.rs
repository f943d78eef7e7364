//! Every bound of the listeners in one place, each with its reason.

use std::time::Duration;

/// How much one peer, and all peers together, may take. The defaults fit a device of 256 MB.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections over TCP at once. A TLS connection holds some 50 KB; the next one waits in the kernel's queue.
    pub tcp_connections: usize,
    /// Of these, from one address other than loopback: one noisy neighbour must leave room for the rest.
    pub connections_per_address: usize,
    /// Connections to the API socket at once; apart from TCP, so that a flood from the network cannot starve the services.
    pub socket_connections: usize,
    /// Connections to the admin socket at once.
    pub admin_connections: usize,
    /// A TLS handshake.
    pub handshake: Duration,
    /// The head of a request, from its first byte to its last: what a slowloris stretches.
    pub head: Duration,
    /// Silence between two requests. Above the 90 s of Go's client, so that it closes first and meets no reset.
    pub idle: Duration,
    /// A request from its head to its reply, its body included (Vault's 90 s).
    pub request: Duration,
    /// A reply of which the peer takes no byte.
    pub stall: Duration,
    /// Bytes of a request's head. The longest token is 4096, the longest path 1024 (3072 percent-encoded).
    pub head_bytes: usize,
    /// Header fields of a request.
    pub head_fields: usize,
    /// Bytes of all large bodies that are being read at once; above it 503. A body of up to [`SMALL_BODY_BYTES`] is free.
    pub body_budget_bytes: usize,
}

/// Bodies up to this size are not counted against the budget: the number of connections bounds them.
pub const SMALL_BODY_BYTES: usize = 16 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: 256,
            connections_per_address: 128,
            socket_connections: 256,
            admin_connections: 8,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            request: Duration::from_secs(90),
            stall: Duration::from_secs(30),
            head_bytes: 16 * 1024,
            head_fields: 64,
            body_budget_bytes: 16 * 1024 * 1024,
        }
    }
}
