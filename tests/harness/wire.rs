//! Frames that ordinary sockets do not send, made from those that they do: fragments, extension
//! headers, ICMP about packets. Written from the RFCs, byte by byte, and never with the code under
//! test.

use std::net::IpAddr;

/// Protocol numbers (IANA).
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMP6: u8 = 58;
    pub const DESTINATION: u8 = 60;
}

/// Source and destination of frames that are addressed to the loopback: a test run takes that for
/// the interface, and frames to others are not for balancer.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [0; 6]];
/// Length of the Ethernet header of the frames that this file makes.
pub const IP_AT: usize = 14;

/// The Internet checksum of all of `parts` one after the other (RFC 1071); every part but the
/// last has an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !(sum as u16)
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes the IPv4 header's checksum anew.
pub fn sum_ipv4(packet: &mut [u8]) {
    let len = usize::from(packet[0] & 15) * 4;
    put(packet, 10, 0);
    let sum = checksum(&[&packet[..len]]);
    put(packet, 10, sum);
}

/// An Ethernet header with these addresses around an IP packet.
pub fn ethernet(macs: [[u8; 6]; 2], packet: &[u8]) -> Vec<u8> {
    let mut frame = [macs[1], macs[0]].concat();
    frame.extend(if packet[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

/// An IP packet with this payload; hop count 61.
///
/// # Panics
/// If the addresses are of two families.
pub fn packet(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 78, 0, 0, 61, protocol, 0, 0];
            header.extend(src.octets());
            header.extend(dst.octets());
            put(&mut header, 2, (20 + payload.len()) as u16);
            sum_ipv4(&mut header);
            header
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 61];
            header.extend(src.octets());
            header.extend(dst.octets());
            put(&mut header, 4, payload.len() as u16);
            header
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    };
    packet.extend(payload);
    packet
}

/// Cuts an IP packet into fragments that carry at most `payload` bytes each, a multiple of eight
/// (RFC 791, 3.2; RFC 8200, 4.5: the fragment header comes first, which is right for packets
/// without other extension headers).
pub fn fragments(packet: &[u8], id: u32, payload: usize) -> Vec<Vec<u8>> {
    assert!(payload > 0 && payload.is_multiple_of(8), "a fragment holds units of eight bytes");
    let v4 = packet[0] >> 4 == 4;
    let header = if v4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let data = &packet[header..];
    let pieces = data.chunks(payload);
    let last = pieces.len() - 1;
    pieces
        .enumerate()
        .map(|(number, piece)| {
            let (offset, more) = ((number * payload / 8) as u16, u16::from(number < last));
            let mut fragment = packet[..header].to_vec();
            if v4 {
                put(&mut fragment, 2, (header + piece.len()) as u16);
                put(&mut fragment, 4, id as u16);
                put(&mut fragment, 6, more << 13 | offset);
                sum_ipv4(&mut fragment);
            } else {
                let next = std::mem::replace(&mut fragment[6], protocol::FRAGMENT);
                put(&mut fragment, 4, (8 + piece.len()) as u16);
                fragment.extend([next, 0]);
                fragment.extend((offset << 3 | more).to_be_bytes());
                fragment.extend(id.to_be_bytes());
            }
            fragment.extend(piece);
            fragment
        })
        .collect()
}

/// An IPv6 packet with extension headers put in front of its payload: for each its protocol
/// number and what follows its "next header" byte.
///
/// # Panics
/// If it is not IPv6.
pub fn with_extensions(packet: &[u8], extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    assert_eq!(packet[0] >> 4, 6, "IPv4 has options instead");
    let mut out = packet[..40].to_vec();
    let last = out[6];
    if let Some((first, _)) = extensions.first() {
        out[6] = *first;
    }
    for (number, (_, rest)) in extensions.iter().enumerate() {
        out.push(extensions.get(number + 1).map_or(last, |(next, _)| *next));
        out.extend(rest);
    }
    let more = out.len() - 40;
    out.extend(&packet[40..]);
    let length = u16::from_be_bytes([packet[4], packet[5]]) + more as u16;
    put(&mut out, 4, length);
    out
}

