//! Source translation: the real sees an address and a port of the node as its client's, so that its
//! answers come here whatever its routes.
//!
//! The walk translates one end of the connection, as of any flow. The other end is translated here,
//! after the walk, where the stack is shallow again. The kernel's stack does not see such packets: it
//! drops what comes in from an address of its own.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::TC_ACT_REDIRECT;
use balancer_ebpf::{abi::direction, flow::Family, packet::ETHERNET_LEN, reason::Reason};

use crate::{
    context::{Context, Refused, Side, Skb, Translate, straight},
    fib::Fib,
    maps::{self, Entry, Maps, Stage},
    outer::{Outer, tell_sender},
    parse::Packet,
    record::Candidate,
};

/// Whether flows that begin here are such.
#[inline(always)]
pub(crate) fn is_asked<C: Context>(ctx: C) -> bool {
    let (_, count) = maps::snat_ports();
    count != 0 && maps::asks_for_snat(ctx.ifindex())
}

/// Finds the address that the candidate will see: the node's at the interface by which packets leave
/// to it; 0: there is none. Not inlined, for the stack's sake.
#[inline(never)]
pub(crate) fn address<C: Context, F: Family>(ctx: C, candidate: &mut Candidate<F>) -> u32 {
    let mut room = MaybeUninit::uninit();
    let fib = Fib::of::<F>(&mut room, ctx.ifindex());
    fib.to::<F>(&candidate.end.addr);
    let mut source = [0; 4];
    if !fib.ask(ctx.into_raw()).leads_on() || !maps::own_address::<F>(fib.interface, &mut source) {
        return 0;
    }
    F::set_words(&mut candidate.client, &source);
    1
}

/// The entry of a packet that the walk has just gone by.
#[inline(always)]
fn entry<F: Maps>(packet: &Packet<F>) -> Result<Entry<F>, Refused> {
    let key = F::own_key(packet);
    match F::find(Stage::Open, &key) {
        Some(entry) => Ok(entry),
        None => F::find(Stage::HalfOpen, &key).ok_or(Refused),
    }
}

/// Translates the other end of the connection; 0: done.
#[inline(never)]
pub(crate) fn other_end<C: Context, F: Maps + Translate>(ctx: C, packet: &Packet<F>) -> u32 {
    u32::from(translated(ctx, packet).is_err())
}

#[inline(always)]
fn translated<C: Context, F: Maps + Translate>(ctx: C, packet: &Packet<F>) -> Result<(), Refused> {
    let client = F::client(entry(packet)?.view());
    let (src, dst) = F::addresses(&packet.key);
    // They are what they are to be already.
    let [ports]: [u32; 1] = ctx.words(packet.place.tcp).ok_or(Refused)?;
    let (place, ports) = ((&packet.place, F::proto(&packet.key)), [ports; 2]);
    if F::direction(&packet.key) == direction::REPLY {
        ctx.translate::<F>(place, Side::Destination, dst, client, ports)
    } else {
        ctx.translate::<F>(place, Side::Source, src, client, ports)
    }
}

/// Sends a packet of such a flow on, past the stack; the verdict.
///
/// # Errors
/// There is no way for it.
#[inline(always)]
pub(crate) fn onward<F: Maps + Outer>(
    skb: Skb,
    packet: &Packet<F>,
    reason: Reason,
) -> Result<i32, Refused> {
    if reason == Reason::TooBig {
        return if refuse_length(skb, packet) == 0 { skb.send_back(false) } else { Err(Refused) };
    }
    if other_end(skb, packet) != 0 || straight::go_on::<F>(skb, &packet.place) == 0 {
        return Err(Refused);
    }
    Ok(TC_ACT_REDIRECT)
}

/// Turns a packet into the error that tells its sender which length fits; 0: done.
#[inline(never)]
fn refuse_length<F: Maps + Outer>(skb: Skb, packet: &Packet<F>) -> u32 {
    let Ok(entry) = entry(packet) else { return 1 };
    let mtu = if F::direction(&packet.key) == direction::REPLY {
        straight::mtu::<F>(skb, &packet.place, F::client(entry.view()))
    } else {
        let Some(real) = maps::real(entry.state_copy().real) else { return 1 };
        straight::mtu::<F>(skb, &packet.place, &real.end::<F>().addr)
    };
    if mtu == 0 || skb.pull(ETHERNET_LEN + F::QUOTED).is_err() {
        return 1;
    }
    tell_sender(skb, packet, mtu)
}
