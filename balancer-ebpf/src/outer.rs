//! Headers that programs put in front of a packet: of the tunnel that carries it to its real, and
//! of the ICMP error that says it is too big.
//!
//! All words are as they lie in memory.

use crate::{
    abi::{ICMP, ICMP6},
    checksum::{fold, sum},
};

/// IP protocol number of an IPv4 packet inside another one (RFC 2003).
pub const IPV4_INSIDE: u8 = 4;
/// IP protocol number of an IPv6 packet inside another one (RFC 2473).
pub const IPV6_INSIDE: u8 = 41;
/// Length of an ICMP header.
pub const ICMP_LEN: u32 = 8;
/// Bytes of an IPv4 packet that an error about it quotes: any header and the ports (RFC 792), of
/// packets that do not fit into the smallest links too.
pub const QUOTED4: u32 = 128;
/// Bytes of an IPv6 packet that an error about it quotes: RFC 4443 asks for as much as fits into
/// 1,280, and kernels sum up no more than 512 at once.
pub const QUOTED6: u32 = 512;
/// The smallest MTU that an IPv6 link may have (RFC 8200, 5). Whoever is told of a smaller one
/// takes it for this.
pub const IPV6_MTU_MIN: u32 = 1280;

const HOPS: u8 = 64;

/// An IPv4 header without options in front of `len` bytes, with its checksum. Identification 0
/// with "don't fragment": an atomic datagram (RFC 6864).
#[inline(always)]
pub fn ipv4(protocol: u8, service: u8, len: u32, src: u32, dst: u32) -> [u32; 5] {
    let [high, low] = ((len + 20) as u16).to_be_bytes();
    let mut header = [
        u32::from_ne_bytes([0x45, service, high, low]),
        u32::from_ne_bytes([0, 0, 0x40, 0]),
        u32::from_ne_bytes([HOPS, protocol, 0, 0]),
        src,
        dst,
    ];
    let [a, b] = (!fold(sum(&header))).to_ne_bytes();
    header[2] = u32::from_ne_bytes([HOPS, protocol, a, b]);
    header
}

/// The header that carries an IPv4 packet of `len` bytes whose first word is `first`. Its type of
/// service, congestion marks included, is that of the packet (RFC 6040, 4.1).
#[inline(always)]
pub fn around4(first: u32, len: u32, src: u32, dst: u32) -> [u32; 5] {
    ipv4(IPV4_INSIDE, first.to_ne_bytes()[1], len, src, dst)
}

/// An IPv6 header in front of `len` bytes; `first`: its version, traffic class and flow label.
#[inline(always)]
pub const fn ipv6(next: u8, first: u32, len: u32, src: [u32; 4], dst: [u32; 4]) -> [u32; 10] {
    let [high, low] = (len as u16).to_be_bytes();
    let second = u32::from_ne_bytes([high, low, next, HOPS]);
    let ([a, b, c, d], [e, f, g, h]) = (src, dst);
    [first, second, a, b, c, d, e, f, g, h]
}

/// The header that carries an IPv6 packet of `len` bytes whose first word is `first`: traffic class
/// and flow label are that of the packet, so that routers go on telling flows apart.
#[inline(always)]
pub const fn around6(first: u32, len: u32, src: [u32; 4], dst: [u32; 4]) -> [u32; 10] {
    ipv6(IPV6_INSIDE, first, len, src, dst)
}

/// "Fragmentation needed and DF set" (RFC 792, RFC 1191), in front of what it quotes, whose words
/// come to the sum `quoted`.
#[inline(always)]
pub fn too_big4(mtu: u32, quoted: u64) -> [u32; 2] {
    let [high, low] = (mtu as u16).to_be_bytes();
    message([3, 4], u32::from_ne_bytes([0, 0, high, low]), quoted)
}

/// "Packet too big" (RFC 4443, 3.2), in front of [`QUOTED6`] bytes whose words come to the sum
/// `quoted`. `addresses`: the sum of both addresses of the packet that carries the error.
#[inline(always)]
pub fn too_big6(mtu: u32, quoted: u64, addresses: u64) -> [u32; 2] {
    let mtu = if mtu < IPV6_MTU_MIN { IPV6_MTU_MIN } else { mtu };
    let pseudo = u64::from((ICMP_LEN + QUOTED6).to_be()) + u64::from(u32::from(ICMP6).to_be());
    message([2, 0], mtu.to_be(), quoted + addresses + pseudo)
}

#[inline(always)]
fn message([kind, code]: [u8; 2], rest: u32, more: u64) -> [u32; 2] {
    let [a, b] = (!fold(sum(&[u32::from_ne_bytes([kind, code, 0, 0]), rest]) + more)).to_ne_bytes();
    [u32::from_ne_bytes([kind, code, a, b]), rest]
}

const _: () = assert!(ICMP == 1, "the errors of IPv4 are in packets of this protocol");

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn ipv4_tunnel_keeps_the_type_of_service_and_sums_up_to_nothing() {
        let (src, dst) = (u32::from_ne_bytes([10, 0, 0, 1]), u32::from_ne_bytes([10, 0, 1, 2]));
        let first = u32::from_ne_bytes([0x47, 0xb9, 0, 60]);
        let header = around4(first, 60, src, dst);
        assert_eq!(fold(sum(&header)), 0xffff);
        let bytes = bytes(&header);
        assert_eq!(bytes[..10], [0x45, 0xb9, 0, 80, 0, 0, 0x40, 0, 64, 4]);
        assert_eq!(bytes[12..], [10, 0, 0, 1, 10, 0, 1, 2]);
    }

    #[test]
    fn ipv6_tunnel_keeps_class_and_flow_label() {
        let first = u32::from_ne_bytes([0x6b, 0x91, 0x23, 0x45]);
        let header = around6(first, 0x1234, [1, 2, 3, 4], [5, 6, 7, 8]);
        assert_eq!(bytes(&header[..2]), [0x6b, 0x91, 0x23, 0x45, 0x12, 0x34, 41, 64]);
        assert_eq!(header[2..], [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn errors_name_the_mtu_and_sum_up_to_nothing() {
        let quoted: Vec<u32> = (0..QUOTED6 / 4).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
        let four = too_big4(1480, sum(&quoted[..32]));
        assert_eq!(fold(sum(&four) + sum(&quoted[..32])), 0xffff);
        assert_eq!(bytes(&four)[..2], [3, 4]);
        assert_eq!(bytes(&four)[4..], [0, 0, 0x05, 0xc8]);
        let addresses = sum(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let six = too_big6(1460, sum(&quoted), addresses);
        let pseudo = u64::from(520u32.to_be()) + u64::from(58u32.to_be());
        assert_eq!(fold(sum(&six) + sum(&quoted) + addresses + pseudo), 0xffff);
        assert_eq!((bytes(&six)[0], six[1]), (2, 1460u32.to_be()));
        assert_eq!(too_big6(1240, 0, 0)[1], 1280u32.to_be(), "no less than links must carry");
    }
}
