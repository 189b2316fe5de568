//! What is measured, under which name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use balancer_ebpf::reason::Reason;

use crate::{
    driver::{Order, Target},
    frames::{Kind, Packet, Sender},
    world::{Family, HUNDRED_REALS, ONE_REAL, Service, TWO_REALS, World},
};

/// Packets in one run: whole rounds through the flows of every case.
const PACKETS: u32 = 1 << 20;
/// Packets in one run of a case that clears tables between rounds, which takes longer than the
/// rounds.
const SYNS: u32 = 1 << 18;

/// Sizes of the flow tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Of the default limits.
    Default,
    /// Twice what 262,144 flows need: none is evicted, half of the hash buckets are empty.
    Large,
    /// Another one like that, for replies.
    LargeReply,
}

impl Size {
    /// Entries of each map of flows and of half-open connections; a connection takes two.
    pub(crate) fn entries(self) -> (u32, u32) {
        match self {
            Size::Default => (524_288, 131_072),
            Size::Large | Size::LargeReply => (1_048_576, 1_048_576),
        }
    }
}

/// What the tables hold when a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nothing that matters.
    Nothing,
    /// Every flow is established.
    Established,
    /// Every flow has sent its SYN.
    HalfOpen,
    /// No flow is known; and so again after each round through them.
    Unknown,
    /// The table is full of half-open flows of an earlier round, all others than the next.
    Full,
}

/// One measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The XDP program instead of one of TC.
    pub(crate) xdp: bool,
    pub(crate) size: Size,
    pub(crate) flows: u32,
    family: Family,
    service: Service,
    sender: Sender,
    kind: Kind,
    order: Order,
    before: Before,
    /// Why every packet meets its fate.
    reason: Reason,
}

/// Nanoseconds for each packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// Driver alone.
    pub(crate) driver: f64,
    /// Driver and program.
    pub(crate) gross: f64,
}

const SMALL: u32 = 1024;
const MANY: u32 = 262_144;

/// Every case differs in something from this one.
const BASE: Case = Case {
    name: "",
    xdp: false,
    size: Size::Default,
    flows: SMALL,
    family: Family::V4,
    service: TWO_REALS,
    sender: Sender::Client,
    kind: Kind::Data,
    order: Order::Counted,
    before: Before::Established,
    reason: Reason::Established,
};
const SYN: Case =
    Case { kind: Kind::Syn, before: Before::Unknown, reason: Reason::NewFlow, ..BASE };
const COLD: Case = Case { size: Size::Large, flows: MANY, ..BASE };

/// All of them. A case's clients come from its place in this list.
pub(crate) const CASES: &[Case] = &[
    Case { name: "tc.non_vip.1024", before: Before::Nothing, reason: Reason::NonVip, ..BASE },
    Case {
        name: "tc.unknown_destination.1024",
        before: Before::Nothing,
        reason: Reason::UnknownDestination,
        ..BASE
    },
    Case {
        name: "tc.stray_reset.1024",
        kind: Kind::Rst,
        before: Before::Nothing,
        reason: Reason::StrayReset,
        ..BASE
    },
    Case { name: "tc.established.1024", ..BASE },
    Case { name: "tc.established.262144", ..COLD },
    Case { name: "tc.established_shuffled.262144", order: Order::Shuffled, ..COLD },
    Case { name: "tc.established_100_reals.1024", service: HUNDRED_REALS, ..BASE },
    Case {
        name: "tc.reply.1024",
        service: ONE_REAL,
        sender: Sender::Real,
        reason: Reason::Reply,
        ..BASE
    },
    Case {
        name: "tc.reply.262144",
        service: ONE_REAL,
        sender: Sender::Real,
        reason: Reason::Reply,
        size: Size::LargeReply,
        ..COLD
    },
    Case { name: "tc.syn.1024", ..SYN },
    Case { name: "tc.syn.262144", size: Size::Large, flows: MANY, ..SYN },
    Case { name: "tc.syn_100_reals.1024", service: HUNDRED_REALS, ..SYN },
    Case { name: "tc.syn_evicting.262144", flows: MANY, before: Before::Full, ..SYN },
    Case {
        name: "tc.syn_retransmit.1024",
        before: Before::HalfOpen,
        reason: Reason::HalfOpen,
        ..SYN
    },
    Case {
        name: "tc6.non_vip.1024",
        family: Family::V6,
        before: Before::Nothing,
        reason: Reason::NonVip,
        ..BASE
    },
    Case { name: "tc6.established.1024", family: Family::V6, ..BASE },
    Case { name: "tc6.established.262144", family: Family::V6, ..COLD },
    Case { name: "tc6.syn.1024", family: Family::V6, ..SYN },
    Case {
        name: "xdp.non_vip.1024",
        xdp: true,
        before: Before::Nothing,
        reason: Reason::NonVip,
        ..BASE
    },
    Case { name: "xdp.established.1024", xdp: true, ..BASE },
    Case { name: "xdp.established.262144", xdp: true, ..COLD },
    Case {
        name: "xdp.reply.1024",
        xdp: true,
        service: ONE_REAL,
        sender: Sender::Real,
        reason: Reason::Reply,
        ..BASE
    },
    Case { name: "xdp.syn.1024", xdp: true, ..SYN },
    Case { name: "xdp.syn.262144", xdp: true, size: Size::Large, flows: MANY, ..SYN },
    Case { name: "xdp6.established.1024", xdp: true, family: Family::V6, ..BASE },
];

