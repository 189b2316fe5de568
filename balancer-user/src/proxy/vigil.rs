//! What must not stand still: connections of clients, looked after by one coarse clock.
//!
//! A timer of its own for each would cost more than a request does, and ten thousand idle
//! connections would be as many timers. Here each has a number, the tick at which it is over, that
//! whoever moves a byte writes, and one task that reads all of them at every tick.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::body::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    counts::{Cause, Counts},
    limits::Limits,
};

/// How often it is looked.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Ticks between a request that stands still and the end of its connection: meanwhile the client
/// is told, if it listens.
const TO_TELL: u32 = 20;
/// Ticks without a request after which a connection [rests](Told::Rest).
const TO_REST: u32 = 10;

/// The clock of a shard and all that it looks after.
#[derive(Debug)]
pub(super) struct Vigil {
    clock: Arc<Clock>,
    counts: Arc<Counts>,
    watched: RefCell<Vec<Option<Arc<Pulse>>>>,
    free: RefCell<Vec<usize>>,
}

/// What all connections of a shard go by.
#[derive(Debug)]
struct Clock {
    /// Ticks so far.
    now: AtomicU32,
    /// Ticks that a connection may be without a request, whatever its limits say.
    idle_at_most: AtomicU32,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: AtomicU32::new(0), idle_at_most: AtomicU32::new(u32::MAX) }
    }
}

impl Clock {
    fn after(&self, ticks: u32) -> u32 {
        self.now.load(Relaxed).wrapping_add(ticks)
    }

    fn idle(&self, ticks: u32) -> u32 {
        ticks.min(self.idle_at_most.load(Relaxed))
    }
}

/// One connection of a client, seen from outside.
#[derive(Debug)]
pub(super) struct Pulse {
    clock: Arc<Clock>,
    counts: Arc<Counts>,
    times: Times,
    phase: AtomicU8,
    /// How many of the first bytes were those of [`PREFACE`], after which frames come without a
    /// request too.
    preface: AtomicU8,
    /// Requests under way.
    requests: AtomicU32,
    /// The tick from which on it is over.
    due: AtomicU32,
    asked_to_end: AtomicBool,
    /// It was asked once.
    ending: AtomicBool,
    /// The client takes no more, and something is still to be written.
    blocked: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// Limits in ticks.
#[derive(Clone, Copy, Debug)]
struct Times {
    head: u32,
    idle: u32,
    stalled: u32,
}

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4), and none of HTTP/1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Waits for a request.
    Idle,
    /// Reads the head of one.
    Head,
    /// Has at least one under way.
    Busy,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It stood still for too long.
    Over,
    /// It is to end once what is under way has ended.
    End,
    /// It is of HTTP/1.1 and has had nothing to do for a while.
    Rest,
}

fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX / 4).max(1)
}

