//! The load: connections that ask a server for bytes, some at once. One thread.

use std::{
    io::{self, BufRead, ErrorKind, Read, Write},
    net::Shutdown,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Interest, Poll, Token, net::TcpStream};

use crate::talk::{BLOCK, Order, Outcome, REQUEST};

/// An order that takes longer has failed: the load stops by itself.
const DEADLINE: Duration = Duration::from_secs(60);
/// A connection on which nothing happens for so long is stuck.
const SILENCE: Duration = Duration::from_secs(10);

/// Carries out an order for each line of stdin until that ends.
pub(crate) fn run() -> Result<()> {
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?)?;
        let begun = Instant::now();
        let done = carry_out(&order);
        let outcome: Outcome =
            done.map(|()| begun.elapsed().as_secs_f64()).map_err(|e| format!("{e:#}"));
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
    /// Bytes still to come of the answer to the last one.
    left: u64,
}

/// What a line came to.
enum Turn {
    Waits,
    Over,
}

fn carry_out(order: &Order) -> Result<()> {
    ensure!(!order.to.is_empty() && order.at_once > 0, "an order without a destination");
    let begun = Instant::now();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut buffer = vec![0; BLOCK];
    let mut opened = 0;
    let mut closed = 0;
    let mut lines: Vec<Option<Line>> = Vec::new();
    lines.resize_with(order.at_once, || None);
    for (number, line) in lines.iter_mut().enumerate() {
        *line = open(&poll, order, number, &mut opened)?;
    }
    while closed < order.connections {
        match poll.poll(&mut events, Some(SILENCE)) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        if events.is_empty() {
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
            let turn = line.turn(order, &mut buffer);
            if let Turn::Over = turn.with_context(|| format!("connection {}", closed + 1))? {
                closed += 1;
                // Closes the old one first: no more than the order's number are open.
                lines[number] = None;
                lines[number] = open(&poll, order, number, &mut opened)?;
            }
        }
    }
    Ok(())
}

/// Begins the next connection, if there is one.
fn open(poll: &Poll, order: &Order, number: usize, opened: &mut u64) -> Result<Option<Line>> {
    if *opened == order.connections {
        return Ok(None);
    }
    let to = order.to[(*opened % order.to.len() as u64) as usize];
    let mut stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(&mut stream, Token(number), both)?;
    *opened += 1;
    Ok(Some(Line { stream, connected: false, requests: order.requests, left: 0 }))
}

impl Line {
    /// Does what can be done without waiting.
    fn turn(&mut self, order: &Order, buffer: &mut [u8]) -> Result<Turn> {
        if !self.connected {
            if let Some(fault) = self.stream.take_error()? {
                return Err(fault).context("cannot connect");
            }
            match self.ask(order) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Turn::Waits),
                asked => asked.context("cannot write")?,
            }
            self.connected = true;
        }
        loop {
            let n = match self.stream.read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(Turn::Waits),
                read => read.context("cannot read")?,
            };
            if n == 0 {
                ensure!(self.left == 0 && self.requests == 0, "it ended {} bytes early", self.left);
                return Ok(Turn::Over);
            }
            ensure!(n as u64 <= self.left, "more came than was asked for");
            self.left -= n as u64;
            if self.left == 0 {
                if self.requests == 0 {
                    self.stream.shutdown(Shutdown::Write).context("cannot close")?;
                } else {
                    self.ask(order).context("cannot write")?;
                }
            }
            if n < buffer.len() {
                // Nothing more was there; what comes later is an event of its own.
                return Ok(Turn::Waits);
            }
        }
    }

    fn ask(&mut self, order: &Order) -> io::Result<()> {
        let mut request = [0; REQUEST];
        request[..8].copy_from_slice(&order.size.to_be_bytes());
        let n = self.stream.write(&request)?;
        if n < REQUEST {
            return Err(io::Error::other("a request did not fit into an empty buffer"));
        }
        self.requests -= 1;
        self.left = order.size;
        Ok(())
    }
}
