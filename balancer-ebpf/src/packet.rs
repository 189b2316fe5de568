//! Header layouts, and what a header says, as plain values.
//!
//! A header comes in as the 32-bit words that lie in memory (`u32::from_ne_bytes` of each four
//! bytes): one load each for the programs, and no byte order to decide before a field is taken
//! apart. Nothing here knows where a packet lies; offsets are from the packet's first byte.

/// Length of an Ethernet header without tags.
pub const ETHERNET_LEN: u32 = 14;
/// Length of one VLAN tag.
pub const VLAN_LEN: u32 = 4;
/// VLAN tags that are looked through when they lie in the packet.
pub const VLAN_TAGS_MAX: u32 = 2;
/// Length of an IPv4 header without options.
pub const IPV4_LEN: u32 = 20;
/// Length of an IPv6 header.
pub const IPV6_LEN: u32 = 40;
/// Length of a TCP header without options.
pub const TCP_LEN: u32 = 20;
/// Length of a UDP header.
pub const UDP_LEN: u32 = 8;
/// The most bytes of IPv6 extension headers that are looked through.
pub const EXTENSIONS_LEN_MAX: u32 = 256;
/// The most IPv6 extension headers that are looked through.
pub const EXTENSIONS_MAX: u32 = 6;
/// The longest headers: Ethernet with two tags, ICMP in an IP header with options, and what that
/// quotes, IPv6 with extension headers and the fixed part of TCP.
pub const HEADERS_MAX: u32 =
    ETHERNET_LEN + VLAN_TAGS_MAX * VLAN_LEN + 60 + 8 + IPV6_LEN + EXTENSIONS_LEN_MAX + TCP_LEN;

/// What the EtherType of a header, network order, announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// An IPv4 header.
    Ipv4,
    /// An IPv6 header.
    Ipv6,
    /// A VLAN tag (802.1Q or 802.1ad), then another EtherType.
    Vlan,
    /// Something that is never ours.
    Other,
}

/// Reads an EtherType.
#[inline(always)]
pub const fn next(ether_type: [u8; 2]) -> Next {
    match u16::from_be_bytes(ether_type) {
        0x0800 => Next::Ipv4,
        0x86dd => Next::Ipv6,
        0x8100 | 0x88a8 => Next::Vlan,
        _ => Next::Other,
    }
}

/// Which piece of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The first fragment: it has the header of TCP or UDP.
    First,
    /// A later fragment: nothing of that header.
    Later,
}

/// What an IP header says that does not depend on the family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Length of the header with its options.
    pub header_len: u32,
    /// Length of header and payload; 0: more than 65,535 (a GSO packet, "BIG TCP").
    pub total_len: u32,
    /// Protocol number of what follows.
    pub protocol: u8,
    /// Which piece this is.
    pub piece: Piece,
}

/// Reads the fixed part of an IPv4 header (RFC 791); `None`: it contradicts itself.
#[inline(always)]
pub const fn ipv4(words: &[u32; 5]) -> Option<Ip> {
    let first = words[0].to_ne_bytes();
    let second = words[1].to_ne_bytes();
    let header_len = (first[0] & 0x0f) as u32 * 4;
    let total_len = u16::from_be_bytes([first[2], first[3]]) as u32;
    if first[0] >> 4 != 4 || header_len < IPV4_LEN || (total_len != 0 && total_len < header_len) {
        return None;
    }
    let fragment = u16::from_be_bytes([second[2], second[3]]);
    let piece = piece(fragment & 0x2000 != 0, fragment & 0x1fff);
    Some(Ip { header_len, total_len, protocol: words[2].to_ne_bytes()[1], piece })
}

/// Reads an IPv6 header (RFC 8200) as if no [`extension`] headers followed; `None`: it contradicts
/// itself.
#[inline(always)]
pub const fn ipv6(words: &[u32; 10]) -> Option<Ip> {
    let second = words[1].to_ne_bytes();
    if words[0].to_ne_bytes()[0] >> 4 != 6 {
        return None;
    }
    let payload_len = u16::from_be_bytes([second[0], second[1]]) as u32;
    let total_len = if payload_len == 0 { 0 } else { payload_len + IPV6_LEN };
    Some(Ip { header_len: IPV6_LEN, total_len, protocol: second[2], piece: Piece::Whole })
}

/// Which piece a field of flags and offset makes a packet: IPv4's, or IPv6's turned to its form.
#[inline(always)]
const fn piece(more: bool, offset: u16) -> Piece {
    match (offset, more) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    }
}

/// What an IPv6 extension header says (RFC 8200, 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Protocol number of what follows it.
    pub next: u8,
    /// Its length.
    pub len: u32,
    /// What a fragment header says; of the others nothing is known but that they were there.
    pub piece: Option<Piece>,
}

