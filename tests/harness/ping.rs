//! An echo request from the calling thread's namespace, and the wait for its reply.

use std::{net::IpAddr, os::fd::AsRawFd as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recv,
        sendto, socket,
    },
};
use std::os::fd::AsFd as _;

/// Asks `to` and waits for the answer, at most `patience`. Needs the sysctl
/// `net.ipv4.ping_group_range` to have the caller's group in it.
pub fn ping(to: IpAddr, patience: Duration) -> Result<()> {
    let (family, protocol, kind) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128),
    };
    let socket = socket(family, SockType::Datagram, SockFlag::empty(), protocol)
        .context("cannot open a socket for echo requests")?;
    let body = b"are you there?";
    // The kernel fills in checksum and identification.
    let request = [&[kind, 0, 0, 0, 0, 0, 0, 1], &body[..]].concat();
    let sent = match to {
        IpAddr::V4(to) => {
            let [a, b, c, d] = to.octets();
            let to = SockaddrIn::new(a, b, c, d, 0);
            sendto(socket.as_raw_fd(), &request, &to, MsgFlags::empty())
        }
        IpAddr::V6(to) => {
            let to = SockaddrIn6::from(std::net::SocketAddrV6::new(to, 0, 0, 0));
            sendto(socket.as_raw_fd(), &request, &to, MsgFlags::empty())
        }
    };
    ensure!(sent.context("cannot send")? == request.len(), "a short message");
    let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).context("a long wait")?;
    ensure!(poll(&mut ready, timeout)? > 0, "no answer from {to} within {patience:?}");
    let mut answer = [0; 256];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).context("cannot receive")?;
    ensure!(answer[8..len] == *body, "{to} answered something else");
    Ok(())
}
