//! The eBPF object: TC and XDP programs around one walk. On the host this is an empty program, so
//! that lints see the code.
//!
//! `docs/datapath.md` tells the walk of a packet; `balancer_ebpf` has all that can be decided
//! without a kernel; `maps` alone touches maps, `context` alone touches packets.
//!
//! A function that is not inlined takes and returns plain values only: LLVM describes enums with
//! data (`Option`, `Result`) in a way that the kernel's BTF check refuses.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unstable_features, reason = "inline assembly for BPF is unstable")
)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod apart;
mod atomic;
mod cleared;
mod context;
mod dsr;
mod edge;
mod egress;
mod events;
mod fib;
mod fragments;
mod guard;
mod hop;
mod icmp;
mod ingress;
mod log;
mod maps;
mod onward;
mod open;
mod outer;
mod parse;
mod proxy;
mod record;
mod route;
mod snat;
mod stray;

use core::mem::MaybeUninit;

use aya_ebpf::{macros::classifier, programs::TcContext};
use balancer_ebpf::{
    abi::{PortUse, UDP, direction},
    flow::{V4, V6},
    packet::Next,
    reason::{Fate, Reason},
};

use apart::{Odd, Parts, Steps};
use context::{Context, Refused, Skb};
use parse::{Packet, Read};

/// What comes in: VIP → real, and replies that the stack does not route.
#[classifier]
fn balancer_in(ctx: TcContext) -> i32 {
    run::<Ingress>(Skb::new(&ctx))
}

/// What goes out: real → VIP, and VIP → real for connections that the node itself opens.
#[classifier]
fn balancer_out(ctx: TcContext) -> i32 {
    run::<Egress>(Skb::new(&ctx))
}

/// What [`balancer_in`] would do. For `BPF_PROG_TEST_RUN`: the return value is the reason.
#[classifier]
fn balancer_ask(ctx: TcContext) -> i32 {
    run::<Ask>(Skb::new(&ctx))
}

/// What differs between the programs.
trait Program {
    /// The packets as they come.
    type Context: Context;
    /// Which way most packets go.
    const DIRECTION: u8;
    /// Whether an ordinary packet with these ports, source first, can be ours.
    fn concerns(ctx: Self::Context, ports: [[u8; 2]; 2]) -> bool;
    /// The program's return value.
    fn end(reason: Reason, verdict: i32) -> i32;
    /// Sends an answer back.
    fn send_back(ctx: Self::Context) -> Result<i32, Refused>;
    /// Whether the frame is addressed to this machine.
    #[inline(always)]
    fn is_addressed(_ctx: Self::Context) -> bool {
        true
    }
}

/// What a program does with packets of one family.
trait Walk<F: Parts<Self::Context>>: Program {
    /// Decides on a packet of TCP or UDP, and translates it if it is to be forwarded.
    fn walk(ctx: Self::Context, packet: &mut Packet<F>) -> Reason;
    /// Ends the walk of a packet that is forwarded, or was turned into an answer.
    #[inline(always)]
    fn forwarded(_ctx: Self::Context, _packet: &Packet<F>, reason: Reason) -> i32 {
        Self::end(reason, Self::Context::PASS)
    }
    /// Decides on a packet without ports to decide by; `none` is what its headers said. `verdict`: what
    /// the program returns where the packet is to go on.
    #[inline(always)]
    fn odd(_ctx: Self::Context, _at: u32, none: Reason, _verdict: &mut i32) -> Reason {
        none
    }
    /// Has later fragments follow this one, which was sent on; false: they could not.
    #[inline(always)]
    fn follow(_ctx: Self::Context, _packet: &Packet<F>) -> bool {
        true
    }
    /// Tells of a packet that was dropped or answered.
    #[inline(always)]
    fn tell(ctx: Self::Context, packet: &Packet<F>, reason: Reason) {
        events::refused(ctx, packet, reason);
    }
}

struct Ingress;
struct Egress;
struct Ask;