impl Case {
    /// The address of the first client, other than every other case's; but two orders of the
    /// same flows are two cases with the same clients, and so are two hooks.
    pub(crate) fn client(&self, number: usize) -> IpAddr {
        let same = |other: &Case| {
            (other.family, other.size, other.flows) == (self.family, self.size, self.flows)
                && (other.service, other.sender) == (self.service, self.sender)
                && (other.order, other.before) == (Order::Counted, self.before)
                && !other.xdp
        };
        let twin = self.xdp || self.order == Order::Shuffled;
        let number = if twin { CASES.iter().position(same).unwrap_or(number) } else { number };
        match self.family {
            Family::V4 => Ipv4Addr::new(10, number as u8 + 1, 0, 1).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, number as u16 + 1, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    fn packet(&self, number: usize) -> Packet {
        let vip = self.service.vip(self.family);
        let other = match (self.reason, self.sender) {
            // The same address at a port that nobody uses.
            (Reason::NonVip, _) => (vip.ip(), vip.port() + 1).into(),
            // A real's address at the port of VIPs.
            (Reason::UnknownDestination, _) => {
                (self.service.real(self.family, 0).ip(), vip.port()).into()
            }
            (_, Sender::Client) => vip,
            (_, Sender::Real) => self.service.real(self.family, 0),
        };
        Packet {
            kind: self.kind,
            sender: self.sender,
            order: self.order,
            client: self.client(number),
            other,
            vip,
            xdp: self.xdp,
        }
    }

    /// What the last packet's verdict must be.
    fn verdict(&self, target: Target) -> u32 {
        /// `TC_ACT_UNSPEC`, of every translation; `XDP_PASS` and `XDP_REDIRECT` (linux/bpf.h).
        const UNSPEC: u32 = u32::MAX;
        const SHOT: u32 = 2;
        const PASS: u32 = 2;
        const REDIRECT: u32 = 4;
        match (self.xdp, target, self.reason) {
            (false, Target::Ingress, Reason::StrayReset) => SHOT,
            (false, ..) => UNSPEC,
            (true, Target::Nothing, _) | (true, _, Reason::NonVip) => PASS,
            (true, ..) => REDIRECT,
        }
    }

    /// What is done once, before all runs. `ready`: first clients whose flows are established.
    pub(crate) fn prepare(
        &self,
        number: usize,
        world: &mut World,
        ready: &mut Vec<IpAddr>,
    ) -> Result<()> {
        let client = self.client(number);
        if self.before == Before::Established && !ready.contains(&client) {
            ready.push(client);
            world.establish(&self.packet(number), self.flows)?;
        }
        Ok(())
    }

    /// One run: the driver alone, then with the program.
    pub(crate) fn time(&self, number: usize, world: &mut World) -> Result<Timing> {
        let packet = self.packet(number);
        let target = match (self.xdp, self.sender) {
            (true, _) => Target::Edge,
            (false, Sender::Client) => Target::Ingress,
            (false, Sender::Real) => Target::Egress,
        };
        let mut run = |target, repeat, reason| {
            world.run(&packet, self.flows, (target, self.verdict(target)), repeat, reason)
        };
        if self.before != Before::Unknown {
            match self.before {
                // Other cases have run meanwhile: a first round, not timed, brings the time
                // stamps up to date, which a busy flow does once a second.
                Before::Established => run(target, self.flows, self.reason).map(drop)?,
                Before::HalfOpen => run(target, self.flows, Reason::NewFlow).map(drop)?,
                // Two rounds of more flows than there is room for: the second has evicted what
                // the first left.
                Before::Full => run(target, self.flows, Reason::NewFlow).map(drop)?,
                _ => {}
            }
            let driver = run(Target::Nothing, PACKETS, self.reason)?;
            let timing = Timing { driver, gross: run(target, PACKETS, self.reason)? };
            if matches!(self.before, Before::HalfOpen | Before::Full) {
                world.clear_half_open()?;
            }
            return Ok(timing);
        }
        let rounds = SYNS / self.flows;
        let mut sum = Timing { driver: 0.0, gross: 0.0 };
        for _ in 0..rounds {
            let flows = self.flows;
            let to = |target| (target, self.verdict(target));
            sum.driver += world.run(&packet, flows, to(Target::Nothing), flows, self.reason)?;
            sum.gross += world.run(&packet, flows, to(target), flows, self.reason)?;
            world.clear_half_open()?;
        }
        let rounds = f64::from(rounds);
        Ok(Timing { driver: sum.driver / rounds, gross: sum.gross / rounds })
    }
}
