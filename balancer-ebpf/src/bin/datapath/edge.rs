//! XDP: before the stack has seen the packet. Where addresses are translated, both directions in
//! one program; where reals answer by themselves, requests alone.
//!
//! A packet is finished here or left as it came, to TC and the stack: what needs the stack
//! (fragments, options, extension headers, tags, an error to be answered, a next hop to be found)
//! is not begun.

use aya_ebpf::{macros::xdp, programs::XdpContext};
use balancer_ebpf::{
    abi::{PortUse, direction, forwarding},
    packet::ETHERNET_LEN,
    reason::Reason,
};

use crate::{
    Program, Walk,
    apart::Steps,
    context::{Context as _, Refused, Translate, Xdp},
    dsr, egress, ingress, log,
    maps::{self, Maps},
    outer::Outer,
    parse::{Packet, Read},
    refuse, run, snat,
};

/// At the edge: VIP → real and real → VIP, addresses translated.
#[xdp(frags)]
fn balancer_xdp(ctx: XdpContext) -> u32 {
    run::<Edge>(Xdp::new(&ctx)) as u32
}

/// The same before the stack ("generic XDP"). For frames in one buffer: Linux from 6.9 on copies a
/// packet for a program that takes several, and forgets on the way how long the Ethernet header is
/// (`mac_len`), which TC reads it by.
#[xdp]
fn balancer_xdp_skb(ctx: XdpContext) -> u32 {
    run::<Edge>(Xdp::new(&ctx)) as u32
}

struct Edge;

impl Program for Edge {
    type Context = Xdp;
    const DIRECTION: u8 = direction::FORWARD;
    #[inline(always)]
    fn concerns(_xdp: Xdp, [from, to]: [[u8; 2]; 2]) -> bool {
        maps::port_used(to, PortUse::Vip) || maps::port_used(from, PortUse::Real)
    }
    #[inline(always)]
    fn end(reason: Reason, verdict: i32) -> i32 {
        maps::count_reason(reason);
        verdict
    }
    #[inline(always)]
    fn send_back(xdp: Xdp) -> Result<i32, Refused> {
        xdp.send_back(false)
    }
}

/// The walk of a reply. Not inlined: its frame would stand below that of the other direction.
#[inline(never)]
fn reply<F: Maps + Translate>(xdp: Xdp, packet: &mut Packet<F>) -> Reason {
    F::set_direction(&mut packet.key, direction::REPLY);
    egress::egress(xdp, packet)
}

impl<F: Steps<Xdp, true> + Read> Walk<F> for Edge {
    #[inline(always)]
    fn walk(xdp: Xdp, packet: &mut Packet<F>) -> Reason {
        let (from, to) = (F::src(&packet.key).port, F::dst(&packet.key).port);
        let place = packet.place;
        let plain = !packet.fragment
            && xdp.holds(packet.end)
            && place.ip == ETHERNET_LEN
            && place.tcp - place.ip == F::HEADER_LEN;
        if !plain {
            return if Self::concerns(xdp, [from, to]) { Reason::LeftToTc } else { Reason::NonVip };
        }
        let reason = ingress::ingress::<Xdp, F, true>(xdp, packet);
        let reason = match reason {
            Reason::NonVip | Reason::UnknownDestination if maps::port_used(from, PortUse::Real) => {
                reply(xdp, packet)
            }
            _ => reason,
        };
        log::told(packet, reason)
    }

    #[inline(always)]
    fn forwarded(xdp: Xdp, packet: &Packet<F>, reason: Reason) -> i32 {
        let onward = packet.onward.get();
        if onward & forwarding::SNAT != 0 && snat::other_end(xdp, packet) != 0 {
            return refuse::<Self, F>(xdp, packet, Reason::RewriteFailed, Xdp::DROP);
        }
        Self::end(reason, (onward & !forwarding::SNAT).into())
    }
}

/// Packets to a VIP, for reals that answer clients by themselves: inside another packet.
#[xdp]
fn balancer_xdp_ip(ctx: XdpContext) -> u32 {
    run::<OneWay<true>>(Xdp::new(&ctx)) as u32
}

/// The same: in a frame that is addressed to the real.
#[xdp]
fn balancer_xdp_l2(ctx: XdpContext) -> u32 {
    run::<OneWay<false>>(Xdp::new(&ctx)) as u32
}

/// By a tunnel, or else on the link.
struct OneWay<const TUNNEL: bool>;

impl<const TUNNEL: bool> Program for OneWay<TUNNEL> {
    type Context = Xdp;
    const DIRECTION: u8 = direction::FORWARD;
    #[inline(always)]
    fn concerns(_xdp: Xdp, [_, to]: [[u8; 2]; 2]) -> bool {
        maps::port_used(to, PortUse::Vip)
    }
    #[inline(always)]
    fn end(reason: Reason, verdict: i32) -> i32 {
        maps::count_reason(reason);
        verdict
    }
    #[inline(always)]
    fn send_back(xdp: Xdp) -> Result<i32, Refused> {
        xdp.send_back(false)
    }
}

impl<F: Steps<Xdp, true> + Read + Outer, const TUNNEL: bool> Walk<F> for OneWay<TUNNEL> {
    #[inline(always)]
    fn walk(xdp: Xdp, packet: &mut Packet<F>) -> Reason {
        if !maps::port_used(F::dst(&packet.key).port, PortUse::Vip) {
            return Reason::NonVip;
        }
        // Options and extension headers are in nobody's way: nothing behind them is changed.
        if packet.fragment || !xdp.holds(packet.end) || packet.place.ip != ETHERNET_LEN {
            return Reason::LeftToTc;
        }
        let reason = dsr::walk::<F>(xdp, packet, TUNNEL);
        log::told(packet, reason)
    }

    #[inline(always)]
    fn forwarded(_xdp: Xdp, packet: &Packet<F>, reason: Reason) -> i32 {
        Self::end(reason, packet.onward.get().into())
    }
}
