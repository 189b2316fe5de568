//! To the client, real → VIP: where the packet leaves, or where it comes in.

use balancer_ebpf::{
    abi::{FlowState, PortUse, UDP, forwarding},
    datagram,
    flow::{Family, forward_key},
    reason::Reason,
    tcp_state,
};

use crate::{
    context::{Context, Refused, Side, Translate},
    maps::{self, Entry, Maps, Stage},
    parse::Packet,
};

/// The walk of a packet that may be a reply, where it leaves the node.
#[inline(always)]
pub(crate) fn egress<C: Context, F: Maps + Translate>(ctx: C, packet: &Packet<F>) -> Reason {
    if !maps::port_used(F::src(&packet.key).port, PortUse::Real) {
        return Reason::NonVip;
    }
    reply::<C, F, false>(ctx, packet)
}

/// The walk of a reply; `INWARD`: where it comes in.
#[inline(always)]
pub(crate) fn reply<C: Context, F: Maps + Translate, const INWARD: bool>(
    ctx: C,
    packet: &Packet<F>,
) -> Reason {
    let entry = match F::find(Stage::Open, &packet.key) {
        Some(entry) => entry,
        None => match F::find(Stage::HalfOpen, &packet.key) {
            Some(entry) => entry,
            None => return Reason::UnknownReply,
        },
    };
    let (state, vip) = (entry.state_copy(), F::vip(entry.view()));
    if INWARD {
        let direct = state.forwarding & forwarding::DIRECT != 0;
        if state.forwarding == 0 || direct && packet.fragment {
            return Reason::StackReply;
        }
        packet.onward.set(state.forwarding & !forwarding::HOST);
    } else {
        packet.onward.set(state.forwarding & (forwarding::HAIRPIN | forwarding::SNAT));
    }
    if C::PLAIN && state.forwarding & !forwarding::BY_XDP != 0 {
        return Reason::LeftToTc;
    }
    let to = if state.forwarding & forwarding::SNAT == 0 {
        F::addresses(&packet.key).1
    } else {
        F::client(entry.view())
    };
    let way = match ctx.way::<F>(packet, to, state.forwarding, entry.hop()) {
        Ok(way) => way,
        Err(reason) => return reason,
    };
    let now = maps::jiffies();
    let is_udp = F::proto(&packet.key) == UDP;
    if is_udp
        && datagram::silent(state.last_seen, now, maps::hz())
        && client_silent(packet, entry, now)
    {
        return Reason::UnknownReply;
    }
    // The last question: it may count a hop.
    if INWARD
        && state.forwarding & forwarding::DIRECT != 0
        && !ctx.goes_straight::<F>(&packet.place)
    {
        return Reason::StackReply;
    }
    let seen = match is_udp {
        true => datagram::from_real(state.state),
        false => tcp_state::from_real(packet.flags),
    };
    if seen != 0 {
        mark(packet, entry, seen, now);
    } else if now.wrapping_sub(state.last_seen) >= maps::hz() {
        entry.seen(now);
    }
    count(ctx, &state);
    let from = F::src(&packet.key);
    let seen_port = F::dst(&packet.key).port;
    let ports = [
        u32::from_ne_bytes([from.port[0], from.port[1], seen_port[0], seen_port[1]]),
        u32::from_ne_bytes([vip.port[0], vip.port[1], state.client_port[0], state.client_port[1]]),
    ];
    let translated = ctx.translate::<F>(
        (&packet.place, F::proto(&packet.key)),
        Side::Source,
        &from.addr,
        &vip.addr,
        ports,
    );
    match translated.and_then(|()| ctx.leave::<F>(packet, &way)) {
        Ok(()) => Reason::Reply,
        Err(Refused) => Reason::RewriteFailed,
    }
}

#[inline(always)]
fn count<C: Context>(ctx: C, state: &FlowState) {
    if let Some(counter) = maps::counter(state.counter) {
        // SAFETY: this CPU's own element.
        unsafe {
            (*counter).packets_out += u64::from(ctx.segments());
            (*counter).bytes_out += u64::from(ctx.len());
        }
    }
}

/// Whether the client of a silent UDP real has been silent too.
#[inline(never)]
fn client_silent<F: Maps>(packet: &Packet<F>, reply: Entry<F>, now: u32) -> bool {
    let forward = request_key(packet, reply.view());
    let entry = match F::find(Stage::Open, &forward) {
        Some(entry) => Some(entry),
        None => F::find(Stage::HalfOpen, &forward),
    };
    entry.is_none_or(|entry| datagram::silent(entry.state_copy().last_seen, now, maps::hz()))
}

/// The key of the way there, from a packet of the way back and its entry.
#[inline(always)]
fn request_key<F: Family>(packet: &Packet<F>, reply: &F::Flow) -> F::Key {
    // A real that is its own client talks to the VIP.
    let hairpin = F::state(reply).forwarding & forwarding::HAIRPIN != 0;
    let client = if hairpin { F::src(&packet.key) } else { F::dst(&packet.key) };
    forward_key::<F>(F::proto(&packet.key), client.addr, reply)
}

/// Adds what the real's packet says to the connection's state, which the forward entry has, and
/// to the reply entry's copy of it.
#[inline(never)]
fn mark<F: Maps>(packet: &Packet<F>, reply: Entry<F>, seen: u8, now: u32) {
    reply.change(seen, 0);
    reply.seen(now);
    let forward = request_key(packet, reply.view());
    // The real that counts the connection is the forward entry's: a reply entry may be all that
    // is left of an earlier connection, whose real had another id.
    if let Some(entry) = F::find(Stage::Open, &forward) {
        entry.mark(seen, entry.state_copy().real, now);
    } else if let Some(entry) = F::find(Stage::HalfOpen, &forward) {
        entry.mark(seen, entry.state_copy().real, now);
    }
}