impl Vigil {
    /// Looks after nothing yet; `counts`: the shard's.
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        Self {
            clock: Arc::default(),
            counts,
            watched: RefCell::default(),
            free: RefCell::default(),
        }
    }

    /// Looks after a connection from now on, until [`Self::leave`].
    pub(super) fn watch(&self, limits: &Limits) -> (usize, Arc<Pulse>) {
        let pulse = self.pulse(limits);
        pulse.enter(Phase::Head, self.clock.idle(pulse.times.head));
        self.add(pulse)
    }

    /// Looks after one request of a connection that carries many.
    pub(super) fn watch_stream(&self, limits: &Limits) -> (usize, Arc<Pulse>) {
        let pulse = self.pulse(limits);
        pulse.enter(Phase::Busy, pulse.times.stalled);
        self.add(pulse)
    }

    fn pulse(&self, limits: &Limits) -> Pulse {
        let times = Times {
            head: ticks(limits.head_within),
            idle: ticks(limits.idle),
            stalled: ticks(limits.stalled),
        };
        Pulse {
            clock: Arc::clone(&self.clock),
            counts: Arc::clone(&self.counts),
            times,
            phase: AtomicU8::new(Phase::Head as u8),
            preface: AtomicU8::new(0),
            requests: AtomicU32::new(0),
            due: AtomicU32::new(0),
            asked_to_end: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    fn add(&self, pulse: Pulse) -> (usize, Arc<Pulse>) {
        let pulse = Arc::new(pulse);
        let mut watched = self.watched.borrow_mut();
        let place = self.free.borrow_mut().pop().unwrap_or_else(|| {
            watched.push(None);
            watched.len() - 1
        });
        watched[place] = Some(Arc::clone(&pulse));
        (place, pulse)
    }

    /// The connection is no more.
    pub(super) fn leave(&self, place: usize) {
        self.watched.borrow_mut()[place] = None;
        self.free.borrow_mut().push(place);
    }

    /// A tick has passed. Gives the number of requests under way.
    pub(super) fn tick(&self) -> u64 {
        let now = self.clock.now.fetch_add(1, Relaxed).wrapping_add(1);
        let mut requests = 0;
        for pulse in self.watched.borrow().iter().flatten() {
            requests += u64::from(pulse.requests.load(Relaxed));
            if pulse.is_over(now) || pulse.begins_to_rest(now) {
                pulse.wake();
            }
        }
        requests
    }

    /// Asks all connections to end, those of HTTP/1 that wait for a request once none has come for
    /// `grace`: it may be on its way, and would meet a reset. Others are told and end by themselves.
    pub(super) fn end_all(&self, grace: Duration) {
        let grace = ticks(grace);
        self.clock.idle_at_most.store(grace, Relaxed);
        for pulse in self.watched.borrow().iter().flatten() {
            if pulse.is_of_one() && pulse.phase() != Phase::Busy {
                pulse.is_due_within(grace);
            } else {
                pulse.end();
            }
        }
    }
}

impl Pulse {
    /// The connection, or a request of it, is refused.
    pub(super) fn refused(&self, cause: Cause) {
        self.counts.add(cause);
    }

    /// The connection is to end once what is under way has ended.
    pub(super) fn end(&self) {
        self.asked_to_end.store(true, Relaxed);
        self.ending.store(true, Relaxed);
        self.wake();
    }

    /// Whether it is to end once what is under way has ended.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Relaxed)
    }

    /// A request has begun.
    pub(super) fn begin(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.enter(Phase::Busy, self.times.stalled);
    }

    /// A request has ended, its answer included.
    pub(super) fn done(&self) {
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.enter(Phase::Idle, self.clock.idle(self.times.idle));
        }
    }

    /// Whether not a byte has moved for as long as one request may stand still. The connection's
    /// task is woken then.
    pub(super) fn stands_still(&self) -> bool {
        self.phase() == Phase::Busy && self.is_over(self.clock.now.load(Relaxed))
    }

    /// Whether the connection carries one request at a time, so that what is true of it is true of
    /// its request.
    pub(super) fn is_of_one(&self) -> bool {
        usize::from(self.preface.load(Relaxed)) < PREFACE.len()
    }

    /// Ready as soon as there is something to tell. `End` is told once, and `Over`, which is counted;
    /// `Rest` to who may.
    pub(super) fn poll_told(&self, cx: &Context<'_>, may_rest: bool) -> Poll<Told> {
        if self.asked_to_end.swap(false, Relaxed) {
            return Poll::Ready(Told::End);
        }
        let now = self.clock.now.load(Relaxed);
        let phase = self.phase();
        let to_tell = if phase == Phase::Busy { TO_TELL } else { 0 };
        if self.is_over(now.wrapping_sub(to_tell)) {
            self.refused(match phase {
                Phase::Idle => Cause::Idle,
                Phase::Head => Cause::HeadWithin,
                Phase::Busy => Cause::Stalled,
            });
            return Poll::Ready(Told::Over);
        }
        if may_rest && self.silent_for(now).is_some_and(|ticks| ticks >= TO_REST) {
            return Poll::Ready(Told::Rest);
        }
        let mut waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            other => *other = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// For how many ticks a connection of HTTP/1.1 has had nothing to do.
    fn silent_for(&self, now: u32) -> Option<u32> {
        let idle = self.phase() == Phase::Idle && self.is_of_one() && !self.blocked.load(Relaxed);
        let since = self.due.load(Relaxed).wrapping_sub(self.clock.idle(self.times.idle));
        idle.then(|| now.wrapping_sub(since))
    }

    /// Whether it may rest from this tick on.
    fn begins_to_rest(&self, now: u32) -> bool {
        self.silent_for(now) == Some(TO_REST)
    }

    fn is_over(&self, now: u32) -> bool {
        now.wrapping_sub(self.due.load(Relaxed)) as i32 >= 0
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }

    fn enter(&self, phase: Phase, within: u32) {
        self.phase.store(phase as u8, Relaxed);
        self.due.store(self.clock.after(within), Relaxed);
    }

    fn is_due_within(&self, ticks: u32) {
        let latest = self.clock.after(ticks);
        if !self.is_over(latest) {
            self.due.store(latest, Relaxed);
        }
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            phase if phase == Phase::Head as u8 => Phase::Head,
            phase if phase == Phase::Busy as u8 => Phase::Busy,
            _ => Phase::Idle,
        }
    }

    fn has_read(&self, bytes: &[u8]) {
        match self.phase() {
            Phase::Busy => self.enter(Phase::Busy, self.times.stalled),
            Phase::Idle if self.is_of_one() => self.enter(Phase::Head, self.times.head),
            Phase::Idle => {}
            Phase::Head => {
                let known = self.preface.load(Relaxed);
                let left = &PREFACE[usize::from(known)..];
                let read = &bytes[..bytes.len().min(left.len())];
                // Of another beginning no byte counts, and none after it will.
                if left.starts_with(read) && self.is_of_one() {
                    self.preface.store(known + read.len() as u8, Relaxed);
                    if !self.is_of_one() {
                        self.enter(Phase::Idle, self.clock.idle(self.times.idle));
                    }
                }
            }
        }
    }

    /// What came of writing.
    fn has_written(&self, written: &Poll<io::Result<usize>>) {
        self.blocked.store(written.is_pending(), Relaxed);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.has_moved();
        }
    }

    /// A piece of the request or of its answer has moved on.
    pub(super) fn has_moved(&self) {
        if self.phase() == Phase::Busy {
            self.enter(Phase::Busy, self.times.stalled);
        }
    }
}

