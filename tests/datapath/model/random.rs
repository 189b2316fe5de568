//! Random packets, in random states, while policies change: the programs and the model must agree
//! on each.

use std::{collections::BTreeSet, net::SocketAddr};

use balancer_ebpf::{abi::pick, reason::Reason};
use harness::{
    Segment,
    packet::flags,
    scaled,
    wire::{self, MACS, protocol},
};

use super::{Fate, scene::Scene};
use crate::world::{Hook, TestRuns};

/// Packets in one world: short enough that no tuple is given back for its age.
const EPISODE: u32 = 5000;
/// Names the number of packets, for a run outside CI.
const PACKETS: &str = "BALANCER_RANDOM_PACKETS";
/// Names the first episode's number, to repeat one that failed.
const SEED: &str = "BALANCER_RANDOM_SEED";

/// Reasons that need more than packets of others on TC: a full map, a limit, a kernel that refuses,
/// another hook, connections that the stack does not simply route.
const RARE: [Reason; 7] = [
    Reason::FlowTableFull,
    Reason::TuplesExhausted,
    Reason::RewriteFailed,
    Reason::LeftToTc,
    Reason::StackReply,
    Reason::NewFlowLimit,
    Reason::TooBig,
];

/// SplitMix64 (Steele, Lea, Flood 2014): equal seeds give equal packets on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// In more than one byte other than any real: the model does not know what becomes of a client that
/// is its own real, and damage must not make one.
const CLIENTS: [[&str; 5]; 2] = [
    ["10.7.8.1", "10.7.8.2", "10.7.8.3", "10.7.8.66", "127.0.0.1"],
    ["[fd07:8::1]", "[fd07:8::2]", "[fd07:8::3]", "[fd07:8::66]", "[::1]"],
];
const VIPS: [[&str; 6]; 2] = [
    [
        "240.0.0.1:80",
        "240.0.0.2:80",
        "240.0.0.3:80",
        "240.0.0.3:443",
        "240.0.0.4:80",
        "240.0.0.5:8080",
    ],
    [
        "[fd62:616c::1]:80",
        "[fd62:616c::2]:80",
        "[fd62:616c::3]:80",
        "[fd62:616c::3]:443",
        "[fd62:616c::4]:80",
        "[fd62:616c::5]:8080",
    ],
];
/// Dialled too, and no VIPs: an address, a port, both.
const STRANGERS: [[&str; 3]; 2] = [
    ["240.0.0.9:80", "240.0.0.1:81", "192.0.2.1:22"],
    ["[fd62:616c::9]:80", "[fd62:616c::1]:81", "[2001:db8::1]:22"],
];
/// Reals of each family, by id from here on.
const FIRST_REAL: u32 = 2;
const REALS: usize = 5;

/// Where a real is; one has a VIP's port. Each generation is at one of two places.
fn place(family: usize, number: usize, generation: usize) -> String {
    let port = if number == 0 { 80 } else { 8080 };
    let host = 1 + number + 10 * (generation % 2);
    [format!("10.0.1.{host}:{port}"), format!("[fd00:1::{host}]:{port}")][family].clone()
}

