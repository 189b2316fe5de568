//! Bodies on their way, in both directions, a piece at a time.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::{sync::mpsc, time::Sleep};

use super::{connection::stream, counts::Cause, reals::Lease, vigil::Pulse};

type Failure = Box<dyn Error + Send + Sync>;

/// What a backend is sent.
#[derive(Debug)]
pub(super) enum Upload {
    /// Nothing.
    Empty,
    /// What the client sends.
    Streamed(Inflow),
    /// The same, of which others get a copy.
    Copied(Inflow, Vec<mpsc::Sender<Piece>>),
    /// Such a copy.
    Copy(mpsc::Receiver<Piece>),
}

/// What a client sends, felt by the pulse of its request.
#[derive(Debug)]
pub(super) struct Inflow {
    pub(super) body: Incoming,
    pub(super) pulse: Arc<Pulse>,
}

/// What hyper makes of line ends that are none behind the last chunk.
#[derive(Debug, thiserror::Error)]
#[error("trailers without a field")]
struct NoTrailers;

impl Inflow {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx).map_err(Failure::from);
        if polled.is_ready() {
            self.pulse.has_moved();
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            // Among trailers hyper takes a bare LF for a line end and passes over what follows an
            // empty line, which others may take for requests: none is answered out of turn where
            // nothing is read after them. A stream of HTTP/2 ends here anyway.
            self.pulse.end();
            if trailers.is_empty() {
                return Poll::Ready(Some(Err(NoTrailers.into())));
            }
        }
        polled
    }
}

/// A piece of a body that is copied.
#[derive(Debug)]
pub(super) enum Piece {
    Frame(Frame<Bytes>),
    /// There are no more. Without it the copy was given up, or the original was.
    End,
}

/// Pieces that a copy may lag behind; one that lags further is given up.
pub(super) const COPY_BEHIND: usize = 16;

#[derive(Debug, thiserror::Error)]
#[error("the copy of a request is not complete")]
struct Incomplete;

impl Upload {
    /// Whether HTTP/1 has to send it in chunks. Of methods that seldom have a body, such as GET,
    /// hyper sends none otherwise.
    pub(super) fn is_of_unknown_length(&self) -> bool {
        !self.is_end_stream() && self.size_hint().exact().is_none()
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(inflow) => inflow.poll_frame(cx),
            Self::Copied(inflow, copies) => {
                let polled = inflow.poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &polled {
                    copies.retain(|copy| copy.try_send(Piece::Frame(same(frame))).is_ok());
                }
                // Who knows the length does not ask once more.
                if matches!(polled, Poll::Ready(None)) || inflow.body.is_end_stream() {
                    copies.drain(..).for_each(|copy| drop(copy.try_send(Piece::End)));
                }
                polled
            }
            Self::Copy(pieces) => pieces.poll_recv(cx).map(|piece| match piece {
                Some(Piece::Frame(frame)) => Some(Ok(frame)),
                Some(Piece::End) => None,
                None => Some(Err(Incomplete.into())),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streamed(inflow) | Self::Copied(inflow, _) => inflow.body.is_end_stream(),
            Self::Copy(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(inflow) | Self::Copied(inflow, _) => inflow.body.size_hint(),
            Self::Copy(_) => SizeHint::default(),
        }
    }
}

fn same(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (None, Some(trailers)) => Frame::trailers(trailers.clone()),
        (None, None) => Frame::data(Bytes::new()),
    }
}

/// What a client is sent.
pub(super) struct Download {
    from: From,
    /// Until when all of it has to be there.
    until: Option<Pin<Box<Sleep>>>,
    request: Underway,
}

enum From {
    /// The proxy itself.
    Text(Bytes),
    /// A backend; the connection is free for others once all has come.
    Backend(Incoming, Option<Lease>),
}

/// A request that has begun; it ends when this is dropped.
pub(super) struct Underway {
    connection: Arc<Pulse>,
    /// Of HTTP/2.
    stream: Option<Arc<Pulse>>,
}

impl Underway {
    pub(super) fn new(connection: &Arc<Pulse>) -> Self {
        connection.begin();
        Self { connection: Arc::clone(connection), stream: stream() }
    }
}

impl Underway {
    /// The proxy answers it with an error.
    pub(super) fn refused(&self, cause: Cause) {
        self.connection.refused(cause);
    }

    /// A piece of the answer has moved on. Of HTTP/1 the connection feels it.
    fn has_moved(&self) {
        if let Some(stream) = &self.stream {
            stream.has_moved();
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.connection.done();
    }
}

/// An answer took longer than its rule allows.
#[derive(Debug, thiserror::Error)]
#[error("the answer took longer than the rule allows")]
struct TooLate;

impl Download {
    /// An answer of the proxy's own.
    pub(super) fn text(text: Bytes, request: Underway) -> Self {
        Self { from: From::Text(text), until: None, request }
    }

    /// A backend's answer.
    pub(super) fn of_backend(
        body: Incoming,
        lease: Lease,
        until: Option<Pin<Box<Sleep>>>,
        request: Underway,
    ) -> Self {
        let mut from = From::Backend(body, Some(lease));
        from.give_back();
        Self { from, until, request }
    }
}

impl From {
    /// Gives the connection back as soon as nothing more comes. Who knows the length does not ask
    /// once more.
    fn give_back(&mut self) {
        if let Self::Backend(body, lease) = self
            && body.is_end_stream()
            && let Some(lease) = lease.take()
        {
            lease.finish();
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if let Some(until) = &mut self.until
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(TooLate.into())));
        }
        let polled = match &mut self.from {
            From::Text(text) if text.is_empty() => Poll::Ready(None),
            From::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            From::Backend(body, lease) => {
                let polled = Pin::new(body).poll_frame(cx).map_err(Failure::from);
                if matches!(polled, Poll::Ready(None))
                    && let Some(lease) = lease.take()
                {
                    lease.finish();
                }
                polled
            }
        };
        self.from.give_back();
        if polled.is_ready() {
            self.request.has_moved();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.from {
            From::Text(text) => text.is_empty(),
            From::Backend(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            From::Text(text) => SizeHint::with_exact(text.len() as u64),
            From::Backend(body, _) => body.size_hint(),
        }
    }
}
