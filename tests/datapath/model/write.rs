//! Packets as they should come out, byte by byte.

use std::net::{IpAddr, SocketAddr};

use harness::wire::{self, protocol};

use super::read::{End, Packet};

/// Changes a checksum by the words that changed (RFC 1624, equation 3, sixteen bits at a time).
pub(crate) fn adjust(check: &mut [u8], before: &[u8], after: &[u8]) {
    let mut sum = u32::from(!u16::from_be_bytes([check[0], check[1]]));
    for (old, new) in before.chunks(2).zip(after.chunks(2)) {
        for word in [!u16::from_be_bytes([old[0], old[1]]), u16::from_be_bytes([new[0], new[1]])] {
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    check.copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Writes an address into an IP header; what it was before.
pub(crate) fn put_address(packet: &mut [u8], end: End, address: IpAddr) -> Vec<u8> {
    let new = octets(address);
    let at = match (address.is_ipv4(), end) {
        (true, End::Source) => 12,
        (true, End::Destination) => 16,
        (false, End::Source) => 8,
        (false, End::Destination) => 24,
    };
    let old = packet[at..at + new.len()].to_vec();
    packet[at..at + new.len()].copy_from_slice(&new);
    if address.is_ipv4() {
        adjust(&mut packet[10..12], &old, &new);
    }
    old
}

/// Writes both ports: `port` is that of the end that keeps its address. The words before and after.
pub(crate) fn put_ports(
    out: &mut [u8],
    at: usize,
    end: End,
    to: u16,
    port: u16,
) -> ([u8; 4], [u8; 4]) {
    let (source, destination) = if end == End::Source { (to, port) } else { (port, to) };
    let [a, b] = source.to_be_bytes();
    let [c, d] = destination.to_be_bytes();
    let (before, after) = (out[at..at + 4].try_into().expect("four bytes"), [a, b, c, d]);
    out[at..at + 4].copy_from_slice(&after);
    (before, after)
}

/// Changes the checksum of a packet of TCP or UDP: of UDP, zero says that there is none and stays, and
/// a sum of zero is written as its complement (RFC 768).
pub(crate) fn adjust_sum(check: &mut [u8], is_udp: bool, changes: &[(&[u8], &[u8])]) {
    if is_udp && check == [0, 0] {
        return;
    }
    for (before, after) in changes {
        adjust(check, before, after);
    }
    if is_udp && check == [0, 0] {
        check.fill(0xff);
    }
}

fn sum_of<'a>(out: &'a mut [u8], packet: &Packet) -> &'a mut [u8] {
    let sum = packet.at + if packet.is_udp() { 6 } else { 16 };
    &mut out[sum..sum + 2]
}

/// The frame with one end of its connection, and the other end's port, replaced.
pub(crate) fn translated(
    frame: &[u8],
    packet: &Packet,
    end: End,
    to: SocketAddr,
    port: u16,
) -> Vec<u8> {
    let mut out = frame.to_vec();
    let old = put_address(&mut out[packet.ip..], end, to.ip());
    let ports = put_ports(&mut out, packet.at, end, to.port(), port);
    let changes = [(&old[..], &octets(to.ip())[..]), (&ports.0, &ports.1)];
    adjust_sum(sum_of(&mut out, packet), packet.is_udp(), &changes);
    out
}

/// A translated frame turned round, its other end replaced too: by the VIP for the real, by the client
/// for the VIP.
pub(crate) fn hairpin(frame: &[u8], packet: &Packet, end: End, to: IpAddr) -> Vec<u8> {
    let mut out = turned_round(frame);
    let old = put_address(&mut out[packet.ip..], end, to);
    adjust_sum(sum_of(&mut out, packet), packet.is_udp(), &[(&old, &octets(to))]);
    out
}

/// Both Ethernet addresses change places.
pub(crate) fn turned_round(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// The reset that answers a segment (RFC 9293, 3.5.2), from where it was to go.
pub(crate) fn reset(frame: &[u8], packet: &Packet) -> Vec<u8> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let segment = &frame[packet.at..packet.end];
    let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("four"));
    let header = usize::from(segment[12] >> 4) * 4;
    let (seq, ack, flags) = if packet.flags & ACK != 0 {
        (number(8), 0, RST)
    } else {
        let controls = u32::from(packet.flags & SYN != 0) + u32::from(packet.flags & FIN != 0);
        let next = number(4).wrapping_add((segment.len() - header) as u32).wrapping_add(controls);
        (0, next, RST | ACK)
    };
    let mut answer = [&segment[2..4], &segment[..2]].concat();
    answer.extend(seq.to_be_bytes());
    answer.extend(ack.to_be_bytes());
    answer.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);

    let (from, to) = (packet.ends.dst.ip(), packet.ends.src.ip());
    let pseudo = [octets(from), octets(to), vec![0, protocol::TCP, 0, 20]].concat();
    let sum = wire::checksum(&[&pseudo, &answer]);
    answer[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut out = turned_round(&frame[..packet.at]);
    let ip = &mut out[packet.ip..];
    let header = ip.len();
    if from.is_ipv4() {
        // An atomic datagram, with its options gone.
        ip[1] = 0;
        ip[2..4].copy_from_slice(&((header + 20) as u16).to_be_bytes());
        ip[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        ip[8..10].copy_from_slice(&[64, protocol::TCP]);
        ip[12..16].copy_from_slice(&octets(from));
        ip[16..20].copy_from_slice(&octets(to));
        ip[20..].fill(0);
        wire::sum_ipv4(ip);
    } else {
        // One options header that says nothing takes the place of all that were there.
        let extensions = header - 40;
        let (next, length) = match extensions {
            0 => (protocol::TCP, 20),
            extensions => (protocol::DESTINATION, extensions as u16 + 20),
        };
        ip[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        ip[4..6].copy_from_slice(&length.to_be_bytes());
        ip[6..8].copy_from_slice(&[next, 64]);
        if extensions != 0 {
            ip[40] = protocol::TCP;
            ip[41..].copy_from_slice(&wire::padding(extensions));
        }
        ip[8..24].copy_from_slice(&octets(from));
        ip[24..40].copy_from_slice(&octets(to));
    }
    out.extend(answer);
    out
}
