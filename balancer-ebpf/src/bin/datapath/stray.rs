//! From the client, without a SYN and without an entry.

use aya_ebpf::helpers::generated as helpers;
use balancer_ebpf::{
    abi::{REAL_BLACKHOLE, REAL_NONE, Table, TargetWord, forwarding, pick},
    packet::tcp_flags::RST,
    reason::Reason,
    tcp_state,
};

use crate::{
    apart::{Records, Steps},
    context::Context,
    maps::{self, Maps, RouteHead, Stage},
    open,
    parse::Packet,
    record::{Candidate, Outcome},
    route::{self, Route},
};

/// A packet without SYN and without entry: the hash may still know its real. Where it does, the
/// reason forwards the packet, and `candidate` is the real.
#[inline(always)]
pub(crate) fn stray<C: Context, F: Steps<C, RECORD>, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    candidate: &mut Candidate<F>,
) -> Reason {
    let reason = find::<C, F, RECORD>(ctx, packet, candidate);
    if reason != FOUND {
        return reason;
    }
    let memory = &raw mut candidate.hop;
    if let Err(reason) = ctx.way::<F>(packet, &candidate.end.addr, 0, memory) {
        return reason;
    }
    candidate.state = tcp_state::adopted(packet.flags);
    candidate.forwarding = open::forwarding::<C, F, RECORD>(ctx, packet, candidate);
    if candidate.forwarding & forwarding::SNAT != 0 {
        // Which port the real knows its client by is lost with the entry.
        return Reason::FlowLost;
    }
    if C::PLAIN && candidate.forwarding != 0 {
        return Reason::LeftToTc;
    }
    match <F as Records<RECORD>>::record(packet, candidate, Stage::Open) {
        Outcome::Recorded | Outcome::Beaten => Reason::FlowAdopted,
        // That client address and port are another connection's at this real.
        Outcome::Clash => Reason::FlowLost,
        Outcome::Full => Reason::FlowTableFull,
    }
}

/// What [`find`] says where it has found a real.
pub(crate) const FOUND: Reason = Reason::FlowAdopted;

/// The real that the hash tells, as `candidate`.
#[inline(always)]
pub(crate) fn find<C: Context, F: Maps, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    candidate: &mut Candidate<F>,
) -> Reason {
    let route = match route::find::<C, F, RECORD>(ctx, packet) {
        Ok(route) => route,
        Err(Reason::Denied) if packet.flags & RST != 0 => return Reason::StrayReset,
        Err(reason) => return reason,
    };
    if packet.flags & RST != 0 {
        return Reason::StrayReset;
    }
    if route.entry.pick != pick::HASH {
        return Reason::FlowLost;
    }
    let (id, counter) = hashed_real(&route, packet);
    match id {
        REAL_NONE => return Reason::EmptySlot,
        REAL_BLACKHOLE => return Reason::Blackhole,
        _ => {}
    }
    let Some(found) = Candidate::new(id, counter, packet) else { return Reason::RealGone };
    *candidate = found;
    FOUND
}

/// The real that the hash finds, and its counter: the previous table's where the tables differ
/// and that real still stands, else the current one's.
#[inline(always)]
fn hashed_real<F: Maps>(route: &Route, packet: &Packet<F>) -> (u32, u32) {
    let entry = &route.entry;
    let current = hashed_target::<F>(entry, &entry.table, &packet.key);
    if let Some(previous) = route.epoch.previous(route.id)
        && previous.table.slots != 0
        && !previous_over(previous.until_ns)
    {
        let before = hashed_target::<F>(entry, &previous.table, &packet.key);
        if before.real != current.real
            && before.real > REAL_BLACKHOLE
            && maps::real(before.real).is_some_and(|real| real.flags() == 0)
        {
            return (before.real, route::counter(previous.counters, before));
        }
    }
    (current.real, route::counter(entry.counters, current))
}

/// What the hash finds in a table. (No closure: LLVM gives the parameter with the captures no
/// name, and then the kernel refuses the BTF of the object when libbpf loads it as it is.)
#[inline(never)]
fn hashed_target<F: Maps>(entry: &RouteHead, table: &Table, key: &F::Key) -> TargetWord {
    route::target(table, route::hashed::<F>(entry, table, key))
        .unwrap_or(TargetWord { real: REAL_NONE, backend: 0 })
}

#[inline(always)]
fn previous_over(until_ns: u64) -> bool {
    // SAFETY: the helper takes nothing.
    unsafe { helpers::bpf_ktime_get_coarse_ns() >= until_ns }
}
