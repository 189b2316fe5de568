//! Recording a connection: both directions, or neither.

use balancer_ebpf::{
    abi::{FlowState, REAL_BLACKHOLE, REAL_NONE, Real, TargetWord, flow_state, forwarding},
    datagram,
    flow::{End, Family, Owner, forward_key, owner},
    tcp_state,
};

use crate::{
    maps::{self, Entry, Maps, NotInserted, RealRef, RouteHead, Stage, Use},
    parse::Packet,
    route,
};

/// A real that a new flow could go to. Without padding, as [`Packet`].
#[repr(C)]
pub(crate) struct Candidate<F: Family> {
    pub(crate) end: End<F::Addr>,
    /// The source port that the real will see.
    pub(crate) client_port: [u8; 2],
    pub(crate) state: u8,
    /// Bits of `forwarding`.
    pub(crate) forwarding: u8,
    zero: [u8; 2],
    pub(crate) id: u32,
    pub(crate) generation: u32,
    pub(crate) counter: u32,
    /// What the flow will remember of its next hop.
    pub(crate) hop: u32,
    /// The address that the real will see, where that is the node's; else zero.
    pub(crate) client: F::Addr,
}

impl<F: Family> Candidate<F> {
    /// The real, if it takes new flows of this family.
    #[inline(always)]
    pub(crate) fn new(id: u32, counter: u32, packet: &Packet<F>) -> Option<Self> {
        let real = maps::real(id)?;
        if real.flags() != 0 || real.family() != F::NUMBER {
            return None;
        }
        Some(Self {
            end: real.end::<F>(),
            client_port: F::src(&packet.key).port,
            state: 0,
            forwarding: 0,
            zero: [0; 2],
            id,
            generation: real.generation(),
            counter,
            hop: 0,
            client: F::NO_ADDRESS,
        })
    }
}

/// What a slot offers.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Choice {
    /// A real that takes new flows.
    Usable,
    /// A real that does not, or is of the other family.
    Unusable,
    /// No real.
    Empty,
    /// The share of a backend without usable reals; the candidate has its counter.
    Blackhole,
}

/// Finds what `slot` offers.
#[inline(always)]
pub(crate) fn choose<F: Family>(
    packet: &Packet<F>,
    route: &RouteHead,
    slot: u32,
    candidate: &mut Candidate<F>,
) -> Choice {
    let target = route::target(&route.table, slot);
    let target = target.unwrap_or(TargetWord { real: REAL_NONE, backend: 0 });
    let counter = route::counter(route.counters, target);
    match target.real {
        REAL_NONE => return Choice::Empty,
        REAL_BLACKHOLE => {
            candidate.counter = counter;
            return Choice::Blackhole;
        }
        _ => {}
    }
    match Candidate::new(target.real, counter, packet) {
        Some(found) => {
            *candidate = found;
            Choice::Usable
        }
        None => Choice::Unusable,
    }
}

/// What came of recording.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Outcome {
    /// Both directions stand.
    Recorded,
    /// Another CPU was faster with a packet of the same connection: its entry counts.
    Beaten,
    /// The real already talks to this client address and port for another connection.
    Clash,
    /// A map refused.
    Full,
}

/// The key under which the real's packets will come, in this CPU's scratch memory. `forwarding`: the
/// flow's; `node`: the address of the node that the real sees in flows with [`forwarding::SNAT`].
#[inline(always)]
fn reply_key<'a, F: Family + 'a>(
    real: End<F::Addr>,
    packet: &Packet<F>,
    client_port: [u8; 2],
    (forwarding, node): (u8, &F::Addr),
) -> Option<&'a F::Key> {
    let (client, vip) = F::addresses(&packet.key);
    let seen = match forwarding & (forwarding::HAIRPIN | forwarding::SNAT) {
        0 => client,
        forwarding::SNAT => node,
        _ => vip,
    };
    // SAFETY: all fields are numbers, for which 0 is a value.
    let key: &mut F::Key = unsafe { maps::scratch(Use::ReplyKey) }?;
    *key = F::reply_key(real, &packet.key, seen, client_port);
    Some(key)
}

/// The same, of a flow that is recorded; `state`: as its entry was read.
#[inline(always)]
fn known_reply_key<'a, F: Family + 'a>(
    real: RealRef,
    packet: &Packet<F>,
    entry: Entry<F>,
    state: &FlowState,
) -> Option<&'a F::Key> {
    let seen = (state.forwarding, F::client(entry.view()));
    reply_key(real.end::<F>(), packet, state.client_port, seen)
}

/// The value of an entry, in this CPU's scratch memory.
#[inline(always)]
pub(crate) fn value<'a, F: Family + 'a>(
    packet: &Packet<F>,
    state: FlowState,
) -> Option<&'a mut F::Flow> {
    // SAFETY: all fields are numbers, for which 0 is a value.
    let flow = unsafe { maps::scratch(Use::Flow) }?;
    F::fill(flow, state, &packet.key);
    Some(flow)
}