fn end(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

fn id(family: usize, number: usize) -> u32 {
    FIRST_REAL + (family * REALS + number) as u32
}

struct Episode {
    scene: Scene,
    random: Random,
    generations: [[usize; REALS]; 2],
    /// The targets of each VIP that has any.
    tables: Vec<Vec<u32>>,
    reused: bool,
    /// Reasons that packets met.
    met: BTreeSet<Reason>,
    /// Pieces of a packet that are still to come.
    pieces: Vec<(Hook, Vec<u8>)>,
}

impl Episode {
    fn new(seed: u64) -> Option<Self> {
        let mut scene = Scene::new(1 << 14)?;
        let mut random = Random(seed);
        for family in 0..2 {
            for number in 0..REALS {
                scene.real(id(family, number), &place(family, number, 0));
            }
        }
        scene.elsewhere("10.7.8.66", 5);
        scene.elsewhere("fd07:8::66", 6);
        for vip in VIPS.as_flattened() {
            scene.vip(vip);
        }
        let mut episode = Self {
            tables: vec![Vec::new(); scene.vips.len()],
            scene,
            generations: [[0; REALS]; 2],
            reused: false,
            met: BTreeSet::new(),
            pieces: Vec::new(),
            random: Random(random.next()),
        };
        for vip in 0..episode.scene.vips.len() {
            episode.publish(vip, false);
        }
        Some(episode)
    }

    /// Gives a VIP another table; with `previous` the one before still counts.
    fn publish(&mut self, number: usize, previous: bool) {
        let vip = self.scene.vips[number];
        let family = usize::from(vip.is_ipv6());
        if vip.port() == 443 {
            return self.scene.deny(vip);
        }
        let slots = self.random.of(&[1, 3, 16]);
        let targets: Vec<u32> = (0..slots)
            .map(|_| match self.random.below(40) {
                0 => 0,
                1..=2 => 1,
                3 => id(1 - family, 0),
                _ => id(family, self.random.below(REALS)),
            })
            .collect();
        let kernel_pick = match number % VIPS[0].len() {
            2 => self.random.of(&[pick::RANDOM, pick::ROUND_ROBIN]),
            _ => pick::HASH,
        };
        let before = if previous { self.tables[number].clone() } else { Vec::new() };
        self.scene.route_after(vip, kernel_pick, &targets, &before);
        self.tables[number] = targets;
    }

    /// Something changes that packets must survive.
    fn change(&mut self) {
        let (family, number) = (self.random.below(2), self.random.below(REALS));
        let real = id(family, number);
        let vip = self.random.below(self.scene.vips.len());
        match self.random.below(10) {
            0..=2 => self.scene.gone(real, true),
            3..=5 => self.scene.gone(real, false),
            6 => {
                let keeps = self.random.one_in(2);
                self.scene.keeps(keeps);
            }
            7 => {
                self.reused = true;
                self.generations[family][number] += 1;
                let at = place(family, number, self.generations[family][number]);
                self.scene.real(real, &at);
            }
            8 => self.scene.withdraw(self.scene.vips[vip]),
            _ => {
                let previous = self.random.one_in(2);
                self.publish(vip, previous);
            }
        }
    }

    /// A packet, whether it makes sense or not.
    fn frame(&mut self) -> (Hook, Vec<u8>) {
        if let Some(piece) = self.pieces.pop() {
            return piece;
        }
        if self.random.one_in(12) {
            let (hook, mut frame) = self.icmp();
            self.damage(&mut frame);
            return (hook, frame);
        }
        let family = self.random.below(2);
        let client =
            format!("{}:{}", self.random.of(&CLIENTS[family]), 40_000 + self.random.below(6));
        let (hook, mut segment) = if self.random.one_in(3) {
            let known = self.scene.model.replies().count();
            let ends = if known == 0 || self.random.one_in(8) {
                (place(family, self.random.below(REALS), self.random.below(2)), client)
            } else {
                let at = self.random.below(known);
                let (real, client) = self.scene.model.replies().nth(at).expect("one of them");
                (real.to_string(), client.to_string())
            };
            (Hook::Egress, Segment::new(&ends.0, &ends.1))
        } else {
            let vip = if self.random.one_in(10) {
                self.random.of(&STRANGERS[family])
            } else {
                self.random.of(&VIPS[family])
            };
            (Hook::Ingress, Segment::new(&client, vip))
        };
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
        let mut frame = segment.bytes();
        if segment.vlans.is_empty() && segment.src.is_ipv6() && self.random.one_in(8) {
            frame = self.extended(&frame);
        } else if segment.vlans.is_empty() && self.random.one_in(10) {
            return self.in_pieces(hook, &frame);
        }
        self.damage(&mut frame);
        (hook, frame)
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
        let family = self.random.below(2);
        let known: Vec<_> = match hook {
            Hook::Egress => self.scene.model.replies().collect(),
            _ => self.scene.model.ways().collect(),
        };
        // Who received the packet in question, and who sent it.
        let (receiver, sender) = if known.is_empty() || self.random.one_in(6) {
            let client = format!("{}:40000", self.random.of(&CLIENTS[family]));
            let vip = self.random.of(&VIPS[family]);
            (end(&client), end(vip))
        } else {
            let (there, back) = self.random.of(&known);
            if self.random.one_in(10) { (back, there) } else { (there, back) }
        };
        let router = if sender.is_ipv4() { end("10.0.9.9:0") } else { end("[fd00:9::9]:0") };
        let from = if self.random.one_in(2) { router.ip() } else { receiver.ip() };
        let kinds: &[u8] = if sender.is_ipv4() { &[3, 11, 12, 5, 8] } else { &[1, 2, 3, 4, 128] };
        let mut about = Segment::new(&sender.to_string(), &receiver.to_string()).flags(flags::ACK);
        self.shape(&mut about);
        about.vlans.clear();
        let mut about = about.bytes()[wire::IP_AT..].to_vec();
        if sender.is_ipv6() && self.random.one_in(4) {
            let frame = wire::ethernet(MACS, &about);
            about = self.extended(&frame)[wire::IP_AT..].to_vec();
        }
        about.truncate(24 + self.random.below(about.len()));
        let kind = (self.random.of(kinds), self.random.of(&[0, 0, 3, 4]));
        let rest = [0, 0, 5, self.random.next() as u8];
        let mut packet = wire::icmp(from, sender.ip(), kind, rest, &about);
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

    /// Sends packets; the number of the one on which there are two opinions, and these.
    fn run(&mut self, packets: u32) -> Result<(), String> {
        let mut runs = TestRuns::new(&self.scene.world);
        for number in 0..packets {
            if self.random.one_in(60) {
                self.change();
            }
            let (hook, frame) = self.frame();
            // The kernel's test runs want a whole IP header behind an Ethernet header.
            let least = match (frame[12], frame[13]) {
                (0x08, 0x00) => 34,
                (0x86, 0xdd) => 54,
                _ => 15,
            };
            if frame.len() < least {
                continue;
            }
            let outcome = runs.run(&mut self.scene.world, hook, &frame);
            self.met.insert(outcome.reason);
            let found = Fate { reason: outcome.reason, out: outcome.packet };
            self.scene.model.judge(hook, &frame, &found).map_err(|expected| {
                format!(
                    "packet {number}, {hook:?}: expected {expected}\n{frame:02x?}\n{:02x?}",
                    found.out
                )
            })?;
        }
        self.compare()
    }

    /// What is left behind.
    fn compare(&mut self) -> Result<(), String> {
        for (id, expected) in &self.scene.model.counters {
            let found = self.scene.world.counter(*id);
            if found != *expected {
                return Err(format!("counter {id} is {found:?} and not {expected:?}"));
            }
        }
        // What is left of a real whose id was given away is in no connection.
        if !self.reused {
            let (found, expected) = (self.scene.world.flows(), self.scene.model.entries());
            if found != expected {
                return Err(format!("{found} entries and not {expected}"));
            }
        }
        for real in FIRST_REAL..FIRST_REAL + 2 * REALS as u32 {
            let (found, expected) = (self.scene.world.active(real), self.scene.model.live(real));
            if found != expected {
                return Err(format!("{found} live connections of real {real} and not {expected}"));
            }
        }
        Ok(())
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable} is `{text}`: {e}")))
}

#[test]
fn programs_and_model_agree_on_random_packets() {
    let mut left = number(PACKETS).unwrap_or(scaled(100_000, 5_000));
    let mut seed = number(SEED).unwrap_or(1);
    let (all, mut met) = (left, BTreeSet::new());
    while left > 0 {
        let packets = left.min(u64::from(EPISODE)) as u32;
        let Some(mut episode) = Episode::new(seed) else { return };
        if let Err(what) = episode.run(packets) {
            panic!("episode {seed}, to be repeated with {SEED}={seed} {PACKETS}={EPISODE}: {what}");
        }
        met.append(&mut episode.met);
        left -= u64::from(packets);
        seed += 1;
    }
    // Agreement on packets that never came would be worth nothing.
    let missed: Vec<_> = Reason::ALL.iter().filter(|r| !met.contains(r)).collect();
    assert!(missed.iter().all(|r| RARE.contains(r)) || all < 100_000, "never met: {missed:?}");
}

/// The model itself can be wrong in the programs' way; that it can be right is worth little if it
/// cannot be found wrong.
#[test]
fn the_model_notices_one_wrong_byte_and_a_wrong_reason() {
    let Some(mut scene) = Scene::new(1024) else { return };
    scene.real(2, "10.0.1.1:8080");
    let vip: SocketAddr = scene.vip("240.0.0.1:80");
    scene.route(vip, pick::HASH, &[2]);
    let frame = Segment::new("10.0.0.1:40000", "240.0.0.1:80").flags(flags::SYN).bytes();
    let right = scene.world.run_frame(Hook::Ingress, &frame);
    let right = Fate { reason: right.reason, out: right.packet };
    for at in 0..right.out.len() {
        let mut wrong = right.clone();
        wrong.out[at] ^= 1;
        let said = scene.model.clone().judge(Hook::Ingress, &frame, &wrong);
        assert!(said.is_err(), "byte {at}");
    }
    scene.model.judge(Hook::Ingress, &frame, &right).expect("right");
    let known = Fate { reason: Reason::NewFlow, ..right };
    scene.model.judge(Hook::Ingress, &frame, &known).expect_err("no new flow a second time");
}
