//! One connection of a client.

use std::{
    cell::RefCell,
    convert::Infallible,
    error::Error,
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use ::http::{HeaderValue, Response};
use h2::Reason;
use hyper::{
    Request,
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::{HttpService, service_fn},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::spawn_local};

use super::{
    body::Download,
    counts::Cause,
    forward,
    limits::Limits,
    live::Live,
    ruled::Ruled,
    shard::{Place, Shard},
    vigil::{Begins, Felt, Pulse, Told, Vigil},
};

/// Runs what hyper hands over on this thread: connections to reals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

/// Runs requests of HTTP/2, of which hyper makes a task each. One of them may stand still while
/// others of its connection go on, so each has a pulse of its own; what is done for a request finds
/// it by [`stream`].
#[derive(Clone)]
pub(super) struct Streams {
    pub(super) vigil: Rc<Vigil>,
    pub(super) limits: Limits,
}

tokio::task_local! {
    static STREAM: Arc<Pulse>;
}

/// The pulse of the stream of HTTP/2 whose task this is.
pub(super) fn stream() -> Option<Arc<Pulse>> {
    STREAM.try_with(Arc::clone).ok()
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, future: F) {
        let vigil = Rc::clone(&self.vigil);
        let (number, pulse) = vigil.watch_stream(&self.limits);
        spawn_local(async move {
            {
                let mut running = pin!(STREAM.scope(Arc::clone(&pulse), future));
                loop {
                    let told = poll_fn(|cx| match running.as_mut().poll(cx) {
                        Poll::Ready(()) => Poll::Ready(None),
                        Poll::Pending => pulse.poll_told(cx, false).map(Some),
                    });
                    match told.await {
                        // What is dropped is reset.
                        Some(Told::Over) | None => break,
                        // The connection ends once its streams have.
                        Some(Told::End | Told::Rest) => {}
                    }
                }
            }
            vigil.leave(number);
        });
    }
}

/// How requests are read.
pub(super) struct Servers {
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
}

impl Servers {
    pub(super) fn new(streams: Streams) -> Self {
        let limits = streams.limits;
        let mut http1 = http1::Builder::new();
        http1
            .max_headers(limits.head_fields)
            .max_buf_size(limits.head_bytes.max(8192))
            // Whoever ends its side has gone, as far as anybody can tell: its request is ended too.
            .half_close(false);
        let mut http2 = http2::Builder::new(streams);
        http2
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
        Self { http1, http2 }
    }
}

/// What requests of one connection have in common.
pub(super) struct Connection {
    pub(super) shard: Rc<Shard>,
    /// Its address: one of IPv4 as such, also where it came by a listener of both families.
    pub(super) client: IpAddr,
    /// The same in words.
    pub(super) client_text: HeaderValue,
    /// The VIP.
    pub(super) dialled: SocketAddr,
    pub(super) pulse: Arc<Pulse>,
    asked: RefCell<Asked>,
}

/// What was live when rules were last asked for.
#[derive(Default)]
struct Asked {
    live: Option<Arc<Live>>,
    rules: Option<Arc<Ruled>>,
    leaves: bool,
}

impl Connection {
    /// The rules by which a request goes. Where there are none any more, those that were the last
    /// ones hold, and the connection ends: the next one is not the proxy's.
    pub(super) fn rules(&self) -> Option<Arc<Ruled>> {
        let live = self.shard.live.load();
        let mut asked = self.asked.borrow_mut();
        if !asked.live.as_ref().is_some_and(|known| Arc::ptr_eq(known, &live)) {
            match live.held(self.client, self.dialled) {
                Some(held) => {
                    asked.rules = Some(Arc::clone(&held.rules));
                    asked.leaves = held.leave;
                }
                None => asked.leaves = true,
            }
            asked.live = Some(Arc::clone(&live));
        }
        if asked.leaves || self.shard.is_stopping() {
            self.pulse.end();
        }
        asked.rules.clone()
    }

    /// The pulse of the request whose task this is.
    pub(super) fn of_request(&self) -> Arc<Pulse> {
        stream().unwrap_or_else(|| Arc::clone(&self.pulse))
    }

    /// Whether this is the last answer.
    pub(super) fn is_last(&self) -> bool {
        self.shard.is_stopping() || self.asked.borrow().leaves || self.pulse.is_ending()
    }
}