impl Program for Ingress {
    type Context = Skb;
    const DIRECTION: u8 = direction::FORWARD;
    #[inline(always)]
    fn concerns(_skb: Skb, [from, to]: [[u8; 2]; 2]) -> bool {
        maps::port_used(to, PortUse::Vip) || maps::answers_inward(from)
    }
    #[inline(always)]
    fn end(reason: Reason, verdict: i32) -> i32 {
        maps::count_reason(reason);
        verdict
    }
    #[inline(always)]
    fn send_back(skb: Skb) -> Result<i32, Refused> {
        skb.send_back(false)
    }
    #[inline(always)]
    fn is_addressed(skb: Skb) -> bool {
        skb.is_addressed()
    }
}

impl<F: Steps<Skb, true> + Odd> Walk<F> for Ingress {
    #[inline(always)]
    fn walk(skb: Skb, packet: &mut Packet<F>) -> Reason {
        let mut reason = ingress::ingress::<Skb, F, true>(skb, packet);
        if matches!(reason, Reason::NonVip | Reason::UnknownDestination)
            && maps::answers_inward(F::src(&packet.key).port)
        {
            reason = inward(skb, packet, reason);
        }
        log::told(packet, reason)
    }
    #[inline(always)]
    fn forwarded(skb: Skb, packet: &Packet<F>, reason: Reason) -> i32 {
        if packet.onward.get() == 0 {
            return Self::end(reason, Skb::PASS);
        }
        onward::<Self, F>(skb, packet, reason, false)
    }
    #[inline(always)]
    fn odd(skb: Skb, at: u32, none: Reason, verdict: &mut i32) -> Reason {
        odd::<F>(skb, at, none, false, verdict)
    }
    #[inline(always)]
    fn follow(skb: Skb, packet: &Packet<F>) -> bool {
        onward::may_follow(packet, false) && F::follow(skb, packet, false)
    }
}

/// A packet that leaves and may be a reply. Not inlined: what it needs of the stack must not stand
/// above the walk of packets to a VIP.
#[inline(never)]
fn outward<F: Parts<Skb>>(skb: Skb, packet: &Packet<F>) -> Reason {
    egress::egress(skb, packet)
}

/// A packet that comes in and is for no VIP, but may be a reply. Not inlined: as [`outward`].
#[inline(never)]
fn inward<F: Parts<Skb>>(skb: Skb, packet: &mut Packet<F>, reason: Reason) -> Reason {
    F::set_direction(&mut packet.key, direction::REPLY);
    match egress::reply::<Skb, F, true>(skb, packet) {
        Reason::UnknownReply if reason == Reason::UnknownDestination => {
            F::set_direction(&mut packet.key, direction::FORWARD);
            reason
        }
        told => told,
    }
}

impl Program for Egress {
    type Context = Skb;
    const DIRECTION: u8 = direction::REPLY;
    #[inline(always)]
    fn concerns(skb: Skb, [from, to]: [[u8; 2]; 2]) -> bool {
        maps::port_used(from, PortUse::Real)
            || skb.is_from_host() && maps::port_used(to, PortUse::Vip)
    }
    #[inline(always)]
    fn end(reason: Reason, verdict: i32) -> i32 {
        maps::count_reason(reason);
        verdict
    }
    #[inline(always)]
    fn send_back(skb: Skb) -> Result<i32, Refused> {
        skb.send_back(true)
    }
}

