//! Direct server return: packets to a VIP go on as they are, to a real that has the VIP's address
//! and answers the client by itself. Nobody here sees its answers, so there is one entry of a flow,
//! and what the client sends is all there is to judge it by.
//!
//! XDP picks and sends. TC carries the packets of such flows that XDP leaves to it, because the next
//! hop has to be found first, or because they leave where XDP cannot send.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_action;
use balancer_ebpf::{
    abi::{FlowState, UDP, flow_state, forwarding},
    datagram,
    flow::Family,
    packet::{ETHERNET_LEN, tcp_flags::RST},
    reason::{Fate, Reason},
    tcp_state,
};

use crate::{
    apart::Steps,
    cleared::cleared,
    context::{Context, Refused, Skb, Xdp, straight, used},
    events, guard,
    hop::{self, Reach, WayOut},
    ingress::grace_over,
    maps::{self, Entry, Maps, NotInserted, RealRef, Stage},
    open::{CANDIDATES, count_connection},
    outer::{Outer, tell_sender},
    parse::Packet,
    record::{self, Candidate, Choice},
    route, stray,
};

/// The walk of a packet to a port of VIPs.
#[inline(always)]
pub(crate) fn walk<F: Steps<Xdp, true> + Outer>(
    xdp: Xdp,
    packet: &Packet<F>,
    tunnel: bool,
) -> Reason {
    let mut candidate = MaybeUninit::uninit();
    // SAFETY: all fields are numbers, for which 0 is a value.
    let candidate = unsafe { cleared(&mut candidate) };
    let mut reason = match follow::<F, true>(packet, candidate) {
        OPENS => pick::<F>(xdp, packet, candidate),
        STRAYS => adopt::<F>(xdp, packet, candidate),
        reason => reason,
    };
    if reason.fate() != Fate::Forward {
        return reason;
    }
    if u16::from_ne_bytes(candidate.end.port) != u16::from_ne_bytes(F::dst(&packet.key).port) {
        // The real would not know the port. User space refuses such sets.
        return Reason::LeftToTc;
    }
    let mut way = MaybeUninit::<WayOut>::uninit();
    // SAFETY: as above.
    let way = unsafe { cleared(&mut way) };
    let reach = hop::to_real(xdp, packet, &candidate.end.addr, tunnel, way);
    if reach == Reach::Nowhere {
        return Reason::LeftToTc;
    }
    if reason.begins_flow() {
        candidate.forwarding = if tunnel { forwarding::DSR_IPIP } else { forwarding::DSR_L2 };
        let stage = if reason == Reason::NewFlow { Stage::HalfOpen } else { Stage::Open };
        match record(packet, candidate, stage) {
            Reason::NewFlow => {
                guard::spend();
                reason = events::begun::<Xdp, F, true>(xdp, packet, reason);
            }
            refused => return refused,
        }
    }
    let sent = match reach {
        Reach::Now => {
            count(xdp, candidate.counter);
            send::<F>(xdp, packet, way, &candidate.end.addr, tunnel)
        }
        Reach::TooBig => {
            reason = Reason::TooBig;
            tell_sender::<Xdp, F>(xdp, packet, way.mtu)
        }
        Reach::ByTc | Reach::Nowhere => return Reason::LeftToTc,
    };
    if sent != 0 {
        return Reason::RewriteFailed;
    }
    let verdict = if reach == Reach::Now { way.hop.verdict } else { xdp_action::XDP_TX };
    packet.onward.set(verdict as u8);
    reason
}

/// What [`follow`] says where no entry speaks for a packet that begins a flow, or another one.
const OPENS: Reason = Reason::NewFlow;
const STRAYS: Reason = Reason::FlowAdopted;

