//! What the kernel tells of interfaces, addresses and routes (rtnetlink(7)), and of rules of
//! nftables.

use std::{io, sync::Arc, time::Duration};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkAttribute};
use netlink_sys::{
    AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};
use tracing::{debug, warn};

use super::bell::{Bell, Cause};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV6_IFADDR`,
/// `RTNLGRP_IPV6_ROUTE` (linux/rtnetlink.h).
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];

/// `NFNLGRP_NFTABLES` (linux/netfilter/nfnetlink.h).
const RULES: u32 = 7;

/// After an error of the socket itself: it would be there again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket that hears of changes from now on.
pub(crate) fn listen() -> io::Result<TokioSocket> {
    listen_to(&GROUPS)
}

/// The same for these groups of rtnetlink.
pub(super) fn listen_to(groups: &[u32]) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    for group in groups {
        socket.socket_mut().add_membership(*group)?;
    }
    Ok(socket)
}

/// A socket that hears of changes of nftables from now on; `None`: this kernel has no netfilter.
pub(crate) fn listen_to_rules() -> io::Result<Option<TokioSocket>> {
    let mut socket = match TokioSocket::new(NETLINK_NETFILTER) {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(None),
        opened => opened?,
    };
    socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
    socket.socket_mut().add_membership(RULES)?;
    Ok(Some(socket))
}

/// Rings for each change of nftables, for ever. What was lost was told by one that was not.
pub(crate) async fn follow_rules(socket: TokioSocket, bell: Arc<Bell>) {
    loop {
        match socket.recv_from_full().await {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => {
                warn!(%error, "cannot hear of changes of nftables; they are looked for");
                tokio::time::sleep(PAUSE).await;
            }
        }
        bell.ring(Cause::Rules);
    }
}

/// Rings for each change, for ever.
pub(crate) async fn follow(socket: TokioSocket, bell: Arc<Bell>) {
    loop {
        match socket.recv_from_full().await {
            Ok((bytes, _)) => {
                if !ring_for(&bytes, &bell) {
                    debug!("a message of the kernel about the network cannot be read");
                    lost(&bell);
                }
            }
            // More than the socket holds: what was lost is looked for.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost(&bell),
            Err(error) => {
                warn!(%error, "cannot hear of changes of interfaces and routes");
                lost(&bell);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn lost(bell: &Bell) {
    bell.ring(Cause::Links);
    bell.ring(Cause::Routes);
}

/// False: not all of it could be read.
fn ring_for(mut bytes: &[u8], bell: &Bell) -> bool {
    while !bytes.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes) else {
            return false;
        };
        let length = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(length.max(4)..).unwrap_or_default();
        let NetlinkPayload::InnerMessage(inner) = message.payload else { continue };
        match inner {
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
                let name = link.attributes.iter().find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.as_str()),
                    _ => None,
                });
                debug!(interface = name.unwrap_or("?"), "the kernel tells of an interface");
                bell.ring(Cause::Links);
            }
            _ => bell.ring(Cause::Routes),
        }
    }
    true
}
