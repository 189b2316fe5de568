//! Real TCP servers that say who they are, and the client that listens to them.
//!
//! A server greets each connection with one line, `NAME PEER`: its own name and the client's
//! address as it sees it. Then it answers each line with its name and the line. So a client
//! knows which real it reached, whether that is still so later, and whether its own address
//! arrived untranslated.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
            sockopt,
        },
        time::TimeVal,
    },
};

use crate::{netns::NetNs, scale::patience};

/// Long enough for a SYN to be sent three times on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A real: listens on one address, greets, answers. One thread, stopped on drop.
#[derive(Debug)]
pub struct EchoServer {
    address: SocketAddr,
    accepted: Arc<AtomicU64>,
    stop: Option<io::PipeWriter>,
    thread: Option<thread::JoinHandle<()>>,
}

impl EchoServer {
    /// Starts a server called `name` on `address` in `ns`. It listens when this returns.
    pub fn start(ns: &NetNs, address: SocketAddr, name: &str) -> Result<Self> {
        let listener = ns
            .run(|| TcpListener::bind(address))
            .with_context(|| format!("cannot listen on {address} in {}", ns.name()))?;
        Self::on(listener, name)
    }

    /// Starts a server called `name` that accepts from `listener`.
    pub fn on(listener: TcpListener, name: &str) -> Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (stopped, stop) = io::pipe()?;
        let accepted = Arc::new(AtomicU64::new(0));
        let (name, count) = (name.to_owned(), Arc::clone(&accepted));
        let thread = thread::Builder::new()
            .name(format!("real {name}"))
            .spawn(move || serve(&listener, &stopped, &name, &count))?;
        Ok(Self { address, accepted, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        // Closing the writing end wakes the thread.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("warning: the server on {} had panicked", self.address);
        }
    }
}

/// One accepted connection, the line that it has begun, and what it has not taken yet.
struct Peer {
    stream: TcpStream,
    begun: Vec<u8>,
    pending: Vec<u8>,
}

impl Peer {
    /// Reads what is there and writes what fits; false once the connection is over.
    fn turn(&mut self, name: &str) -> bool {
        let mut buffer = [0; 16 * 1024];
        // Nothing is read while something waits to be written: the client must read too.
        if self.pending.is_empty() {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(n) => self.answer(name, &buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
        self.flush()
    }

    fn answer(&mut self, name: &str, received: &[u8]) {
        for byte in received {
            self.begun.push(*byte);
            if *byte == b'\n' {
                self.pending.extend_from_slice(name.as_bytes());
                self.pending.push(b' ');
                self.pending.append(&mut self.begun);
            }
        }
    }

    fn flush(&mut self) -> bool {
        while !self.pending.is_empty() {
            match self.stream.write(&self.pending) {
                Ok(n) => drop(self.pending.drain(..n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        true
    }
}

fn serve(listener: &TcpListener, stopped: &io::PipeReader, name: &str, accepted: &AtomicU64) {
    let mut peers: Vec<Peer> = Vec::new();
    loop {
        let interest = |peer: &Peer| {
            if peer.pending.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT }
        };
        let mut fds = vec![
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(peers.iter().map(|p| PollFd::new(p.stream.as_fd(), interest(p))));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => panic!("poll: {e}"),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
        drop(fds);
        if ready[0] {
            return;
        }
        let mut turns = ready[2..].iter();
        peers.retain_mut(|peer| !turns.next().is_some_and(|r| *r) || peer.turn(name));
        while let Ok((stream, from)) = listener.accept() {
            accepted.fetch_add(1, Ordering::Relaxed);
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            let pending = format!("{name} {}\n", plain(from)).into_bytes();
            let mut peer = Peer { stream, begun: Vec::new(), pending };
            if peer.flush() {
                peers.push(peer);
            }
        }
    }
}

/// An IPv4 peer of a dual-stack listener as IPv4.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a server said first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The real's name.
    pub name: String,
    /// The client's address as the real sees it.
    pub peer: SocketAddr,
}

/// A greeted connection, seen from the client.
#[derive(Debug)]
pub struct Connection {
    /// What the real said.
    pub greeting: Greeting,
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects from the calling thread's namespace to `to`, from `from` (port 0: any), and
    /// reads the greeting.
    pub fn open(from: SocketAddr, to: SocketAddr) -> Result<Self> {
        let stream = dial(from, to)?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).with_context(|| format!("no greeting from {to}"))?;
        let (name, peer) = line
            .trim_end()
            .split_once(' ')
            .with_context(|| format!("{to} greeted with {line:?}"))?;
        let greeting = Greeting { name: name.into(), peer: peer.parse()? };
        Ok(Self { greeting, reader })
    }

    /// The client's end.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.reader.get_ref().local_addr()
    }

    /// Whom the client believes to talk to.
    pub fn remote(&self) -> io::Result<SocketAddr> {
        self.reader.get_ref().peer_addr()
    }

    /// Sends `word` and returns the name of the real that answers.
    pub fn talk(&mut self, word: &str) -> Result<String> {
        self.reader.get_mut().write_all(format!("{word}\n").as_bytes()).context("cannot write")?;
        let mut line = String::new();
        self.reader.read_line(&mut line).context("cannot read")?;
        match line.trim_end().split_once(' ') {
            Some((name, back)) if back == word => Ok(name.into()),
            _ => bail!("sent {word:?} to {}, got {line:?}", self.greeting.name),
        }
    }

    /// Closes as most programs do: FIN, then waits for the real's FIN.
    pub fn close(mut self) -> Result<()> {
        self.reader.get_ref().shutdown(std::net::Shutdown::Write)?;
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        if !rest.is_empty() {
            bail!("{} sent {rest:?} unasked", self.greeting.name);
        }
        Ok(())
    }
}

/// Any port of the unspecified address of `to`'s family.
pub fn anywhere(to: SocketAddr) -> SocketAddr {
    let ip: IpAddr =
        if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, 0)
}

/// A connected stream with read and write timeouts, bound to `from` first.
pub fn dial(from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // A port in TIME_WAIT towards another peer must not stand in the way of a fixed port.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // Linux bounds connect(2) by the send timeout (socket(7)).
    let patience = TimeVal::new(patience(PATIENCE).as_secs().try_into()?, 0);
    setsockopt(&fd, sockopt::SendTimeout, &patience)?;
    setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))
        .with_context(|| format!("cannot bind {from}"))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))
        .with_context(|| format!("cannot connect from {from} to {to}"))?;
    Ok(TcpStream::from(fd))
}
