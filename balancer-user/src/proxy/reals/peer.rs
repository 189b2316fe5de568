//! One real, as one shard knows it.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Instant,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;
use tracing::debug;

use super::{Unanswered, Why, connect::connect};
use crate::proxy::{Limits, Spoken, body::Upload, connection::Local};

/// A real and the connections to it.
pub(in crate::proxy) struct Peer {
    real: SocketAddr,
    spoken: Spoken,
    mark: Option<u32>,
    limits: Limits,
    /// Those of HTTP/1.1 that have nothing to do, the one that had last at the end.
    idle: RefCell<Vec<Idle>>,
    /// How many of these nobody has needed since the last [trim](Self::trim).
    unneeded: Cell<usize>,
    /// The one of HTTP/2, which carries many requests at once.
    shared: RefCell<Option<http2::SendRequest<Upload>>>,
    /// Held by who makes the shared one.
    connecting: tokio::sync::Mutex<()>,
    live: Cell<u32>,
    used: Cell<Instant>,
}

struct Idle {
    sender: http1::SendRequest<Upload>,
    since: Instant,
}

/// A request that a real has. The connection is free for others when it has [finished](Lease::finish),
/// and is closed when it is dropped before.
pub(in crate::proxy) struct Lease {
    peer: Rc<Peer>,
    sender: Option<http1::SendRequest<Upload>>,
}

impl Lease {
    fn new(peer: &Rc<Peer>, sender: Option<http1::SendRequest<Upload>>) -> Self {
        peer.live.set(peer.live.get() + 1);
        Self { peer: Rc::clone(peer), sender }
    }

    /// All of the answer has come.
    pub(in crate::proxy) fn finish(mut self) {
        if let Some(sender) = self.sender.take() {
            self.peer.keep(sender);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.peer.live.set(self.peer.live.get() - 1);
    }
}

impl Peer {
    pub(super) fn new(
        (real, spoken): (SocketAddr, Spoken),
        mark: Option<u32>,
        limits: Limits,
    ) -> Rc<Self> {
        Rc::new(Self {
            real,
            spoken,
            mark,
            limits,
            idle: RefCell::default(),
            unneeded: Cell::new(0),
            shared: RefCell::default(),
            connecting: tokio::sync::Mutex::default(),
            live: Cell::new(0),
            used: Cell::new(Instant::now()),
        })
    }

    pub(super) fn live(&self) -> u32 {
        self.live.get()
    }

    /// Connections that carry a request, and those that are kept for the next. One that is being
    /// made counts as the former.
    pub(super) fn connections(&self) -> (u64, u64) {
        let live = u64::from(self.live());
        match self.spoken {
            Spoken::Http1 => (live, self.idle.borrow().len() as u64),
            Spoken::Http2 if self.shared.borrow().is_none() => (live.min(1), 0),
            Spoken::Http2 => (live.min(1), 1 - live.min(1)),
        }
    }

    /// Sends a request and waits for the head of its answer.
    pub(in crate::proxy) async fn send(
        self: &Rc<Self>,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Unanswered> {
        match self.spoken {
            Spoken::Http1 => self.send_alone(request).await,
            // Large: those of HTTP/1.1 are not to have room for it.
            Spoken::Http2 => Box::pin(self.send_shared(request)).await,
        }
    }

    /// Over a connection of HTTP/1.1 that carries nothing else meanwhile.
    async fn send_alone(
        self: &Rc<Self>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Unanswered> {
        loop {
            let idle = {
                let mut all = self.idle.borrow_mut();
                let last = all.pop();
                self.unneeded.set(self.unneeded.get().min(all.len()));
                last
            };
            let kept = idle.is_some();
            let mut sender = match idle {
                Some(idle) => idle.sender,
                // Large, and seldom.
                None => match Box::pin(self.open()).await {
                    Ok(sender) => sender,
                    Err(why) => return Err(Unanswered { why, request: Some(Box::new(request)) }),
                },
            };
            // A kept one that the real has closed meanwhile says so here.
            if kept && sender.ready().await.is_err() {
                continue;
            }
            let lease = Lease::new(self, None);
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let mut lease = lease;
                    lease.sender = Some(sender);
                    return Ok((response, lease));
                }
                Err(failed) => request = again(failed, kept)?,
            }
        }
    }

