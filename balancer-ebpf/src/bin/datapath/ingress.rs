//! From the client, VIP → real.
//!
//! A flow entry alone suffices to forward. VIP, source, class, route and slot are asked only by
//! a SYN, or by a packet without an entry. A datagram without one is what a SYN is.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated as helpers;
use balancer_ebpf::{
    abi::{FlowState, PortUse, UDP, direction, flow_state, forwarding},
    datagram,
    packet::tcp_flags::{FIN, RST, SYN},
    reason::{Fate, Reason},
    tcp_state,
};

use crate::{
    apart::Steps,
    cleared::cleared,
    context::{Context, Refused, Side, Translate},
    dsr, events, guard,
    maps::{self, Entry, Maps, RealRef, Stage, Use},
    parse::Packet,
    record::{self, Candidate},
};

/// Seconds after which the reply entry is looked after.
const REFRESH_S: u32 = 10;

/// The walk of a packet to a VIP. Without `RECORD` no map changes.
#[inline(always)]
pub(crate) fn ingress<C: Context, F: Steps<C, RECORD>, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
) -> Reason {
    if !maps::port_used(F::dst(&packet.key).port, PortUse::Vip) {
        return Reason::NonVip;
    }
    let entry = F::find(Stage::Open, &packet.key);
    let mut reason = Reason::Established;
    let mut known =
        <F as Steps<C, RECORD>>::known(ctx, packet, Entry::into_raw(entry), &mut reason);
    if matches!(known, Known::Unanswered) {
        reason = dsr::carry::<C, F, RECORD>(ctx, packet);
        known = if reason == Reason::NewFlow { Known::Opens } else { Known::Ends };
    }
    if RECORD
        && !matches!(known, Known::Ends)
        && !tcp_state::opens(packet.flags)
        && maps::answers_inward(F::src(&packet.key).port)
        && is_reply(packet)
    {
        // The real's client has a port that some VIP has too.
        return Reason::UnknownDestination;
    }
    match known {
        Known::Ends | Known::Unanswered => reason,
        Known::Opens => begin::<C, F, RECORD>(ctx, packet, true),
        Known::Strays => begin::<C, F, RECORD>(ctx, packet, false),
    }
}

/// The way of a packet that no entry speaks for; `opens`: of one that begins a connection.
///
/// First a real is found and recorded, then the packet is sent there: one after the other from
/// here, because the stack is short, and each of them deep. Not inlined for the same reason.
#[inline(never)]
fn begin<C: Context, F: Steps<C, RECORD>, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    opens: bool,
) -> Reason {
    // Who records has no room on the stack; who does not may be interrupted by one who does.
    let mut own = MaybeUninit::uninit();
    let candidate: &mut Candidate<F> = if RECORD {
        // SAFETY: all fields are numbers, for which 0 is a value.
        let Some(scratch) = (unsafe { maps::scratch(Use::Candidate) }) else {
            return Reason::FlowTableFull;
        };
        scratch
    } else {
        // SAFETY: as above.
        unsafe { cleared(&mut own) }
    };
    let mut reason = if opens {
        <F as Steps<C, RECORD>>::open(ctx, packet, candidate)
    } else {
        <F as Steps<C, RECORD>>::stray(ctx, packet, candidate)
    };
    if RECORD && reason.begins_flow() {
        guard::spend();
    }
    if reason.fate() == Fate::Forward {
        reason = to_candidate::<C, F, RECORD>(ctx, packet, candidate, reason);
    }
    events::begun::<C, F, RECORD>(ctx, packet, reason)
}

/// Whether the packet is a real's, of a flow that is known.
#[inline(never)]
fn is_reply<F: Maps>(packet: &Packet<F>) -> bool {
    let (src, dst) = (F::src(&packet.key), F::dst(&packet.key));
    let reply = F::key(F::proto(&packet.key), src, dst, direction::REPLY);
    F::find(Stage::Open, &reply).is_some() || F::find(Stage::HalfOpen, &reply).is_some()
}

