//! A connection that begins: which real it gets, how its packets will be sent on, and what is tried
//! where that real already talks to its client.

use aya_ebpf::helpers::generated as helpers;
use balancer_ebpf::{
    abi::{REAL_NONE, forwarding},
    flow::{End, Family},
    reason::Reason,
};

use crate::{
    apart::{Records, Steps},
    context::Context,
    maps::{self, Maps, Stage},
    parse::Packet,
    record::{Candidate, Choice, Outcome},
    route, snat,
};

/// Slots that are tried for a real that does not yet talk to the client's address and port.
pub(crate) const CANDIDATES: u32 = 8;
/// Source ports that are tried after that.
const PORTS: u32 = 16;
/// A new connection: finds and records a real for it. Where that succeeds, the reason forwards the
/// packet, and `candidate` is the real.
#[inline(always)]
pub(crate) fn open<C: Context, F: Steps<C, RECORD>, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    candidate: &mut Candidate<F>,
) -> Reason {
    let route = match route::find::<C, F, RECORD>(ctx, packet) {
        Ok(route) => route,
        Err(reason) => return reason,
    };
    let table = &route.entry.table;
    let mut slot = route::slot::<F>(&route, &packet.key, RECORD);
    // Steps that visit all parts of the table.
    let step = table.slots / CANDIDATES + 1;
    // The first real that is taken: its id and counter.
    let mut first = (REAL_NONE, 0);
    let mut tried = 0;
    while tried < CANDIDATES {
        match F::choose(packet, &route.entry, slot, candidate) {
            Choice::Empty if tried == 0 => return Reason::EmptySlot,
            Choice::Blackhole if tried == 0 => {
                count_connection::<RECORD>(candidate.counter);
                return Reason::Blackhole;
            }
            Choice::Empty | Choice::Blackhole | Choice::Unusable => {}
            Choice::Usable => {
                // Before anything is recorded: who gets the packet decides once more.
                let memory = &raw mut candidate.hop;
                if let Err(reason) = ctx.way::<F>(packet, &candidate.end.addr, 0, memory) {
                    return reason;
                }
                candidate.forwarding = forwarding::<C, F, RECORD>(ctx, packet, candidate);
                if candidate.forwarding & forwarding::SNAT != 0 {
                    first = (candidate.id, candidate.counter);
                    break;
                }
                if C::PLAIN && candidate.forwarding != 0 {
                    return Reason::LeftToTc;
                }
                match <F as Records<RECORD>>::record(packet, candidate, Stage::HalfOpen) {
                    Outcome::Clash if first.0 == REAL_NONE => {
                        first = (candidate.id, candidate.counter);
                    }
                    Outcome::Clash => {}
                    outcome => {
                        let clash = first.0 != REAL_NONE;
                        return opened::<F, RECORD>(packet, candidate, outcome, clash);
                    }
                }
            }
        }
        slot += step;
        if slot >= table.slots {
            slot -= table.slots;
        }
        tried += 1;
    }
    match Candidate::new(first.0, first.1, packet) {
        Some(found) => {
            *candidate = found;
            candidate.forwarding = forwarding::<C, F, RECORD>(ctx, packet, candidate);
            if candidate.forwarding & forwarding::SNAT == 0 {
                return translated::<F, RECORD>(packet, candidate, ANY_PORT, true);
            }
            if snat::address(ctx, candidate) == 0 {
                return Reason::SnatFailed;
            }
            translated::<F, RECORD>(packet, candidate, maps::snat_ports(), false)
        }
        // Every real that was looked at has left the inventory since the table was made.
        None => Reason::RealGone,
    }
}

/// How the packets of a new flow will be sent on. Not inlined, for the stack's sake.
#[inline(never)]
pub(crate) fn forwarding<C: Context, F: Family, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    candidate: &Candidate<F>,
) -> u8 {
    let client = F::src(&packet.key);
    let mut forwarding = if packet.host { forwarding::HOST } else { 0 };
    if F::same(&End { port: candidate.end.port, ..client }, &candidate.end) {
        forwarding |= forwarding::HAIRPIN;
    } else if RECORD && forwarding == 0 {
        if snat::is_asked(ctx) {
            forwarding = forwarding::SNAT;
        } else if ctx.may_go_straight::<F>(&client.addr, &candidate.end.addr) {
            forwarding = forwarding::DIRECT;
        }
    }
    if RECORD && forwarding != 0 {
        // Before the packet that will be answered goes on.
        maps::answer_inward(candidate.end.port);
    }
    forwarding
}

#[inline(always)]
pub(crate) fn count_connection<const RECORD: bool>(counter: u32) {
    if RECORD && let Some(counter) = maps::counter(counter) {
        // SAFETY: this CPU's own element.
        unsafe { (*counter).connections += 1 }
    }
}

/// Source ports that are nobody's in particular: the lowest, and how many there are.
const ANY_PORT: (u32, u32) = (1024, 65_536 - 1024);

/// Takes another source port than the client's, of `count` from `first` on. `clash`: no real was free
/// for the client's own.
#[inline(always)]
fn translated<F: Records<RECORD>, const RECORD: bool>(
    packet: &Packet<F>,
    candidate: &mut Candidate<F>,
    (first, count): (u32, u32),
    clash: bool,
) -> Reason {
    let mut tried = 0;
    while tried < PORTS {
        // SAFETY: the helper takes nothing.
        let random = unsafe { helpers::bpf_get_prandom_u32() };
        let port = first + ((u64::from(random) * u64::from(count)) >> 32) as u32;
        candidate.client_port = (port as u16).to_be_bytes();
        match <F as Records<RECORD>>::record(packet, candidate, Stage::HalfOpen) {
            Outcome::Clash => tried += 1,
            outcome => return opened::<F, RECORD>(packet, candidate, outcome, clash),
        }
    }
    Reason::TuplesExhausted
}

/// What follows from an attempt to record. Not inlined: it stands in two places.
#[inline(never)]
fn opened<F: Maps, const RECORD: bool>(
    packet: &Packet<F>,
    candidate: &mut Candidate<F>,
    outcome: Outcome,
    clash: bool,
) -> Reason {
    match outcome {
        Outcome::Recorded => {
            count_connection::<RECORD>(candidate.counter);
            if clash { Reason::TupleClash } else { Reason::NewFlow }
        }
        Outcome::Beaten => beaten(packet, candidate),
        Outcome::Clash => Reason::TuplesExhausted,
        Outcome::Full => Reason::FlowTableFull,
    }
}

/// Another CPU was faster: its entry counts.
#[inline(always)]
fn beaten<F: Maps>(packet: &Packet<F>, candidate: &mut Candidate<F>) -> Reason {
    let Some(entry) = F::find(Stage::HalfOpen, &F::own_key(packet)) else {
        return Reason::FlowTableFull;
    };
    let state = entry.state_copy();
    (candidate.id, candidate.counter) = (state.real, state.counter);
    (candidate.client_port, candidate.forwarding) = (state.client_port, state.forwarding);
    Reason::HalfOpen
}
