//! One thread of the proxy: its listeners, its connections, its connections to reals.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, TcpListener},
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{Notify, watch},
    task::spawn_local,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tracing::warn;

use super::{
    Live, Options,
    connection::{self, Servers, Streams},
    counts::{Cause, Counts},
    reals::Pool,
    vigil::{TICK, Vigil},
};

/// What the tasks of one thread share.
pub(super) struct Shard {
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) options: Options,
    pub(super) counts: Arc<Counts>,
    pub(super) vigil: Rc<Vigil>,
    pub(super) pool: Pool,
    pub(super) servers: Servers,
    pub(super) random: RefCell<fastrand::Rng>,
    places: Places,
    stopping: Cell<bool>,
}

/// What a thread begins with.
pub(super) struct Beginning {
    pub(super) live: Arc<ArcSwap<Live>>,
    pub(super) options: Options,
    pub(super) counts: Arc<Counts>,
    pub(super) stop: watch::Receiver<Option<Duration>>,
}

impl Shard {
    /// Whether connections are to be closed once they are idle.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }
}

impl Beginning {
    /// Starts the thread; the listeners do not block.
    ///
    /// # Errors
    /// The thread or its runtime cannot be had.
    pub(super) fn start(
        self,
        number: usize,
        listeners: Vec<TcpListener>,
    ) -> io::Result<thread::JoinHandle<()>> {
        let name = format!("balancer-http-{number}");
        let (tell, told) = mpsc::channel();
        let thread = thread::Builder::new().name(name).spawn(move || {
            // Made here, since its tasks cannot change threads.
            let runtime =
                Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let (runtime, error) = runtime.map_or_else(|e| (None, Some(e)), |r| (Some(r), None));
            // Who started it waits for this.
            let _heard = tell.send(error.map_or(Ok(()), Err));
            if let Some(runtime) = runtime {
                runtime.block_on(self.run(listeners));
            }
        })?;
        told.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))?;
        Ok(thread)
    }

    async fn run(self, listeners: Vec<TcpListener>) {
        let Self { live, options, counts, mut stop } = self;
        let vigil = Rc::new(Vigil::new(Arc::clone(&counts)));
        let streams = Streams { vigil: Rc::clone(&vigil), limits: options.limits };
        let shard = Rc::new(Shard {
            live,
            counts,
            vigil,
            pool: Pool::new(options.mark, options.limits),
            servers: Servers::new(streams),
            random: RefCell::new(fastrand::Rng::new()),
            places: Places::new(options.limits.connections, options.limits.connections_of_one),
            stopping: Cell::new(false),
            options,
        });
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| spawn_local(accept(Rc::clone(&shard), listener)))
            .collect();
        let ticking = spawn_local(tick(Rc::clone(&shard)));
        let within = match stop.wait_for(Option::is_some).await {
            Ok(within) => within.unwrap_or_default(),
            // Whoever started it is gone.
            Err(_) => Duration::ZERO,
        };
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        shard.stopping.set(true);
        shard.vigil.end_all();
        // What takes longer is cut by the end of the runtime.
        let _all_ended = timeout(within, shard.places.empty()).await;
        ticking.abort();
    }
}

async fn tick(shard: Rc<Shard>) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ticks = 0u64;
    loop {
        interval.tick().await;
        let requests = shard.vigil.tick();
        shard.counts.has(shard.places.taken.get() as u64, requests, shard.pool.connections());
        ticks += 1;
        if ticks.is_multiple_of(10) {
            shard.pool.sweep();
        }
        if ticks.is_multiple_of(50) {
            shard.pool.trim();
        }
    }
}

async fn accept(shard: Rc<Shard>, listener: TcpListener) {
    // What it accepts inherits that. Answers are written whole: waiting for more would delay them.
    if let Err(error) = setsockopt(&listener, sockopt::TcpNoDelay, &true) {
        warn!(%error, "answers of the proxy may be delayed");
    }
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "a listener of the proxy cannot be used"),
    };
    loop {
        if shard.places.are_taken() {
            shard.counts.add(Cause::Connections);
            shard.places.some().await;
        }
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Of the connection, which is gone (accept(2)).
            Err(error) if is_of_connection(&error) => continue,
            Err(error) => {
                warn!(%error, "the proxy cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match Place::take(&shard, client.ip()) {
            Some(place) => {
                spawn_local(connection::serve(Rc::clone(&shard), stream, client, place));
            }
            None => shard.counts.add(Cause::ConnectionsOfOne),
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Room for connections.
struct Places {
    taken: Cell<usize>,
    all: usize,
    of_one: usize,
    by_client: RefCell<HashMap<IpAddr, usize>>,
    changed: Notify,
}

/// A connection's part of it; given back when it is dropped.
pub(super) struct Place {
    shard: Rc<Shard>,
    client: IpAddr,
}

impl Places {
    fn new(all: usize, of_one: usize) -> Self {
        Self {
            taken: Cell::new(0),
            all,
            of_one,
            by_client: RefCell::new(HashMap::new()),
            changed: Notify::new(),
        }
    }

    fn are_taken(&self) -> bool {
        self.taken.get() >= self.all
    }

    /// Waits until there is room.
    async fn some(&self) {
        while self.are_taken() {
            self.changed.notified().await;
        }
    }

    /// Waits until nobody has any.
    async fn empty(&self) {
        while self.taken.get() > 0 {
            self.changed.notified().await;
        }
    }
}

impl Place {
    /// `None`: the client has its part already.
    fn take(shard: &Rc<Shard>, client: IpAddr) -> Option<Self> {
        let places = &shard.places;
        let mut by_client = places.by_client.borrow_mut();
        let has = by_client.entry(client).or_default();
        if *has >= places.of_one {
            return None;
        }
        *has += 1;
        // Listeners of two families may find the last place at once: then there is one more.
        places.taken.set(places.taken.get() + 1);
        Some(Self { shard: Rc::clone(shard), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let places = &self.shard.places;
        let mut by_client = places.by_client.borrow_mut();
        if let Some(has) = by_client.get_mut(&self.client) {
            *has -= 1;
            if *has == 0 {
                by_client.remove(&self.client);
            }
        }
        places.taken.set(places.taken.get() - 1);
        places.changed.notify_waiters();
    }
}
