//! Past the stack: from the interface that a packet came in by to the one that it leaves by.
//!
//! The kernel's routes are asked for every packet, so that a change of them is followed at once,
//! and `INTERFACES` says whether this may be done at all. What is not quite ordinary is left to
//! the stack, which knows how to answer: a packet that does not fit, whose hops are used up, or
//! whose destination has no route.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{
        TC_ACT_REDIRECT, bpf_adj_room_mode, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated as helpers,
};
use balancer_ebpf::{
    abi::{TCP, interface_flags},
    flow::Family,
    packet::{self, ETHERNET_LEN, IPV4_LEN, IPV6_LEN, UDP_LEN},
};

use super::{Context as _, Place, Refused, Skb, Translate, skb};
use crate::{
    fib::{Fib, Way},
    maps,
    outer::Outer,
};

/// Writes the Ethernet addresses of the next hop and of the interface to leave by.
#[inline(always)]
fn address(skb: Skb, fib: &Fib) -> bool {
    let Some(start) = skb.bytes(0, ETHERNET_LEN) else { return false };
    let (to, frame) = (start as *mut u32, fib.frame());
    let mut i = 0;
    while i < 3 {
        // SAFETY: inside the bytes just checked. No sum that a device may have made holds
        // Ethernet addresses.
        unsafe { to.add(i).write_volatile(frame[i]) };
        i += 1;
    }
    true
}

/// Sends the packet to the next hop.
#[inline(always)]
fn send(fib: &Fib) -> bool {
    let mut hop = bpf_redir_neigh {
        nh_family: fib.family.into(),
        __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: fib.dst },
    };
    // SAFETY: the helper copies the next hop.
    let verdict = unsafe {
        helpers::bpf_redirect_neigh(
            fib.interface,
            &raw mut hop,
            size_of::<bpf_redir_neigh>() as i32,
            0,
        )
    };
    skb::redirected(verdict).is_ok()
}

/// See [`super::Context::may_go_straight`]; 1: it may. Not inlined, for the stack's sake.
#[inline(never)]
pub(super) fn may_go<F: Family>(skb: Skb, from: &F::Addr, to: &F::Addr) -> u32 {
    let came_by = skb.ifindex();
    if maps::interface(came_by) & interface_flags::DIRECT == 0 || skb.is_tagged() {
        return 0;
    }
    let mut room = MaybeUninit::uninit();
    let fib = Fib::of::<F>(&mut room, came_by);
    fib.from::<F>(from);
    fib.to::<F>(to);
    if !fib.ask(skb.into_raw()).leads_on() {
        return 0;
    }
    let leaves_by = fib.interface;
    if maps::interface(leaves_by) & interface_flags::DIRECT == 0 {
        return 0;
    }
    // The way back has to be the same one: both directions go past the stack, or none does. It
    // also is what a strict reverse path filter asks, which nobody else will.
    let fib = Fib::of::<F>(&mut room, leaves_by);
    fib.from::<F>(to);
    fib.to::<F>(from);
    u32::from(fib.ask(skb.into_raw()).leads_on() && fib.interface == came_by)
}

/// What the headers of the packet, as they are now, ask the kernel's routes; `None`: they cannot
/// be read.
#[inline(always)]
fn question<'a, F: Family>(
    skb: Skb,
    place: &Place,
    room: &'a mut MaybeUninit<Fib>,
) -> Option<&'a mut Fib> {
    let fib = Fib::of::<F>(room, skb.ifindex());
    let [ports]: [u32; 1] = skb.words(place.tcp)?;
    let [a, b, c, d] = ports.to_ne_bytes();
    fib.ports = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
    let total_len;
    if F::NUMBER == 4 {
        let header: [u32; 5] = skb.words(place.ip)?;
        total_len = packet::ipv4(&header)?.total_len;
        fib.class = u32::from_ne_bytes([header[0].to_ne_bytes()[1], 0, 0, 0]);
        fib.protocol = header[2].to_ne_bytes()[1];
        (fib.src[0], fib.dst[0]) = (header[3], header[4]);
    } else {
        let header: [u32; 10] = skb.words(place.ip)?;
        total_len = packet::ipv6(&header)?.total_len;
        let [_, b, c, d] = header[0].to_ne_bytes();
        fib.class = u32::from_ne_bytes([0, b & 0x0f, c, d]);
        fib.protocol = header[1].to_ne_bytes()[2];
        let mut i = 0;
        while i < 4 {
            (fib.src[i], fib.dst[i]) = (header[2 + i], header[6 + i]);
            i += 1;
        }
    }
    // What has to fit is one packet on the wire.
    let segment = skb.segment_len();
    fib.total_len = if segment == 0 {
        total_len as u16
    } else {
        let header_len = if fib.protocol == TCP {
            let tcp: [u32; 5] = skb.words(place.tcp)?;
            u32::from(tcp[3].to_ne_bytes()[0] >> 4) * 4
        } else {
            UDP_LEN
        };
        (place.tcp - place.ip + header_len + segment) as u16
    };
    Some(fib)
}

/// Sends a packet to a real that answers by itself, in a tunnel or else on the link; the verdict. Its
/// IP header begins at offset `at`, and it ends at `end`. A device may have to cut it into segments:
/// those fit as they are, or are made shorter by as much as a tunnel needs.
#[inline(never)]
pub(crate) fn to_real<F: Outer>(skb: Skb, at: u32, end: u32, to: &F::Addr, tunnel: bool) -> i32 {
    let came_by = skb.ifindex();
    let mut room = MaybeUninit::uninit();
    let fib = Fib::of::<F>(&mut room, came_by);
    fib.to::<F>(to);
    let mut source = [0; 4];
    if tunnel {
        if !maps::own_address::<F>(came_by, &mut source) {
            return Skb::DROP;
        }
        fib.src = source;
    }
    if !fib.ask(skb.into_raw()).leads_on()
        || !tunnel && !fib.next_is::<F>(to)
        || !count_hop::<F>(skb, at)
    {
        return Skb::DROP;
    }
    if tunnel && around::<F>(skb, at, end, &source, to).is_err() {
        return Skb::DROP;
    }
    if send(fib) { TC_ACT_REDIRECT } else { Skb::DROP }
}

