//! UDP datagrams (RFC 768) with everything below them, built byte by byte.

use std::net::{IpAddr, SocketAddr};

use crate::wire::{self, protocol};

/// A datagram.
#[derive(Clone, Debug)]
pub struct Datagram {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub payload: Vec<u8>,
    /// Without: its checksum is zero, which means that there is none.
    pub summed: bool,
}

impl Datagram {
    /// A datagram without payload.
    ///
    /// # Panics
    /// If a text is no address and port, and in [`Self::bytes`] if they are of two families.
    pub fn new(src: &str, dst: &str) -> Self {
        let parse = |text: &str| text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        Self { src: parse(src), dst: parse(dst), payload: Vec::new(), summed: true }
    }

    /// With this payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Without a checksum.
    #[must_use]
    pub fn unsummed(mut self) -> Self {
        self.summed = false;
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

    /// The IP packet.
    pub fn packet(&self) -> Vec<u8> {
        let mut udp = [self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()].concat();
        udp.extend(((8 + self.payload.len()) as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        if self.summed {
            // A sum of zero is written as its complement: zero says that there is none.
            let sum = match udp_checksum(self.src.ip(), self.dst.ip(), &udp) {
                0 => 0xffff,
                sum => sum,
            };
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        wire::packet(self.src.ip(), self.dst.ip(), protocol::UDP, &udp)
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        wire::ethernet(wire::MACS, &self.packet())
    }
}

/// The checksum of a datagram whose checksum field is zero.
fn udp_checksum(src: IpAddr, dst: IpAddr, udp: &[u8]) -> u16 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let pseudo = [octets(src), octets(dst)].concat();
    let rest = [0, protocol::UDP, (udp.len() >> 8) as u8, udp.len() as u8];
    wire::checksum(&[&pseudo, &rest, udp])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagram_is_what_etherparse_reads() {
        for (src, dst) in [("10.0.0.1:1", "10.0.0.2:53"), ("[fd00::1]:1", "[fd00::2]:53")] {
            let frame = Datagram::new(src, dst).payload(b"odd").bytes();
            let read = etherparse::PacketHeaders::from_ethernet_slice(&frame).expect("a packet");
            let Some(etherparse::TransportHeader::Udp(udp)) = &read.transport else {
                panic!("{read:?}")
            };
            let sum = match &read.net {
                Some(etherparse::NetHeaders::Ipv4(ip, _)) => {
                    udp.calc_checksum_ipv4(ip, read.payload.slice())
                }
                Some(etherparse::NetHeaders::Ipv6(ip, _)) => {
                    udp.calc_checksum_ipv6(ip, read.payload.slice())
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(sum.expect("short"), udp.checksum);
            assert_eq!((udp.destination_port, udp.length), (53, 11));
        }
    }
}
