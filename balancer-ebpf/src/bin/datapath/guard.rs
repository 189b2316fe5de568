//! The guard: no CPU records more flows a second than it is allowed.
//!
//! Whoever would record one asks before the route is looked up; what is recorded is taken off
//! afterwards. So what comes to nothing (a refused source, a slot without a real, a packet that is
//! left to TC) takes nothing away from others.

use balancer_ebpf::guard::{VIP_COST, cost, has_room, used};

use crate::maps;

/// Whether no flow to this VIP may be recorded now. Not inlined: what it needs of the stack must
/// not stand below what follows.
#[inline(never)]
pub(crate) fn refuses(vip: u32) -> bool {
    let limit = maps::new_flows_limit();
    if limit == 0 {
        return false;
    }
    // Neither is missing: the map has an element for each VIP.
    let Some(all) = maps::new_flows(0) else { return false };
    let Some(own) = maps::new_flows(vip) else { return false };
    let (now, hz) = (maps::jiffies(), maps::hz());
    // SAFETY: this CPU's own elements; programs on one CPU do not interrupt each other here.
    unsafe {
        let of_all = used((*all).used, (*all).at, now, limit, hz);
        let of_own = used((*own).used, (*own).at, now, limit, hz);
        let refuses = !has_room(of_all, cost(hz, 1), limit, hz)
            || !has_room(of_own, cost(hz, VIP_COST), limit, hz);
        if !refuses {
            ((*all).used, (*all).at, (*all).vip) = (of_all, now, vip);
            ((*own).used, (*own).at) = (of_own, now);
        }
        refuses
    }
}

/// The flow that [`refuses`] was asked about last is recorded.
#[inline(never)]
pub(crate) fn spend() {
    let Some(all) = maps::new_flows(0) else { return };
    let hz = maps::hz();
    // SAFETY: as in `refuses`.
    unsafe {
        let vip = core::mem::replace(&mut (*all).vip, 0);
        // Nobody was asked: there is no limit.
        if vip == 0 {
            return;
        }
        (*all).used += cost(hz, 1);
        if let Some(own) = maps::new_flows(vip) {
            (*own).used += cost(hz, VIP_COST);
        }
    }
}