/// Follows the entry of the packet's flow, whose real becomes the `candidate`. Not inlined, for the
/// stack's sake, as all that follows.
#[inline(never)]
fn follow<F: Maps, const RECORD: bool>(packet: &Packet<F>, candidate: &mut Candidate<F>) -> Reason {
    let is_udp = F::proto(&packet.key) == UDP;
    let opens = is_udp || tcp_state::opens(packet.flags);
    let key = F::own_key(packet);
    let (stage, entry) = match F::find(Stage::Open, &key) {
        Some(entry) => (Stage::Open, entry),
        None => match F::find(Stage::HalfOpen, &key) {
            Some(entry) => (Stage::HalfOpen, entry),
            None if opens => return OPENS,
            None => return STRAYS,
        },
    };
    let now = maps::jiffies();
    let state = entry.state_copy();
    if state.forwarding & forwarding::DSR == 0 {
        // It was begun where addresses are translated, and stays so.
        return Reason::LeftToTc;
    }
    let named = maps::real(state.real).filter(|real| real.generation() == state.generation);
    let usable = named.filter(|real| real.flags() == 0);
    let stands = usable.or_else(|| named.filter(|real| !grace_over(*real)));
    let anew = if is_udp {
        stands.is_none() || datagram::silent(state.last_seen, now, maps::hz())
    } else {
        opens && (usable.is_none() || tcp_state::closing(state.state))
    };
    let real = match stands {
        Some(real) if !anew => real,
        _ => {
            if RECORD {
                entry.mark(flow_state::RESET, state.real, now);
                F::remove(Stage::Open, &key);
                F::remove(Stage::HalfOpen, &key);
            }
            return match anew {
                true => OPENS,
                false if packet.flags & RST != 0 => Reason::StrayReset,
                false => Reason::RealGone,
            };
        }
    };
    let mut carried = match stage {
        Stage::Open => Reason::Established,
        Stage::HalfOpen => Reason::HalfOpen,
    };
    if RECORD {
        let seen = tcp_state::from_client_alone(packet.flags);
        // Of UDP nobody sees the answer that would show that both ends mean it.
        let completes = stage == Stage::HalfOpen
            && !is_udp
            && tcp_state::completes_alone(state.state, packet.flags);
        if completes {
            if promote(packet, entry, seen, now) != 0 {
                carried = Reason::Established;
            }
        } else if seen != 0 {
            entry.mark(seen, state.real, now);
        } else if now.wrapping_sub(state.last_seen) >= maps::hz() {
            entry.seen(now);
        }
    }
    // Asked once more where it is read: on 6.1 the verifier has lost by now that it is not null.
    let Some(real) = RealRef::from_raw(used(RealRef::into_raw(Some(real)).cast_mut())) else {
        return Reason::RealGone;
    };
    point_to(candidate, real, &state);
    carried
}

/// Makes a flow's real the candidate.
#[inline(always)]
fn point_to<F: Family>(candidate: &mut Candidate<F>, real: RealRef, state: &FlowState) {
    candidate.end = real.end::<F>();
    (candidate.id, candidate.counter) = (state.real, state.counter);
    candidate.forwarding = state.forwarding;
}

/// Moves the entry to the flows; 0: it stays half open, to be tried again at the next packet.
#[inline(never)]
fn promote<F: Maps>(packet: &Packet<F>, entry: Entry<F>, seen: u8, now: u32) -> u32 {
    let Some((before, after)) = entry.change(flow_state::ESTABLISHED | seen, 0) else { return 0 };
    if before & flow_state::ESTABLISHED != 0 {
        // Another CPU is moving it.
        return 1;
    }
    let mut state = entry.state_copy();
    state.state = after;
    (state.last_seen, state.refreshed) = (now, now);
    let Some(moved) = record::value(packet, state) else { return 0 };
    let key = F::own_key(packet);
    if F::insert(Stage::Open, &key, moved) == Err(NotInserted::Full) {
        entry.change(0, flow_state::ESTABLISHED);
        return 0;
    }
    F::remove(Stage::HalfOpen, &key);
    if !tcp_state::closed(after) {
        maps::active_up(state.real);
    }
    1
}

/// Finds a real for a new flow.
#[inline(never)]
fn pick<F: Steps<Xdp, true>>(xdp: Xdp, packet: &Packet<F>, candidate: &mut Candidate<F>) -> Reason {
    let route = match route::find::<Xdp, F, true>(xdp, packet) {
        Ok(route) => route,
        Err(reason) => return reason,
    };
    let table = &route.entry.table;
    let mut slot = route::slot::<F>(&route, &packet.key, true);
    let step = table.slots / CANDIDATES + 1;
    let mut tried = 0;
    while tried < CANDIDATES {
        match F::choose(packet, &route.entry, slot, candidate) {
            Choice::Empty if tried == 0 => return Reason::EmptySlot,
            Choice::Blackhole if tried == 0 => {
                count_connection::<true>(candidate.counter);
                return Reason::Blackhole;
            }
            Choice::Empty | Choice::Blackhole | Choice::Unusable => {}
            Choice::Usable => return Reason::NewFlow,
        }
        slot += step;
        if slot >= table.slots {
            slot -= table.slots;
        }
        tried += 1;
    }
    // Every real that was looked at has left the inventory since the table was made.
    Reason::RealGone
}

/// Finds the real of a flow whose entry was lost.
#[inline(never)]
fn adopt<F: Steps<Xdp, true>>(
    xdp: Xdp,
    packet: &Packet<F>,
    candidate: &mut Candidate<F>,
) -> Reason {
    let reason = stray::find::<Xdp, F, true>(xdp, packet, candidate);
    if reason == stray::FOUND {
        candidate.state =
            tcp_state::adopted(packet.flags) | tcp_state::from_client_alone(packet.flags);
    }
    reason
}

