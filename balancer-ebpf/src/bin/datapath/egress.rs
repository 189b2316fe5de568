//! TC egress: to the client, real → VIP.

use balancer_ebpf::{
    abi::{FlowState, PortUse, UDP},
    datagram,
    flow::forward_key,
    reason::Reason,
    tcp_state,
};

use crate::{
    context::{Context, Refused, Side, Translate},
    maps::{self, Entry, Maps, Stage},
    parse::Packet,
};

/// The walk of a packet that may be a reply.
#[inline(always)]
pub(crate) fn egress<C: Context, F: Maps + Translate>(ctx: C, packet: &Packet<F>) -> Reason {
    if !maps::port_used(F::src(&packet.key).port, PortUse::Real) {
        return Reason::NonVip;
    }
    let entry = match F::find(Stage::Open, &packet.key) {
        Some(entry) => entry,
        None => match F::find(Stage::HalfOpen, &packet.key) {
            Some(entry) => entry,
            None => return Reason::UnknownReply,
        },
    };
    let way = match ctx.way::<F>(packet, &F::dst(&packet.key).addr) {
        Ok(way) => way,
        Err(reason) => return reason,
    };
    let flow = entry.copy();
    let state = F::state(&flow);
    let now = maps::jiffies();
    let is_udp = F::proto(&packet.key) == UDP;
    if is_udp
        && datagram::silent(state.last_seen, now, maps::hz())
        && client_silent(packet, &flow, now)
    {
        return Reason::UnknownReply;
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
    let (from, vip) = (F::src(&packet.key), F::vip(&flow));
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
fn client_silent<F: Maps>(packet: &Packet<F>, reply: &F::Flow, now: u32) -> bool {
    let forward = forward_key::<F>(F::proto(&packet.key), F::dst(&packet.key).addr, reply);
    let entry = match F::find(Stage::Open, &forward) {
        Some(entry) => Some(entry),
        None => F::find(Stage::HalfOpen, &forward),
    };
    entry.is_none_or(|entry| datagram::silent(entry.state_copy().last_seen, now, maps::hz()))
}

/// Adds what the real's packet says to the connection's state, which the forward entry has, and
/// to the reply entry's copy of it.
#[inline(never)]
fn mark<F: Maps>(packet: &Packet<F>, reply: Entry<F>, seen: u8, now: u32) {
    reply.change(seen, 0);
    reply.seen(now);
    let flow = reply.copy();
    let forward = forward_key::<F>(F::proto(&packet.key), F::dst(&packet.key).addr, &flow);
    // The real that counts the connection is the forward entry's: a reply entry may be all that
    // is left of an earlier connection, whose real had another id.
    if let Some(entry) = F::find(Stage::Open, &forward) {
        entry.mark(seen, entry.state_copy().real, now);
    } else if let Some(entry) = F::find(Stage::HalfOpen, &forward) {
        entry.mark(seen, entry.state_copy().real, now);
    }
}