/// The value of a reply entry, in this CPU's scratch memory. `state`: with the client's own port.
#[inline(always)]
fn reply_value<'a, F: Family + 'a>(
    packet: &Packet<F>,
    state: FlowState,
) -> Option<&'a mut F::Flow> {
    let flow = value(packet, state)?;
    if state.forwarding & forwarding::SNAT != 0 {
        F::set_client(flow, F::addresses(&packet.key).0);
    }
    Some(flow)
}

/// Records the connection of `packet` with the candidate; without `RECORD` only says what would
/// come of it.
#[inline(always)]
pub(crate) fn record<F: Maps, const RECORD: bool>(
    packet: &Packet<F>,
    candidate: &Candidate<F>,
    stage: Stage,
) -> Outcome {
    let now = maps::jiffies();
    let seen = (candidate.forwarding, &candidate.client);
    let Some(reply) = reply_key(candidate.end, packet, candidate.client_port, seen) else {
        return Outcome::Full;
    };
    // Adoption too asks after handshakes: their tuples are taken like those of connections.
    let other = match stage {
        Stage::Open => Stage::HalfOpen,
        Stage::HalfOpen => Stage::Open,
    };
    if let Some(found) = F::find(other, reply)
        && !make_way::<F, RECORD>(packet, reply, other, found, now)
    {
        return Outcome::Clash;
    }
    if !RECORD {
        return match F::find(stage, reply) {
            Some(found) if !make_way::<F, RECORD>(packet, reply, stage, found, now) => {
                Outcome::Clash
            }
            _ => Outcome::Recorded,
        };
    }
    let state = FlowState {
        real: candidate.id,
        generation: candidate.generation,
        counter: candidate.counter,
        last_seen: now,
        refreshed: now,
        state: candidate.state,
        forwarding: candidate.forwarding,
        client_port: F::src(&packet.key).port,
    };
    let Some(flow) = reply_value(packet, state) else { return Outcome::Full };
    // The reply's way first: an entry for the way there promises that the way back is known.
    let mut inserted = F::insert(stage, reply, flow);
    if inserted == Err(NotInserted::Exists) {
        match F::find(stage, reply) {
            Some(found) if !make_way::<F, RECORD>(packet, reply, stage, found, now) => {
                return Outcome::Clash;
            }
            _ => inserted = F::insert(stage, reply, flow),
        }
    }
    match inserted {
        Ok(()) => {}
        // Gone and come again between the look and the insertion: somebody else is at it.
        Err(NotInserted::Exists) => return Outcome::Clash,
        Err(NotInserted::Full) => return Outcome::Full,
    }
    F::set_client_port(flow, candidate.client_port);
    F::set_client(flow, &candidate.client);
    F::set_hop(flow, candidate.hop);
    let key = F::own_key(packet);
    match F::insert(stage, &key, flow) {
        Ok(()) => {
            if candidate.state & flow_state::ESTABLISHED != 0 && !tcp_state::closed(candidate.state)
            {
                maps::active_up(candidate.id);
            }
            Outcome::Recorded
        }
        Err(NotInserted::Exists) => {
            // The faster CPU may have chosen this real too: then the reply entry is its as well.
            let same = F::find(stage, &key).is_some_and(|other| {
                let other = F::state(other.view());
                other.real == candidate.id
                    && u16::from_ne_bytes(other.client_port)
                        == u16::from_ne_bytes(candidate.client_port)
            });
            if !same {
                F::remove(stage, reply);
            }
            Outcome::Beaten
        }
        Err(NotInserted::Full) => {
            F::remove(stage, reply);
            Outcome::Full
        }
    }
}

/// Whether the reply entry that is in the way may go; then it does.
#[inline(always)]
fn make_way<F: Maps, const RECORD: bool>(
    packet: &Packet<F>,
    reply: &F::Key,
    stage: Stage,
    found: Entry<F>,
    now: u32,
) -> bool {
    let found = found.view();
    match owner::<F>(found, &packet.key, now, maps::hz()) {
        Owner::Other => false,
        Owner::Same => {
            // Left over from an earlier connection of the same tuple.
            if RECORD {
                F::remove(stage, reply);
            }
            true
        }
        Owner::Nobody => {
            if RECORD {
                let (proto, client) = (F::proto(&packet.key), F::src(&packet.key).addr);
                let forward = forward_key::<F>(proto, client, found);
                // Its client may long have another real.
                if let Some(own) = F::find(stage, &forward)
                    && same_real::<F>(own.view(), found)
                {
                    F::remove(stage, &forward);
                }
                F::remove(stage, reply);
            }
            true
        }
    }
}

/// Whether two entries name one real.
#[inline(always)]
fn same_real<F: Family>(a: &F::Flow, b: &F::Flow) -> bool {
    let (a, b) = (F::state(a), F::state(b));
    a.real == b.real && a.generation == b.generation
}