/// What follows the "next header" byte of an options header `length` bytes long: its length and
/// one PadN (RFC 8200, 4.2).
pub fn padding(length: usize) -> Vec<u8> {
    assert!(length.is_multiple_of(8) && (8..=256).contains(&length), "whole units of eight bytes");
    let mut rest = vec![(length / 8 - 1) as u8, 1, (length - 4) as u8];
    rest.resize(length - 1, 0);
    rest
}

/// An ICMP or ICMPv6 message as an IP packet; `rest` are bytes 4 to 7 of its header.
pub fn icmp(
    src: IpAddr,
    dst: IpAddr,
    (kind, code): (u8, u8),
    rest: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend(body);
    let number = if src.is_ipv4() { protocol::ICMP } else { protocol::ICMP6 };
    let sum = icmp_checksum(src, dst, &message);
    put(&mut message, 2, sum);
    packet(src, dst, number, &message)
}

/// The checksum that an ICMP message should have whose checksum field is zero: ICMPv6 sums the
/// pseudo-header too (RFC 8200, 8.1).
pub fn icmp_checksum(src: IpAddr, dst: IpAddr, message: &[u8]) -> u16 {
    match (src, dst) {
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let mut pseudo = [src.octets(), dst.octets()].concat();
            pseudo.extend((message.len() as u32).to_be_bytes());
            pseudo.extend([0, 0, 0, protocol::ICMP6]);
            checksum(&[&pseudo, message])
        }
        _ => checksum(&[message]),
    }
}

/// Addresses of an IP packet.
pub fn addresses(packet: &[u8]) -> [IpAddr; 2] {
    if packet[0] >> 4 == 4 {
        let at = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes").into();
        [at(12), at(16)]
    } else {
        let at =
            |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes").into();
        [at(8), at(24)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segment;

    fn whole(src: &str, dst: &str) -> Vec<u8> {
        Segment::new(src, dst).payload(&[7; 100]).bytes()[IP_AT..].to_vec()
    }

    #[test]
    fn fragments_are_those_that_etherparse_puts_together() {
        for (src, dst) in [("10.0.0.1:1", "10.0.0.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
            let packet = whole(src, dst);
            let header = if src.starts_with('1') { 20 } else { 40 };
            let mut data: Vec<u8> = Vec::new();
            for fragment in fragments(&packet, 9, 48) {
                let read = etherparse::IpSlice::from_slice(&fragment).expect("a fragment");
                assert!(read.is_fragmenting_payload());
                data.extend(read.payload().payload);
            }
            assert_eq!(data, packet[header..]);
        }
    }

    #[test]
    fn extension_headers_lead_to_the_payload() {
        let packet = whole("[fd00::1]:1", "[fd00::2]:2");
        let extensions = [(protocol::HOP_BY_HOP, padding(8)), (protocol::DESTINATION, padding(24))];
        let out = with_extensions(&packet, &extensions);
        let read = etherparse::IpSlice::from_slice(&out).expect("a packet");
        assert_eq!(read.payload_ip_number(), etherparse::IpNumber::TCP);
        assert_eq!(read.payload().payload, &packet[40..]);
    }

    #[test]
    fn icmp_messages_have_the_checksum_that_etherparse_computes() {
        let [src, dst]: [IpAddr; 2] =
            ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().expect("an address"));
        let message = icmp(src, dst, (8, 0), [0, 1, 0, 2], b"odd");
        let read = etherparse::Icmpv4Header::from_slice(&message[20..]).expect("a message").0;
        assert_eq!(read.checksum, read.icmp_type.calc_checksum(b"odd"));
        let [src, dst] = ["fd00::1", "fd00::2"].map(|a| a.parse().expect("an address"));
        let message = icmp(IpAddr::V6(src), IpAddr::V6(dst), (128, 0), [0, 1, 0, 2], b"odd");
        let read = etherparse::Icmpv6Header::from_slice(&message[40..]).expect("a message").0;
        let expected =
            read.icmp_type.calc_checksum(src.octets(), dst.octets(), b"odd").expect("short");
        assert_eq!(read.checksum, expected);
    }
}
