//! A server: sends as many bytes as it is asked for. One thread, as few system calls as will do,
//! so that what stands between it and the load shows.

use std::{
    io::{self, BufRead, ErrorKind, Read, Write},
    net::SocketAddr,
    sync::mpsc,
    thread,
};

use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};

use crate::talk::{BLOCK, REQUEST, Served};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Serves until stdin ends.
pub(crate) fn run(address: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener =
        TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let (asked, questions) = mpsc::channel();
    let waker = Waker::new(poll.registry(), WAKER)?;
    // Sleeps while connections are served.
    thread::spawn(move || -> io::Result<()> {
        for line in io::stdin().lock().lines() {
            line?;
            // Nobody listens once serving has failed, and the process ends then.
            let _ = asked.send(());
            waker.wake()?;
        }
        drop(asked);
        waker.wake()
    });
    // It listens now.
    tell(Served::default())?;

    let block = vec![0; BLOCK];
    let mut served = Served::default();
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Events::with_capacity(256);
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => loop {
                    let mut stream = match listener.accept() {
                        Ok((stream, _)) => stream,
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Err(e) => return Err(e).context("cannot accept"),
                    };
                    let number = free.pop().unwrap_or_else(|| {
                        peers.push(None);
                        peers.len() - 1
                    });
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(number), both)?;
                    served.accepted += 1;
                    peers[number] = Some(Peer { stream, request: [0; REQUEST], read: 0, left: 0 });
                },
                WAKER => loop {
                    match questions.try_recv() {
                        Ok(()) => tell(served)?,
                        Err(mpsc::TryRecvError::Empty) => break,
                        Err(mpsc::TryRecvError::Disconnected) => return Ok(()),
                    }
                },
                Token(number) => {
                    // An event may be for a peer that the same batch has ended.
                    let Some(peer) = &mut peers[number] else { continue };
                    if !peer.turn(&block, &mut served) {
                        peers[number] = None;
                        free.push(number);
                    }
                }
            }
        }
    }
}

fn tell(served: Served) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &served)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

struct Peer {
    stream: TcpStream,
    request: [u8; REQUEST],
    read: usize,
    left: u64,
}

impl Peer {
    /// Reads and writes until it would have to wait; false once the connection is over.
    fn turn(&mut self, block: &[u8], served: &mut Served) -> bool {
        loop {
            while self.left > 0 {
                let part = BLOCK.min(self.left.try_into().unwrap_or(BLOCK));
                match self.stream.write(&block[..part]) {
                    Ok(n) => self.left -= n as u64,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                    Err(_) => {
                        served.broken += 1;
                        return false;
                    }
                }
                if self.left == 0 {
                    served.answered += 1;
                }
            }
            match self.stream.read(&mut self.request[self.read..]) {
                Ok(0) => {
                    served.broken += u64::from(self.read > 0);
                    return false;
                }
                Ok(n) => self.read += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => {
                    served.broken += 1;
                    return false;
                }
            }
            if self.read == REQUEST {
                let (wanted, _) = self.request.split_at(8);
                self.left = wanted.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                self.read = 0;
            }
        }
    }
}
