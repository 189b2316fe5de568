//! Bodies on their way, in both directions, a piece at a time.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::{sync::mpsc, time::Sleep};

use super::{reals::Lease, vigil::Pulse};

type Failure = Box<dyn Error + Send + Sync>;

/// What a backend is sent.
#[derive(Debug)]
pub(super) enum Upload {
    /// Nothing.
    Empty,
    /// What the client sends.
    Streamed(Incoming),
    /// The same, of which others get a copy.
    Copied(Incoming, Vec<mpsc::Sender<Piece>>),
    /// Such a copy.
    Copy(mpsc::Receiver<Piece>),
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

impl Body for Upload {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Copied(body, copies) => {
                let polled = Pin::new(&mut *body).poll_frame(cx).map_err(Failure::from);
                if let Poll::Ready(Some(Ok(frame))) = &polled {
                    copies.retain(|copy| copy.try_send(Piece::Frame(same(frame))).is_ok());
                }
                // Who knows the length does not ask once more.
                if matches!(polled, Poll::Ready(None)) || body.is_end_stream() {
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
            Self::Streamed(body) | Self::Copied(body, _) => body.is_end_stream(),
            Self::Copy(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streamed(body) | Self::Copied(body, _) => body.size_hint(),
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
    _request: Underway,
}

enum From {
    /// The proxy itself.
    Text(Bytes),
    /// A backend; the connection is free for others once all has come.
    Backend(Incoming, Option<Lease>),
}

/// A request that has begun; it ends when this is dropped.
pub(super) struct Underway(Arc<Pulse>);

impl Underway {
    pub(super) fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.begin();
        Self(Arc::clone(pulse))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.done();
    }
}

/// An answer took longer than its rule allows.
#[derive(Debug, thiserror::Error)]
#[error("the answer took longer than the rule allows")]
struct TooLate;

impl Download {
    /// An answer of the proxy's own.
    pub(super) fn text(text: Bytes, request: Underway) -> Self {
        Self { from: From::Text(text), until: None, _request: request }
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
        Self { from, until, _request: request }
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