    /// Over the connection of HTTP/2 that all requests of the shard share.
    async fn send_shared(
        self: &Rc<Self>,
        mut request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Lease), Unanswered> {
        let lease = Lease::new(self, None);
        loop {
            let known = self.shared.borrow().clone().filter(|sender| !sender.is_closed());
            let kept = known.is_some();
            let mut sender = match known {
                Some(sender) => sender,
                None => match self.open_shared().await {
                    Ok(sender) => sender,
                    Err(why) => return Err(Unanswered { why, request: Some(Box::new(request)) }),
                },
            };
            if sender.ready().await.is_err() {
                self.shared.replace(None);
                if kept {
                    continue;
                }
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(failed) => {
                    request = again(failed, kept)?;
                    self.shared.replace(None);
                }
            }
        }
    }

    async fn open(&self) -> Result<http1::SendRequest<Upload>, Why> {
        let stream = connect(self.real, self.mark, self.limits.connect).await?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(self.limits.head_fields)
            .max_buf_size(self.limits.head_bytes.max(8192))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Why::Handshake)?;
        let real = self.real;
        spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%real, %error, "a connection to a real has ended");
            }
        });
        Ok(sender)
    }

    async fn open_shared(&self) -> Result<http2::SendRequest<Upload>, Why> {
        let _only_one = self.connecting.lock().await;
        // Somebody else may have made it while this one waited.
        if let Some(sender) = self.shared.borrow().clone().filter(|sender| !sender.is_closed()) {
            return Ok(sender);
        }
        let stream = connect(self.real, self.mark, self.limits.connect).await?;
        let head_bytes = u32::try_from(self.limits.head_bytes).unwrap_or(u32::MAX);
        let (sender, connection) = http2::Builder::new(Local)
            .max_header_list_size(head_bytes)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Why::Handshake)?;
        let real = self.real;
        spawn_local(async move {
            if let Err(error) = connection.await {
                debug!(%real, %error, "a connection to a real has ended");
            }
        });
        self.shared.replace(Some(sender.clone()));
        Ok(sender)
    }

    fn keep(&self, sender: http1::SendRequest<Upload>) {
        let now = Instant::now();
        self.used.set(now);
        let mut idle = self.idle.borrow_mut();
        // Not ready: the answer came before the end of the request, which may still be on its way.
        if sender.is_ready() && idle.len() < self.limits.real_kept {
            idle.push(Idle { sender, since: now });
        }
    }

    /// Closes half of the connections that nobody has needed since the last time: those of a burst
    /// are not kept for as long as those of steady traffic.
    pub(super) fn trim(&self) {
        let mut idle = self.idle.borrow_mut();
        let unneeded = self.unneeded.get().min(idle.len());
        // Who was idle the longest stands first.
        idle.drain(..unneeded.div_ceil(2));
        self.unneeded.set(idle.len());
    }

    /// Closes what has been idle for too long. `false`: there is nothing left.
    pub(super) fn sweep(&self) -> bool {
        let old = |since: Instant| since.elapsed() > self.limits.real_idle;
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| !idle.sender.is_closed() && !old(idle.since));
        if self.live.get() > 0 {
            self.used.set(Instant::now());
        } else if old(self.used.get()) {
            self.shared.replace(None);
        }
        !idle.is_empty() || self.shared.borrow().is_some() || self.live.get() > 0
    }
}

/// The request, where it may be sent by another connection: nothing of it was sent by one that was
/// kept.
fn again(
    mut failed: TrySendError<Request<Upload>>,
    kept: bool,
) -> Result<Request<Upload>, Unanswered> {
    let request = failed.take_message().map(Box::new);
    let error = failed.into_error();
    match request {
        Some(request) if kept => Ok(*request),
        request if kept => Err(Unanswered { why: Why::Kept(error), request }),
        request => Err(Unanswered { why: Why::Fresh(error), request }),
    }
}
