//! What the model knows: routes and reals as it is told, connections as it makes them.

use std::net::SocketAddr;

/// How a table is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// By the flow's hash.
    Hash,
    /// By lot, in turn, or by who is least busy: any slot may come.
    Any,
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Nothing,
    Blackhole,
    Real(u32),
}

/// What is done with connections to a VIP.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    Denied,
    Table { pick: Pick, slots: Vec<Slot>, previous: Vec<Slot>, counter: u32 },
}

/// A real as the inventory has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real {
    pub(crate) end: SocketAddr,
    pub(crate) generation: u32,
    pub(crate) gone: bool,
}

/// What clients dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Vip {
    pub(crate) end: SocketAddr,
    pub(crate) is_udp: bool,
}

/// The ends of packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ends {
    pub(crate) is_udp: bool,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
}

impl Ends {
    pub(super) fn turned(self) -> Self {
        Self { src: self.dst, dst: self.src, ..self }
    }
}

/// A connection, or a flow of UDP, from client to VIP.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) real: u32,
    pub(super) generation: u32,
    /// The real, and its client as it sees it.
    pub(super) back: Ends,
    pub(super) counter: u32,
    /// The client is its own real: both see the VIP as the other end.
    pub(super) hairpin: bool,
    /// The client is the node itself.
    pub(super) host: bool,
    pub(super) established: bool,
    pub(super) answered: bool,
    pub(super) client_fin: bool,
    pub(super) real_fin: bool,
    pub(super) reset: bool,
    /// When its client was last heard, or its real's first answer.
    pub(super) seen: u32,
}

impl Connection {
    pub(super) fn closing(&self) -> bool {
        self.client_fin || self.real_fin || self.reset
    }
    pub(super) fn live(&self) -> bool {
        self.established && !self.reset && !(self.client_fin && self.real_fin)
    }
}

/// What becomes of the packets that a real sends to a client's address and port.
#[derive(Clone, Debug)]
pub(super) struct Back {
    /// From whose client to which VIP the connection is.
    pub(super) way: Ends,
    pub(super) counter: u32,
    /// The stack does not simply route them.
    pub(super) inward: bool,
    pub(super) hairpin: bool,
    /// Of UDP: the real has said something.
    pub(super) answered: bool,
    /// When either end was last heard.
    pub(super) seen: u32,
}
