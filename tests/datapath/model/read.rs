//! What the page says of headers, read from bytes.

use std::net::{IpAddr, SocketAddr};

use balancer_ebpf::reason::Reason;
use harness::wire::protocol;

use super::Ends;

/// Which end of the connection a hook asks for first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// A packet of TCP or UDP.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) ends: Ends,
    /// Offset of the IP header.
    pub(crate) ip: usize,
    /// Offset of the header of TCP or UDP.
    pub(crate) at: usize,
    /// Where the payload ends; padding follows.
    pub(crate) end: usize,
    /// Of TCP.
    pub(crate) flags: u8,
    /// The first of several fragments.
    pub(crate) first: bool,
}

impl Packet {
    pub(crate) fn is_udp(&self) -> bool {
        self.ends.is_udp
    }
}

/// Big-endian, as all on the wire.
pub(crate) fn pair(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The ports, source first, that settle an ordinary packet before anything else is read: untagged,
/// TCP or UDP in an IP header without options or extension headers, not a fragment. `None`: no such
/// packet.
pub(crate) fn ordinary_ports(frame: &[u8]) -> Option<[u16; 2]> {
    let ours = |at: usize| [protocol::TCP, protocol::UDP].contains(&frame[at]);
    let at = match pair(frame, 12)? {
        0x0800 if frame.len() >= 38 => {
            let whole = pair(frame, 20)? & 0x3fff == 0;
            (frame[14] == 0x45 && ours(23) && whole).then_some(34)?
        }
        0x86dd if frame.len() >= 58 => (frame[14] >> 4 == 6 && ours(20)).then_some(54)?,
        _ => return None,
    };
    Some([pair(frame, at)?, pair(frame, at + 2)?])
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

/// An IP packet, read as far as its IP header and extension headers go.
#[derive(Clone, Debug)]
pub(crate) struct Ip {
    /// Offset of the IP header, and of what follows it and its extension headers.
    pub(crate) at: usize,
    pub(crate) payload: usize,
    /// The length that it claims; 0: more than the field can say.
    claimed: usize,
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: u8,
    /// In units of eight bytes.
    pub(crate) offset: u16,
    pub(crate) more: bool,
    /// Of a fragment; `None`: its header is cut short.
    pub(crate) id: Option<u32>,
}

/// Reads an IP header of either family.
///
/// # Errors
/// Why it passes untouched.
pub(crate) fn ip(frame: &[u8], at: usize, v4: bool) -> Result<Ip, Reason> {
    let packet = &frame[at.min(frame.len())..];
    if packet.len() < if v4 { 20 } else { 40 } {
        return Err(Reason::Malformed);
    }
    if packet[0] >> 4 != if v4 { 4 } else { 6 } {
        return Err(Reason::Malformed);
    }
    let [src, dst] = harness::wire::addresses(packet);
    let field = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    if v4 {
        let (header, claimed) = (usize::from(packet[0] & 15) * 4, usize::from(field(2)));
        if header < 20 || (claimed != 0 && claimed < header) {
            return Err(Reason::Malformed);
        }
        return Ok(Ip {
            at,
            payload: at + header,
            claimed,
            src,
            dst,
            protocol: packet[9],
            offset: field(6) & 0x1fff,
            more: field(6) & 0x2000 != 0,
            id: Some(field(4).into()),
        });
    }
    let payload = usize::from(field(4));
    let claimed = if payload == 0 { 0 } else { payload + 40 };
    let mut ip = Ip {
        at,
        payload: at + 40,
        claimed,
        src,
        dst,
        protocol: packet[6],
        offset: 0,
        more: false,
        id: Some(0),
    };
    // At most six headers and 256 bytes of them are looked through.
    for _header in 0..6 {
        let is_extension = matches!(
            ip.protocol,
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::FRAGMENT | protocol::DESTINATION
        );
        if !is_extension || ip.offset != 0 {
            break;
        }
        let header = frame.get(ip.payload..ip.payload + 4).ok_or(Reason::Malformed)?;
        let mut length = (usize::from(header[1]) + 1) * 8;
        if ip.protocol == protocol::ROUTING && header[3] != 0 {
            return Err(Reason::NotTcp);
        }
        if ip.protocol == protocol::FRAGMENT {
            let field = u16::from_be_bytes([header[2], header[3]]);
            (ip.offset, ip.more, length) = (field >> 3, field & 1 != 0, 8);
            let id = frame.get(ip.payload + 4..ip.payload + 8);
            ip.id = id.map(|id| u32::from_be_bytes(id.try_into().expect("four bytes")));
        }
        ip.payload += length;
        ip.protocol = header[0];
        if ip.payload - at - 40 > 256 {
            return Err(Reason::NotTcp);
        }
    }
    Ok(ip)
}

/// What there is behind the Ethernet header.
///
/// # Errors
/// Why it passes untouched.
pub(crate) fn first_ip(frame: &[u8]) -> Result<Ip, Reason> {
    let (at, v4) = network(frame)?;
    ip(frame, at, v4)
}

/// Reads a packet of TCP or UDP in full, of which the IP header is read.
///
/// # Errors
/// Why it passes untouched.
pub(crate) fn packet(frame: &[u8], ip: &Ip) -> Result<Packet, Reason> {
    let (packet, header) = (&frame[ip.at..], ip.payload - ip.at);
    let is_udp = ip.protocol == protocol::UDP;
    // Only what is longer than the field can say may leave its length out.
    let length = match ip.claimed {
        0 if packet.len() > 65_535 => packet.len(),
        0 => return Err(Reason::Malformed),
        claimed => claimed,
    };
    let least = if is_udp { 8 } else { 20 };
    let segment = packet.get(header..).filter(|s| s.len() >= least).ok_or(Reason::Malformed)?;
    // What the packet must have of it: the header; of a datagram that comes whole, all.
    let needs = match is_udp {
        true if usize::from(u16::from_be_bytes([segment[4], segment[5]])) < 8 => 0,
        true if ip.more => 8,
        true => usize::from(u16::from_be_bytes([segment[4], segment[5]])),
        false => usize::from(segment[12] >> 4) * 4,
    };
    if needs < least || header + needs > length || length > packet.len() {
        return Err(Reason::Malformed);
    }
    let port = |at: usize| u16::from_be_bytes([segment[at], segment[at + 1]]);
    let (src, dst) = (SocketAddr::new(ip.src, port(0)), SocketAddr::new(ip.dst, port(2)));
    Ok(Packet {
        ends: Ends { is_udp, src, dst },
        ip: ip.at,
        at: ip.payload,
        end: ip.at + length,
        flags: if is_udp { 0 } else { segment[13] & 0x3f },
        first: ip.more,
    })
}

/// The other end's address in a frame that was read.
pub(crate) fn address(frame: &[u8], ip: usize, end: End) -> IpAddr {
    let [src, dst] = harness::wire::addresses(&frame[ip..]);
    if end == End::Source { src } else { dst }
}