impl<F: Steps<Skb, true> + Odd> Walk<F> for Egress {
    #[inline(always)]
    fn walk(skb: Skb, packet: &mut Packet<F>) -> Reason {
        let mut reason = outward(skb, packet);
        if matches!(reason, Reason::NonVip | Reason::UnknownReply) && skb.is_from_host() {
            if maps::is_proxys(skb.mark()) {
                reason = Reason::Proxied;
            } else if maps::port_used(F::dst(&packet.key).port, PortUse::Vip) {
                F::set_direction(&mut packet.key, direction::FORWARD);
                packet.host = true;
                reason = ingress::ingress::<Skb, F, true>(skb, packet);
            }
        }
        log::told(packet, reason)
    }
    #[inline(always)]
    fn forwarded(skb: Skb, packet: &Packet<F>, reason: Reason) -> i32 {
        if packet.onward.get() == 0 {
            return Self::end(reason, Skb::PASS);
        }
        onward::<Self, F>(skb, packet, reason, true)
    }
    #[inline(always)]
    fn odd(skb: Skb, at: u32, none: Reason, verdict: &mut i32) -> Reason {
        odd::<F>(skb, at, none, true, verdict)
    }
    #[inline(always)]
    fn follow(skb: Skb, packet: &Packet<F>) -> bool {
        onward::may_follow(packet, true) && F::follow(skb, packet, true)
    }
}

/// A packet without ports to decide by, where it comes in or is about to leave.
#[inline(always)]
fn odd<F: Odd>(skb: Skb, at: u32, none: Reason, leaving: bool, verdict: &mut i32) -> Reason {
    match none {
        Reason::FragmentTail => F::later(skb, at, leaving),
        Reason::NotTcp => {
            let mut send = 0;
            let reason = F::icmp(skb, at, leaving, &mut send);
            if send != 0 {
                *verdict = icmp::send::<F>(skb, at, send);
                if *verdict == Skb::DROP {
                    return Reason::RewriteFailed;
                }
            }
            reason
        }
        none => none,
    }
}

impl Program for Ask {
    type Context = Skb;
    const DIRECTION: u8 = direction::FORWARD;
    #[inline(always)]
    fn concerns(_skb: Skb, [_, port]: [[u8; 2]; 2]) -> bool {
        maps::port_used(port, PortUse::Vip)
    }
    #[inline(always)]
    fn end(reason: Reason, _verdict: i32) -> i32 {
        reason as i32
    }
    #[inline(always)]
    fn send_back(_skb: Skb) -> Result<i32, Refused> {
        Ok(Skb::PASS)
    }
}

impl<F: Steps<Skb, false>> Walk<F> for Ask {
    #[inline(always)]
    fn walk(skb: Skb, packet: &mut Packet<F>) -> Reason {
        ingress::ingress::<Skb, F, false>(skb, packet)
    }
    #[inline(always)]
    fn tell(_skb: Skb, _packet: &Packet<F>, _reason: Reason) {}
}

#[inline(always)]
fn run<W: Walk<V4> + Walk<V6>>(ctx: W::Context) -> i32
where
    V4: Parts<W::Context>,
    V6: Parts<W::Context>,
{
    // Most packets of a node are none of ours: they must not pay for a walk.
    if let Some(ports) = ctx.plain_ports()
        && !W::concerns(ctx, ports)
    {
        return W::end(Reason::NonVip, W::Context::PASS);
    }
    if !W::is_addressed(ctx) {
        return W::end(Reason::OtherHost, W::Context::PASS);
    }
    match parse::linear(ctx, || parse::ethernet(ctx)) {
        Ok((Next::Ipv4, at)) => walked::<W, V4>(ctx, at),
        Ok((Next::Ipv6, at)) => walked::<W, V6>(ctx, at),
        Ok((Next::Vlan | Next::Other, _)) => W::end(Reason::NotTcp, W::Context::PASS),
        Err(reason) => W::end(reason, W::Context::PASS),
    }
}

/// What [`family`] says instead of a verdict, with the number of a reason, of a packet that it has
/// not decided on. No verdict is as large.
const PORTLESS: i32 = 1 << 16;

#[inline(always)]
fn walked<W: Walk<F>, F: Parts<W::Context> + Read>(ctx: W::Context, at: u32) -> i32 {
    let verdict = family::<W, F>(ctx, at);
    if verdict < PORTLESS { verdict } else { portless::<W, F>(ctx, at, verdict - PORTLESS) }
}

