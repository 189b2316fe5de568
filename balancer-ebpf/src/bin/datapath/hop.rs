//! The way on for packets that no stack will route: interface and Ethernet addresses, as the
//! kernel's own tables have them.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::xdp_action, helpers::generated as helpers};
use balancer_ebpf::{flow::Family, reason::Reason};

use crate::{
    cleared::cleared,
    context::{Context as _, Translate, Xdp},
    maps,
    parse::Packet,
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
    let Some(may_leave) = F::hops_left(ctx, packet.place.ip) else { return LEFT };
    if !may_leave {
        return LEFT;
    }
    let mut question = MaybeUninit::<Question>::uninit();
    // SAFETY: all fields are numbers, for which 0 is a value.
    let question = unsafe { cleared(&mut question) };
    question.family = number::<F>();
    question.protocol = F::proto(&packet.key);
    question.total_len = packet.end.wrapping_sub(packet.place.ip) as u16;
    question.interface = ctx.ifindex();
    set::<F>(&mut question.src, &F::src(&packet.key).addr);
    set::<F>(&mut question.dst, to);
    // SAFETY: the context is live, and the question is as long as said.
    let answer = unsafe {
        helpers::bpf_fib_lookup(
            ctx.into_raw().cast(),
            (&raw mut *question).cast(),
            size_of::<Question>() as i32,
            0,
        )
    };
    // Other answers: no route, no neighbour yet, longer than the MTU, routing is switched off, …
    if answer != 0 {
        return LEFT;
    }
    let verdict = if question.interface == ctx.ifindex() {
        xdp_action::XDP_TX
    } else {
        if !maps::takes_frames(question.interface) {
            return LEFT;
        }
        // SAFETY: the helper takes two numbers. It only notes the interface, for a program that
        // returns what it returns.
        unsafe { helpers::bpf_redirect(question.interface, 0) as u32 }
    };
    let [a, b, c, d, e, f] = question.addresses;
    let pair = |a: u16, b: u16| u32::from(a) | u32::from(b) << 16;
    hop.write(Hop { addresses: [pair(d, e), pair(f, a), pair(b, c)], verdict });
    FOUND
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
