//! Real UDP servers that say who they are: each datagram is answered with `NAME PEER`, the
//! server's name and the client as it sees it.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{netns::NetNs, scale::patience};

/// How often a server looks whether it is to stop.
const TURN: Duration = Duration::from_millis(50);
/// How long a client waits for an answer before it asks once more.
const PATIENCE: Duration = Duration::from_secs(1);

/// A real that answers datagrams. One thread, stopped on drop.
#[derive(Debug)]
pub struct Answerer {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Answerer {
    /// Starts a server called `name` on `address` in `ns`. It is bound when this returns.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn start(ns: &NetNs, address: SocketAddr, name: &str) -> Result<Self> {
        let socket = ns
            .run(|| UdpSocket::bind(address))
            .with_context(|| format!("cannot bind {address} in {}", ns.name()))?;
        socket.set_read_timeout(Some(TURN))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (name, stopped) = (name.to_owned(), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name(format!("real {name}"))
            .spawn(move || answer(&socket, &stopped, &name))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("warning: a server of datagrams had panicked");
        }
    }
}

fn answer(socket: &UdpSocket, stopped: &AtomicBool, name: &str) {
    let mut buffer = [0; 2048];
    while !stopped.load(Ordering::Relaxed) {
        let Ok((_, peer)) = socket.recv_from(&mut buffer) else { continue };
        // Who cannot be answered asks again.
        let _unanswered = socket.send_to(format!("{name} {peer}").as_bytes(), peer);
    }
}

/// A client's socket, connected: it takes datagrams of nobody but whom it asks.
#[derive(Debug)]
pub struct Asker {
    socket: UdpSocket,
}

impl Asker {
    /// A socket at `from` that asks `to`.
    ///
    /// # Errors
    /// Of the socket.
    pub fn open(from: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(patience(PATIENCE)))?;
        Ok(Self { socket })
    }

    /// Where it is.
    ///
    /// # Errors
    /// Of the socket.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Asks, up to five times: the name of who answered, and how it saw the client.
    ///
    /// # Errors
    /// Nobody answered, or not in words.
    pub fn ask(&self) -> Result<(String, SocketAddr)> {
        let mut buffer = [0; 2048];
        for _try in 0..5 {
            // An error of an earlier datagram is told here too.
            if self.socket.send(b"who are you?").is_err() {
                continue;
            }
            if let Ok(len) = self.socket.recv(&mut buffer) {
                let text = std::str::from_utf8(&buffer[..len])?;
                let (name, peer) = text.split_once(' ').context("no name and peer")?;
                return Ok((name.to_owned(), peer.parse()?));
            }
        }
        bail!("nobody answered {:?}", self.socket.local_addr())
    }
}