/// Not inlined: the families' stack frames would add up.
#[inline(never)]
fn family<W: Walk<F>, F: Parts<W::Context> + Read>(ctx: W::Context, at: u32) -> i32 {
    let mut packet = MaybeUninit::uninit();
    let none = parse::tcp::<W::Context, F>(ctx, at, W::DIRECTION, &mut packet);
    if none != Reason::NonVip {
        return PORTLESS + none as i32;
    }
    // SAFETY: `tcp` has written the packet when nothing speaks against it.
    let packet = unsafe { packet.assume_init_mut() };
    let reason = W::walk(ctx, packet);
    match reason.fate() {
        Fate::Pass => W::end(reason, W::Context::PASS),
        Fate::Forward if packet.fragment && !W::follow(ctx, packet) => {
            refuse::<W, F>(ctx, packet, Reason::Fragment, W::Context::DROP)
        }
        Fate::Forward | Fate::Answer => W::forwarded(ctx, packet, reason),
        Fate::Drop => refuse::<W, F>(ctx, packet, reason, W::Context::DROP),
        // Nothing says to a sender of datagrams what a reset says.
        Fate::Reset if F::proto(&packet.key) == UDP => {
            refuse::<W, F>(ctx, packet, reason, W::Context::DROP)
        }
        Fate::Reset => {
            let verdict = answer::<W, F>(ctx, packet);
            let failed = verdict == W::Context::DROP;
            let reason = if failed { Reason::RewriteFailed } else { reason };
            refuse::<W, F>(ctx, packet, reason, verdict)
        }
    }
}

/// The way of a packet without ports to decide by, or not to be understood; `none`: the number of
/// what its headers said. Not inlined: few are.
#[inline(never)]
fn portless<W: Walk<F>, F: Parts<W::Context>>(ctx: W::Context, at: u32, none: i32) -> i32 {
    let none = match none {
        none if none == Reason::FragmentTail as i32 => Reason::FragmentTail,
        none if none == Reason::NotTcp as i32 => Reason::NotTcp,
        _ => Reason::Malformed,
    };
    let mut verdict = W::Context::PASS;
    let reason = W::odd(ctx, at, none, &mut verdict);
    match reason.fate() {
        Fate::Pass => W::end(reason, W::Context::PASS),
        Fate::Forward => W::end(reason, verdict),
        Fate::Answer => match W::send_back(ctx) {
            Ok(verdict) => W::end(reason, verdict),
            Err(Refused) => W::end(Reason::RewriteFailed, W::Context::DROP),
        },
        Fate::Drop | Fate::Reset => W::end(reason, W::Context::DROP),
    }
}

/// Sends on what the stack does not simply route. Not inlined: as [`refuse`].
#[inline(never)]
fn onward<W: Walk<F> + Program<Context = Skb>, F: Parts<Skb> + Odd>(
    skb: Skb,
    packet: &Packet<F>,
    reason: Reason,
    leaving: bool,
) -> i32 {
    if !leaving && onward::is_forged(packet) {
        return refuse::<W, F>(skb, packet, Reason::SpoofedSource, Skb::DROP);
    }
    match onward::onward(skb, packet, reason, leaving) {
        Ok(verdict) => W::end(reason, verdict),
        Err(reason) => refuse::<W, F>(skb, packet, reason, Skb::DROP),
    }
}

/// Ends the walk of a packet that was dropped or answered. Not inlined: what it keeps in registers
/// would be saved and restored for every packet.
#[inline(never)]
fn refuse<W: Walk<F>, F: Parts<W::Context>>(
    ctx: W::Context,
    packet: &Packet<F>,
    reason: Reason,
    verdict: i32,
) -> i32 {
    W::tell(ctx, packet, reason);
    W::end(reason, verdict)
}

/// Answers with a reset; the verdict, `DROP` where the kernel refused.
#[inline(always)]
fn answer<W: Walk<F>, F: Parts<W::Context>>(ctx: W::Context, packet: &Packet<F>) -> i32 {
    match F::answer(ctx, packet).and_then(|()| W::send_back(ctx)) {
        Ok(verdict) => verdict,
        Err(Refused) => W::Context::DROP,
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