/// Puts the header of a tunnel in front of a packet.
#[inline(always)]
fn around<F: Outer>(
    skb: Skb,
    at: u32,
    end: u32,
    source: &[u32; 4],
    to: &F::Addr,
) -> Result<(), Refused> {
    let [first]: [u32; 1] = skb.words(at).ok_or(Refused)?;
    let len = end.wrapping_sub(at);
    // SAFETY: the context is live while the program runs.
    let made = unsafe {
        helpers::bpf_skb_adjust_room(
            skb.into_raw(),
            F::HEADER_LEN as i32,
            bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
            F::ROOM,
        )
    };
    if made != 0 {
        return Err(Refused);
    }
    F::around(skb, at, (first, len), source, to)
}

/// Sends a packet that is about to leave to its destination's next hop, where that is another one
/// than the packet has already; the verdict.
#[inline(never)]
pub(crate) fn elsewhere<F: Family>(skb: Skb, place: &Place) -> i32 {
    let mut room = MaybeUninit::uninit();
    let Some(fib) = question::<F>(skb, place, &mut room) else { return Skb::PASS };
    // The sender has seen to it that the packet fits, as far as it knows the way.
    fib.total_len = 0;
    let Some([first, second]) = skb.words::<2>(0) else { return Skb::PASS };
    let came_by = fib.interface;
    if !fib.ask(skb.into_raw()).leads_on() {
        return Skb::PASS;
    }
    let [low, high, _] = fib.frame();
    let pair = |word: u32| [word.to_ne_bytes()[0], word.to_ne_bytes()[1]];
    let same = first == low && pair(second) == pair(high);
    if (fib.interface == came_by && same) || !send(fib) { Skb::PASS } else { TC_ACT_REDIRECT }
}

/// Whether a router has nothing to do with the packet but to send it on: no tag that says of which
/// network it is, no options that routers look at.
#[inline(always)]
fn is_ordinary<F: Family>(skb: Skb, place: &Place) -> bool {
    let header_len = if F::NUMBER == 4 { IPV4_LEN } else { IPV6_LEN };
    place.ip == ETHERNET_LEN && place.tcp == ETHERNET_LEN + header_len && !skb.is_tagged()
}

/// See [`super::Context::goes_straight`]; 1: it goes.
#[inline(never)]
pub(super) fn goes<F: Translate>(skb: Skb, place: &Place) -> u32 {
    if maps::interface(skb.ifindex()) & interface_flags::DIRECT == 0
        || !is_ordinary::<F>(skb, place)
    {
        return 0;
    }
    let mut room = MaybeUninit::uninit();
    let Some(fib) = question::<F>(skb, place, &mut room) else { return 0 };
    let way = fib.ask(skb.into_raw());
    if !way.leads_on() {
        return 0;
    }
    let flags = maps::interface(fib.interface);
    if flags & interface_flags::DIRECT == 0 || !count_hop::<F>(skb, place.ip) {
        return 0;
    }
    // Whoever is behind the other end may look at the Ethernet address (a bridge does), and asking
    // for one takes a packet that is sent.
    let gone = if flags & interface_flags::PEER != 0 && way == Way::Known && address(skb, fib) {
        // SAFETY: the helper takes two numbers.
        skb::redirected(unsafe { helpers::bpf_redirect_peer(fib.interface, 0) }).is_ok()
    } else {
        send(fib)
    };
    u32::from(gone)
}

/// How far the packet, as it came, would come on the way to `to`.
#[inline(always)]
pub(crate) fn reach<F: Translate>(skb: Skb, place: &Place, to: &F::Addr) -> Way {
    let mut room = MaybeUninit::uninit();
    let Some(fib) = question::<F>(skb, place, &mut room) else { return Way::None };
    if F::hops_left(skb, place.ip) != Some(true) {
        return Way::None;
    }
    fib.to::<F>(to);
    fib.ask(skb.into_raw())
}

/// What fits on the way to `to`, where the packet does not; else 0.
#[inline(never)]
pub(crate) fn mtu<F: Translate>(skb: Skb, place: &Place, to: &F::Addr) -> u32 {
    let mut room = MaybeUninit::uninit();
    let Some(fib) = question::<F>(skb, place, &mut room) else { return 0 };
    fib.to::<F>(to);
    if fib.ask(skb.into_raw()) == Way::TooBig { fib.total_len.into() } else { 0 }
}

/// Sends the packet, as it is now, to its destination's next hop, past the stack; 0: it cannot be.
#[inline(never)]
pub(crate) fn go_on<F: Translate>(skb: Skb, place: &Place) -> u32 {
    let mut room = MaybeUninit::uninit();
    let Some(fib) = question::<F>(skb, place, &mut room) else { return 0 };
    let leads_on = fib.ask(skb.into_raw()).leads_on();
    u32::from(leads_on && count_hop::<F>(skb, place.ip) && send(fib))
}

/// Takes one from the packet's remaining hops; false: there is none left.
#[inline(always)]
fn count_hop<F: Translate>(skb: Skb, at: u32) -> bool {
    F::hops_left(skb, at) == Some(true) && F::decrement_hops(skb, at).is_ok()
}