/// Protocol numbers of extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Whether a protocol number is that of an extension header that is looked through. (Not of those
/// that protect what follows: nothing behind them can be translated.)
#[inline(always)]
pub const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Reads the first word of the extension header with this protocol number. `None`: the packet is
/// routed by way of others, and its destination address is not yet that of its receiver.
#[inline(always)]
pub const fn extension(protocol: u8, word: u32) -> Option<Extension> {
    let [next, len, third, fourth] = word.to_ne_bytes();
    match protocol {
        FRAGMENT => {
            let field = u16::from_be_bytes([third, fourth]);
            let piece = Some(piece(field & 1 != 0, field >> 3));
            Some(Extension { next, len: 8, piece })
        }
        ROUTING if fourth != 0 => None,
        _ => Some(Extension { next, len: (len as u32 + 1) * 8, piece: None }),
    }
}

/// Bits of [`Tcp::flags`] (RFC 9293, 3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// Push.
    pub const PSH: u8 = 8;
    /// The acknowledgment field counts.
    pub const ACK: u8 = 16;
    /// The urgent pointer counts.
    pub const URG: u8 = 32;
}

/// What a TCP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port, network order.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// Length of the header with its options.
    pub header_len: u32,
    /// Bits of [`tcp_flags`].
    pub flags: u8,
}

/// Reads the fixed part of a TCP header (RFC 9293); `None`: its length is impossible.
#[inline(always)]
pub const fn tcp(words: &[u32; 5]) -> Option<Tcp> {
    let ports = words[0].to_ne_bytes();
    let fourth = words[3].to_ne_bytes();
    let header_len = (fourth[0] >> 4) as u32 * 4;
    if header_len < TCP_LEN {
        return None;
    }
    Some(Tcp {
        sport: [ports[0], ports[1]],
        dport: [ports[2], ports[3]],
        header_len,
        flags: fourth[1] & 0x3f,
    })
}

/// What a UDP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source port, network order; zero where no answer is expected.
    pub sport: [u8; 2],
    /// Destination port, network order.
    pub dport: [u8; 2],
    /// Length of header and payload, of all fragments together.
    pub len: u32,
}

/// Reads a UDP header (RFC 768); `None`: it is shorter than itself.
#[inline(always)]
pub const fn udp(words: &[u32; 2]) -> Option<Udp> {
    let ports = words[0].to_ne_bytes();
    let second = words[1].to_ne_bytes();
    let len = u16::from_be_bytes([second[0], second[1]]) as u32;
    if len < UDP_LEN {
        return None;
    }
    Some(Udp { sport: [ports[0], ports[1]], dport: [ports[2], ports[3]], len })
}

/// Bytes that a packet must have from its UDP header on: all that the header speaks of, unless the
/// rest comes in later fragments. What follows them is no part of the datagram.
#[inline(always)]
pub const fn udp_needs(ip: &Ip, udp: &Udp) -> u32 {
    if matches!(ip.piece, Piece::First) { UDP_LEN } else { udp.len }
}

