//! The far end of a tunnel, for kernels without tunnel devices: it takes the packet out of its outer
//! header and hands it to the namespace's own stack.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};
use nix::sys::{
    socket::{MsgFlags, SockaddrStorage, recv, sendto, setsockopt, sockopt},
    time::TimeVal,
};

use crate::{netns::NetNs, wire};

/// How often a thread looks whether it is to stop: microseconds.
const TURN_US: i64 = 50_000;

/// What may wait for a thread: bytes.
const ROOM: usize = 16 << 20;

/// Takes packets of both families out of their tunnels. Two threads, stopped on drop.
#[derive(Debug)]
pub struct TunnelEnd {
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl TunnelEnd {
    /// Starts in `ns`; packets are taken from when this returns.
    ///
    /// # Errors
    /// The kernel refuses raw sockets.
    pub fn start(ns: &NetNs) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let taken = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for v4 in [true, false] {
            let (family, protocol) = if v4 {
                (libc::AF_INET, libc::IPPROTO_IPIP)
            } else {
                (libc::AF_INET6, libc::IPPROTO_IPV6)
            };
            let (from, to) = ns
                .run(|| {
                    Ok::<_, io::Error>((raw(family, protocol)?, raw(family, libc::IPPROTO_RAW)?))
                })
                .context("opening raw sockets")?;
            setsockopt(&from, sockopt::ReceiveTimeout, &TimeVal::new(0, TURN_US))?;
            // A burst must not be lost because this thread has to wait for a CPU.
            setsockopt(&from, sockopt::RcvBufForce, &ROOM)?;
            let (stop, taken) = (Arc::clone(&stop), Arc::clone(&taken));
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    if pass(from.as_raw_fd(), to.as_raw_fd(), v4) {
                        taken.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        Ok(Self { stop, taken, threads })
    }

    /// Packets that were handed on so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for TunnelEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("warning: the end of a tunnel had panicked");
            }
        }
    }
}

/// A raw socket (raw(7)).
fn raw(family: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes three numbers.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made, and is nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Hands one packet on; false: none came, or it was none.
fn pass(from: RawFd, to: RawFd, v4: bool) -> bool {
    let mut bytes = [0; 65_536];
    let Ok(len) = recv(from, &mut bytes, MsgFlags::empty()) else { return false };
    // Raw sockets show the outer header of IPv4, and not that of IPv6.
    let outer = if v4 { usize::from(bytes[0] & 15) * 4 } else { 0 };
    let inner = &bytes[outer.min(len)..len];
    if inner.len() < if v4 { 20 } else { 40 } {
        return false;
    }
    let [_, destination] = wire::addresses(inner);
    let address = SockaddrStorage::from(SocketAddr::new(destination, 0));
    sendto(to, inner, &address, MsgFlags::empty()).is_ok()
}
