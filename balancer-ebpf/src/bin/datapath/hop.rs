//! The way on for packets that no stack will route: interface and Ethernet addresses, as the
//! kernel's own tables have them.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        xdp_action,
    },
    helpers::generated as helpers,
};
use balancer_ebpf::{flow::Family, reason::Reason};

use crate::{
    cleared::cleared,
    context::{Context as _, Translate, Xdp},
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

/// `struct bpf_fib_lookup` (linux/bpf.h), its unions as they are used here.
#[repr(C)]
struct Question {
    family: u8,
    protocol: u8,
    sport: [u8; 2],
    dport: [u8; 2],
    /// In: length of the IP packet, compared with the route's MTU.
    total_len: u16,
    /// In: where the packet came from. Out: where it goes.
    interface: u32,
    /// IPv4: the type of service.
    service: u32,
    src: [u32; 4],
    dst: [u32; 4],
    vlan: u32,
    /// Out: Ethernet address of the interface, then of the next hop.
    addresses: [u16; 6],
}

const _: () = assert!(size_of::<Question>() == 64);

/// Linux's number of the family (linux/socket.h).
const fn number<F: Family>() -> u8 {
    if F::NUMBER == 4 { 2 } else { 10 }
}

/// The way to `to` for a packet as it came, before anything of it is changed.
///
/// # Errors
/// [`Reason::LeftToTc`]: the stack has to answer it, to find the next hop, or to send it where XDP
/// cannot.
#[inline(always)]
pub(crate) fn find<F: Translate>(
    ctx: Xdp,
    packet: &Packet<F>,
    to: &F::Addr,
) -> Result<Hop, Reason> {
    let mut hop = MaybeUninit::uninit();
    match ask::<F>(ctx, packet, to, &mut hop) {
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
    hop: &mut MaybeUninit<Hop>,
) -> u32 {
    if !may_leave(ctx, packet) {
        return LEFT;
    }
    let mut question = MaybeUninit::<Question>::uninit();
    // SAFETY: all fields are numbers, for which 0 is a value.
    let question = unsafe { cleared(&mut question) };
    set::<F>(&mut question.src, &F::src(&packet.key).addr);
    let answer = put(ctx, packet, to, 0, question);
    // Other answers: no route, no neighbour yet, longer than the MTU, routing is switched off, …
    if answer != 0 {
        return LEFT;
    }
    let Some(verdict) = verdict(ctx, question.interface) else { return LEFT };
    hop.write(Hop { addresses: question.frame(), verdict });
    FOUND
}

/// Whether the packet may be forwarded once more.
#[inline(always)]
fn may_leave<F: Translate>(ctx: Xdp, packet: &Packet<F>) -> bool {
    F::hops_left(ctx, packet.place.ip) == Some(true)
}

/// Asks the kernel for the way to `to`; `more`: bytes that the packet will grow by. The answer is
/// the helper's.
#[inline(always)]
fn put<F: Translate>(
    ctx: Xdp,
    packet: &Packet<F>,
    to: &F::Addr,
    more: u32,
    question: &mut Question,
) -> i64 {
    question.family = number::<F>();
    question.protocol = F::proto(&packet.key);
    question.total_len = packet.end.wrapping_sub(packet.place.ip).wrapping_add(more) as u16;
    question.interface = ctx.ifindex();
    set::<F>(&mut question.dst, to);
    // SAFETY: the context is live, and the question is as long as said.
    unsafe {
        helpers::bpf_fib_lookup(
            ctx.into_raw().cast(),
            (&raw mut *question).cast(),
            size_of::<Question>() as i32,
            0,
        )
    }
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
    // SAFETY: the helper takes two numbers. It only notes the interface, for a program that
    // returns what it returns.
    Some(unsafe { helpers::bpf_redirect(interface, 0) as u32 })
}

impl Question {
    /// The answer's Ethernet addresses, as they lie in a frame.
    #[inline(always)]
    fn frame(&self) -> [u32; 3] {
        let [a, b, c, d, e, f] = self.addresses;
        let pair = |a: u16, b: u16| u32::from(a) | u32::from(b) << 16;
        [pair(d, e), pair(f, a), pair(b, c)]
    }
}

/// Where a packet goes on to a real that answers by itself.
#[repr(C)]
pub(crate) struct Way {
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
    way: &mut Way,
) -> Reach {
    if !may_leave(ctx, packet) {
        return Reach::Nowhere;
    }
    let mut question = MaybeUninit::<Question>::uninit();
    // SAFETY: all fields are numbers, for which 0 is a value.
    let question = unsafe { cleared(&mut question) };
    let mut more = 0;
    if tunnel {
        if !maps::tunnel_source::<F>(ctx.ifindex(), &mut way.source) {
            return Reach::Nowhere;
        }
        more = F::HEADER_LEN;
        question.src = way.source;
    } else {
        set::<F>(&mut question.src, &F::src(&packet.key).addr);
    }
    let reach = match put(ctx, packet, to, more, question) as u32 {
        BPF_FIB_LKUP_RET_SUCCESS => Reach::Now,
        BPF_FIB_LKUP_RET_NO_NEIGH => Reach::ByTc,
        BPF_FIB_LKUP_RET_FRAG_NEEDED => {
            // The kernel writes the MTU where it was told the length.
            way.mtu = u32::from(question.total_len).wrapping_sub(more);
            return Reach::TooBig;
        }
        _ => return Reach::Nowhere,
    };
    // The kernel writes the next hop where it was told the destination.
    if !tunnel && (question.family != number::<F>() || !is::<F>(&question.dst, to)) {
        return Reach::Nowhere;
    }
    if reach == Reach::ByTc {
        return reach;
    }
    let Some(verdict) = verdict(ctx, question.interface) else { return Reach::ByTc };
    way.hop = Hop { addresses: question.frame(), verdict };
    Reach::Now
}

/// Whether what the kernel wrote is this address.
#[inline(always)]
fn is<F: Family>(written: &[u32; 4], addr: &F::Addr) -> bool {
    let words = F::words(addr);
    let (mut differ, mut i) = (0, 0);
    while i < words.len() && i < 4 {
        differ |= written[i] ^ u32::from_ne_bytes(words[i]);
        i += 1;
    }
    differ == 0
}

/// Writes an address; what is left of `to` stays.
#[inline(always)]
fn set<F: Family>(to: &mut [u32; 4], addr: &F::Addr) {
    let from = F::words(addr);
    let mut i = 0;
    while i < from.len() && i < 4 {
        to[i] = u32::from_ne_bytes(from[i]);
        i += 1;
    }
}
