//! Random packets, in random states, while policies change: the programs and the model must agree
//! on each.

use std::collections::BTreeSet;

use balancer_ebpf::{abi::pick, reason::Reason};
use harness::{NetNs, Segment, packet::flags, scaled};

use super::{Fate, frames::Random, scene::Scene};
use crate::world::{Hook, TestRuns};

/// Packets in one world: few enough that no tuple of TCP is given back for its age.
const EPISODE: u32 = 5000;
/// Names the number of packets, for a run outside CI.
const PACKETS: &str = "BALANCER_RANDOM_PACKETS";
/// Names the first episode's number, to repeat one that failed.
const SEED: &str = "BALANCER_RANDOM_SEED";

/// Reasons that need more than packets on TC: a full map, a limit, a kernel that refuses, another
/// hook.
const RARE: [Reason; 11] = [
    // The model knows no proxy.
    Reason::ToProxy,
    Reason::Proxied,
    Reason::ProxyDown,
    Reason::FlowTableFull,
    Reason::TuplesExhausted,
    Reason::RewriteFailed,
    Reason::LeftToTc,
    Reason::NewFlowLimit,
    Reason::TooBig,
    Reason::SnatFailed,
    Reason::Unanswered,
];

const VIPS: [[&str; 9]; 2] = [
    [
        "240.0.0.1:80",
        "240.0.0.2:80",
        "240.0.0.3:80",
        "240.0.0.3:443",
        "240.0.0.4:80",
        "240.0.0.5:8080",
        "240.0.0.1:80/udp",
        "240.0.0.3:53/udp",
        "240.0.0.6:53/udp",
    ],
    [
        "[fd62:616c::1]:80",
        "[fd62:616c::2]:80",
        "[fd62:616c::3]:80",
        "[fd62:616c::3]:443",
        "[fd62:616c::4]:80",
        "[fd62:616c::5]:8080",
        "[fd62:616c::1]:80/udp",
        "[fd62:616c::3]:53/udp",
        "[fd62:616c::6]:53/udp",
    ],
];
/// Reals of each family, by id from here on.
const FIRST_REAL: u32 = 2;
pub(super) const REALS: usize = 5;
/// Clients that are reals too, at one place or the other.
pub(super) const HAIRPINS: [[&str; 2]; 2] =
    [["10.0.1.1", "10.0.1.12"], ["[fd00:1::1]", "[fd00:1::12]"]];

/// Where a real is; one has a VIP's port. Each generation is at one of two places.
pub(super) fn place(family: usize, number: usize, generation: usize) -> String {
    let port = if number == 0 { 80 } else { 8080 };
    let host = 1 + number + 10 * (generation % 2);
    [format!("10.0.1.{host}:{port}"), format!("[fd00:1::{host}]:{port}")][family].clone()
}

fn id(family: usize, number: usize) -> u32 {
    FIRST_REAL + (family * REALS + number) as u32
}

/// Packets in one world.
pub(super) struct Episode {
    pub(super) scene: Scene,
    pub(super) random: Random,
    /// Some packets are the node's own, some of workloads that reach themselves.
    pub(super) all_ways: bool,
    generations: [[usize; REALS]; 2],
    /// The targets of each VIP that has any.
    tables: Vec<Vec<u32>>,
    reused: bool,
    /// Reasons that packets met.
    met: BTreeSet<Reason>,
    /// Pieces of a packet that are still to come.
    pub(super) pieces: Vec<(Hook, Vec<u8>)>,
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
        let all_ways = random.one_in(2);
        if all_ways {
            scene.answer_inward();
        }
        let mut episode = Self {
            tables: vec![Vec::new(); scene.vips.len()],
            scene,
            all_ways,
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
        let family = usize::from(vip.end.is_ipv6());
        if vip.end.port() == 443 {
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
            2 | 7 => self.random.of(&[pick::RANDOM, pick::ROUND_ROBIN]),
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
        match self.random.below(12) {
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
            // Far enough from what ends a flow or gives back a tuple, also one after the other.
            9..=10 => {
                let seconds = self.random.of(&[25, 40]);
                self.scene.pass(seconds);
            }
            _ => {
                let previous = self.random.one_in(2);
                self.publish(vip, previous);
            }
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
            // The model has no clock for TCP.
            let reason = match outcome.reason {
                Reason::Unanswered => Reason::HalfOpen,
                reason => reason,
            };
            let found = Fate { reason, out: outcome.packet };
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
    let Some(root) = harness::root_or_skip("datapath") else { return };
    let mut left = number(PACKETS).unwrap_or(scaled(100_000, 5_000));
    let mut seed = number(SEED).unwrap_or(1);
    let (all, mut met) = (left, BTreeSet::new());
    // Without routes: where the node's own packets go is as the stack has it.
    let netns = NetNs::new(root, "random").expect("a namespace");
    while left > 0 {
        let packets = left.min(u64::from(EPISODE)) as u32;
        netns.run(|| {
            let mut episode = Episode::new(seed).expect("the privileges are there");
            if let Err(what) = episode.run(packets) {
                panic!(
                    "episode {seed}, to be repeated with {SEED}={seed} {PACKETS}={EPISODE}: {what}"
                );
            }
            met.append(&mut episode.met);
        });
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
    let vip = scene.vip("240.0.0.1:80");
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
