//! What clients and backends may take: `proxy.limits` of the configuration.

use std::time::Duration;

/// Bounds of a shard, each with a default that ordinary traffic does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Of these by one client address; more are closed at once.
    pub connections_of_one: usize,
    /// Bytes of a head, request line or status line included.
    pub head_bytes: usize,
    /// Header fields of a head.
    pub head_fields: usize,
    /// From the first byte of a head to its last.
    pub head_within: Duration,
    /// A client connection without a request.
    pub idle: Duration,
    /// The same while the proxy ends: for requests that were sent before their client knew.
    pub idle_at_end: Duration,
    /// A request or answer of which not a byte moves.
    pub stalled: Duration,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
    /// Until a connection to a real stands.
    pub connect: Duration,
    /// A connection to a real without a request.
    pub real_idle: Duration,
    /// Such connections that are kept, to each real.
    pub real_kept: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            connections_of_one: 16_384,
            head_bytes: 64 * 1024,
            head_fields: 100,
            head_within: Duration::from_secs(15),
            idle: Duration::from_secs(300),
            idle_at_end: Duration::from_secs(5),
            stalled: Duration::from_secs(300),
            streams: 128,
            connect: Duration::from_secs(5),
            real_idle: Duration::from_secs(60),
            real_kept: 256,
        }
    }
}
