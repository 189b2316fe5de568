//! A second opinion: what `docs/datapath.md` says of a packet, in plain Rust.
//!
//! Written from the page and not from the programs, and about connections, not about maps: one
//! connection has one state, whatever entries stand for it. Time passes for flows of UDP only, when
//! a test says so, and nothing is evicted. What the programs draw by lot the model cannot know: it
//! says what may come out.

mod frames;
mod icmp;
mod opening;
mod random;
mod read;
pub(crate) mod scene;
mod state;
mod write;

use std::{collections::BTreeMap, net::IpAddr};

use balancer_ebpf::{
    abi::Counter,
    reason::{self, Reason},
};
use harness::wire::protocol;

use crate::world::Hook;
pub(crate) use read::End;
use read::Packet;
use state::{Back, Connection};
pub(crate) use state::{Ends, Pick, Real, Route, Slot, Vip};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Seconds of silence of both ends that end a flow of UDP.
const FLOW_S: u32 = 30;
/// Seconds after which a silent flow of UDP gives back its tuple at the real.
const TUPLE_S: u32 = 60;

/// What the model knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) vip_ports: Vec<u16>,
    pub(crate) real_ports: Vec<u16>,
    /// Ports of reals from which replies are looked at where they come in.
    pub(crate) inward_ports: Vec<u16>,
    pub(crate) routes: BTreeMap<Vip, Route>,
    pub(crate) reals: BTreeMap<u32, Real>,
    /// Addresses of workloads that are not behind the interface of these tests.
    pub(crate) elsewhere: Vec<IpAddr>,
    /// Gone reals keep their connections.
    pub(crate) keeps: bool,
    /// The time.
    pub(crate) seconds: u32,
    connections: BTreeMap<Ends, Connection>,
    back: BTreeMap<Ends, Back>,
    /// Flows of UDP that were live when another one got their tuple: nobody counts them down.
    stale: BTreeMap<u32, u64>,
    /// Where first fragments went: whether they left, both addresses, identification and protocol,
    /// to both addresses.
    fragments: BTreeMap<(bool, [IpAddr; 2], u32, u8), [IpAddr; 2]>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) counters: BTreeMap<u32, Counter>,
}

/// What should become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) reason: Reason,
    pub(crate) out: Vec<u8>,
}

/// A packet, where it was met, and what became of it: where the lot decides, that tells.
struct Met<'a> {
    hook: Hook,
    frame: &'a [u8],
    found: &'a Fate,
}

impl Met<'_> {
    /// The packet as it came.
    fn untouched(&self, reason: Reason) -> Fate {
        Fate { reason, out: self.frame.to_vec() }
    }
    fn leaves(&self) -> bool {
        self.hook != Hook::Ingress
    }
}

impl Model {
    /// Whether the fate that a packet met is one that it may meet; then the model goes on from
    /// there.
    ///
    /// # Errors
    /// What it should have met.
    pub(crate) fn judge(&mut self, hook: Hook, frame: &[u8], found: &Fate) -> Result<(), String> {
        let expected = self.decide(&Met { hook, frame, found });
        if expected == *found {
            return Ok(());
        }
        let bytes = expected.out.iter().zip(&found.out).position(|(a, b)| a != b);
        Err(format!(
            "{} and not {}; lengths {} and {}, first difference at {bytes:?}",
            expected.reason.name(),
            found.reason.name(),
            expected.out.len(),
            found.out.len()
        ))
    }

    /// What becomes of a packet.
    fn decide(&mut self, met: &Met<'_>) -> Fate {
        if let Some(ports) = read::ordinary_ports(met.frame)
            && !self.concerns(met.hook, ports)
        {
            return met.untouched(Reason::NonVip);
        }
        // What a test run takes for the interface, the loopback, has this address.
        if met.hook == Hook::Ingress && met.frame[..6] != [0; 6] {
            return met.untouched(Reason::OtherHost);
        }
        let ip = match read::first_ip(met.frame) {
            Ok(ip) => ip,
            Err(reason) => return met.untouched(reason),
        };
        if ip.offset != 0 {
            return self.later_fragment(met, &ip);
        }
        if ![protocol::TCP, protocol::UDP].contains(&ip.protocol) {
            return self.icmp(met, &ip);
        }
        let packet = match read::packet(met.frame, &ip) {
            Ok(packet) => packet,
            Err(reason) => return met.untouched(reason),
        };
        let fate = self.ported(met, &packet);
        if packet.first && fate.reason.fate() == reason::Fate::Forward {
            self.first_fragment(met, &ip, &fate);
        }
        fate
    }

