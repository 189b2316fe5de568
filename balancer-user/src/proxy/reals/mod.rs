//! Connections to reals: those that are idle are used again, the one that was used last first.

use std::{cell::RefCell, collections::HashMap, net::SocketAddr, rc::Rc};

use hyper::Request;

use super::{Limits, Spoken, body::Upload};

mod connect;
mod peer;

pub(super) use peer::Lease;
use peer::Peer;

/// A shard's connections to reals.
pub(super) struct Pool {
    peers: RefCell<HashMap<(SocketAddr, Spoken), Rc<Peer>>>,
    mark: Option<u32>,
    limits: Limits,
}

/// A request that no answer came to.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) why: Why,
    /// The request, where nothing of it was sent.
    pub(super) request: Option<Box<Request<Upload>>>,
}

/// Why.
#[derive(Debug, thiserror::Error)]
pub(super) enum Why {
    #[error("no connection within the time that it may take")]
    ConnectTimedOut,
    #[error("no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("no connection: {0}")]
    Handshake(hyper::Error),
    /// The connection had carried others before.
    #[error("the connection, which was kept, ended before the answer: {0}")]
    Kept(hyper::Error),
    #[error("the connection ended before the answer: {0}")]
    Fresh(hyper::Error),
}

impl Pool {
    pub(super) fn new(mark: Option<u32>, limits: Limits) -> Self {
        Self { peers: RefCell::default(), mark, limits }
    }

    /// A real, to be sent requests in this protocol.
    pub(super) fn peer(&self, to: (SocketAddr, Spoken)) -> Rc<Peer> {
        let mut peers = self.peers.borrow_mut();
        let peer = peers.entry(to).or_insert_with(|| Peer::new(to, self.mark, self.limits));
        Rc::clone(peer)
    }

    /// Requests that a real has of this shard.
    pub(super) fn live(&self, real: SocketAddr) -> u32 {
        let peers = self.peers.borrow();
        let of = |spoken| peers.get(&(real, spoken)).map_or(0, |peer| peer.live());
        of(Spoken::Http1) + of(Spoken::Http2)
    }

    /// Connections that carry a request, and those that are kept for the next.
    #[expect(clippy::disallowed_methods, reason = "a sum is the same in any order")]
    pub(super) fn connections(&self) -> (u64, u64) {
        let peers = self.peers.borrow();
        let each = peers.values().map(|peer| peer.connections());
        each.fold((0, 0), |all, of| (all.0 + of.0, all.1 + of.1))
    }

    /// Closes connections that are more than is needed. To be called every few seconds.
    #[expect(clippy::disallowed_methods, reason = "each is trimmed for itself, in any order")]
    pub(super) fn trim(&self) {
        self.peers.borrow().values().for_each(|peer| peer.trim());
    }

    /// Closes what has been idle for too long, and forgets whom nobody has asked.
    pub(super) fn sweep(&self) {
        self.peers.borrow_mut().retain(|_, peer| peer.sweep() || Rc::strong_count(peer) > 1);
    }
}
