//! One thread of the proxy: its listeners, its connections, its connections to reals.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::TcpStream,
    runtime::{Builder, LocalOptions},
    sync::{Notify, watch},
    task::spawn_local,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout_at},
};
use tracing::warn;

use super::{
    End, Live, Options, Taking,
    connection::{self, Servers, Streams},
    counts::{Cause, Counts},
    reals::Pool,
    vigil::{TICK, Vigil},
};

/// How long connections come in after they are handed over no more: handshakes under way end.
const ON_THE_WAY: Duration = Duration::from_millis(500);

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
    pub(super) stop: watch::Receiver<Option<End>>,
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
        let (open, closed) = watch::channel(());
        let accepting: Vec<_> = listeners
            .into_iter()
            .map(|listener| spawn_local(accept(Rc::clone(&shard), listener, closed.clone())))
            .collect();
        let ticking = spawn_local(tick(Rc::clone(&shard)));
        let End { within, taking } = match stop.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or_default(),
            // Whoever started it is gone.
            Err(_) => End::default(),
        };
        let begun = Instant::now();
        shard.stopping.set(true);
        shard.vigil.end_all(shard.options.limits.idle_at_end);
        // Whoever comes last has as long again to be answered.
        let half = begun + within / 2;
        sleep(ON_THE_WAY.min(within / 2)).await;
        if taking == Taking::WhileOthersLast {
            let _none_left = timeout_at(half, shard.places.no_early()).await;
        }
        drop(open);
        for task in accepting {
            if task.await.is_err() {
                warn!("a listener of the proxy was not closed in order");
            }
        }
        // What takes longer is cut by the end of the runtime.
        let _all_ended = timeout_at(begun + within, shard.places.empty()).await;
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

/// Accepts until the sender of `closed` is gone.
async fn accept(shard: Rc<Shard>, listener: TcpListener, mut closed: watch::Receiver<()>) {
    // What it accepts inherits that. Answers are written whole: waiting for more would delay them.
    if let Err(error) = setsockopt(&listener, sockopt::TcpNoDelay, &true) {
        warn!(%error, "answers of the proxy may be delayed");
    }
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "a listener of the proxy cannot be used"),
    };
    let accepting = async {
        loop {
            if shard.places.are_taken() {
                shard.counts.add(Cause::Connections);
                shard.places.some().await;
            }
            match listener.accept().await {
                Ok((stream, client)) => begin(&shard, stream, client),
                // Of the connection, which is gone (accept(2)).
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "the proxy cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        _gone = closed.changed() => {}
        () = accepting => {}
    }
    if let Err(error) = accept_rest(&shard, listener) {
        warn!(%error, "the proxy cannot accept the last connections");
    }
}

/// Takes what waits in the queue of a listener, whose end would reset it.
fn accept_rest(shard: &Rc<Shard>, listener: tokio::net::TcpListener) -> io::Result<()> {
    let listener = listener.into_std()?;
    while !shard.places.are_taken() {
        match listener.accept() {
            Ok((stream, client)) => {
                stream.set_nonblocking(true)?;
                begin(shard, TcpStream::from_std(stream)?, client);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if is_of_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn begin(shard: &Rc<Shard>, stream: TcpStream, client: SocketAddr) {
    match Place::take(shard, client.ip()) {
        Some(place) => {
            spawn_local(connection::serve(Rc::clone(shard), stream, client, place));
        }
        None => shard.counts.add(Cause::ConnectionsOfOne),
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// Room for connections.
struct Places {
    taken: Cell<usize>,
    /// Taken before the end of the proxy began.
    early: Cell<usize>,
    all: usize,
    of_one: usize,
    by_client: RefCell<HashMap<IpAddr, usize>>,
    changed: Notify,
}

/// A connection's part of it; given back when it is dropped.
pub(super) struct Place {
    shard: Rc<Shard>,
    client: IpAddr,
    early: bool,
}

impl Places {
    fn new(all: usize, of_one: usize) -> Self {
        Self {
            taken: Cell::new(0),
            early: Cell::new(0),
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

    /// Waits until nobody has one from before the end began.
    async fn no_early(&self) {
        while self.early.get() > 0 {
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
        places.taken.update(|number| number + 1);
        let early = !shard.is_stopping();
        places.early.update(|number| number + usize::from(early));
        Some(Self { shard: Rc::clone(shard), client, early })
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
        places.taken.update(|number| number - 1);
        places.early.update(|number| number - usize::from(self.early));
        places.changed.notify_waiters();
    }
}
