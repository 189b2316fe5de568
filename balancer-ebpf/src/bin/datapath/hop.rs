//! The way on for packets that no stack will route: interface and Ethernet addresses, as the
//! kernel's own tables have them.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{bpf_check_mtu_ret::BPF_MTU_CHK_RET_FRAG_NEEDED, xdp_action},
    helpers::generated as helpers,
};
use balancer_ebpf::{
    abi::{hop_of, remembered_hop},
    reason::Reason,
};

use crate::{
    context::{Context as _, Translate, Xdp},
    fib::{Fib, Way},
    maps,
    parse::{Packet, Read},
};

/// Where a packet goes on.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Hop {
    /// Ethernet addresses, destination first, as they lie in a frame.
    pub(crate) addresses: [u32; 3],
    /// What the program returns.
    pub(crate) verdict: u32,
}

/// The way to `to` for a packet as it came, before anything of it is changed. `memory`: where its
/// flow remembers the next hop.
///
/// # Errors
/// [`Reason::LeftToTc`]: the stack has to answer it, to find the next hop, or to send it where XDP
/// cannot.
#[inline(always)]
pub(crate) fn find<F: Translate>(
    ctx: Xdp,
    packet: &Packet<F>,
    to: &F::Addr,
    memory: *mut u32,
) -> Result<Hop, Reason> {
    let mut hop = MaybeUninit::uninit();
    match ask::<F>(ctx, packet, to, memory, &mut hop) {
        // SAFETY: `ask` has written the hop when it says so.
        FOUND => Ok(unsafe { hop.assume_init() }),
        _ => Err(Reason::LeftToTc),
    }
}

const FOUND: u32 = 0;
const LEFT: u32 = 1;

/// Not inlined: the question needs its stack only here.
#[inline(never)]
fn ask<F: Translate>(
    ctx: Xdp,
    packet: &Packet<F>,
    to: &F::Addr,
    memory: *mut u32,
    hop: &mut MaybeUninit<Hop>,
) -> u32 {
    if !may_leave(ctx, packet) {
        return LEFT;
    }
    // Read before the kernel is asked: what it says may be outdated by the time it is noted.
    let generation = maps::hop_generation();
    let mark = mark::<F>(to);
    if let Some(generation) = generation {
        // SAFETY: an aligned word of a live flow entry, or of our own, read whole.
        let remembered = unsafe { memory.read_volatile() };
        if remembered != 0
            && let Some(next) = hop_of(remembered ^ mark, generation).and_then(maps::next_hop)
            && packet.end.wrapping_sub(packet.place.ip) <= next.mtu()
        {
            let interface = next.interface();
            let verdict =
                if interface == ctx.ifindex() { xdp_action::XDP_TX } else { redirect(interface) };
            hop.write(Hop { addresses: next.addresses(), verdict });
            return FOUND;
        }
    }
    let mut question = MaybeUninit::uninit();
    let question = Fib::of::<F>(&mut question, ctx.ifindex());
    question.from::<F>(&F::src(&packet.key).addr);
    // Else: no route, no neighbour yet, longer than the MTU, routing is switched off, …
    if put(ctx, packet, to, 0, question) != Way::Known {
        return LEFT;
    }
    let Some(verdict) = verdict(ctx, question.interface) else { return LEFT };
    let addresses = question.frame();
    hop.write(Hop { addresses, verdict });
    if let Some(generation) = generation
        && let Some(id) = maps::hop_id(addresses, question.interface)
        && let Some(next) = maps::next_hop(id)
        // A route may have a smaller MTU than its interface: then each packet asks.
        && u32::from(question.total_len) >= next.mtu()
    {
        // SAFETY: as above; whoever reads it finds the old word or this one.
        unsafe { memory.write_volatile(remembered_hop(generation, id) ^ mark) };
    }
    FOUND
}

/// What the memory of the way to an address is marked with. An entry may become another flow's
/// while a program that has found it still runs; what that one notes is nothing to the other.
#[inline(always)]
fn mark<F: Translate>(to: &F::Addr) -> u32 {
    const ODD: u32 = 0x9e37_79b1;
    let words = F::words(to);
    let (mut mark, mut i) = (0, 0);
    while i < words.len() {
        mark = (mark ^ u32::from_ne_bytes(words[i])).wrapping_mul(ODD);
        i += 1;
    }
    mark
}