/// Time stamps, at most once a second. `false`: it is a flow of UDP that is over.
#[inline(always)]
fn keep<F: Maps, const RECORD: bool>(
    packet: &Packet<F>,
    entry: Entry<F>,
    state: &FlowState,
    real: RealRef,
    now: u32,
) -> bool {
    if now.wrapping_sub(state.last_seen) < maps::hz() {
        return true;
    }
    if over(packet, Stage::Open, entry, real, now) {
        return false;
    }
    if RECORD {
        entry.seen(now);
        if now.wrapping_sub(state.refreshed) >= REFRESH_S * maps::hz() {
            record::refresh(packet, entry, real, now);
        }
    }
    true
}

/// Whether the packet is a datagram of a flow in which both ends have been silent too long.
#[inline(always)]
fn over<F: Maps>(
    packet: &Packet<F>,
    stage: Stage,
    entry: Entry<F>,
    real: RealRef,
    now: u32,
) -> bool {
    F::proto(&packet.key) == UDP
        && datagram::silent(entry.state_copy().last_seen, now, maps::hz())
        && record::real_silent(packet, stage, real, entry, now)
}

/// Counts the packet and sends it on to the real. `memory`: where its way may be remembered.
#[inline(always)]
fn send<C: Context, F: Maps + Translate, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    (state, memory): (&FlowState, *mut u32),
    real: RealRef,
    reason: Reason,
) -> Reason {
    if C::PLAIN && state.forwarding & !forwarding::BY_XDP != 0 {
        return Reason::LeftToTc;
    }
    let (from, to) = (F::dst(&packet.key), real.end::<F>());
    let way = match ctx.way::<F>(packet, &to.addr, state.forwarding, memory) {
        Ok(way) => way,
        Err(reason) => return reason,
    };
    if RECORD && let Some(counter) = maps::counter(state.counter) {
        // SAFETY: this CPU's own element.
        unsafe {
            (*counter).packets_in += u64::from(ctx.segments());
            (*counter).bytes_in += u64::from(ctx.len());
        }
    }
    packet.onward.set(state.forwarding);
    let client = F::src(&packet.key).port;
    let ports = [
        u32::from_ne_bytes([client[0], client[1], from.port[0], from.port[1]]),
        u32::from_ne_bytes([state.client_port[0], state.client_port[1], to.port[0], to.port[1]]),
    ];
    let translated = ctx.translate::<F>(
        (&packet.place, F::proto(&packet.key)),
        Side::Destination,
        &from.addr,
        &to.addr,
        ports,
    );
    match translated.and_then(|()| ctx.leave::<F>(packet, &way)) {
        Ok(()) => reason,
        Err(Refused) => Reason::RewriteFailed,
    }
}

/// What the flow entries say of a packet.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Known {
    /// All is said and done.
    Ends,
    /// A SYN that no entry speaks for.
    Opens,
    /// Another packet that no entry speaks for.
    Strays,
    /// Its flow's real answers by itself: [`dsr::carry`].
    Unanswered,
}