/// Why hyper ended a connection, where it was for what the client sent. Requests that it refuses
/// are among these, since none is read after them.
fn refusal(error: &hyper::Error) -> Option<Cause> {
    if error.is_parse_too_large() {
        return Some(Cause::HeadSize);
    }
    if error.is_parse() {
        return Some(Cause::Malformed);
    }
    let http2 = error.source()?.downcast_ref::<h2::Error>()?;
    if !http2.is_library() {
        return None;
    }
    Some(match http2.reason()? {
        Reason::ENHANCE_YOUR_CALM => Cause::Flood,
        _ => Cause::Frames,
    })
}

/// Serves a connection until it ends.
///
/// Whoever has nothing to do costs a socket and little else: what reads and writes HTTP/1.1, with
/// its buffers, is made when there is something to read, and thrown away after a while of silence.
pub(super) async fn serve(shard: Rc<Shard>, stream: TcpStream, client: SocketAddr, place: Place) {
    let Ok(dialled) = stream.local_addr() else { return };
    let client = client.ip().to_canonical();
    // What an address is written with may stand in a header.
    let Ok(client_text) = HeaderValue::try_from(client.to_string()) else { return };
    let (number, pulse) = shard.vigil.watch(&shard.options.limits);
    let mut felt = Felt::new(stream, Arc::clone(&pulse));
    let connection = Rc::new(Connection {
        shard: Rc::clone(&shard),
        client,
        client_text,
        dialled,
        pulse,
        asked: RefCell::default(),
    });
    match felt.begins().await {
        Some(Begins::Http1) => {
            let mut rests = Some(felt);
            while let Some(mut felt) = rests.take() {
                if felt.wakes().await {
                    rests = http1(&connection, felt).await;
                }
            }
        }
        Some(Begins::Http2) => http2(&connection, felt).await,
        None => {}
    }
    shard.vigil.leave(number);
    drop(place);
}

/// Answers the requests of a connection.
fn service(
    on: &Rc<Connection>,
) -> impl HttpService<
    Incoming,
    ResBody = Download,
    Error = Infallible,
    Future: Future<Output = Result<Response<Download>, Infallible>> + 'static,
> + use<> {
    let on = Rc::clone(on);
    service_fn(move |request: Request<Incoming>| {
        let on = Rc::clone(&on);
        async move { Ok::<_, Infallible>(forward::answer(&on, request).await) }
    })
}

/// What became of a connection while it was served.
enum Turn {
    /// It is over, whatever the client did last: there is nobody to tell.
    Over,
    Told(Told),
}

/// Reads and writes until there is something to tell.
async fn turn(
    on: &Connection,
    served: &mut (impl Future<Output = hyper::Result<()>> + Unpin),
    may_rest: bool,
) -> Turn {
    poll_fn(|cx| match Pin::new(&mut *served).poll(cx) {
        Poll::Ready(ended) => {
            if let Some(cause) = ended.err().as_ref().and_then(refusal) {
                on.pulse.refused(cause);
            }
            Poll::Ready(Turn::Over)
        }
        Poll::Pending => on.pulse.poll_told(cx, may_rest).map(Turn::Told),
    })
    .await
}

/// Serves HTTP/1.1 until the connection ends, or has nothing to do.
async fn http1(on: &Rc<Connection>, felt: Felt) -> Option<Felt> {
    let served = on.shard.servers.http1.serve_connection(TokioIo::new(felt), service(on));
    let mut served = Box::new(served.with_upgrades());
    loop {
        match turn(on, &mut served, true).await {
            Turn::Over | Turn::Told(Told::Over) => return None,
            Turn::Told(Told::End) => Pin::new(&mut *served).graceful_shutdown(),
            Turn::Told(Told::Rest) => {
                let parts = served.into_parts()?;
                return Some(parts.io.into_inner().with_early(parts.read_buf));
            }
        }
    }
}

/// Serves HTTP/2 until the connection ends.
async fn http2(on: &Rc<Connection>, felt: Felt) {
    let mut served =
        Box::new(on.shard.servers.http2.serve_connection(TokioIo::new(felt), service(on)));
    loop {
        match turn(on, &mut served, false).await {
            Turn::Over | Turn::Told(Told::Over) => return,
            Turn::Told(Told::End) => Pin::new(&mut *served).graceful_shutdown(),
            Turn::Told(Told::Rest) => {}
        }
    }
}
