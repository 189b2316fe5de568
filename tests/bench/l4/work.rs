//! What clients do with a balancer.

use std::net::SocketAddr;

use harness::scaled;

use crate::talk::Order;

/// A kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Connections with one small request each.
    Short,
    /// Small requests on connections that stay.
    Kept,
    /// Downloads of 16 MiB.
    Bulk,
}

/// Bytes of a small answer.
const SMALL: u64 = 128;
/// Bytes of a large one.
const LARGE: u64 = 16 << 20;

impl Work {
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::Kept, Self::Bulk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Kept => "kept",
            Self::Bulk => "bulk",
        }
    }

    /// Unit of CPU time for a unit of work: a connection, a request, 10⁹ bytes.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Short | Self::Kept => "us",
            Self::Bulk => "ms",
        }
    }

    /// CPU time in [`Self::unit`] for each unit of an order's work.
    pub(crate) fn each(self, seconds: f64, order: &Order) -> f64 {
        let connections = order.connections as f64;
        let requests = connections * order.requests as f64;
        match self {
            Self::Short => seconds * 1e6 / connections,
            Self::Kept => seconds * 1e6 / requests,
            Self::Bulk => seconds * 1e3 / (requests * order.size as f64 / 1e9),
        }
    }

    /// Enough of it to be measured.
    pub(crate) fn order(self, to: Vec<SocketAddr>) -> Order {
        match self {
            Self::Short => Order {
                to,
                connections: scaled(20_000, 500),
                at_once: 32,
                requests: 1,
                size: SMALL,
            },
            Self::Kept => {
                Order { to, connections: 32, at_once: 32, requests: scaled(1_500, 30), size: SMALL }
            }
            Self::Bulk => {
                Order { to, connections: scaled(64, 4), at_once: 4, requests: 1, size: LARGE }
            }
        }
    }

    /// A little of it, after which caches and tables are as they are in the middle of it.
    pub(crate) fn warm_up(self, to: Vec<SocketAddr>) -> Order {
        let order = self.order(to);
        match self {
            Self::Short => Order { connections: 990, ..order },
            Self::Kept => Order { requests: 50, ..order },
            Self::Bulk => Order { connections: 4, ..order },
        }
    }
}