/// Follows the flow entries, if there is one. `open`: the established flow, or null.
#[inline(always)]
pub(crate) fn known<C: Context, F: Steps<C, RECORD>, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    open: *mut F::Flow,
    reason: &mut Reason,
) -> Known {
    // The usual case first.
    if packet.flags & (SYN | FIN | RST) == 0
        && let Some(entry) = Entry::from_raw(open)
    {
        let state = entry.state_copy();
        if state.forwarding & forwarding::DSR == 0
            && let Some(real) = maps::real(state.real)
            && real.generation() == state.generation
            && real.flags() == 0
            && keep::<F, RECORD>(packet, entry, &state, real, maps::jiffies())
        {
            *reason =
                send::<C, F, RECORD>(ctx, packet, (&state, entry.hop()), real, Reason::Established);
            return Known::Ends;
        }
    }
    let is_udp = F::proto(&packet.key) == UDP;
    let opens = is_udp || tcp_state::opens(packet.flags);
    let (stage, entry) = match Entry::from_raw(open) {
        Some(entry) => (Stage::Open, entry),
        None => match F::find(Stage::HalfOpen, &F::own_key(packet)) {
            Some(entry) => (Stage::HalfOpen, entry),
            None if opens => return Known::Opens,
            None => return Known::Strays,
        },
    };
    let now = maps::jiffies();
    let state = entry.state_copy();
    if state.forwarding & forwarding::DSR != 0 {
        return Known::Unanswered;
    }
    let named = maps::real(state.real).filter(|real| real.generation() == state.generation);
    let usable = named.filter(|real| real.flags() == 0);
    let stands = usable.or_else(|| named.filter(|real| !grace_over(*real)));
    // A datagram asks for nothing but to arrive: where its real is gone, another one is found.
    let anew = if is_udp {
        stands.is_none_or(|real| over(packet, stage, entry, real, now))
    } else {
        opens && (usable.is_none() || tcp_state::closing(state.state))
    };
    if anew {
        if RECORD {
            record::forget(packet, entry, RealRef::into_raw(named), now);
        }
        return Known::Opens;
    }
    let Some(real) = stands else {
        if RECORD {
            record::forget(packet, entry, RealRef::into_raw(named), now);
        }
        // A RST is never answered with a RST.
        let reset = packet.flags & RST != 0;
        *reason = if reset { Reason::StrayReset } else { Reason::RealGone };
        return Known::Ends;
    };
    let mut nowhere = 0;
    let mut memory = entry.hop();
    let mut carried = match stage {
        Stage::Open => Reason::Established,
        Stage::HalfOpen if opens && !is_udp && unanswered(&state, now) => Reason::Unanswered,
        Stage::HalfOpen => Reason::HalfOpen,
    };
    if RECORD {
        let seen = tcp_state::from_client(packet.flags);
        let completes = match is_udp {
            true => datagram::completes(state.state),
            false => tcp_state::completes(state.state, packet.flags),
        };
        if stage == Stage::HalfOpen && completes {
            if record::promote(packet, entry, real, now) {
                carried = Reason::Established;
                // What lay here is another flow's soon.
                memory = &raw mut nowhere;
            }
            if seen != 0
                && let Some(moved) = F::find(Stage::Open, &F::own_key(packet))
            {
                moved.mark(seen, state.real, now);
                record::tell_reply(packet, Stage::Open, real, moved, now);
            }
        } else if stage == Stage::HalfOpen || seen != 0 {
            entry.mark(seen, state.real, now);
            record::tell_reply(packet, stage, real, entry, now);
        } else {
            // Over it is not: that was asked above.
            let _lives = keep::<F, RECORD>(packet, entry, &state, real, now);
        }
    }
    *reason = send::<C, F, RECORD>(ctx, packet, (&state, memory), real, carried);
    Known::Ends
}

/// Whether a SYN that comes again has waited in vain for an answer of its real.
#[inline(always)]
fn unanswered(state: &FlowState, now: u32) -> bool {
    // Of a half-open flow `refreshed` is when it began.
    state.state & flow_state::SYN_ACK == 0 && now.wrapping_sub(state.refreshed) >= maps::hz()
}

/// Whether a gone real's flows are to be reset now.
#[inline(always)]
pub(crate) fn grace_over(real: RealRef) -> bool {
    let keeps = maps::gone_reset_ns();
    // SAFETY: the helper takes nothing.
    let now = unsafe { helpers::bpf_ktime_get_coarse_ns() };
    // The coarse clock lags behind the one that user space reads: the difference may be negative.
    keeps != u64::MAX && now.saturating_sub(real.gone_at_ns()) >= keeps
}

/// Sends the packet to the real that was found for it.
///
/// Not inlined: its frame would stand below that of `record`, which comes before it.
#[inline(never)]
fn to_candidate<C: Context, F: Maps + Translate, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    candidate: &mut Candidate<F>,
    reason: Reason,
) -> Reason {
    let memory = &raw mut candidate.hop;
    let state = FlowState {
        counter: candidate.counter,
        client_port: candidate.client_port,
        forwarding: candidate.forwarding,
        ..FlowState::default()
    };
    match maps::real(candidate.id) {
        Some(real) => send::<C, F, RECORD>(ctx, packet, (&state, memory), real, reason),
        None => Reason::RealGone,
    }
}
