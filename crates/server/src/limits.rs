//! Every bound of the listeners in one place, each with its reason.

use std::time::Duration;

/// How much one peer, and all peers together, may take. The defaults fit a device of 256 MB.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections over TCP at once. A TLS connection holds some 50 KB; the next one waits in the kernel's queue.
    pub tcp_connections: usize,
    /// Of these, from one address other than loopback, or one network /64 of version 6: one noisy neighbour must leave
    /// room for the rest.
    pub connections_per_address: usize,
    /// Of these, from loopback, where one from another cannot be told: what is left is the network's.
    pub loopback_connections: usize,
    /// Connections to the API socket at once; apart from TCP, so that a flood from the network cannot starve the
    /// services.
    pub socket_connections: usize,
    /// Of these, of one user. Large, for EdgeX runs all of its services as one.
    pub connections_per_user: usize,
    /// Connections to the admin socket at once.
    pub admin_connections: usize,
    /// A TLS handshake.
    pub handshake: Duration,
    /// The head of a request, from its first byte to its last: what a slowloris stretches.
    pub head: Duration,
    /// From a connection to its first request: whoever has nothing to ask holds no place for longer.
    pub first: Duration,
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
    /// Before the first byte of a body, and in all beyond what its bytes earn.
    pub body: Duration,
    /// The time that the bytes of a body earn it. Slower is 408: what is held must be paid for.
    pub body_bytes_per_second: usize,
    /// Bytes of all large bodies that are being read at once over TCP; as many again at each socket, so that the
    /// network takes nothing from the services; one asker gets half. Above it 503. A body of up to [`SMALL_BODY_BYTES`]
    /// is free.
    pub body_budget_bytes: usize,
}

/// Bodies up to this size are not counted against the budget: the number of connections bounds them.
pub const SMALL_BODY_BYTES: usize = 16 * 1024;

impl Default for Limits {
    fn default() -> Self {
        Self {
            tcp_connections: 256,
            connections_per_address: 128,
            loopback_connections: 192,
            socket_connections: 256,
            connections_per_user: 128,
            admin_connections: 8,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            first: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            request: Duration::from_secs(90),
            stall: Duration::from_secs(30),
            head_bytes: 16 * 1024,
            head_fields: 64,
            body: Duration::from_secs(10),
            body_bytes_per_second: 16 * 1024,
            body_budget_bytes: 8 * 1024 * 1024,
        }
    }
}
