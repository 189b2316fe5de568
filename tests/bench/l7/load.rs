//! The load: requests whose answers are read to their end, on some connections at once. One
//! thread, and no more work than telling that an answer is what it should be.

use std::{
    io::{self, BufRead, ErrorKind, Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::work::Order;

/// An order that takes longer has failed: the load stops by itself.
const DEADLINE: Duration = Duration::from_secs(60);
/// A connection on which nothing happens for so long is stuck.
const SILENCE: Duration = Duration::from_secs(10);
/// Longer than any answer.
const ROOM: usize = 4096;

/// What is answered to an order: nothing, or what went wrong.
pub(crate) type Outcome = Result<(), String>;

/// Carries out an order for each line of stdin until that ends.
pub(crate) fn run() -> Result<()> {
    let mut held = Vec::new();
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        held.clear();
        let done = carry_out(&order, &mut held);
        let outcome: Outcome = done.map_err(|e| format!("{e:#}"));
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &outcome)?;
        writeln!(out)?;
        out.flush()?;
    }
    Ok(())
}

/// A connection and how far it is.
struct Line {
    stream: TcpStream,
    connected: bool,
    /// Requests not yet written.
    requests: u64,
    /// What has come of the answer to the last one.
    answer: [u8; ROOM],
    length: usize,
    /// All answers have come.
    over: bool,
}

enum Turn {
    Waits,
    Over,
}

fn carry_out(order: &Order, held: &mut Vec<TcpStream>) -> Result<()> {
    ensure!(!order.to.is_empty() && order.at_once > 0, "an order without a destination");
    let begun = Instant::now();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let (mut opened, mut closed) = (0, 0);
    let mut lines: Vec<Option<Box<Line>>> = Vec::new();
    lines.resize_with(order.at_once, || None);
    // No more SYNs at once than a listener's queue takes.
    let mut unopened = 0..order.at_once;
    while closed < order.connections {
        for number in unopened.by_ref().take(64) {
            lines[number] = open(&poll, order, number, &mut opened)?;
        }
        let patience = if unopened.is_empty() { SILENCE } else { Duration::from_millis(1) };
        match poll.poll(&mut events, Some(patience)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        if events.is_empty() && unopened.is_empty() {
            bail!("nothing has come for {SILENCE:?}: {closed} of {} done", order.connections);
        }
        ensure!(
            begun.elapsed() < DEADLINE,
            "{closed} of {} connections are done after {DEADLINE:?}",
            order.connections
        );
        for event in &events {
            let Token(number) = event.token();
            let Some(line) = &mut lines[number] else { continue };
            let turn = line.turn(order);
            if let Turn::Over = turn.with_context(|| format!("connection {}", closed + 1))? {
                closed += 1;
                // Closes the old one first: no more than the order's number are open.
                held.extend(lines[number].take().filter(|_| order.hold).map(|line| line.stream));
                lines[number] = open(&poll, order, number, &mut opened)?;
            }
        }
    }
    Ok(())
}

/// Begins the next connection, if there is one.
fn open(poll: &Poll, order: &Order, number: usize, opened: &mut u64) -> Result<Option<Box<Line>>> {
    if *opened == order.connections {
        return Ok(None);
    }
    let to = order.to[(*opened % order.to.len() as u64) as usize];
    let mut stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(number), both)?;
    *opened += 1;
    Ok(Some(Box::new(Line {
        stream,
        connected: false,
        requests: order.requests,
        answer: [0; ROOM],
        length: 0,
        over: false,
    })))
}

impl Line {
    /// Does what can be done without waiting.
    fn turn(&mut self, order: &Order) -> Result<Turn> {
        if !self.connected {
            if let Some(fault) = self.stream.take_error()? {
                return Err(fault).context("cannot connect");
            }
            match self.ask(order) {
                Err(e)
                    if e.kind() == ErrorKind::WouldBlock || e.kind() == ErrorKind::NotConnected =>
                {
                    return Ok(Turn::Waits);
                }
                asked => asked.context("cannot write")?,
            }
            self.connected = true;
        }
        loop {
            let free = self.answer.len() - self.length;
            let n = match self.stream.read(&mut self.answer[self.length..]) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Turn::Waits),
                read => read.context("cannot read")?,
            };
            if n == 0 {
                ensure!(self.over, "it ended within an answer");
                return Ok(Turn::Over);
            }
            ensure!(!self.over, "more came than was asked for");
            self.length += n;
            if let Some(end) = end_of(&self.answer[..self.length])? {
                ensure!(end == self.length, "more came than was asked for");
                self.length = 0;
                if self.requests > 0 {
                    self.ask(order).context("cannot write")?;
                } else if order.hold {
                    return Ok(Turn::Over);
                } else {
                    self.over = true;
                    self.stream.shutdown(Shutdown::Write).context("cannot close")?;
                }
            }
            if n < free {
                // Nothing more was there; what comes later is an event of its own.
                return Ok(Turn::Waits);
            }
        }
    }

    fn ask(&mut self, order: &Order) -> io::Result<()> {
        if self.stream.write(order.request.as_bytes())? < order.request.len() {
            return Err(io::Error::other("a request did not fit into an empty buffer"));
        }
        self.requests -= 1;
        Ok(())
    }
}

/// Where an answer ends that has come whole; fails unless it is a 200.
fn end_of(answer: &[u8]) -> Result<Option<usize>> {
    const LENGTH: &[u8] = b"content-length: ";
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        ensure!(answer.len() < ROOM, "an answer is longer than {ROOM} bytes");
        return Ok(None);
    };
    let (head, body) = (&answer[..head + 2], head + 4);
    ensure!(
        head.starts_with(b"HTTP/1.1 200"),
        "the answer is\n{}",
        String::from_utf8_lossy(answer)
    );
    let length = head
        .windows(LENGTH.len())
        .position(|name| name.eq_ignore_ascii_case(LENGTH))
        .map(|at| &head[at + LENGTH.len()..])
        .context("an answer without a length")?;
    let digits = length.iter().take_while(|byte| byte.is_ascii_digit());
    let length = digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    Ok(Some(body + length).filter(|end| *end <= answer.len()))
}