    /// Whether the ports of a packet, source first, can make it one of ours.
    fn concerns(&self, hook: Hook, [from, to]: [u16; 2]) -> bool {
        let (vip, real) = (self.vip_ports.contains(&to), self.real_ports.contains(&from));
        match hook {
            Hook::Ingress => vip || self.inward_ports.contains(&from),
            Hook::Egress => real,
            Hook::Host => vip || real,
            Hook::Ask | Hook::Edge | Hook::Tunnel | Hook::Link => {
                panic!("the model decides for what TC carries")
            }
        }
    }

    /// A packet with ports.
    fn ported(&mut self, met: &Met<'_>, packet: &Packet) -> Fate {
        let [from, to] = [packet.ends.src.port(), packet.ends.dst.port()];
        let (is_vip, is_real) = (self.vip_ports.contains(&to), self.real_ports.contains(&from));
        if met.leaves() {
            let fate = match is_real {
                true => self.reply(met, packet),
                false => met.untouched(Reason::NonVip),
            };
            let stranger = matches!(fate.reason, Reason::NonVip | Reason::UnknownReply);
            let asks = stranger && is_vip && met.hook == Hook::Host;
            return if asks { self.request(met, packet) } else { fate };
        }
        let fate = match is_vip {
            true => self.request(met, packet),
            false => met.untouched(Reason::NonVip),
        };
        let stranger = matches!(fate.reason, Reason::NonVip | Reason::UnknownDestination);
        if !stranger || !self.inward_ports.contains(&from) {
            return fate;
        }
        let reply = self.reply(met, packet);
        let neither = fate.reason == Reason::UnknownDestination;
        if neither && reply.reason == Reason::UnknownReply { fate } else { reply }
    }

    /// How many entries the connections have in the maps of flows.
    pub(crate) fn entries(&self) -> usize {
        self.connections.len() + self.back.len()
    }

    /// Ends of packets that a real may send back now.
    pub(crate) fn replies(&self) -> impl Iterator<Item = Ends> {
        self.back.keys().copied()
    }

    /// Clients and VIPs that are connected now.
    pub(crate) fn ways(&self) -> impl Iterator<Item = Ends> {
        self.connections.keys().copied()
    }

    /// Live connections of a real.
    pub(crate) fn live(&self, real: u32) -> u64 {
        let live = self.connections.values().filter(|c| c.real == real && c.live()).count();
        live as u64 + self.stale.get(&real).copied().unwrap_or(0)
    }

    fn silent(&self, seen: u32) -> bool {
        self.seconds - seen > FLOW_S
    }

    /// A packet that may come from a real.
    fn reply(&mut self, met: &Met<'_>, packet: &Packet) -> Fate {
        let Some(back) = self.back.get(&packet.ends).cloned() else {
            return met.untouched(Reason::UnknownReply);
        };
        if !met.leaves() && !back.inward {
            return met.untouched(Reason::StackReply);
        }
        let of_client = self.connections.get(&back.way);
        let client_silent = of_client.is_none_or(|connection| self.silent(connection.seen));
        if packet.is_udp() && self.silent(back.seen) && client_silent {
            return met.untouched(Reason::UnknownReply);
        }
        let now = self.seconds;
        if let Some(connection) = self.connections.get_mut(&back.way) {
            if packet.is_udp() {
                if !back.answered {
                    (connection.answered, connection.seen) = (true, now);
                }
            } else if packet.flags & RST != 0 {
                connection.reset = true;
            } else if packet.flags & (SYN | ACK) == SYN | ACK {
                connection.answered = true;
            } else if packet.flags & (SYN | FIN) == FIN {
                connection.real_fin = true;
            }
        }
        let entry = self.back.get_mut(&packet.ends).expect("found above");
        (entry.answered, entry.seen) = (true, now);
        let counter = self.counters.entry(back.counter).or_default();
        counter.packets_out += 1;
        counter.bytes_out += met.frame.len() as u64;
        let way = back.way;
        let out = write::translated(met.frame, packet, End::Source, way.dst, way.src.port());
        let out = match back.hairpin {
            true => write::hairpin(&out, packet, End::Destination, packet.ends.src.ip()),
            false => out,
        };
        following(met, packet, back.hairpin, Fate { reason: Reason::Reply, out })
    }

    /// A packet that may be for a VIP.
    fn request(&mut self, met: &Met<'_>, packet: &Packet) -> Fate {
        let way = packet.ends;
        let syn = packet.flags & (SYN | ACK | RST) == SYN;
        if let Some(connection) = self.connections.get(&way) {
            let real = self.reals.get(&connection.real).copied();
            let named = real.filter(|real| real.generation == connection.generation);
            let stands = named.is_some_and(|real| !real.gone);
            let carries = stands || (named.is_some() && self.keeps);
            // A datagram asks for nothing but to arrive.
            let anew = match packet.is_udp() {
                true => !carries || self.over(way),
                false => syn && (!stands || connection.closing()),
            };
            if !anew && carries {
                return self.carry(met, packet);
            }
            self.forget(way);
            if !anew {
                return match packet.flags & RST {
                    0 => refused(met, packet, Reason::RealGone),
                    _ => met.untouched(Reason::StrayReset),
                };
            }
        }
        // A real's client may have a port that some VIP has too.
        if !syn && self.inward_ports.contains(&way.src.port()) && self.back.contains_key(&way) {
            return met.untouched(Reason::UnknownDestination);
        }
        self.begin(met, packet, syn || packet.is_udp())
    }