/// Whether the packet may be forwarded once more.
#[inline(always)]
fn may_leave<F: Translate>(ctx: Xdp, packet: &Packet<F>) -> bool {
    F::hops_left(ctx, packet.place.ip) == Some(true)
}

/// Asks the kernel for the way to `to`; `more`: bytes that the packet will grow by.
#[inline(always)]
fn put<F: Translate>(
    ctx: Xdp,
    packet: &Packet<F>,
    to: &F::Addr,
    more: u32,
    question: &mut Fib,
) -> Way {
    question.protocol = F::proto(&packet.key);
    let len = packet.end.wrapping_sub(packet.place.ip).wrapping_add(more);
    question.total_len = if len > u32::from(u16::MAX) { u16::MAX } else { len as u16 };
    question.to::<F>(to);
    question.ask(ctx.into_raw())
}

/// What the program returns to send a frame by `interface`; `None`: XDP cannot.
#[inline(always)]
fn verdict(ctx: Xdp, interface: u32) -> Option<u32> {
    if interface == ctx.ifindex() {
        return Some(xdp_action::XDP_TX);
    }
    if !maps::takes_frames(interface) {
        return None;
    }
    Some(redirect(interface))
}

#[inline(always)]
fn redirect(interface: u32) -> u32 {
    // SAFETY: the helper takes two numbers. It only notes the interface, for a program that
    // returns what it returns.
    unsafe { helpers::bpf_redirect(interface, 0) as u32 }
}

/// Where a packet goes on to a real that answers by itself.
#[repr(C)]
pub(crate) struct WayOut {
    pub(crate) hop: Hop,
    /// Where the packet is too big: what would fit.
    pub(crate) mtu: u32,
    /// Of a tunnel: the node's end.
    pub(crate) source: [u32; 4],
}

/// How far a packet comes on such a way.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Reach {
    /// XDP can send it.
    Now,
    /// The next hop has to be found first, or the packet leaves where XDP cannot: TC can send it.
    ByTc,
    /// It is longer than what fits.
    TooBig,
    /// There is none.
    Nowhere,
}

/// The way to the real at `to`, by a tunnel or else on the link. Not inlined: as [`ask`].
#[inline(never)]
pub(crate) fn to_real<F: Translate + Read>(
    ctx: Xdp,
    packet: &Packet<F>,
    to: &F::Addr,
    tunnel: bool,
    way: &mut WayOut,
) -> Reach {
    if !may_leave(ctx, packet) {
        return Reach::Nowhere;
    }
    let mut question = MaybeUninit::uninit();
    let question = Fib::of::<F>(&mut question, ctx.ifindex());
    let mut more = 0;
    if tunnel {
        if !maps::own_address::<F>(ctx.ifindex(), &mut way.source) {
            return Reach::Nowhere;
        }
        more = F::HEADER_LEN;
        question.src = way.source;
    } else {
        question.from::<F>(&F::src(&packet.key).addr);
    }
    let found = put(ctx, packet, to, more, question);
    if found == Way::None {
        return Reach::Nowhere;
    }
    if found == Way::TooBig {
        if is_merged(ctx) {
            return Reach::ByTc;
        }
        way.mtu = u32::from(question.total_len).wrapping_sub(more);
        return Reach::TooBig;
    }
    if !tunnel && !question.next_is::<F>(to) {
        return Reach::Nowhere;
    }
    if found == Way::Unresolved {
        return Reach::ByTc;
    }
    let Some(verdict) = verdict(ctx, question.interface) else { return Reach::ByTc };
    way.hop = Hop { addresses: question.frame(), verdict };
    Reach::Now
}

/// Whether the packet is longer than any frame of the interface that it came in by: the kernel has
/// put several together, as it does before generic XDP. Only TC is told how long each of them is.
#[inline(always)]
fn is_merged(ctx: Xdp) -> bool {
    let mut mtu = 0;
    // SAFETY: the context is live; 0 means its own interface, and a length that is asked for.
    let answer = unsafe { helpers::bpf_check_mtu(ctx.into_raw().cast(), 0, &raw mut mtu, 0, 0) };
    answer == i64::from(BPF_MTU_CHK_RET_FRAG_NEEDED)
}
