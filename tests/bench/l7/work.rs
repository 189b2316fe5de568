//! What clients do.

use std::time::Duration;

use harness::scaled;
use serde::{Deserialize, Serialize};

/// A kind of traffic, or of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    /// Requests on connections that stay.
    Kept,
    /// Connections of one request each.
    Short,
    /// Memory after that.
    Memory,
    /// Memory with connections that have nothing to do.
    Idle,
}

/// What the load is to do: connections, a number of them at once, with requests one after the
/// other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Where to; connections take them in turn.
    pub(crate) to: Vec<std::net::SocketAddr>,
    /// Each request, whole.
    pub(crate) request: String,
    pub(crate) connections: u64,
    pub(crate) at_once: usize,
    /// On each connection.
    pub(crate) requests: u64,
    /// Connections stay open until the next order.
    pub(crate) hold: bool,
}

impl Work {
    pub(crate) const ALL: [Self; 4] = [Self::Kept, Self::Short, Self::Memory, Self::Idle];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Short => "short",
            Self::Memory => "memory",
            Self::Idle => "idle",
        }
    }

    /// Whether it is CPU time that counts.
    pub(crate) fn is_timed(self) -> bool {
        matches!(self, Self::Kept | Self::Short)
    }

    pub(crate) fn unit(self) -> &'static str {
        if self.is_timed() { "us" } else { "MiB" }
    }

    /// How many connections, how many at once, and requests on each.
    fn numbers(self) -> (u64, usize, u64) {
        match self {
            Self::Kept => (32, 32, scaled(4_000, 30)),
            Self::Short => (scaled(20_000, 500), 32, 1),
            Self::Memory => (32, 32, 100),
            Self::Idle => (scaled(10_000, 100), scaled(10_000, 100), 1),
        }
    }

    /// Requests of it.
    pub(crate) fn requests(self) -> u64 {
        let (connections, _, requests) = self.numbers();
        connections * requests
    }

    /// CPU time in [`Self::unit`] for each request.
    pub(crate) fn each(self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e6 / self.requests() as f64
    }

    /// All of it.
    pub(crate) fn order(self, to: Vec<std::net::SocketAddr>, request: String) -> Order {
        let (connections, at_once, requests) = self.numbers();
        Order { to, request, connections, at_once, requests, hold: !self.is_timed() }
    }

    /// A little of it, after which caches are as they are in the middle of it.
    pub(crate) fn warm_up(self, to: Vec<std::net::SocketAddr>, request: String) -> Order {
        let order = self.order(to, request);
        match self {
            Self::Kept => Order { requests: 50, ..order },
            _ => Order { connections: order.connections.min(990), ..order },
        }
    }
}
