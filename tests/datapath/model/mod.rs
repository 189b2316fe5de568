//! A second opinion: what `docs/datapath.md` says of a packet, in plain Rust.
//!
//! Written from the page and not from the programs, and about connections, not about maps: one
//! connection has one state, whatever entries stand for it. Time stands still here, and nothing is
//! evicted. What the programs draw by lot the model cannot know: it says what may come out.

mod odd;
mod random;
mod read;
pub(crate) mod scene;
mod write;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use balancer_ebpf::{abi::Counter, hash, reason::Reason};
use harness::wire::protocol;

use crate::world::{FORWARD, Hook, key4, key6};
pub(crate) use read::End;
use read::Tcp;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// How a table is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// By the flow's hash.
    Hash,
    /// By lot, in turn, or by who is least busy: any slot may come.
    Any,
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Nothing,
    Blackhole,
    Real(u32),
}

/// What is done with connections to a VIP.
#[derive(Clone, Debug)]
pub(crate) enum Route {
    Denied,
    Table { pick: Pick, slots: Vec<Slot>, previous: Vec<Slot>, counter: u32 },
}

/// A real as the inventory has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Real {
    pub(crate) end: SocketAddr,
    pub(crate) generation: u32,
    pub(crate) gone: bool,
}

/// A connection, client to VIP.
#[derive(Clone, Debug)]
struct Connection {
    real: u32,
    generation: u32,
    /// The source port that the real sees.
    port: u16,
    counter: u32,
    established: bool,
    answered: bool,
    client_fin: bool,
    real_fin: bool,
    reset: bool,
}

impl Connection {
    fn closing(&self) -> bool {
        self.client_fin || self.real_fin || self.reset
    }
    fn live(&self) -> bool {
        self.established && !self.reset && !(self.client_fin && self.real_fin)
    }
}

/// Client and VIP.
type Way = (SocketAddr, SocketAddr);

/// What the model knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) vip_ports: Vec<u16>,
    pub(crate) real_ports: Vec<u16>,
    pub(crate) routes: BTreeMap<SocketAddr, Route>,
    pub(crate) reals: BTreeMap<u32, Real>,
    /// Addresses of workloads that are not behind the interface of these tests.
    pub(crate) elsewhere: Vec<IpAddr>,
    /// Gone reals keep their connections.
    pub(crate) keeps: bool,
    connections: BTreeMap<Way, Connection>,
    /// Which connection the packets of a real to a client's address and port belong to, and what
    /// counts them.
    back: BTreeMap<(SocketAddr, SocketAddr), (Way, u32)>,
    /// Where first fragments went: the hook, both addresses, identification and protocol, to both
    /// addresses.
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

/// What may become of a new connection.
#[derive(Clone, Copy, Debug)]
struct Opening {
    reason: Reason,
    real: u32,
    /// The source port is another than the client's.
    translated: bool,
}

