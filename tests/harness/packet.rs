//! TCP packets, built by etherparse and never by the code under test, and what a failing test
//! says about two of them.

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use etherparse::{
    EtherType, Ethernet2Header, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header, PacketHeaders,
    SingleVlanHeader, TcpHeader, VlanId,
};

/// Bits of [`Segment::flags`], as on the wire.
pub mod flags {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
    pub const URG: u8 = 32;
}

/// A TCP segment with everything below it.
#[derive(Clone, Debug)]
pub struct Segment {
    pub macs: [[u8; 6]; 2],
    /// VLAN ids, outermost first; with two the outer one is an 802.1ad tag.
    pub vlans: Vec<u16>,
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub hops: u8,
    /// IPv4 options; a multiple of four bytes.
    pub ip_options: Vec<u8>,
    /// IPv4 identification.
    pub id: u16,
    pub dont_fragment: bool,
    pub more_fragments: bool,
    /// In units of 8 bytes.
    pub fragment_offset: u16,
    pub window: u16,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Segment {
    /// A segment without flags, options and payload.
    ///
    /// # Panics
    /// If the addresses are of two families, here and in [`Self::bytes`].
    pub fn new(src: &str, dst: &str) -> Self {
        let parse = |text: &str| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        Self {
            macs: crate::wire::MACS,
            vlans: Vec::new(),
            src: parse(src),
            dst: parse(dst),
            flags: 0,
            seq: 0x0102_0304,
            ack: 0,
            hops: 61,
            ip_options: Vec::new(),
            id: 77,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            window: 29_200,
            tcp_options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// With these flags.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        if flags & flags::ACK != 0 {
            self.ack = 0x0a0b_0c0d;
        }
        self
    }

    /// With this payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// From another end.
    #[must_use]
    pub fn from(mut self, src: &str) -> Self {
        self.src = src.parse().expect("an address and a port");
        self
    }

    /// To another end.
    #[must_use]
    pub fn to(mut self, dst: &str) -> Self {
        self.dst = dst.parse().expect("an address and a port");
        self
    }

    /// Length of everything before the IP header.
    pub fn ip_at(&self) -> usize {
        14 + 4 * self.vlans.len()
    }

    /// Length of everything before the TCP header.
    pub fn tcp_at(&self) -> usize {
        self.ip_at() + if self.src.is_ipv4() { 20 + self.ip_options.len() } else { 40 }
    }

    /// The frame, all checksums complete.
    pub fn bytes(&self) -> Vec<u8> {
        let mut tcp = TcpHeader::new(self.src.port(), self.dst.port(), self.seq, self.window);
        let is = |bit| self.flags & bit != 0;
        tcp.fin = is(flags::FIN);
        tcp.syn = is(flags::SYN);
        tcp.rst = is(flags::RST);
        tcp.psh = is(flags::PSH);
        tcp.ack = is(flags::ACK);
        tcp.urg = is(flags::URG);
        tcp.acknowledgment_number = self.ack;
        tcp.set_options_raw(&self.tcp_options).expect("at most 40 bytes of TCP options");
        let payload_len = tcp.header_len() + self.payload.len();

        let (ether_type, ip) = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let mut ip =
                    Ipv4Header::new(0, self.hops, IpNumber::TCP, src.octets(), dst.octets())
                        .expect("a short packet");
                ip.identification = self.id;
                ip.dont_fragment = self.dont_fragment;
                ip.more_fragments = self.more_fragments;
                ip.fragment_offset = IpFragOffset::try_new(self.fragment_offset).expect("13 bits");
                ip.options = self.ip_options.as_slice().try_into().expect("at most 40 bytes");
                ip.set_payload_len(payload_len).expect("a short packet");
                ip.header_checksum = ip.calc_header_checksum();
                tcp.checksum = tcp.calc_checksum_ipv4(&ip, &self.payload).expect("a short packet");
                (EtherType::IPV4, ip.to_bytes().to_vec())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let ip = Ipv6Header {
                    payload_length: payload_len.try_into().expect("a short packet"),
                    next_header: IpNumber::TCP,
                    hop_limit: self.hops,
                    source: src.octets(),
                    destination: dst.octets(),
                    ..Default::default()
                };
                tcp.checksum = tcp.calc_checksum_ipv6(&ip, &self.payload).expect("a short packet");
                (EtherType::IPV6, ip.to_bytes().to_vec())
            }
            (src, dst) => panic!("{src} and {dst} are of two families"),
        };