/// Whether the lengths that the headers claim fit each other and the `available` bytes from the
/// IP header to the packet's end (which may be followed by padding). `needs`: bytes that must
/// follow the IP header.
#[inline(always)]
pub const fn lengths_agree(ip: &Ip, needs: u32, available: u32) -> bool {
    let total = if ip.total_len == 0 { available } else { ip.total_len };
    // Only a GSO packet may leave its length out, and it is longer than the field can say.
    (ip.total_len != 0 || available > u16::MAX as u32)
        && total <= available
        && ip.header_len + needs <= total
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;

    fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
        core::array::from_fn(|i| {
            u32::from_ne_bytes(bytes[4 * i..4 * i + 4].try_into().expect("four bytes"))
        })
    }

    proptest! {
        #[test]
        fn ipv4_and_tcp_read_as_etherparse_wrote_them(
            src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16, options in 0usize..=10,
            payload in 0usize..1400, syn: bool, ack: bool, fin: bool, rst: bool,
        ) {
            let mut ip = etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::TCP, src, dst)
                .expect("length fits");
            ip.options = vec![1u8; options * 4].as_slice().try_into().expect("at most 40 bytes");
            let mut header = etherparse::TcpHeader::new(sport, dport, 1, 1024);
            (header.syn, header.ack, header.fin, header.rst) = (syn, ack, fin, rst);
            ip.set_payload_len(header.header_len() + payload).expect("fits");
            let bytes = ip.to_bytes();
            let read = ipv4(&words(&bytes)).expect("valid");
            prop_assert_eq!(read.header_len as usize, 20 + options * 4);
            prop_assert_eq!(read.total_len as usize, 40 + options * 4 + payload);
            prop_assert_eq!((read.protocol, read.piece), (6, Piece::Whole));
            let read = tcp(&words(&header.to_bytes())).expect("valid");
            prop_assert_eq!((read.sport, read.dport), (sport.to_be_bytes(), dport.to_be_bytes()));
            let flags = u8::from(fin) | u8::from(syn) << 1 | u8::from(rst) << 2 | u8::from(ack) << 4;
            prop_assert_eq!((read.flags, read.header_len), (flags, 20));
        }

        #[test]
        fn any_words_are_read_or_refused(a: [u32; 5], b: [u32; 10], c: [u32; 5], len in any::<u32>()) {
            for ip in [ipv4(&a), ipv6(&b)].into_iter().flatten() {
                prop_assert_eq!(ip.header_len >= 20 && ip.header_len <= 60, true);
                if let Some(tcp) = tcp(&c) && lengths_agree(&ip, tcp.header_len, len) {
                    prop_assert_eq!(ip.header_len + tcp.header_len <= len, true);
                }
            }
        }
    }

    #[test]
    fn ipv6_reads_as_etherparse_wrote_it() {
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(1, 2, 3, 4).syn();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[0; 7]).expect("a vector takes it");
        let ip = ipv6(&words(&bytes)).expect("valid");
        assert_eq!((ip.header_len, ip.total_len, ip.protocol), (40, 67, 6));
        assert_eq!(tcp(&words(&bytes[40..])).expect("valid").flags, tcp_flags::SYN);
    }

    proptest! {
        #[test]
        fn udp_reads_as_etherparse_wrote_it(sport: u16, dport: u16, payload in 0usize..1400) {
            let bytes = etherparse::UdpHeader::without_ipv4_checksum(sport, dport, payload)
                .expect("length fits")
                .to_bytes();
            let read = udp(&words(&bytes)).expect("valid");
            prop_assert_eq!((read.sport, read.dport), (sport.to_be_bytes(), dport.to_be_bytes()));
            prop_assert_eq!(read.len as usize, 8 + payload);
        }
    }

    #[test]
    fn datagram_is_as_long_as_it_says_unless_the_rest_is_to_come() {
        assert_eq!(udp(&words(&[0, 1, 0, 2, 0, 7, 0, 0])), None, "shorter than its header");
        let datagram = udp(&words(&[0, 1, 0, 2, 0, 100, 0, 0])).expect("valid");
        let ip = |piece| Ip { header_len: 20, total_len: 120, protocol: 17, piece };
        let whole = udp_needs(&ip(Piece::Whole), &datagram);
        assert!(lengths_agree(&ip(Piece::Whole), whole, 120));
        assert!(!lengths_agree(&Ip { total_len: 119, ..ip(Piece::Whole) }, whole, 120));
        let first = udp_needs(&ip(Piece::First), &datagram);
        assert!(lengths_agree(&Ip { total_len: 60, ..ip(Piece::First) }, first, 60));
    }

    #[test]
    fn extension_headers_are_measured_and_a_route_by_way_of_others_is_not_ours() {
        let read = |protocol, bytes| extension(protocol, u32::from_ne_bytes(bytes));
        for protocol in [HOP_BY_HOP, DESTINATION] {
            let expected = Extension { next: 6, len: 24, piece: None };
            assert_eq!(read(protocol, [6, 2, 1, 4]), Some(expected));
        }
        assert_eq!(read(ROUTING, [6, 0, 4, 0]), Some(Extension { next: 6, len: 8, piece: None }));
        assert_eq!(read(ROUTING, [6, 2, 4, 1]), None, "a segment is left");
        for (field, piece) in [
            (0u16, Piece::Whole),
            (1, Piece::First),
            (8, Piece::Later),
            (9, Piece::Later),
            // The two bits between are reserved.
            (7, Piece::First),
        ] {
            let [a, b] = field.to_be_bytes();
            let expected = Extension { next: 17, len: 8, piece: Some(piece) };
            assert_eq!(read(FRAGMENT, [17, 99, a, b]), Some(expected));
        }
        assert!((0..=255).filter(|p| is_extension(*p)).eq([0, 43, 44, 60]));
    }

    #[test]
    fn fragments_are_told_apart() {
        let piece = |field: u16| {
            let mut bytes = [0u8; 20];
            bytes[0] = 0x45;
            bytes[3] = 20;
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            ipv4(&words(&bytes)).expect("valid").piece
        };
        assert_eq!(piece(0x4000), Piece::Whole);
        assert_eq!(piece(0x2000), Piece::First);
        assert_eq!(piece(0x2001), Piece::Later);
        assert_eq!(piece(0x0001), Piece::Later);
    }
}
