//! Whether packets may go past the stack: a judgement on a plain description, without a kernel.

use std::{collections::BTreeSet, fmt};

use super::super::{Direction, Hook};

/// What a network namespace does to the packets that it forwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Base chains of nftables.
    pub(crate) chains: Vec<Chain>,
    /// Tables of iptables that are registered: `IPv4` or `IPv6`, and the name.
    pub(crate) tables: Vec<(&'static str, String)>,
    /// Conntrack follows connections of this namespace.
    pub(crate) tracked: bool,
    /// Policies of IPsec.
    pub(crate) policies: u32,
    /// What could not be asked, and why.
    pub(crate) unknown: Vec<(&'static str, String)>,
}

/// A base chain of nftables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Number of its hook, as its family counts them.
    pub(crate) hook: u32,
    /// Of hooks of devices; a name that ends in `*` stands for all that begin so.
    pub(crate) devices: Vec<String>,
    pub(crate) rules: u32,
    /// What no rule decides on is dropped.
    pub(crate) drops: bool,
}

/// Families of nftables (`NFPROTO_…`, linux/netfilter.h).
pub(crate) mod family {
    pub(crate) const INET: u8 = 1;
    pub(crate) const IPV4: u8 = 2;
    pub(crate) const NETDEV: u8 = 5;
    pub(crate) const IPV6: u8 = 10;
}

/// Where a chain stands: its hook by name, and whether only packets of its devices meet it.
fn place(chain: &Chain) -> Option<(&'static str, bool)> {
    match (chain.family, chain.hook) {
        // `NF_INET_PRE_ROUTING`, …; those of the node's own sockets are not passed by.
        (family::INET | family::IPV4 | family::IPV6, 0) => Some(("prerouting", false)),
        (family::INET | family::IPV4 | family::IPV6, 2) => Some(("forward", false)),
        (family::INET | family::IPV4 | family::IPV6, 4) => Some(("postrouting", false)),
        (family::INET, 5) | (family::NETDEV, 0) => Some(("ingress", true)),
        (family::NETDEV, 1) => Some(("egress", true)),
        _ => None,
    }
}

impl Chain {
    fn names(&self, interface: &str) -> bool {
        self.devices.iter().any(|device| match device.strip_suffix('*') {
            Some(head) => interface.starts_with(head),
            None => device == interface,
        })
    }

    /// What it keeps from the packets of `interface`.
    fn obstacle(&self, interface: &str) -> Option<Obstacle> {
        let (hook, of_devices) = place(self)?;
        if self.rules == 0 && !self.drops || of_devices && !self.names(interface) {
            return None;
        }
        let family = match self.family {
            family::INET => "inet",
            family::IPV4 => "ip",
            family::IPV6 => "ip6",
            _ => "netdev",
        };
        let chain = format!("{family} {} {}", self.table, self.name);
        Some(Obstacle::Chain { chain, hook, drops: self.rules == 0 })
    }
}

/// An interface with programs of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) loopback: bool,
    /// See [`super::super::Interface::part`].
    pub(crate) part: bool,
    /// Directions in which a TC program of ours is there.
    pub(crate) hooked: BTreeSet<Direction>,
    /// Programs and filters of others.
    pub(crate) foreign: Vec<(Direction, Hook, String)>,
    /// It is one end of a veth pair whose other end is in another namespace.
    pub(crate) veth_elsewhere: bool,
    /// Its queueing discipline at egress.
    pub(crate) queue: String,
}

/// What stands against sending packets past the stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// The setting says so.
    Asked,
    /// No program of ours is there.
    Unhooked(Direction),
    /// It is the loopback.
    Loopback,
    /// Another interface that it is part of decides.
    Part,
    /// A program or filter of somebody else would miss packets.
    Program {
        /// Which packets it sees.
        direction: Direction,
        /// By what.
        hook: Hook,
        /// Its name, or the kind of filter.
        name: String,
    },
    /// A chain of nftables would miss packets.
    Chain {
        /// Family, table and name.
        chain: String,
        /// Where it stands.
        hook: &'static str,
        /// It has no rules, and drops.
        drops: bool,
    },
    /// A table of iptables may have rules that would miss packets.
    Table {
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// Its name.
        table: String,
    },
    /// Conntrack would miss packets of connections.
    Conntrack,
    /// Policies of IPsec would not be applied.
    Policies(u32),
    /// Something could not be asked.
    Unknown {
        /// What.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// There are more interfaces than the map has room for.
    NoRoom,
}