        let mut frame = Vec::new();
        // What each header announces: the tags, then IP.
        let mut next: Vec<_> = (0..self.vlans.len())
            .map(|i| match (i, self.vlans.len()) {
                (0, 2) => EtherType::PROVIDER_BRIDGING,
                _ => EtherType::VLAN_TAGGED_FRAME,
            })
            .collect();
        next.push(ether_type);
        let ethernet = Ethernet2Header {
            source: self.macs[0],
            destination: self.macs[1],
            ether_type: next[0],
        };
        ethernet.write(&mut frame).expect("a vector takes all");
        for (i, id) in self.vlans.iter().enumerate() {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(*id).expect("12 bits"),
                ether_type: next[i + 1],
                ..Default::default()
            };
            tag.write(&mut frame).expect("a vector takes all");
        }
        frame.extend(ip);
        frame.extend(tcp.to_bytes());
        frame.extend(&self.payload);
        frame
    }

    /// The reset that answers this segment (RFC 9293, 3.5.2), as a node sends it: no options,
    /// hop count 64, addresses of all layers swapped.
    pub fn answering_reset(&self) -> Self {
        let controls =
            u32::from(self.flags & flags::SYN != 0) + u32::from(self.flags & flags::FIN != 0);
        let next = self.seq.wrapping_add(self.payload.len() as u32).wrapping_add(controls);
        let (flags, seq, ack) = if self.flags & flags::ACK != 0 {
            (flags::RST, self.ack, 0)
        } else {
            (flags::RST | flags::ACK, 0, next)
        };
        Self {
            macs: [self.macs[1], self.macs[0]],
            vlans: self.vlans.clone(),
            src: self.dst,
            dst: self.src,
            flags,
            seq,
            ack,
            hops: 64,
            // Zero bytes: "end of options".
            ip_options: vec![0; self.ip_options.len()],
            id: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            window: 0,
            tcp_options: Vec::new(),
            payload: Vec::new(),
        }
    }
}

/// Says which checksums of a frame are wrong, by recomputing them whole.
///
/// # Errors
/// The wrong ones, or that the frame is no TCP packet.
pub fn verify_checksums(frame: &[u8]) -> Result<(), String> {
    let headers = PacketHeaders::from_ethernet_slice(frame).map_err(|e| e.to_string())?;
    let Some(etherparse::TransportHeader::Tcp(tcp)) = &headers.transport else {
        return Err("no TCP header".into());
    };
    let payload = headers.payload.slice();
    let expected = match &headers.net {
        Some(etherparse::NetHeaders::Ipv4(ip, _)) => {
            let expected = ip.calc_header_checksum();
            if ip.header_checksum != expected {
                return Err(format!(
                    "IPv4 checksum {:#06x}, recomputed {expected:#06x}",
                    ip.header_checksum
                ));
            }
            tcp.calc_checksum_ipv4(ip, payload)
        }
        Some(etherparse::NetHeaders::Ipv6(ip, _)) => tcp.calc_checksum_ipv6(ip, payload),
        _ => return Err("no IP header".into()),
    }
    .map_err(|e| e.to_string())?;
    if tcp.checksum == expected {
        Ok(())
    } else {
        Err(format!("TCP checksum {:#06x}, recomputed {expected:#06x}", tcp.checksum))
    }
}

/// Compares two frames.
///
/// # Panics
/// If they differ: with both header by header, the first byte that differs, and the path of a
/// capture that holds both.
#[track_caller]
pub fn assert_same(what: &str, expected: &[u8], found: &[u8]) {
    if expected == found {
        return;
    }
    let at = expected.iter().zip(found).position(|(a, b)| a != b);
    let mut text = format!(
        "{what}: the packets differ (lengths {} and {}, first at byte {at:?})\n",
        expected.len(),
        found.len()
    );
    for (name, frame) in [("expected", expected), ("found", found)] {
        let _infallible =
            writeln!(text, "{name}: {:#?}", PacketHeaders::from_ethernet_slice(frame));
    }
    match save_capture(what, &[expected, found]) {
        Ok(path) => panic!("{text}both are in {}", path.display()),
        Err(e) => panic!("{text}(no capture: {e})"),
    }
}

/// Writes frames as a pcap file (magic 0xa1b2c3d4, link type Ethernet), which Wireshark opens.
fn save_capture(what: &str, frames: &[&[u8]]) -> io::Result<PathBuf> {
    let mut pcap = Vec::new();
    for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        pcap.extend(word.to_ne_bytes());
    }
    for frame in frames {
        let len = frame.len() as u32;
        for word in [0, 0, len, len] {
            pcap.extend(word.to_ne_bytes());
        }
        pcap.extend(*frame);
    }
    let name: String =
        what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    let path = std::env::temp_dir().join(format!("balancer-{}-{name}.pcap", std::process::id()));
    fs::write(&path, pcap)?;
    Ok(path)
}