/// Records a flow, in one direction; `NewFlow`: it stands.
#[inline(never)]
fn record<F: Maps>(packet: &Packet<F>, candidate: &Candidate<F>, stage: Stage) -> Reason {
    let now = maps::jiffies();
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
    let Some(flow) = record::value(packet, state) else { return Reason::FlowTableFull };
    match F::insert(stage, &F::own_key(packet), flow) {
        Ok(()) => {}
        // Another CPU was faster: TC goes by its entry.
        Err(NotInserted::Exists) => return Reason::LeftToTc,
        Err(NotInserted::Full) => return Reason::FlowTableFull,
    }
    if stage == Stage::HalfOpen {
        count_connection::<true>(candidate.counter);
    } else if !tcp_state::closed(candidate.state) {
        maps::active_up(candidate.id);
    }
    Reason::NewFlow
}

#[inline(always)]
fn count<C: Context>(ctx: C, counter: u32) {
    if let Some(counter) = maps::counter(counter) {
        // SAFETY: this CPU's own element.
        unsafe {
            (*counter).packets_in += u64::from(ctx.segments());
            (*counter).bytes_in += u64::from(ctx.len());
        }
    }
}

/// Sends the packet to its real; 0: done.
#[inline(never)]
fn send<F: Outer>(xdp: Xdp, packet: &Packet<F>, way: &WayOut, to: &F::Addr, tunnel: bool) -> u32 {
    u32::from(sent(xdp, packet, way, to, tunnel).is_err())
}

#[inline(always)]
fn sent<F: Outer>(
    xdp: Xdp,
    packet: &Packet<F>,
    way: &WayOut,
    to: &F::Addr,
    tunnel: bool,
) -> Result<(), Refused> {
    // RFC 2003, 3.1: a packet that is forwarded into a tunnel has one hop less.
    F::decrement_hops(xdp, ETHERNET_LEN)?;
    if tunnel {
        let [first]: [u32; 1] = xdp.words(ETHERNET_LEN).ok_or(Refused)?;
        let len = packet.end.wrapping_sub(ETHERNET_LEN);
        xdp.grow(F::HEADER_LEN)?;
        F::around(xdp, ETHERNET_LEN, (first, len), &way.source, to)?;
        xdp.put_pair(ETHERNET_LEN - 2, F::ETHERTYPE)?;
    }
    xdp.store(0, &way.hop.addresses, false)
}

/// Carries a packet of a flow of this kind that is met where addresses are translated. `NewFlow`: the
/// flow is over, and the packet begins another one. Not inlined: few are met.
#[inline(never)]
pub(crate) fn carry<C: Context, F: Maps, const RECORD: bool>(ctx: C, packet: &Packet<F>) -> Reason {
    if C::PLAIN {
        return Reason::LeftToTc;
    }
    let mut candidate = MaybeUninit::uninit();
    // SAFETY: all fields are numbers, for which 0 is a value.
    let candidate = unsafe { cleared(&mut candidate) };
    let reason = follow::<F, RECORD>(packet, candidate);
    if reason == STRAYS {
        // The entry was evicted a moment ago.
        return Reason::FlowLost;
    }
    if RECORD && reason.fate() == Fate::Forward && reason != OPENS {
        count(ctx, candidate.counter);
        packet.onward.set(candidate.forwarding);
    }
    reason
}

/// Sends such a packet on; the verdict. The kernel finds the next hop, and keeps the packet meanwhile.
#[inline(never)]
fn send_by_tc<F: Maps + Outer>(skb: Skb, packet: &Packet<F>, tunnel: bool) -> i32 {
    let mut candidate = MaybeUninit::uninit();
    // SAFETY: all fields are numbers, for which 0 is a value.
    let candidate = unsafe { cleared(&mut candidate) };
    let reason = follow::<F, false>(packet, candidate);
    if reason.fate() != Fate::Forward {
        return Skb::DROP;
    }
    straight::to_real::<F>(skb, packet.place.ip, packet.end, &candidate.end.addr, tunnel)
}

/// See [`send_by_tc`].
///
/// # Errors
/// There is no way to the real.
#[inline(always)]
pub(crate) fn onward<F: Maps + Outer>(
    skb: Skb,
    packet: &Packet<F>,
    how: u8,
) -> Result<i32, Refused> {
    let verdict = send_by_tc(skb, packet, how & forwarding::DSR_IPIP != 0);
    if verdict == Skb::DROP { Err(Refused) } else { Ok(verdict) }
}