impl Obstacle {
    /// Nobody can ask to have it overlooked.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Asked | Self::Unhooked(_) | Self::Loopback | Self::Part | Self::NoRoom => true,
            Self::Program { .. }
            | Self::Chain { .. }
            | Self::Table { .. }
            | Self::Conntrack
            | Self::Policies(_)
            | Self::Unknown { .. } => false,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("forwarding is `stack`"),
            Self::Unhooked(direction) => {
                write!(f, "no program of balancer at {}", direction.name())
            }
            Self::Loopback => f.write_str("it is the loopback"),
            Self::Part => f.write_str("it is part of another interface"),
            Self::Program { direction, hook, name } => {
                write!(
                    f,
                    "the program {name} of somebody else ({}, {})",
                    direction.name(),
                    hook.name()
                )
            }
            Self::Chain { chain, hook, drops: false } => {
                write!(f, "rules of nftables at {hook}, in the chain {chain}")
            }
            Self::Chain { chain, hook, drops: true } => {
                write!(f, "the chain {chain} of nftables, which drops at {hook}")
            }
            Self::Table { family, table } => {
                write!(f, "the table {table} of iptables ({family})")
            }
            Self::Conntrack => f.write_str("conntrack follows connections"),
            Self::Policies(1) => f.write_str("a policy of IPsec"),
            Self::Policies(number) => write!(f, "{number} policies of IPsec"),
            Self::Unknown { what, why } => write!(f, "{what} cannot be asked about: {why}"),
            Self::NoRoom => f.write_str("the map INTERFACES is full"),
        }
    }
}

/// How packets leave by an interface, and come in by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The interface.
    pub interface: String,
    /// Its number.
    pub index: u32,
    /// Past the stack, from and to others of which the same is said. False: the stack routes.
    pub direct: bool,
    /// What is sent to it is put into the namespace of its other end at once.
    pub peer: bool,
    /// What stands against `direct`, also where it was asked for all the same.
    pub obstacles: Vec<Obstacle>,
}

/// Judges each interface. `forced`: only what nobody can overlook counts.
pub(crate) fn judge(rules: &Rules, interfaces: &[Candidate], forced: bool) -> Vec<Judged> {
    let one = |candidate: &Candidate| {
        let obstacles = obstacles(rules, candidate);
        let direct = obstacles.iter().all(|obstacle| forced && !obstacle.is_final());
        Judged {
            interface: candidate.name.clone(),
            index: candidate.index,
            direct,
            // What shapes or counts packets at egress is asked on every other way.
            peer: direct && candidate.veth_elsewhere && candidate.queue == "noqueue",
            obstacles,
        }
    };
    interfaces.iter().map(one).collect()
}

