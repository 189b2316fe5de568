//! Connections that begin, and those that are found again.

use std::net::SocketAddr;

use balancer_ebpf::{
    abi::{FlowKey4, FlowKey6, TCP, UDP},
    hash,
    reason::Reason,
};

use super::{
    Back, Connection, End, Ends, FIN, Fate, Met, Model, Pick, RST, Route, SYN, Slot, TUPLE_S, Vip,
    is_martian,
    read::{self, Packet},
    refused,
};
use crate::world::{FORWARD, Hook, key4, key6};

/// What may become of a new connection.
#[derive(Clone, Copy, Debug)]
struct Opening {
    reason: Reason,
    real: u32,
    /// The source port is another than the client's.
    translated: bool,
}

impl Opening {
    fn none(reason: Reason) -> Self {
        Self { reason, real: 0, translated: false }
    }
}

impl Model {
    /// A packet that no connection speaks for.
    pub(super) fn begin(&mut self, met: &Met<'_>, packet: &Packet, opens: bool) -> Fate {
        let Ends { is_udp, src, dst } = packet.ends;
        let refused = |reason| refused(met, packet, reason);
        let Some(route) = self.routes.get(&Vip { end: dst, is_udp }).cloned() else {
            return refused(Reason::UnknownDestination);
        };
        if is_martian(src.ip()) || src.ip() == dst.ip() {
            return refused(Reason::MartianSource);
        }
        // What the node itself sends leaves by any interface.
        if met.hook != Hook::Host && self.elsewhere.contains(&src.ip()) {
            return refused(Reason::SpoofedSource);
        }
        let stray_reset = packet.flags & RST != 0;
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
                Pick::Hash => vec![slot(&packet.ends, slots.len())],
                Pick::Any => (0..slots.len()).collect(),
            };
            let may_be: Vec<_> =
                starts.iter().map(|start| self.open(packet, &slots, *start)).collect();
            let matching = may_be.iter().find(|opening| self.agrees(opening, packet, met.found));
            *matching.unwrap_or(&may_be[0])
        } else if pick == Pick::Any {
            return refused(Reason::FlowLost);
        } else {
            self.adopt(packet, &slots, &previous)
        };
        if opens && (opening.real != 0 || opening.reason == Reason::Blackhole) {
            self.counters.entry(counter).or_default().connections += 1;
        }
        if opening.real == 0 {
            return refused(opening.reason);
        }
        let port = if opening.translated { source_port(met.found, packet) } else { src.port() };
        let connection = Connection {
            real: opening.real,
            generation: self.reals[&opening.real].generation,
            back: self.tuple(opening.real, &packet.ends, port),
            counter,
            hairpin: self.is_hairpin(opening.real, &packet.ends),
            host: met.hook == Hook::Host,
            established: !opens,
            answered: false,
            client_fin: !opens && packet.flags & (SYN | FIN) == FIN,
            real_fin: false,
            reset: false,
            seen: self.seconds,
        };
        self.record(packet.ends, &connection);
        self.sent(met, packet, &connection, opening.reason)
    }

    /// Remembers a connection, and the way back of its packets.
    fn record(&mut self, way: Ends, connection: &Connection) {
        let back = connection.back;
        // Whoever had that tuple has been silent for long, or has another one by now.
        if let Some(before) = self.back.get(&back).map(|back| back.way).filter(|w| *w != way)
            && self.connections.get(&before).is_some_and(|before| before.back == back)
            && let Some(before) = self.connections.remove(&before)
            && before.live()
        {
            *self.stale.entry(before.real).or_default() += 1;
        }
        let Connection { counter, hairpin, host, seen, .. } = *connection;
        let inward = hairpin || host;
        self.back.insert(back, Back { way, counter, inward, hairpin, answered: false, seen });
        self.connections.insert(way, connection.clone());
    }

    /// Whether the client would be its own real.
    fn is_hairpin(&self, id: u32, way: &Ends) -> bool {
        self.reals[&id].end.ip() == way.src.ip()
    }

    /// What names a connection at its real.
    fn tuple(&self, id: u32, way: &Ends, port: u16) -> Ends {
        let client = if self.is_hairpin(id, way) { way.dst.ip() } else { way.src.ip() };
        Ends { src: self.reals[&id].end, dst: SocketAddr::new(client, port), ..*way }
    }

    /// What comes of a first packet whose pick is `start`.
    fn open(&self, packet: &Packet, slots: &[Slot], start: usize) -> Opening {
        let (mut at, step) = (start, slots.len() / 8 + 1);
        let mut taken = None;
        for tried in 0..8 {
            match slots[at] {
                Slot::Nothing if tried == 0 => return Opening::none(Reason::EmptySlot),
                Slot::Blackhole if tried == 0 => return Opening::none(Reason::Blackhole),
                Slot::Nothing | Slot::Blackhole => {}
                Slot::Real(id) if !self.takes(id, packet) => {}
                Slot::Real(id) if self.free(id, packet, packet.ends.src.port()) => {
                    let reason = if taken.is_some() { Reason::TupleClash } else { Reason::NewFlow };
                    return Opening { reason, real: id, translated: false };
                }
                Slot::Real(id) => taken = taken.or(Some(id)),
            }
            at = (at + step) % slots.len();
        }
        match taken {
            Some(real) => Opening { reason: Reason::TupleClash, real, translated: true },
            None => Opening::none(Reason::RealGone),
        }
    }

    /// What comes of a segment that is no SYN, where the hash decides.
    fn adopt(&self, packet: &Packet, slots: &[Slot], previous: &[Slot]) -> Opening {
        let mut real = slots[slot(&packet.ends, slots.len())];
        if !previous.is_empty() {
            let before = previous[slot(&packet.ends, previous.len())];
            if let Slot::Real(id) = before
                && self.reals.get(&id).is_some_and(|real| !real.gone)
            {
                real = before;
            }
        }
        let port = packet.ends.src.port();
        match real {
            Slot::Nothing => Opening::none(Reason::EmptySlot),
            Slot::Blackhole => Opening::none(Reason::Blackhole),
            Slot::Real(id) if !self.takes(id, packet) => Opening::none(Reason::RealGone),
            Slot::Real(id) if !self.free(id, packet, port) => Opening::none(Reason::FlowLost),
            Slot::Real(id) => Opening { reason: Reason::FlowAdopted, real: id, translated: false },
        }
    }

    /// Whether a real takes new connections of this packet's family.
    fn takes(&self, id: u32, packet: &Packet) -> bool {
        self.reals
            .get(&id)
            .is_some_and(|real| !real.gone && real.end.is_ipv4() == packet.ends.src.is_ipv4())
    }

    /// Whether no other connection has this port of the client at the real, or has it still.
    fn free(&self, id: u32, packet: &Packet, port: u16) -> bool {
        let owner = self.back.get(&self.tuple(id, &packet.ends, port));
        owner.is_none_or(|owner| {
            let silent = packet.is_udp() && self.seconds - owner.seen >= TUPLE_S;
            owner.way == packet.ends || silent
        })
    }

    /// Whether what was found is this opening.
    fn agrees(&self, opening: &Opening, packet: &Packet, found: &Fate) -> bool {
        // Of what was dropped nothing is to be seen.
        let dropped = found.reason == Reason::Fragment && packet.first;
        if found.reason != opening.reason && !dropped {
            return false;
        }
        let Some(real) = self.reals.get(&opening.real) else { return !dropped };
        let whole = found.out.len() >= packet.ip + 20;
        let to = whole.then(|| read::address(&found.out, packet.ip, End::Destination));
        let port = read::pair(&found.out, packet.at + 2);
        to == Some(real.end.ip())
            && port == Some(real.end.port())
            && (!opening.translated || self.may_be_used(opening.real, packet, found))
    }

    /// Whether the source port that was drawn is one that may be.
    fn may_be_used(&self, real: u32, packet: &Packet, found: &Fate) -> bool {
        let port = source_port(found, packet);
        port >= 1024 && port != packet.ends.src.port() && self.free(real, packet, port)
    }
}

/// The source port of a packet that came out.
fn source_port(found: &Fate, packet: &Packet) -> u16 {
    read::pair(&found.out, packet.at).unwrap_or(0)
}

/// The slot of a table that a packet's hash falls on. The hash itself is a contract between nodes,
/// with test vectors of its own.
fn slot(ends: &Ends, slots: usize) -> usize {
    let proto = if ends.is_udp { UDP } else { TCP };
    let hash = match ends.src {
        SocketAddr::V4(_) => {
            hash::flow4(&FlowKey4 { proto, ..key4(ends.src, ends.dst, FORWARD) }, false)
        }
        SocketAddr::V6(_) => {
            hash::flow6(&FlowKey6 { proto, ..key6(ends.src, ends.dst, FORWARD) }, false)
        }
    };
    ((u64::from(hash) * slots as u64) >> 32) as usize
}
