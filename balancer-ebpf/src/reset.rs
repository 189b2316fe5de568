//! The TCP reset that answers a packet (RFC 9293, 3.5.2), as header words.
//!
//! All words are as they lie in memory. The answer keeps the length of the IP header, so that
//! the place of the TCP header and of its checksum does not move; options become zero bytes
//! (end of options).

use crate::{
    abi::TCP,
    checksum::{fold, pseudo_header, sum},
    packet::{
        TCP_LEN,
        tcp_flags::{ACK, FIN, RST, SYN},
    },
};

const HOPS: u8 = 64;

/// The TCP header that answers `segment`, whose payload is `payload_len` bytes; the checksum
/// field is 0. Not to be called for a RST, which must never be answered.
///
/// A segment with ACK is answered with its own acknowledgment number; another is acknowledged,
/// SYN and FIN counting as one byte each.
#[inline(always)]
pub const fn tcp(segment: &[u32; 5], payload_len: u32) -> [u32; 5] {
    let ports = segment[0].to_ne_bytes();
    let flags = segment[3].to_ne_bytes()[1];
    let (seq, ack, answer) = if flags & ACK != 0 {
        (segment[2], 0, RST)
    } else {
        let controls = (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32;
        let next = u32::from_be(segment[1]).wrapping_add(payload_len).wrapping_add(controls);
        (0, next.to_be(), RST | ACK)
    };
    [
        u32::from_ne_bytes([ports[2], ports[3], ports[0], ports[1]]),
        seq,
        ack,
        u32::from_ne_bytes([(TCP_LEN as u8 / 4) << 4, answer, 0, 0]),
        0,
    ]
}

/// The header with its checksum: over all of it, or, where the device is to complete it
/// (`partial`), over the pseudo-header alone and not inverted. `addresses`: the sum of both
/// addresses ([`sum`]).
#[inline(always)]
pub fn with_checksum(mut header: [u32; 5], addresses: u64, partial: bool) -> [u32; 5] {
    let pseudo = addresses + pseudo_header(TCP_LEN as u16);
    let check = if partial { fold(pseudo) } else { !fold(pseudo + sum(&header)) };
    let [a, b] = check.to_ne_bytes();
    header[4] = u32::from_ne_bytes([a, b, 0, 0]);
    header
}

/// The fixed part of the IPv4 header that carries the answer to `packet`, with its checksum.
#[inline(always)]
pub fn ipv4(packet: &[u32; 5], header_len: u32) -> [u32; 5] {
    let version_and_len = packet[0].to_ne_bytes()[0];
    let [high, low] = ((header_len + TCP_LEN) as u16).to_be_bytes();
    let mut header = [
        u32::from_ne_bytes([version_and_len, 0, high, low]),
        // Identification 0 with "don't fragment": an atomic datagram (RFC 6864).
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([HOPS, TCP, 0, 0]),
        packet[4],
        packet[3],
    ];
    let [a, b] = (!fold(sum(&header))).to_ne_bytes();
    header[2] = u32::from_ne_bytes([HOPS, TCP, a, b]);
    header
}

/// Protocol number of an options header for the destination (RFC 8200, 4.6).
const DESTINATION: u8 = 60;

/// The IPv6 header that carries the answer to `packet`. `extensions`: the bytes between it and
/// the TCP header, which [`padding`] is to fill.
#[inline(always)]
pub const fn ipv6(packet: &[u32; 10], extensions: u32) -> [u32; 10] {
    let [high, low] = ((extensions + TCP_LEN) as u16).to_be_bytes();
    let next = if extensions == 0 { TCP } else { DESTINATION };
    [
        u32::from_ne_bytes([0x60, 0, 0, 0]),
        u32::from_ne_bytes([high, low, next, HOPS]),
        packet[6],
        packet[7],
        packet[8],
        packet[9],
        packet[2],
        packet[3],
        packet[4],
        packet[5],
    ]
}

/// The first eight bytes of an options header of `len` bytes, a multiple of eight and at most 256,
/// whose one option is PadN (RFC 8200, 4.2); the rest is zero.
#[inline(always)]
pub const fn padding(len: u32) -> [u32; 2] {
    const PAD_N: u8 = 1;
    // Next header and length in front, type and length of the option.
    let [units, data] = [(len / 8).wrapping_sub(1) as u8, len.wrapping_sub(4) as u8];
    [u32::from_ne_bytes([TCP, units, PAD_N, data]), 0]
}

#[cfg(test)]
mod tests {
    use etherparse::{Ipv4Header, TcpHeader, TcpHeaderSlice};
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
        core::array::from_fn(|i| {
            u32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"))
        })
    }

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }

    proptest! {
        #[test]
        fn answers_follow_rfc_9293(
            sport: u16, dport: u16, seq: u32, ack_number: u32, payload in 0u32..70_000,
            syn: bool, ack: bool, fin: bool, src: [u8; 4], dst: [u8; 4], partial in any::<bool>(),
        ) {
            let mut segment = TcpHeader::new(sport, dport, seq, 100);
            (segment.syn, segment.ack, segment.fin) = (syn, ack, fin);
            segment.acknowledgment_number = ack_number;
            let addresses = sum(&[u32::from_ne_bytes(src), u32::from_ne_bytes(dst)]);
            let answer = tcp(&words(&segment.to_bytes()), payload);
            let raw = bytes(&with_checksum(answer, addresses, partial));
            let read = TcpHeaderSlice::from_slice(&raw).expect("valid").to_header();
            prop_assert_eq!((read.source_port, read.destination_port), (dport, sport));
            prop_assert!(read.rst && !read.syn && !read.fin);
            if ack {
                prop_assert_eq!((read.sequence_number, read.ack), (ack_number, false));
            } else {
                let next = seq.wrapping_add(payload).wrapping_add(u32::from(syn) + u32::from(fin));
                prop_assert_eq!((read.sequence_number, read.ack), (0, true));
                prop_assert_eq!(read.acknowledgment_number, next);
            }
            let whole = read.calc_checksum_ipv4_raw(dst, src, &[]).expect("short");
            if partial {
                // What the device adds: the sum of the header with this field in it.
                let done = !fold(sum(&words::<5>(&raw)));
                prop_assert_eq!(u16::from_be_bytes(done.to_ne_bytes()), whole);
            } else {
                prop_assert_eq!(read.checksum, whole);
            }
        }

        #[test]
        fn ipv4_header_is_valid(src: [u8; 4], dst: [u8; 4], options in 0u8..=10) {
            let mut header = Ipv4Header::new(20, 9, etherparse::IpNumber::TCP, src, dst).expect("fits");
            header.options = vec![1u8; options as usize * 4].as_slice().try_into().expect("fits");
            let len = 20 + u32::from(options) * 4;
            let mut raw = bytes(&ipv4(&words(&header.to_bytes()), len));
            raw.resize(len as usize, 0);
            let read = Ipv4Header::from_slice(&raw).expect("valid").0;
            prop_assert_eq!((read.source, read.destination), (dst, src));
            prop_assert_eq!(u32::from(read.total_len), len + 20);
            prop_assert_eq!(read.header_checksum, read.calc_header_checksum());
        }
    }

    #[test]
    fn padding_is_one_option_as_long_as_the_headers_before() {
        for len in (8..=256).step_by(8) {
            let mut raw = bytes(&padding(len));
            raw.resize(len as usize, 0);
            assert_eq!((raw[0], (usize::from(raw[1]) + 1) * 8), (TCP, raw.len()));
            assert_eq!((raw[2], usize::from(raw[3]) + 4), (1, raw.len()));
        }
    }

    #[test]
    fn ipv6_header_swaps_the_addresses() {
        let header = etherparse::Ipv6Header {
            payload_length: 77,
            next_header: etherparse::IpNumber::TCP,
            hop_limit: 3,
            source: [1; 16],
            destination: [2; 16],
            ..Default::default()
        };
        let raw = bytes(&ipv6(&words(&header.to_bytes()), 0));
        let read = etherparse::Ipv6Header::from_slice(&raw).expect("valid").0;
        assert_eq!((read.source, read.destination, read.payload_length), ([2; 16], [1; 16], 20));
        let raw = bytes(&ipv6(&words(&header.to_bytes()), 24));
        let read = etherparse::Ipv6Header::from_slice(&raw).expect("valid").0;
        assert_eq!((read.payload_length, read.next_header.0), (44, DESTINATION));
    }
}