/// Moves both entries to the flows: the handshake is complete. `false`: it stays half open, to
/// be tried again at the next packet.
#[inline(never)]
pub(crate) fn promote<F: Maps>(
    packet: &Packet<F>,
    entry: Entry<F>,
    real: RealRef,
    now: u32,
) -> bool {
    let Some((before, after)) = entry.change(flow_state::ESTABLISHED, 0) else { return false };
    if before & flow_state::ESTABLISHED != 0 {
        // Another CPU is moving it.
        return true;
    }
    let mut state = entry.state_copy();
    let client_port = state.client_port;
    let Some(reply) = known_reply_key(real, packet, entry, &state) else { return false };
    state.state = after;
    (state.last_seen, state.refreshed) = (now, now);
    state.client_port = F::src(&packet.key).port;
    let Some(flow) = reply_value(packet, state) else { return false };
    // What is there already is a leftover of this tuple: `record` lets no other connection's be.
    let back = F::insert(Stage::Open, reply, flow);
    F::set_client_port(flow, client_port);
    F::set_client(flow, F::client(entry.view()));
    let key = F::own_key(packet);
    if back == Err(NotInserted::Full)
        || F::insert(Stage::Open, &key, flow) == Err(NotInserted::Full)
    {
        if back == Ok(()) {
            F::remove(Stage::Open, reply);
        }
        entry.change(0, flow_state::ESTABLISHED);
        return false;
    }
    F::remove(Stage::HalfOpen, &key);
    F::remove(Stage::HalfOpen, reply);
    // Both may have sent FIN before the handshake was complete: nothing would count it down.
    if !tcp_state::closed(after) {
        maps::active_up(state.real);
    }
    true
}

/// Forgets a connection in both directions. `real`: where it was, or null if its id no longer names it.
#[inline(never)]
pub(crate) fn forget<F: Maps>(packet: &Packet<F>, entry: Entry<F>, real: *const Real, now: u32) {
    let state = entry.state_copy();
    entry.mark(flow_state::RESET, state.real, now);
    if let Some(real) = RealRef::from_raw(real)
        && let Some(reply) = known_reply_key(real, packet, entry, &state)
    {
        remove_own::<F>(packet, Stage::Open, reply, now);
        remove_own::<F>(packet, Stage::HalfOpen, reply, now);
    }
    let key = F::own_key(packet);
    F::remove(Stage::Open, &key);
    F::remove(Stage::HalfOpen, &key);
}

#[inline(always)]
fn remove_own<F: Maps>(packet: &Packet<F>, stage: Stage, reply: &F::Key, now: u32) {
    if let Some(found) = F::find(stage, reply)
        && owner::<F>(found.view(), &packet.key, now, maps::hz()) == Owner::Same
    {
        F::remove(stage, reply);
    }
}

/// Adds what the client's packet says to the reply entry's copy of the state. Not inlined: its key
/// would stand below the frame of [`promote`], which comes before it.
#[inline(never)]
pub(crate) fn tell_reply<F: Maps>(
    packet: &Packet<F>,
    stage: Stage,
    real: RealRef,
    entry: Entry<F>,
    now: u32,
) {
    let Some(reply) = known_reply_key(real, packet, entry, &entry.state_copy()) else { return };
    if let Some(found) = F::find(stage, reply) {
        found.change(tcp_state::from_client(packet.flags), 0);
        found.seen(now);
    }
}

/// Whether the real of a silent UDP client has been silent too.
#[inline(never)]
pub(crate) fn real_silent<F: Maps>(
    packet: &Packet<F>,
    stage: Stage,
    real: RealRef,
    entry: Entry<F>,
    now: u32,
) -> bool {
    let Some(reply) = known_reply_key(real, packet, entry, &entry.state_copy()) else {
        return true;
    };
    !F::find(stage, reply).is_some_and(|found| {
        let found = found.view();
        owner::<F>(found, &packet.key, now, maps::hz()) == Owner::Same
            && !datagram::silent(F::state(found).last_seen, now, maps::hz())
    })
}

/// Keeps the reply entry from being evicted while only the client talks, and puts it back if it
/// was.
#[inline(never)]
pub(crate) fn refresh<F: Maps>(packet: &Packet<F>, entry: Entry<F>, real: RealRef, now: u32) {
    entry.refreshed(now);
    let mut state = entry.state_copy();
    let Some(reply) = known_reply_key(real, packet, entry, &state) else { return };
    match F::find(Stage::Open, reply) {
        Some(found) if owner::<F>(found.view(), &packet.key, now, maps::hz()) == Owner::Same => {
            found.seen(now);
        }
        // Another connection took the tuple while the entry was lost: its claim is as good.
        Some(_) => {}
        None => {
            (state.last_seen, state.refreshed) = (now, now);
            state.client_port = F::src(&packet.key).port;
            let Some(flow) = reply_value(packet, state) else { return };
            // Refused: tried again in ten seconds; until then replies are seen as unknown.
            let _refused = F::insert(Stage::Open, reply, flow);
        }
    }
}
