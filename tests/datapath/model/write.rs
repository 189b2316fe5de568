//! Packets as they should come out, byte by byte.

use std::net::{IpAddr, SocketAddr};

use harness::wire::{self, protocol};

use super::read::{End, Tcp};

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

/// The frame with one end of its connection, and the other end's port, replaced.
pub(crate) fn translated(frame: &[u8], tcp: &Tcp, end: End, to: SocketAddr, port: u16) -> Vec<u8> {
    let mut out = frame.to_vec();
    let old = put_address(&mut out[tcp.ip..], end, to.ip());
    let (at, check) = (tcp.tcp, tcp.tcp + 16);
    let before = frame[at..at + 4].to_vec();
    let (source, destination) =
        if end == End::Source { (to.port(), port) } else { (port, to.port()) };
    let after = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    out[at..at + 4].copy_from_slice(&after);
    adjust(&mut out[check..check + 2], &old, &octets(to.ip()));
    adjust(&mut out[check..check + 2], &before, &after);
    out
}

/// Both Ethernet addresses change places.
pub(crate) fn turned_round(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// The reset that answers a segment (RFC 9293, 3.5.2), from where it was to go.
pub(crate) fn reset(frame: &[u8], tcp: &Tcp) -> Vec<u8> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let segment = &frame[tcp.tcp..tcp.end];
    let number = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("four"));
    let header = usize::from(segment[12] >> 4) * 4;
    let (seq, ack, flags) = if tcp.flags & ACK != 0 {
        (number(8), 0, RST)
    } else {
        let controls = u32::from(tcp.flags & SYN != 0) + u32::from(tcp.flags & FIN != 0);
        let next = number(4).wrapping_add((segment.len() - header) as u32).wrapping_add(controls);
        (0, next, RST | ACK)
    };
    let mut answer = [&segment[2..4], &segment[..2]].concat();
    answer.extend(seq.to_be_bytes());
    answer.extend(ack.to_be_bytes());
    answer.extend([5 << 4, flags, 0, 0, 0, 0, 0, 0]);

    let (from, to) = (tcp.dst.ip(), tcp.src.ip());
    let pseudo = [octets(from), octets(to), vec![0, protocol::TCP, 0, 20]].concat();
    let sum = wire::checksum(&[&pseudo, &answer]);
    answer[16..18].copy_from_slice(&sum.to_be_bytes());

    let mut out = turned_round(&frame[..tcp.tcp]);
    let packet = &mut out[tcp.ip..];
    let header = packet.len();
    if from.is_ipv4() {
        // An atomic datagram, with its options gone.
        packet[1] = 0;
        packet[2..4].copy_from_slice(&((header + 20) as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
        packet[8..10].copy_from_slice(&[64, protocol::TCP]);
        packet[12..16].copy_from_slice(&octets(from));
        packet[16..20].copy_from_slice(&octets(to));
        packet[20..].fill(0);
        wire::sum_ipv4(packet);
    } else {
        // One options header that says nothing takes the place of all that were there.
        let extensions = header - 40;
        let (next, length) = match extensions {
            0 => (protocol::TCP, 20),
            extensions => (protocol::DESTINATION, extensions as u16 + 20),
        };
        packet[..4].copy_from_slice(&[0x60, 0, 0, 0]);
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet[6..8].copy_from_slice(&[next, 64]);
        if extensions != 0 {
            packet[40] = protocol::TCP;
            packet[41..].copy_from_slice(&wire::padding(extensions));
        }
        packet[8..24].copy_from_slice(&octets(from));
        packet[24..40].copy_from_slice(&octets(to));
    }
    out.extend(answer);
    out
}
