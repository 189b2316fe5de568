//! Packets by lot, whether they make sense or not.

use std::net::SocketAddr;

use harness::{
    Datagram, Segment,
    packet::flags,
    wire::{self, MACS, protocol},
};

use super::{
    Ends, Vip,
    random::{Episode, HAIRPINS, REALS, place},
};
use crate::world::Hook;

/// SplitMix64 (Steele, Lea, Flood 2014): equal seeds give equal packets on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(super) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub(super) fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// In more than one byte other than any real, so that damage does not make a client its own real.
const CLIENTS: [[&str; 5]; 2] = [
    ["10.7.8.1", "10.7.8.2", "10.7.8.3", "10.7.8.66", "127.0.0.1"],
    ["[fd07:8::1]", "[fd07:8::2]", "[fd07:8::3]", "[fd07:8::66]", "[::1]"],
];
/// Dialled too, and no VIPs: an address, a port, both.
const STRANGERS: [[&str; 3]; 2] = [
    ["240.0.0.9:80", "240.0.0.1:81", "192.0.2.1:22"],
    ["[fd62:616c::9]:80", "[fd62:616c::1]:81", "[2001:db8::1]:22"],
];

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// The frame of a segment, or of a datagram that has its place.
fn frame(segment: &Segment, is_udp: bool, summed: bool) -> Vec<u8> {
    let mut frame = segment.bytes();
    if !is_udp {
        return frame;
    }
    let (src, dst) = (segment.src, segment.dst);
    let datagram = Datagram { src, dst, payload: segment.payload.clone(), summed }.packet();
    let (ip, header) = (segment.ip_at(), if src.is_ipv4() { 20 } else { 40 });
    frame.truncate(segment.tcp_at());
    frame.extend(&datagram[header..]);
    let packet = &mut frame[ip..];
    let len = packet.len() as u16;
    if src.is_ipv4() {
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        packet[9] = protocol::UDP;
        wire::sum_ipv4(packet);
    } else {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        packet[6] = protocol::UDP;
    }
    frame
}

impl Episode {
    /// A packet, and where it is met.
    pub(super) fn frame(&mut self) -> (Hook, Vec<u8>) {
        if let Some(piece) = self.pieces.pop() {
            return piece;
        }
        if self.random.one_in(12) {
            let (hook, mut frame) = self.icmp();
            self.damage(&mut frame);
            return (hook, frame);
        }
        let (hook, ends) = if self.random.one_in(3) { self.reply() } else { self.request() };
        let mut segment = Segment::new(&ends.src.to_string(), &ends.dst.to_string());
        segment.flags = match self.random.below(16) {
            0..=4 => flags::SYN,
            5..=8 => flags::ACK,
            9..=10 => flags::SYN | flags::ACK,
            11..=12 => flags::FIN | flags::ACK,
            13 => flags::RST,
            14 => flags::RST | flags::ACK,
            _ => self.random.below(64) as u8,
        };
        (segment.seq, segment.ack) = (self.random.next() as u32, self.random.next() as u32);
        self.shape(&mut segment);
        let mut frame = frame(&segment, ends.is_udp, !self.random.one_in(4));
        if segment.vlans.is_empty() && segment.src.is_ipv6() && self.random.one_in(8) {
            frame = self.extended(&frame);
        } else if segment.vlans.is_empty() && self.random.one_in(10) {
            return self.in_pieces(hook, &frame);
        }
        self.damage(&mut frame);
        (hook, frame)
    }

    /// Somebody who asks: where all ways are taken, also a workload that may be its own real.
    fn client(&mut self, family: usize) -> SocketAddr {
        let address = match self.all_ways && self.random.one_in(3) {
            true => self.random.of(&HAIRPINS[family]),
            false => self.random.of(&CLIENTS[family]),
        };
        end(&format!("{address}:{}", 40_000 + self.random.below(6)))
    }

    /// What a client sends.
    fn request(&mut self) -> (Hook, Ends) {
        let family = self.random.below(2);
        let src = self.client(family);
        let Vip { end: dst, is_udp } = if self.random.one_in(10) {
            Vip { end: end(self.random.of(&STRANGERS[family])), is_udp: self.random.one_in(3) }
        } else {
            self.vip(family)
        };
        let of_node = self.all_ways && self.random.one_in(3);
        (if of_node { Hook::Host } else { Hook::Ingress }, Ends { is_udp, src, dst })
    }

    fn vip(&mut self, family: usize) -> Vip {
        let vips = self.scene.vips.len() / 2;
        self.scene.vips[family * vips + self.random.below(vips)]
    }

    /// What a real sends.
    fn reply(&mut self) -> (Hook, Ends) {
        let hook = match self.all_ways {
            true => self.random.of(&[Hook::Ingress, Hook::Ingress, Hook::Egress, Hook::Host]),
            false => Hook::Egress,
        };
        let known = self.scene.model.replies().count();
        if known != 0 && !self.random.one_in(8) {
            let at = self.random.below(known);
            return (hook, self.scene.model.replies().nth(at).expect("one of them"));
        }
        let family = self.random.below(2);
        let src = end(&place(family, self.random.below(REALS), self.random.below(2)));
        (hook, Ends { is_udp: self.random.one_in(3), src, dst: self.client(family) })
    }