impl Model {
    /// Whether the fate that a packet met is one that it may meet; then the model goes on from
    /// there.
    ///
    /// # Errors
    /// What it should have met.
    pub(crate) fn judge(&mut self, hook: Hook, frame: &[u8], found: &Fate) -> Result<(), String> {
        let expected = self.decide(hook, frame, found);
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

    /// What becomes of a packet; where the lot decides, what was found if that may be.
    pub(crate) fn decide(&mut self, hook: Hook, frame: &[u8], found: &Fate) -> Fate {
        let untouched = |reason| Fate { reason, out: frame.to_vec() };
        let (end, ports) = match hook {
            Hook::Egress => (End::Source, &self.real_ports),
            Hook::Ingress | Hook::Ask => (End::Destination, &self.vip_ports),
            Hook::Edge | Hook::Tunnel | Hook::Link | Hook::Host => {
                panic!("the model decides for packets of others, on TC")
            }
        };
        if let Some(port) = read::ordinary_port(frame, end)
            && !ports.contains(&port)
        {
            return untouched(Reason::NonVip);
        }
        // What a test run takes for the interface, the loopback, has this address.
        if hook == Hook::Ingress && frame[..6] != [0; 6] {
            return untouched(Reason::OtherHost);
        }
        let ip = match read::first_ip(frame) {
            Ok(ip) => ip,
            Err(reason) => return untouched(reason),
        };
        if ip.offset != 0 {
            return self.later_fragment(hook, frame, &ip);
        }
        if ![protocol::TCP, protocol::UDP].contains(&ip.protocol) {
            return self.icmp(hook, frame, &ip);
        }
        let tcp = match read::tcp(frame, &ip) {
            Ok(tcp) => tcp,
            Err(reason) => return untouched(reason),
        };
        let fate = self.ported(hook, frame, &tcp, found);
        if tcp.first && fate.reason.fate() == balancer_ebpf::reason::Fate::Forward {
            self.first_fragment(hook, &ip, &fate);
        }
        fate
    }

    /// A packet with ports.
    fn ported(&mut self, hook: Hook, frame: &[u8], tcp: &Tcp, found: &Fate) -> Fate {
        let (port, ports) = match hook {
            Hook::Egress => (tcp.src.port(), &self.real_ports),
            _ => (tcp.dst.port(), &self.vip_ports),
        };
        if !ports.contains(&port) {
            return Fate { reason: Reason::NonVip, out: frame.to_vec() };
        }
        // No VIP of the model is one of UDP.
        if tcp.is_udp {
            let reply = hook == Hook::Egress;
            let reason = if reply { Reason::UnknownReply } else { Reason::UnknownDestination };
            return Fate { reason, out: frame.to_vec() };
        }
        if hook == Hook::Egress { self.reply(frame, tcp) } else { self.request(frame, tcp, found) }
    }

    /// How many entries the connections have in the maps of flows.
    pub(crate) fn entries(&self) -> usize {
        self.connections.len() + self.back.len()
    }

    /// Ends of packets that a real may send back now.
    pub(crate) fn replies(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.back.keys().copied()
    }

    /// Clients and VIPs that are connected now.
    pub(crate) fn ways(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.connections.keys().copied()
    }

    /// Live connections of a real.
    pub(crate) fn live(&self, real: u32) -> u64 {
        self.connections.values().filter(|c| c.real == real && c.live()).count() as u64
    }

    /// A packet that may come from a real.
    fn reply(&mut self, frame: &[u8], tcp: &Tcp) -> Fate {
        let Some((way, counter)) = self.back.get(&(tcp.src, tcp.dst)).copied() else {
            return Fate { reason: Reason::UnknownReply, out: frame.to_vec() };
        };
        let (client, vip) = way;
        if let Some(connection) = self.connections.get_mut(&way) {
            if tcp.flags & RST != 0 {
                connection.reset = true;
            } else if tcp.flags & (SYN | ACK) == SYN | ACK {
                connection.answered = true;
            } else if tcp.flags & (SYN | FIN) == FIN {
                connection.real_fin = true;
            }
        }
        let counter = self.counters.entry(counter).or_default();
        counter.packets_out += 1;
        counter.bytes_out += frame.len() as u64;
        let out = write::translated(frame, tcp, End::Source, vip, client.port());
        Fate { reason: Reason::Reply, out }
    }

    /// A packet that may be for a VIP.
    fn request(&mut self, frame: &[u8], tcp: &Tcp, found: &Fate) -> Fate {
        let way = (tcp.src, tcp.dst);
        let drop = |reason| Fate { reason, out: frame.to_vec() };
        let opens = tcp.flags & (SYN | ACK | RST) == SYN;
        if let Some(connection) = self.connections.get(&way) {
            let real = self.reals.get(&connection.real).copied();
            let named = real.filter(|real| real.generation == connection.generation);
            let stands = named.is_some_and(|real| !real.gone);
            let carries = stands || (named.is_some() && self.keeps);
            match (opens, stands && !connection.closing(), carries) {
                // The real stands, or may keep what it has.
                (true, true, _) | (false, _, true) => return self.carry(frame, tcp, way),
                (true, false, _) => self.forget(way),
                (false, _, false) => {
                    self.forget(way);
                    if tcp.flags & RST != 0 {
                        return drop(Reason::StrayReset);
                    }
                    return Fate { reason: Reason::RealGone, out: write::reset(frame, tcp) };
                }
            }
        }
        self.begin(frame, tcp, opens, found)
    }

    /// A packet of a known connection.
    fn carry(&mut self, frame: &[u8], tcp: &Tcp, way: Way) -> Fate {
        let connection = self.connections.get_mut(&way).expect("the caller has found it");
        let has = |bits| tcp.flags & bits != 0;
        let completes = connection.answered && !connection.reset && !has(SYN | RST) && has(ACK);
        connection.established |= completes;
        if has(RST) {
            connection.reset = true;
        } else if has(FIN) && !has(SYN) {
            connection.client_fin = true;
        }
        let reason = if connection.established { Reason::Established } else { Reason::HalfOpen };
        let connection = connection.clone();
        self.sent(frame, tcp, &connection, reason)
    }

    /// Forgets a connection. What its real may still send is known only while the real's id
    /// means the same real.
    fn forget(&mut self, way: Way) {
        let Some(connection) = self.connections.remove(&way) else { return };
        if let Some(real) = self.reals.get(&connection.real)
            && real.generation == connection.generation
        {
            self.back.remove(&(real.end, SocketAddr::new(way.0.ip(), connection.port)));
        }
    }

    /// A packet that no connection speaks for.
    fn begin(&mut self, frame: &[u8], tcp: &Tcp, opens: bool, found: &Fate) -> Fate {
        let refused = |reason: Reason| {
            use balancer_ebpf::reason::Fate as F;
            let reset = reason.fate() == F::Reset;
            let out = if reset { write::reset(frame, tcp) } else { frame.to_vec() };
            Fate { reason, out }
        };
        let Some(route) = self.routes.get(&tcp.dst).cloned() else {
            return refused(Reason::UnknownDestination);
        };
        if is_martian(tcp.src.ip()) || tcp.src.ip() == tcp.dst.ip() {
            return refused(Reason::MartianSource);
        }
        if self.elsewhere.contains(&tcp.src.ip()) {
            return refused(Reason::SpoofedSource);
        }
        let stray_reset = tcp.flags & RST != 0;
        let (pick, slots, previous, counter) = match route {
            Route::Denied if stray_reset => return refused(Reason::StrayReset),
            Route::Denied => return refused(Reason::Denied),
            Route::Table { pick, slots, previous, counter } => (pick, slots, previous, counter),
        };
        if stray_reset {
            return refused(Reason::StrayReset);
        }
        let opening = if opens {
            let starts = match pick {
                Pick::Hash => vec![slot(tcp, slots.len())],
                Pick::Any => (0..slots.len()).collect(),
            };
            let may_be: Vec<_> =
                starts.iter().map(|start| self.open(tcp, &slots, *start)).collect();
            let matching = may_be.iter().find(|opening| self.agrees(opening, tcp, found));
            *matching.unwrap_or(&may_be[0])
        } else if pick == Pick::Any {
            return refused(Reason::FlowLost);
        } else {
            self.adopt(tcp, &slots, &previous)
        };
        if opening.reason == Reason::Blackhole && opens {
            self.counters.entry(counter).or_default().connections += 1;
        }
        if opening.real == 0 {
            return refused(opening.reason);
        }
        if opens {
            self.counters.entry(counter).or_default().connections += 1;
        }
        let port = if opening.translated { source_port(found, tcp) } else { tcp.src.port() };
        let real = self.reals[&opening.real];
        let connection = Connection {
            real: opening.real,
            generation: real.generation,
            port,
            counter,
            established: !opens,
            answered: false,
            client_fin: !opens && tcp.flags & (SYN | FIN) == FIN,
            real_fin: false,
            reset: false,
        };
        let way = (tcp.src, tcp.dst);
        self.connections.insert(way, connection.clone());
        self.back.insert((real.end, SocketAddr::new(tcp.src.ip(), port)), (way, counter));
        self.sent(frame, tcp, &connection, opening.reason)
    }

    /// What comes of a SYN whose pick is `start`.
    fn open(&self, tcp: &Tcp, slots: &[Slot], start: usize) -> Opening {
        let none = |reason| Opening { reason, real: 0, translated: false };
        let (mut at, step) = (start, slots.len() / 8 + 1);
        let mut taken = None;
        for tried in 0..8 {
            match slots[at] {
                Slot::Nothing if tried == 0 => return none(Reason::EmptySlot),
                Slot::Blackhole if tried == 0 => return none(Reason::Blackhole),
                Slot::Nothing | Slot::Blackhole => {}
                Slot::Real(id) if !self.takes(id, tcp) => {}
                Slot::Real(id) if self.free(id, tcp, tcp.src.port()) => {
                    let reason = if taken.is_some() { Reason::TupleClash } else { Reason::NewFlow };
                    return Opening { reason, real: id, translated: false };
                }
                Slot::Real(id) => taken = taken.or(Some(id)),
            }
            at = (at + step) % slots.len();
        }
        match taken {
            Some(real) => Opening { reason: Reason::TupleClash, real, translated: true },
            None => none(Reason::RealGone),
        }
    }

    /// What comes of a packet that is no SYN, where the hash decides.
    fn adopt(&self, tcp: &Tcp, slots: &[Slot], previous: &[Slot]) -> Opening {
        let none = |reason| Opening { reason, real: 0, translated: false };
        let mut real = slots[slot(tcp, slots.len())];
        if !previous.is_empty() {
            let before = previous[slot(tcp, previous.len())];
            if let Slot::Real(id) = before
                && self.reals.get(&id).is_some_and(|real| !real.gone)
            {
                real = before;
            }
        }
        match real {
            Slot::Nothing => none(Reason::EmptySlot),
            Slot::Blackhole => none(Reason::Blackhole),
            Slot::Real(id) if !self.takes(id, tcp) => none(Reason::RealGone),
            Slot::Real(id) if !self.free(id, tcp, tcp.src.port()) => none(Reason::FlowLost),
            Slot::Real(id) => Opening { reason: Reason::FlowAdopted, real: id, translated: false },
        }
    }

    /// Whether a real takes new connections of this packet's family.
    fn takes(&self, id: u32, tcp: &Tcp) -> bool {
        self.reals
            .get(&id)
            .is_some_and(|real| !real.gone && real.end.is_ipv4() == tcp.src.is_ipv4())
    }

    /// Whether no other connection has this port of the client at the real.
    fn free(&self, id: u32, tcp: &Tcp, port: u16) -> bool {
        let owner = self.back.get(&(self.reals[&id].end, SocketAddr::new(tcp.src.ip(), port)));
        owner.is_none_or(|(way, _)| *way == (tcp.src, tcp.dst))
    }

    /// Whether what was found is this opening.
    fn agrees(&self, opening: &Opening, tcp: &Tcp, found: &Fate) -> bool {
        if found.reason != opening.reason {
            return false;
        }
        let Some(real) = self.reals.get(&opening.real) else { return true };
        let packet = found.out.get(tcp.ip..);
        let to = packet.map(|_| read::address(&found.out, tcp.ip, End::Destination));
        let port = read::pair(&found.out, tcp.tcp + 2);
        to == Some(real.end.ip())
            && port == Some(real.end.port())
            && (!opening.translated || self.may_be_used(opening.real, tcp, found))
    }

    /// Whether the source port that was drawn is one that may be.
    fn may_be_used(&self, real: u32, tcp: &Tcp, found: &Fate) -> bool {
        let port = source_port(found, tcp);
        port >= 1024 && port != tcp.src.port() && self.free(real, tcp, port)
    }

    /// Counts a packet to a real and translates it.
    fn sent(&mut self, frame: &[u8], tcp: &Tcp, connection: &Connection, reason: Reason) -> Fate {
        let counter = self.counters.entry(connection.counter).or_default();
        counter.packets_in += 1;
        counter.bytes_in += frame.len() as u64;
        let to = self.reals[&connection.real].end;
        let out = write::translated(frame, tcp, End::Destination, to, connection.port);
        Fate { reason, out }
    }
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

/// The source port of a packet that came out.
fn source_port(found: &Fate, tcp: &Tcp) -> u16 {
    read::pair(&found.out, tcp.tcp).unwrap_or(0)
}

/// The slot of a table that a packet's hash falls on. The hash itself is a contract between nodes,
/// with test vectors of its own.
fn slot(tcp: &Tcp, slots: usize) -> usize {
    let hash = match (tcp.src, tcp.dst) {
        (SocketAddr::V4(_), _) => hash::flow4(&key4(tcp.src, tcp.dst, FORWARD), false),
        (SocketAddr::V6(_), _) => hash::flow6(&key6(tcp.src, tcp.dst, FORWARD), false),
    };
    ((u64::from(hash) * slots as u64) >> 32) as usize
}
