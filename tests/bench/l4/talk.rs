//! What load and servers say on the wire, and what they are told by the bench: they are processes
//! of their own, this program started with [`PART`](crate::bed::PART), and read a line and answer a line until
//! their stdin ends.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Bytes of a request; the first eight say how many bytes are wanted, big-endian.
pub(crate) const REQUEST: usize = 64;
/// Bytes read or written at once: many segments, so that segmentation offload has work.
pub(crate) const BLOCK: usize = 256 << 10;

/// What the load is to do: connections, a number of them at once, each closed by FIN from both
/// ends after its requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Where to; connections take them in turn.
    pub(crate) to: Vec<SocketAddr>,
    /// How many connections.
    pub(crate) connections: u64,
    /// How many of them at once.
    pub(crate) at_once: usize,
    /// Requests on each, one after the other.
    pub(crate) requests: u64,
    /// Bytes that each request asks for.
    pub(crate) size: u64,
}

/// What the load answers: the seconds that it took, or what went wrong.
pub(crate) type Outcome = Result<f64, String>;

/// What a server answers to any line: all that it has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    /// Connections accepted.
    pub(crate) accepted: u64,
    /// Requests answered whole.
    pub(crate) answered: u64,
    /// Connections that did not end by FIN after a whole answer.
    pub(crate) broken: u64,
}