    /// With some extension headers, not all of which may be looked behind.
    fn extended(&mut self, frame: &[u8]) -> Vec<u8> {
        let headers: Vec<_> = (0..=self.random.below(7))
            .map(|_| {
                let most = if self.random.one_in(4) { 32 } else { 3 };
                let length = 8 * (1 + self.random.below(most));
                let kind = self.random.of(&[
                    protocol::HOP_BY_HOP,
                    protocol::DESTINATION,
                    protocol::ROUTING,
                    protocol::FRAGMENT,
                    protocol::AUTHENTICATION,
                ]);
                let mut rest = wire::padding(length);
                match kind {
                    protocol::ROUTING => rest[2] = u8::from(self.random.one_in(4)),
                    protocol::FRAGMENT => {
                        let offset = self.random.of(&[0, 0, 0, 1, 8]);
                        rest = vec![0, 0, offset, 0, 0, 0, self.random.below(4) as u8];
                    }
                    _ => {}
                }
                (kind, rest)
            })
            .collect();
        wire::ethernet(MACS, &wire::with_extensions(&frame[wire::IP_AT..], &headers))
    }

    /// Its fragments, in and out of order.
    fn in_pieces(&mut self, hook: Hook, frame: &[u8]) -> (Hook, Vec<u8>) {
        let (id, size) = (self.random.below(8) as u32, self.random.of(&[8, 24, 32, 64]));
        let mut pieces: Vec<_> = wire::fragments(&frame[wire::IP_AT..], id, size)
            .into_iter()
            .map(|piece| (hook, wire::ethernet(MACS, &piece)))
            .collect();
        if self.random.one_in(3) {
            let at = self.random.below(pieces.len());
            pieces.rotate_left(at);
        }
        pieces.reverse();
        self.pieces = pieces;
        self.pieces.pop().expect("a packet has a piece")
    }

    /// An ICMP message, most often about a packet of a connection.
    fn icmp(&mut self) -> (Hook, Vec<u8>) {
        let hook = self.random.of(&[Hook::Ingress, Hook::Egress]);
        // Errors about the node's own packets come in.
        let known: Vec<_> = match hook == Hook::Egress || self.all_ways && self.random.one_in(3) {
            true => self.scene.model.replies().collect(),
            false => self.scene.model.ways().collect(),
        };
        // The packet in question.
        let about = if known.is_empty() || self.random.one_in(6) {
            let family = self.random.below(2);
            let (src, Vip { end: dst, is_udp }) = (self.client(family), self.vip(family));
            Ends { is_udp, src, dst }.turned()
        } else {
            let way = self.random.of(&known);
            if self.random.one_in(10) { way } else { way.turned() }
        };
        let (sender, receiver) = (about.src, about.dst);
        let router = if sender.is_ipv4() { end("10.0.9.9:0") } else { end("[fd00:9::9]:0") };
        let from = if self.random.one_in(2) { router.ip() } else { receiver.ip() };
        let kinds: &[u8] = if sender.is_ipv4() { &[3, 11, 12, 5, 8] } else { &[1, 2, 3, 4, 128] };
        let mut quoted = Segment::new(&sender.to_string(), &receiver.to_string());
        quoted.flags = flags::ACK;
        self.shape(&mut quoted);
        quoted.vlans.clear();
        let mut quoted = frame(&quoted, about.is_udp, !self.random.one_in(4));
        if sender.is_ipv6() && self.random.one_in(4) {
            quoted = self.extended(&quoted);
        }
        let mut quoted = quoted.split_off(wire::IP_AT);
        quoted.truncate(24 + self.random.below(quoted.len()));
        let kind = (self.random.of(kinds), self.random.of(&[0, 0, 3, 4]));
        let rest = [0, 0, 5, self.random.next() as u8];
        let mut packet = wire::icmp(from, sender.ip(), kind, rest, &quoted);
        if sender.is_ipv6() && self.random.one_in(8) {
            packet = wire::with_extensions(&packet, &[(protocol::DESTINATION, wire::padding(8))]);
        }
        (hook, wire::ethernet(MACS, &packet))
    }

    fn shape(&mut self, segment: &mut Segment) {
        let length = if self.random.one_in(3) { self.random.below(100) } else { 0 };
        segment.payload = (0..length).map(|_| self.random.next() as u8).collect();
        segment.hops = self.random.of(&[0, 1, 2, 64, 255]);
        if self.random.one_in(12) {
            segment.vlans = (0..=self.random.below(2)).map(|tag| 5 + tag as u16).collect();
        }
        if self.random.one_in(8) {
            segment.tcp_options = vec![1; 4 * self.random.below(11)];
        }
        if segment.src.is_ipv4() {
            if self.random.one_in(12) {
                segment.ip_options = vec![1; 4 * self.random.below(11)];
            }
            if self.random.one_in(20) {
                segment.dont_fragment = false;
                segment.more_fragments = self.random.one_in(2);
                segment.fragment_offset = self.random.of(&[0, 0, 1, 3, 8191]);
            }
        }
        if self.random.one_in(100) {
            segment.src.set_port(self.random.of(&[0, 80, 8080]));
        }
    }

    /// Some frames are not what they were when they were sent.
    fn damage(&mut self, frame: &mut Vec<u8>) {
        match self.random.below(30) {
            0 => {
                for _ in 0..=self.random.below(3) {
                    let at = self.random.below(frame.len());
                    frame[at] = self.random.next() as u8;
                }
            }
            1 => {
                // In the headers, where it tells.
                let at = 12 + self.random.below(frame.len().min(60) - 12);
                frame[at] ^= 1 << self.random.below(8);
            }
            2 => frame.truncate(15 + self.random.below(frame.len() - 15)),
            3 => frame.resize(frame.len() + 1 + self.random.below(20), 0xaa),
            _ => {}
        }
    }
}
