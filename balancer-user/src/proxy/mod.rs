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

/// A proxy that runs.
#[derive(Debug)]
pub struct Proxy {
    live: Arc<ArcSwap<Live>>,
    /// Falls to the shards' ears: how long what is begun may take.
    stop: watch::Sender<Option<Duration>>,
    shards: Vec<thread::JoinHandle<()>>,
    counters: Counters,
}

impl Proxy {
    /// Starts a thread for each list of listeners, which are non-blocking.
    ///
    /// # Errors
    /// A thread or its runtime cannot be had.
    pub fn start(shards: Vec<Vec<TcpListener>>, options: Options) -> io::Result<Self> {
        let live = Arc::new(ArcSwap::from_pointee(Live::default()));
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

    /// Takes no more connections, lets what is begun come to its end, and ends. What takes longer
    /// than `within` is cut.
    pub fn stop(self, within: Duration) {
        self.stop.send_replace(Some(within));
        for shard in self.shards {
            if shard.join().is_err() {
                tracing::error!("a shard of the proxy has panicked");
            }
        }
    }
}