fn obstacles(rules: &Rules, candidate: &Candidate) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    if candidate.loopback {
        obstacles.push(Obstacle::Loopback);
    }
    if candidate.part {
        obstacles.push(Obstacle::Part);
    }
    for direction in [Direction::Ingress, Direction::Egress] {
        if !candidate.hooked.contains(&direction) {
            obstacles.push(Obstacle::Unhooked(direction));
        }
    }
    for (direction, hook, name) in &candidate.foreign {
        // XDP sees what comes in before any of us does.
        if !matches!(hook, Hook::Xdp | Hook::XdpGeneric) {
            let (direction, hook, name) = (*direction, *hook, name.clone());
            obstacles.push(Obstacle::Program { direction, hook, name });
        }
    }
    obstacles.extend(rules.chains.iter().filter_map(|chain| chain.obstacle(&candidate.name)));
    for (family, table) in &rules.tables {
        obstacles.push(Obstacle::Table { family, table: table.clone() });
    }
    if rules.tracked {
        obstacles.push(Obstacle::Conntrack);
    }
    if rules.policies > 0 {
        obstacles.push(Obstacle::Policies(rules.policies));
    }
    for (what, why) in &rules.unknown {
        obstacles.push(Obstacle::Unknown { what, why: why.clone() });
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A veth pair that leads into another namespace, with both of our programs.
    fn veth(name: &str) -> Candidate {
        Candidate {
            name: name.to_owned(),
            index: 7,
            hooked: [Direction::Ingress, Direction::Egress].into(),
            veth_elsewhere: true,
            queue: "noqueue".to_owned(),
            ..Candidate::default()
        }
    }

    /// A chain with one rule.
    fn chain(family: u8, hook: u32) -> Chain {
        let (table, name) = ("t".to_owned(), "c".to_owned());
        Chain { family, table, name, hook, rules: 1, ..Chain::default() }
    }

    fn with_chain(chain: Chain) -> Rules {
        Rules { chains: vec![chain], ..Rules::default() }
    }

    #[track_caller]
    fn judged(rules: &Rules, candidate: &Candidate) -> (Judged, Judged) {
        let one = |forced| judge(rules, std::slice::from_ref(candidate), forced).remove(0);
        (one(false), one(true))
    }

    /// Says why not, unless it is forced.
    #[track_caller]
    fn told(rules: &Rules, candidate: &Candidate) -> String {
        let (auto, forced) = judged(rules, candidate);
        assert_eq!((auto.direct, forced.direct), (false, true), "{auto:?}");
        assert!(!auto.peer);
        assert_eq!(auto.obstacles, forced.obstacles, "a person is told in both cases");
        let told: Vec<_> = auto.obstacles.iter().map(Obstacle::to_string).collect();
        told.join("; ")
    }

    #[test]
    fn an_interface_whose_packets_nobody_would_miss_is_direct() {
        let (auto, _) = judged(&Rules::default(), &veth("v-a"));
        assert_eq!((auto.direct, auto.peer, auto.obstacles.as_slice()), (true, true, &[][..]));
    }

    #[test]
    fn packets_are_put_into_another_namespace_only_past_nothing() {
        let one = veth("v-a");
        for candidate in [
            Candidate { veth_elsewhere: false, ..one.clone() },
            Candidate { queue: "fq_codel".to_owned(), ..one.clone() },
            Candidate { queue: String::new(), ..one },
        ] {
            let (auto, forced) = judged(&Rules::default(), &candidate);
            assert!(auto.direct && !auto.peer && !forced.peer, "{candidate:?}");
        }
    }

    #[test]
    fn what_nobody_can_overlook_holds_also_where_direct_is_forced() {
        let one = veth("v-a");
        let half: BTreeSet<_> = [Direction::Ingress].into();
        for (candidate, why) in [
            (Candidate { hooked: half, ..one.clone() }, "no program of balancer at egress"),
            (Candidate { loopback: true, ..one.clone() }, "it is the loopback"),
            (Candidate { part: true, ..one }, "it is part of another interface"),
        ] {
            let (auto, forced) = judged(&Rules::default(), &candidate);
            assert!(!auto.direct && !forced.direct && !forced.peer);
            assert_eq!(forced.obstacles[0].to_string(), why);
        }
    }

    #[test]
    fn chains_that_forwarded_packets_meet_are_not_passed_by() {
        for (family, hook, name) in [
            (family::INET, 0, "inet t c"),
            (family::IPV4, 2, "ip t c"),
            (family::IPV6, 4, "ip6 t c"),
        ] {
            let why = told(&with_chain(chain(family, hook)), &veth("v-a"));
            assert!(why.starts_with("rules of nftables at ") && why.ends_with(name), "{why}");
        }
        let drops = Chain { rules: 0, drops: true, ..chain(family::INET, 2) };
        assert_eq!(
            told(&with_chain(drops), &veth("v-a")),
            "the chain inet t c of nftables, which drops at forward"
        );
    }

    #[test]
    fn chains_that_decide_nothing_about_forwarded_packets_stand_in_no_way() {
        let idle = Chain { rules: 0, ..chain(family::INET, 2) };
        let (input, output) = (chain(family::INET, 1), chain(family::IPV4, 3));
        // Of bridges and of ARP.
        let (bridge, arp) = (chain(7, 2), chain(3, 0));
        for chain in [idle, input, output, bridge, arp] {
            let (auto, _) = judged(&with_chain(chain.clone()), &veth("v-a"));
            assert!(auto.direct, "{chain:?}");
        }
    }

    #[test]
    fn chains_of_devices_count_for_those_devices() {
        for (family, hook) in [(family::NETDEV, 0), (family::NETDEV, 1), (family::INET, 5)] {
            let named = |device: &str| {
                with_chain(Chain { devices: vec![device.to_owned()], ..chain(family, hook) })
            };
            for device in ["v-a", "v-*"] {
                assert!(told(&named(device), &veth("v-a")).contains("nftables"));
            }
            assert!(judged(&named("v-b"), &veth("v-a")).0.direct);
        }
    }

    #[test]
    fn whatever_else_looks_at_packets_is_named() {
        let rules = Rules {
            tables: vec![("IPv4", "filter".to_owned())],
            tracked: true,
            policies: 2,
            unknown: vec![("nftables", "Operation not permitted".to_owned())],
            ..Rules::default()
        };
        assert_eq!(
            told(&rules, &veth("v-a")),
            "the table filter of iptables (IPv4); conntrack follows connections; 2 policies of \
             IPsec; nftables cannot be asked about: Operation not permitted"
        );
        let foreign = |hook| vec![(Direction::Ingress, hook, "meter".to_owned())];
        let one = Candidate { foreign: foreign(Hook::Tcx), ..veth("v-a") };
        assert_eq!(
            told(&Rules::default(), &one),
            "the program meter of somebody else (ingress, tcx)"
        );
        let xdp = Candidate { foreign: foreign(Hook::Xdp), ..veth("v-a") };
        assert!(judged(&Rules::default(), &xdp).0.direct, "it has seen the packet before");
    }
}
