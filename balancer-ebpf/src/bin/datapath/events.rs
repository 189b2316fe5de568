//! Telling a tracer of new flows and of refused packets.
//!
//! Both are told of after the walk, off the path of known flows: there the stack is shallow, and
//! a packet that is forwarded by its entry alone does not even ask whether somebody listens.

use balancer_ebpf::{
    abi::{FlowState, direction},
    flow::Family,
    reason::Reason,
};

use crate::{
    apart::Parts,
    context::Context,
    maps::{self, Epoch, Maps, Stage},
    parse::Packet,
    route,
};

/// Tells of a packet that no entry spoke for, if it was the first of a flow; returns the reason.
#[inline(always)]
pub(crate) fn begun<C: Context, F: Parts<C>, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    reason: Reason,
) -> Reason {
    if RECORD && reason.begins_flow() && maps::traced() {
        F::tell(ctx, packet, reason);
    }
    reason
}

/// Tells of a packet that was dropped or answered.
#[inline(always)]
pub(crate) fn refused<C: Context, F: Parts<C>>(ctx: C, packet: &Packet<F>, reason: Reason) {
    if maps::traced() {
        F::tell(ctx, packet, reason);
    }
}

/// Tells of a packet, if the tracer asked for its kind and the limit allows. The event is written
/// where it will be read: the stack has no room for it.
#[inline(always)]
pub(crate) fn tell<C: Context, F: Maps>(ctx: C, packet: &Packet<F>, reason: Reason) {
    let Some(leave) = maps::leave(reason) else { return };
    let epoch = Epoch::read();
    let way = F::direction(&packet.key);
    let (vip, class, route) =
        if way == direction::FORWARD { route::ids(epoch, packet) } else { (0, 0, 0) };
    let key = F::own_key(packet);
    let entry = match F::find(Stage::HalfOpen, &key) {
        Some(entry) => Some(entry),
        None => F::find(Stage::Open, &key),
    };
    let flow = entry.map_or(FlowState::default(), |entry| entry.state_copy());
    let Some(mut room) = maps::room(&leave) else { return };
    let event = room.as_mut_ptr();
    let (src, dst) = (F::src(&packet.key), F::dst(&packet.key));
    // SAFETY: memory for a whole event, which is ours until it is submitted; field by field,
    // because a whole one would be made on the stack.
    unsafe {
        (&raw mut (*event).time_ns).write(leave.now_ns);
        (&raw mut (*event).reason).write(reason as u32);
        (&raw mut (*event).sample).write(leave.sample);
        (&raw mut (*event).epoch).write(epoch.number());
        (&raw mut (*event).vip).write(vip);
        (&raw mut (*event).class).write(class);
        (&raw mut (*event).route).write(route);
        (&raw mut (*event).real).write(flow.real);
        (&raw mut (*event).generation).write(flow.generation);
        (&raw mut (*event).counter).write(flow.counter);
        (&raw mut (*event).ifindex).write(ctx.ifindex());
        address::<F>(&raw mut (*event).src, &src.addr);
        address::<F>(&raw mut (*event).dst, &dst.addr);
        (&raw mut (*event).sport).write(src.port);
        (&raw mut (*event).dport).write(dst.port);
        (&raw mut (*event).client_port).write(flow.client_port);
        (&raw mut (*event).family).write(F::NUMBER);
        (&raw mut (*event).direction).write(way);
        (&raw mut (*event).proto).write(F::proto(&packet.key));
        (&raw mut (*event).zero).write([0; 7]);
    }
    room.submit(0);
}

/// Writes an address, word by word.
///
/// # Safety
/// `to` is writable and aligned to 4 bytes.
#[inline(always)]
unsafe fn address<F: Family>(to: *mut [u8; 16], addr: &F::Addr) {
    let words = F::words(addr);
    let mut i = 0;
    while i < 4 {
        let word = if i < words.len() { u32::from_ne_bytes(words[i]) } else { 0 };
        // SAFETY: as the caller states; the fourth word ends the address.
        unsafe { to.cast::<u32>().add(i).write(word) };
        i += 1;
    }
}
