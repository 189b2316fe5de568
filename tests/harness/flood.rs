//! A flood of SYNs from sources that nobody is, at a rate that it keeps whatever each packet costs.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::{netns::NetNs, packet::flags::SYN, tap::ones_complement_sum};

/// Packets that one system call sends.
const BATCH: usize = 64;
/// IPv4 and TCP header.
const LEN: usize = 40;
/// What a late batch may make up for.
const BEHIND: Duration = Duration::from_millis(10);
/// A flood that nobody stops ends by itself.
const LONGEST: Duration = Duration::from_secs(60);

/// Threads, one on each CPU, that send SYNs; stopped on drop.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<Result<()>>>,
}

impl Flood {
    /// Of these addresses, random ones are the packets' sources: `10.128.0.0/9`.
    pub const SOURCES: &'static str = "10.128.0.0/9";

    /// Begins to send to `to` from `ns`, by its routes, `rate` packets a second from each CPU. The
    /// threads go before everybody else, as a network card would: what a packet costs on its way
    /// through namespaces is taken from others, not from the flood.
    ///
    /// # Errors
    /// No raw socket.
    pub fn start(ns: &NetNs, to: SocketAddrV4, rate: u32) -> Result<Self> {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut flood = Self { stop, sent, threads: Vec::new() };
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        for cpu in (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)) {
            let socket = ns.run(raw_socket).context("cannot open a raw socket")?;
            let (stop, sent) = (Arc::clone(&flood.stop), Arc::clone(&flood.sent));
            let send = move || {
                let mut one = CpuSet::new();
                one.set(cpu)?;
                sched_setaffinity(Pid::from_raw(0), &one)?;
                go_first()?;
                send(&socket, to, rate, cpu as u64, &stop, &sent)
            };
            let thread = thread::Builder::new().name(format!("flood {cpu}")).spawn(send)?;
            flood.threads.push(thread);
        }
        ensure!(!flood.threads.is_empty(), "no CPU may be used");
        Ok(flood)
    }

    /// Packets that the kernel has taken so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops it.
    ///
    /// # Errors
    /// It had stopped by itself: the kernel refused.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of a flood panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Whoever wants to know calls `stop`.
            let _ended = thread.join();
        }
    }
}

/// A socket whose packets bring their IPv4 header along (raw(7)).
fn raw_socket() -> std::io::Result<OwnedFd> {
    // SAFETY: takes numbers alone.
    let fd = unsafe {
        libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW)
    };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives the calling thread the highest priority of ordinary ones.
fn go_first() -> std::io::Result<()> {
    const FIRST: libc::c_int = -20;
    // SAFETY: takes numbers alone; 0 is the calling thread (setpriority(2)).
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn send(
    socket: &OwnedFd,
    to: SocketAddrV4,
    rate: u32,
    seed: u64,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Result<()> {
    let begun = Instant::now();
    let template = template(to);
    let mut packets = vec![template; BATCH];
    // SAFETY: all zero bytes are a valid `sockaddr_in`.
    let mut address: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    address.sin_family = libc::AF_INET as libc::sa_family_t;
    address.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut due = begun;
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < LONGEST {
        // Whoever is late does not catch up.
        due = due.max(Instant::now() - BEHIND);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        due += Duration::from_secs(BATCH as u64) / rate.max(1);
        for packet in &mut packets {
            // Xorshift: any sequence with a long period will do.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *packet = template;
            from(packet, random as u32, (random >> 32) as u16);
        }
        let done = send_all(socket, &mut address, &mut packets)?;
        sent.fetch_add(done, Ordering::Relaxed);
    }
    Ok(())
}

/// A SYN from address and port 0, with the checksum that it would have.
fn template(to: SocketAddrV4) -> [u8; LEN] {
    let mut packet = [0; LEN];
    // Version and header length, total length, don't fragment, time to live, protocol. The kernel
    // fills in the header's checksum.
    packet[0] = 0x45;
    packet[3] = LEN as u8;
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = libc::IPPROTO_TCP as u8;
    packet[16..20].copy_from_slice(&to.ip().octets());
    let tcp = &mut packet[20..];
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = SYN;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    packet
}

/// Gives a packet a source: port, and the low 23 bits of the address.
fn from(packet: &mut [u8; LEN], host: u32, port: u16) {
    let source = Ipv4Addr::from(0x0a80_0000 | host & 0x007f_ffff);
    packet[12..16].copy_from_slice(&source.octets());
    packet[20..22].copy_from_slice(&port.to_be_bytes());
    // The pseudo-header: addresses, protocol, length.
    let mut summed = [0; 12 + LEN - 20];
    summed[..8].copy_from_slice(&packet[12..20]);
    summed[9] = packet[9];
    summed[11] = (LEN - 20) as u8;
    summed[12..].copy_from_slice(&packet[20..]);
    let check = !ones_complement_sum(&summed);
    packet[36..38].copy_from_slice(&check.to_be_bytes());
}

/// Sends all packets; how many the kernel took. What finds no room is part of a flood's lot.
fn send_all(
    socket: &OwnedFd,
    address: &mut libc::sockaddr_in,
    packets: &mut [[u8; LEN]],
) -> Result<u64> {
    let mut parts: Vec<libc::iovec> = packets
        .iter_mut()
        .map(|packet| libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: LEN })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .map(|part| {
            // SAFETY: all zero bytes are a valid `mmsghdr`.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_name = (&raw mut *address).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: an open socket, and as many messages as are said, whose address and one part each
    // outlive the call.
    let done = unsafe {
        libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0)
    };
    if done >= 0 {
        return Ok(done as u64);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR) => Ok(0),
        _ => Err(error).context("cannot send"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::verify_checksums;

    #[test]
    fn packets_of_a_flood_are_whole_and_from_anywhere() {
        let mut frame = vec![0; 14];
        frame[12..14].copy_from_slice(&[8, 0]);
        let mut packet = template("10.99.0.2:80".parse().expect("an end"));
        from(&mut packet, u32::MAX, 4711);
        // What the kernel fills in.
        let check = !ones_complement_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&check.to_be_bytes());
        frame.extend(packet);
        verify_checksums(&frame).expect("checksums");
        assert_eq!(packet[12..16], [10, 255, 255, 255]);
        assert_eq!(packet[33], SYN);
    }
}
