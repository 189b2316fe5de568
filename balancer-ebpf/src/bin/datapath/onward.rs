//! What is left to do with a packet that was translated, of a flow that the stack does not simply
//! route from here. All of it is after the walk, where the stack is shallow again.

use aya_ebpf::bindings::TC_ACT_REDIRECT;
use balancer_ebpf::{
    abi::{direction, forwarding},
    flow::Family,
    reason::Reason,
};

use crate::{
    apart::Odd,
    context::{Context as _, Refused, Side, Skb, Translate, straight},
    dsr,
    maps::Maps,
    outer::Outer,
    parse::Packet,
};

/// Sends the packet on; the verdict. `leaving`: it was about to leave by this interface.
///
/// # Errors
/// It cannot be, for this reason.
#[inline(always)]
pub(crate) fn onward<F: Odd>(
    skb: Skb,
    packet: &Packet<F>,
    reason: Reason,
    leaving: bool,
) -> Result<i32, Reason> {
    if packet.onward.get() & forwarding::SNAT != 0 {
        return F::onward(skb, packet, reason).map_err(|Refused| Reason::SnatFailed);
    }
    by_way(skb, packet, leaving).map_err(|Refused| Reason::RewriteFailed)
}

#[inline(always)]
fn by_way<F: Maps + Outer>(skb: Skb, packet: &Packet<F>, leaving: bool) -> Result<i32, Refused> {
    let how = packet.onward.get();
    if how & forwarding::DSR != 0 {
        return dsr::onward(skb, packet, how);
    }
    let reply = F::direction(&packet.key) == direction::REPLY;
    if how & forwarding::HAIRPIN != 0 {
        return turn(skb, packet, reply, leaving);
    }
    if how & forwarding::HOST != 0 {
        skb.note_translated();
        // The stack routed it to the VIP: the real may be elsewhere.
        return Ok(straight::elsewhere::<F>(skb, &packet.place));
    }
    // Whether a reply goes straight had to be known before it was translated.
    let goes = reply || !packet.fragment && skb.goes_straight::<F>(&packet.place);
    Ok(if goes { TC_ACT_REDIRECT } else { Skb::PASS })
}

/// Whether later fragments can take the way of this one: not where it was turned
/// round, had its source translated too, went to a real that answers by itself, or is forged.
#[inline(always)]
pub(crate) fn may_follow<F: Family>(packet: &Packet<F>, leaving: bool) -> bool {
    packet.onward.get() & (forwarding::HAIRPIN | forwarding::SNAT | forwarding::DSR) == 0
        && (leaving || !is_forged(packet))
}

/// Whether a packet that came in claims to be of a connection that the node itself opened: nobody
/// else sends those. (Of their replies the bit is not told.)
#[inline(always)]
pub(crate) fn is_forged<F: Family>(packet: &Packet<F>) -> bool {
    packet.onward.get() & forwarding::HOST != 0
}

/// Turns a packet round whose sender is its receiver: it goes back to where it came from, as if
/// the VIP itself were the other end, in both directions.
#[inline(always)]
fn turn<F: Translate>(
    skb: Skb,
    packet: &Packet<F>,
    reply: bool,
    leaving: bool,
) -> Result<i32, Refused> {
    let (src, dst) = (F::src(&packet.key).addr, F::dst(&packet.key).addr);
    let [ports]: [u32; 1] = skb.words(packet.place.tcp).ok_or(Refused)?;
    let (place, ports) = ((&packet.place, F::proto(&packet.key)), [ports; 2]);
    // The other end is translated already.
    if reply {
        skb.translate::<F>(place, Side::Destination, &dst, &src, ports)?;
    } else {
        skb.translate::<F>(place, Side::Source, &src, &dst, ports)?;
    }
    skb.swap_ethernet()?;
    skb.send_back(leaving)
}
