//! What the page says of headers, read from bytes.

use std::net::{IpAddr, SocketAddr};

use balancer_ebpf::reason::Reason;
use harness::wire::protocol;

/// Which end of the connection a hook asks for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// A packet of TCP or UDP.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    pub(crate) is_udp: bool,
    /// Offsets of the headers.
    pub(crate) ip: usize,
    pub(crate) tcp: usize,
    /// Where the payload ends; padding follows.
    pub(crate) end: usize,
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) flags: u8,
    /// The first of several fragments.
    pub(crate) first: bool,
}

/// Big-endian, as all on the wire.
pub(crate) fn pair(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The port that settles an ordinary packet before anything else is read: untagged, TCP or UDP in an IP
/// header without options or extension headers, not a fragment. `None`: no such packet.
pub(crate) fn ordinary_port(frame: &[u8], end: End) -> Option<u16> {
    let port = if end == End::Source { 0 } else { 2 };
    match pair(frame, 12)? {
        0x0800 => {
            let whole = pair(frame, 20)? & 0x3fff == 0;
            let ours = [protocol::TCP, protocol::UDP].contains(frame.get(23)?);
            if frame[14] != 0x45 || !ours || !whole || frame.len() < 38 {
                return None;
            }
            pair(frame, 34 + port)
        }
        0x86dd => {
            let ours = [protocol::TCP, protocol::UDP].contains(frame.get(20)?);
            if *frame.get(14)? >> 4 != 6 || !ours {
                return None;
            }
            pair(frame, 54 + port)
        }
        _ => None,
    }
}

/// Where the IP header begins, and whether it is to be IPv4.
fn network(frame: &[u8]) -> Result<(usize, bool), Reason> {
    let mut at = 12;
    for _tag in 0..2 {
        if !matches!(pair(frame, at), Some(0x8100 | 0x88a8)) {
            break;
        }
        at += 4;
    }
    match pair(frame, at) {
        Some(0x0800) => Ok((at + 2, true)),
        Some(0x86dd) => Ok((at + 2, false)),
        Some(_) => Err(Reason::NotTcp),
        None => Err(Reason::Malformed),
    }
}

/// Reads a frame in full.
///
/// # Errors
/// Why it passes untouched.
pub(crate) fn read(frame: &[u8]) -> Result<Tcp, Reason> {
    let (ip, v4) = network(frame)?;
    let packet = &frame[ip..];
    if packet.len() < if v4 { 20 } else { 40 } {
        return Err(Reason::Malformed);
    }
    let (header, claimed, number, fragment) = if v4 {
        let header = usize::from(packet[0] & 15) * 4;
        let claimed = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        if packet[0] >> 4 != 4 || header < 20 || (claimed != 0 && claimed < header) {
            return Err(Reason::Malformed);
        }
        (header, claimed, packet[9], u16::from_be_bytes([packet[6], packet[7]]))
    } else {
        let payload = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        if packet[0] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        (40, if payload == 0 { 0 } else { payload + 40 }, packet[6], 0)
    };
    if ![protocol::TCP, protocol::UDP].contains(&number) {
        return Err(Reason::NotTcp);
    }
    let is_udp = number == protocol::UDP;
    let first = fragment & 0x2000 != 0;
    if fragment & 0x1fff != 0 {
        return Err(Reason::FragmentTail);
    }
    // Only what is longer than the field can say may leave its length out.
    let length = match claimed {
        0 if packet.len() > 65_535 => packet.len(),
        0 => return Err(Reason::Malformed),
        claimed => claimed,
    };
    let least = if is_udp { 8 } else { 20 };
    let segment = packet.get(header..).filter(|s| s.len() >= least).ok_or(Reason::Malformed)?;
    // What the packet must have of it: the header; of a datagram that comes whole, all.
    let needs = match is_udp {
        true if usize::from(u16::from_be_bytes([segment[4], segment[5]])) < 8 => 0,
        true if first => 8,
        true => usize::from(u16::from_be_bytes([segment[4], segment[5]])),
        false => usize::from(segment[12] >> 4) * 4,
    };
    if needs < least || header + needs > length || length > packet.len() {
        return Err(Reason::Malformed);
    }
    let [src, dst] = harness::wire::addresses(packet);
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    Ok(Tcp {
        ip,
        tcp: ip + header,
        end: ip + length,
        src: SocketAddr::new(src, port(0)),
        dst: SocketAddr::new(dst, port(2)),
        flags: if is_udp { 0 } else { segment[13] & 0x3f },
        first,
        is_udp,
    })
}

/// The other end's address in a frame that was read.
pub(crate) fn address(frame: &[u8], ip: usize, end: End) -> IpAddr {
    let [src, dst] = harness::wire::addresses(&frame[ip..]);
    if end == End::Source { src } else { dst }
}
