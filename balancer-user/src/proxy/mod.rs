//! The HTTP proxy: carries out HTTP rules for the connections that the kernel hands over.
//!
//! ```text
//!            ┌ shard (a thread, a listener of each family) ────────────────────────┐
//! kernel ──> │ connection ──> request ──http::Router──> decision ──> reals ──> real │
//!            │    │               │                                    │            │
//!            │  vigil       Live: client × VIP ──> Ruled       idle connections     │
//!            └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Belongs here: sockets, HTTP/1.1 and HTTP/2 on both sides (hyper), what is between two
//! neighbours, connections to reals, how long things may take. What is done with a request is the
//! room [`http`](crate::http)'s to say; which policies that comes from is `resolve`'s. Does not
//! know the kernel: listeners come from whoever starts it. A shard shares nothing with another but
//! the rules, so that none of them waits for a lock.
//!
//! A connection that comes by a listener has the client's address as its peer and the VIP as its
//! own: those two say which rules are asked, once for each request.

#![forbid(unsafe_code)]

use std::{io, net::TcpListener, sync::Arc, thread, time::Duration};

use arc_swap::ArcSwap;
use tokio::sync::watch;

mod answer;
mod body;
mod connection;
mod counts;
mod forward;
mod headers;
mod limits;
mod live;
mod reals;
mod ruled;
mod shard;
mod target;
#[cfg(test)]
mod tests;
mod vigil;

pub use counts::{Cause, Counted, Counters};
pub use headers::{Added, Forwarded};
pub use limits::Limits;
pub use live::Live;
pub use ruled::{Ruled, Spoken};

/// How a proxy begins.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What clients and backends may take of it.
    pub limits: Limits,
    /// What is added to headers.
    pub added: Added,
    /// The mark of packets to backends (`SO_MARK`), by which the node's own programs know them.
    /// `None`: none, as for a user who may not set one.
    pub mark: Option<u32>,
}

/// How a proxy ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// What takes longer is cut.
    pub within: Duration,
    /// What becomes of connections that come meanwhile.
    pub taking: Taking,
}

/// Which connections a proxy takes that has begun to end. Each has one answer of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Taking {
    /// Those that are on their way. Nobody hands over others, or another proxy takes them.
    #[default]
    OnTheWay,
    /// All, as long as there are connections from before, for half of the time at most: nobody
    /// else takes any before this process has ended.
    WhileOthersLast,
}

/// A proxy that runs.
#[derive(Debug)]
pub struct Proxy {
    live: Arc<ArcSwap<Live>>,
    /// Falls to the shards' ears.
    stop: watch::Sender<Option<End>>,
    shards: Vec<thread::JoinHandle<()>>,
    counters: Counters,
}

impl Proxy {
    /// Starts a thread for each list of listeners, which are non-blocking. Requests go by `live` from
    /// the first on: connections may be waiting.
    ///
    /// # Errors
    /// A thread or its runtime cannot be had.
    pub fn start(
        shards: Vec<Vec<TcpListener>>,
        live: impl Into<Arc<Live>>,
        options: Options,
    ) -> io::Result<Self> {
        let live = Arc::new(ArcSwap::new(live.into()));
        let (stop, stopped) = watch::channel(None);
        let counters = Counters(shards.iter().map(|_| Arc::default()).collect());
        let mut proxy =
            Self { live: Arc::clone(&live), stop, shards: Vec::new(), counters: counters.clone() };
        for (number, (listeners, counts)) in shards.into_iter().zip(&*counters.0).enumerate() {
            let shard = shard::Beginning {
                live: Arc::clone(&live),
                counts: Arc::clone(counts),
                options: options.clone(),
                stop: stopped.clone(),
            };
            proxy.shards.push(shard.start(number, listeners)?);
        }
        Ok(proxy)
    }

    /// The rules by which requests go.
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// What it counts.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// Every request that begins from now on goes by these rules.
    pub fn publish(&self, live: impl Into<Arc<Live>>) {
        self.live.store(live.into());
    }

    /// Answers once more on each connection, and ends. A connection of HTTP/1 on which nothing is
    /// asked is closed after [`Limits::idle_at_end`], since a request may be on its way.
    pub fn stop(self, end: End) {
        self.stop.send_replace(Some(end));
        for shard in self.shards {
            if shard.join().is_err() {
                tracing::error!("a shard of the proxy has panicked");
            }
        }
    }
}