    /// The way back of a connection whose real's id still means that real.
    fn way_back(&self, way: Ends) -> Option<Ends> {
        let connection = self.connections.get(&way)?;
        let named = self.reals.get(&connection.real)?.generation == connection.generation;
        let own = self.back.get(&connection.back)?.way == way;
        (named && own).then_some(connection.back)
    }

    /// Whether both ends of a flow of UDP have been silent too long.
    fn over(&self, way: Ends) -> bool {
        let back = self.way_back(way).map(|back| self.back[&back].seen);
        self.silent(self.connections[&way].seen) && back.is_none_or(|seen| self.silent(seen))
    }

    /// A packet of a known connection.
    fn carry(&mut self, met: &Met<'_>, packet: &Packet) -> Fate {
        let (way, now) = (packet.ends, self.seconds);
        let back = self.way_back(way);
        let connection = self.connections.get_mut(&way).expect("the caller has found it");
        let has = |bits| packet.flags & bits != 0;
        let goes_on = packet.is_udp() || (!connection.reset && !has(SYN | RST) && has(ACK));
        connection.established |= connection.answered && goes_on;
        if has(RST) {
            connection.reset = true;
        } else if has(FIN) && !has(SYN) {
            connection.client_fin = true;
        }
        connection.seen = now;
        if let Some(back) = back.and_then(|back| self.back.get_mut(&back)) {
            back.seen = now;
            back.answered |= connection.established;
        }
        let reason = if connection.established { Reason::Established } else { Reason::HalfOpen };
        let connection = connection.clone();
        self.sent(met, packet, &connection, reason)
    }

    /// Forgets a connection. What its real may still send is known only while the real's id
    /// means the same real.
    fn forget(&mut self, way: Ends) {
        if let Some(back) = self.way_back(way) {
            self.back.remove(&back);
        }
        self.connections.remove(&way);
    }

    /// Counts a packet to a real and translates it.
    fn sent(
        &mut self,
        met: &Met<'_>,
        packet: &Packet,
        connection: &Connection,
        reason: Reason,
    ) -> Fate {
        let counter = self.counters.entry(connection.counter).or_default();
        counter.packets_in += 1;
        counter.bytes_in += met.frame.len() as u64;
        let to = self.reals[&connection.real].end;
        let port = connection.back.dst.port();
        let out = write::translated(met.frame, packet, End::Destination, to, port);
        let out = match connection.hairpin {
            true => write::hairpin(&out, packet, End::Source, packet.ends.dst.ip()),
            false => out,
        };
        // What comes in is not the node's own.
        let forged = connection.host && !met.leaves();
        let fate = match forged {
            true => Fate { reason: Reason::SpoofedSource, out: met.found.out.clone() },
            false => Fate { reason, out },
        };
        following(met, packet, connection.hairpin || forged, fate)
    }
}

/// Later fragments could not follow one that was turned round, or is forged: it is dropped, and what it
/// looks like then is nobody's business.
fn following(met: &Met<'_>, packet: &Packet, alone: bool, fate: Fate) -> Fate {
    if !(alone && packet.first) {
        return fate;
    }
    Fate { reason: Reason::Fragment, out: met.found.out.clone() }
}

/// A packet that is refused: a segment may be answered, a datagram never is.
fn refused(met: &Met<'_>, packet: &Packet, reason: Reason) -> Fate {
    match reason.fate() == reason::Fate::Reset && !packet.is_udp() {
        true => Fate { reason, out: write::reset(met.frame, packet) },
        false => met.untouched(reason),
    }
}

/// Whether a frame is a packet of UDP, whatever else is wrong with it.
pub(crate) fn is_datagram(frame: &[u8]) -> bool {
    read::first_ip(frame).is_ok_and(|ip| ip.protocol == protocol::UDP)
}

/// An address that no host sends from.
fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            a.octets()[0] == 0 || a.is_loopback() || a.is_multicast() || a.is_broadcast()
        }
        IpAddr::V6(a) => {
            let unspecified = a.is_unspecified() || a.is_loopback();
            unspecified || a.is_multicast() || a.to_ipv4_mapped().is_some()
        }
    }
}