/// A connection whose pulse is felt.
#[derive(Debug)]
pub(super) struct Felt {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    /// What was read of it already and is to be read again.
    early: Bytes,
}

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    Http1,
    Http2,
}

impl Felt {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        Self { stream, pulse, early: Bytes::new() }
    }

    /// Has these bytes read first, which it has told of.
    pub(super) fn with_early(mut self, early: Bytes) -> Self {
        // Nothing at all keeps the buffer that it was read into.
        self.early = Bytes::new();
        if !early.is_empty() {
            self.pulse.has_read(&early);
            self.early = early;
        }
        self
    }

    /// Reads until it is told what the connection speaks. `None`: it is over before.
    pub(super) async fn begins(&mut self) -> Option<Begins> {
        let mut first = [0; PREFACE.len()];
        let mut length = 0;
        loop {
            let read = poll_fn(|cx| {
                let mut room = ReadBuf::new(&mut first[length..]);
                if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                    return Poll::Ready(read.ok().map(|()| room.filled().len()));
                }
                // Whatever it is, it ends a connection of which nothing is known.
                self.pulse.poll_told(cx, false).map(|_| None)
            });
            let read = read.await.filter(|read| *read > 0)?;
            self.pulse.has_read(&first[length..length + read]);
            length += read;
            let alike = usize::from(self.pulse.preface.load(Relaxed));
            if alike == PREFACE.len() || alike < length {
                self.early = Bytes::copy_from_slice(&first[..length]);
                let is_http2 = alike == PREFACE.len();
                return Some(if is_http2 { Begins::Http2 } else { Begins::Http1 });
            }
        }
    }

    /// Waits until there is something to read. `false`: the connection is to end.
    pub(super) async fn wakes(&mut self) -> bool {
        if !self.early.is_empty() {
            return true;
        }
        poll_fn(|cx| match self.stream.poll_read_ready(cx) {
            Poll::Ready(ready) => Poll::Ready(ready.is_ok()),
            Poll::Pending => self.pulse.poll_told(cx, false).map(|_| false),
        })
        .await
    }
}

impl AsyncRead for Felt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let length = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(bytes) = buf.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.pulse.has_read(bytes);
        }
        read
    }
}

impl AsyncWrite for Felt {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.pulse.has_written(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.pulse.has_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
