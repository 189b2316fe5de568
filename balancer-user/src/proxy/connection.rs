//! One connection of a client.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use ::http::HeaderValue;
use hyper::{Request, body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{net::TcpStream, task::spawn_local};

use super::{
    forward,
    limits::Limits,
    live::Live,
    ruled::Ruled,
    shard::{Place, Shard},
    vigil::{Felt, Phase, Pulse, Told},
};

/// Runs what hyper hands over on this thread.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

/// How requests are read: HTTP/1.1, or HTTP/2 where the first bytes say so.
pub(super) fn server(limits: &Limits) -> auto::Builder<Local> {
    let mut server = auto::Builder::new(Local);
    server
        .http1()
        .max_headers(limits.head_fields)
        .max_buf_size(limits.head_bytes.max(8192))
        // Some say all that they have to say and listen: their answer comes nevertheless.
        .half_close(true);
    server
        .http2()
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX));
    server
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
        if asked.leaves {
            self.pulse.end();
        }
        asked.rules.clone()
    }

    /// Whether this is the last answer.
    pub(super) fn is_last(&self) -> bool {
        self.shard.is_stopping() || self.asked.borrow().leaves
    }
}

/// Serves a connection until it ends.
pub(super) async fn serve(shard: Rc<Shard>, stream: TcpStream, client: SocketAddr, place: Place) {
    let Ok(dialled) = stream.local_addr() else { return };
    // Answers are written whole; waiting for more would only delay them.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let client = client.ip().to_canonical();
    // What an address is written with may stand in a header.
    let Ok(client_text) = HeaderValue::try_from(client.to_string()) else { return };
    let (number, pulse) = shard.vigil.watch(&shard.options.limits);
    let io = TokioIo::new(Felt::new(stream, Arc::clone(&pulse)));
    let connection = Rc::new(Connection {
        shard: Rc::clone(&shard),
        client,
        client_text,
        dialled,
        pulse: Arc::clone(&pulse),
        asked: RefCell::default(),
    });
    let service = service_fn(move |request: Request<Incoming>| {
        let connection = Rc::clone(&connection);
        async move { Ok::<_, Infallible>(forward::answer(&connection, request).await) }
    });
    {
        let mut served = pin!(shard.server.serve_connection_with_upgrades(io, service));
        loop {
            let told = poll_fn(|cx| match served.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(None),
                Poll::Pending => pulse.poll_told(cx).map(Some),
            });
            match told.await {
                // Over, whatever the client did last: there is nobody to tell.
                None | Some(Told::Over(Phase::Head | Phase::Busy)) => break,
                Some(Told::Over(Phase::Idle)) => break,
                Some(Told::End) => served.as_mut().graceful_shutdown(),
            }
        }
    }
    shard.vigil.leave(number);
    drop(place);
}
