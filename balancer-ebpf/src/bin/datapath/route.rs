//! From a new connection to the table that decides it, and into that table.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated as helpers;
use balancer_ebpf::{
    abi::{RunWord, TCP, Table, TargetWord, VipEntry, pick, route_flags, route_kind, vip_flags},
    flow::{End, Family},
    hash,
    packet::tcp_flags::RST,
    reason::Reason,
};

use crate::{
    apart,
    context::Context,
    guard,
    maps::{self, Epoch, Maps, RouteHead},
    parse::Packet,
};

/// A route that exists: its kind is `TABLE`.
pub(crate) struct Route {
    pub(crate) entry: RouteHead,
    pub(crate) id: u32,
    pub(crate) epoch: Epoch,
}

/// VIP, then source, then class, then route. All are read of one epoch.
///
/// # Errors
/// The packet is for no VIP, its source lies, or it has no route.
#[inline(always)]
pub(crate) fn find<C: Context, F: Maps, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
) -> Result<Route, Reason> {
    let mut route = MaybeUninit::uninit();
    match look_up::<C, F, RECORD>(ctx, packet, &mut route) {
        // SAFETY: `look_up` has written the route when it says so.
        FOUND => Ok(unsafe { route.assume_init() }),
        reason => Err(reason),
    }
}

/// What [`look_up`] says when nothing speaks against the packet.
const FOUND: Reason = Reason::NewFlow;

/// [`find`], out of line: the keys that it asks with are off the stack when what follows runs.
#[inline(never)]
fn look_up<C: Context, F: Maps, const RECORD: bool>(
    ctx: C,
    packet: &Packet<F>,
    found: &mut MaybeUninit<Route>,
) -> Reason {
    let epoch = Epoch::read();
    let Some((vip_id, vip)) = vip(epoch, packet) else { return Reason::UnknownDestination };
    let (src, dst) = (F::src(&packet.key), F::dst(&packet.key));
    if F::is_martian(&src.addr) || F::same(&End { port: dst.port, ..src }, &dst) {
        return Reason::MartianSource;
    }
    // Nothing of the proxy's connections is recorded, so the guard is asked later.
    let proxied = vip.flags & vip_flags::PROXIED != 0 && F::proto(&packet.key) == TCP;
    if proxied && !packet.host {
        match ctx.held::<F, RECORD>(packet) {
            Ok(false) => {}
            Ok(true) => return Reason::Proxied,
            Err(reason) => return reason,
        }
    }
    // A RST never records anything, and nobody listens for it.
    let begins = packet.flags & RST == 0;
    if RECORD && begins && !proxied && guard::refuses(vip_id) {
        return Reason::NewFlowLimit;
    }
    let mut class = 0;
    if let Some(id) = F::source_id(&F::src(&packet.key).addr)
        && let Some(source) = epoch.source(id)
    {
        // Who asks without recording names the source, and what the node sends leaves by any
        // interface: it says nothing about the source.
        let known = RECORD && !packet.host;
        if known && source.ifindex != 0 && source.ifindex != ctx.ifindex() {
            return Reason::SpoofedSource;
        }
        class = source.class;
    }
    let route = of_class(epoch, class, vip_id, vip)
        .or_else(|| epoch.route(vip.route).map(|entry| Route { entry, id: vip.route, epoch }));
    let Some(route) = route else { return Reason::UnknownDestination };
    if proxied && begins {
        if route.entry.flags & route_flags::PROXY != 0 {
            match handed::<C, F, RECORD>(ctx, packet) {
                FOUND => {}
                reason => return reason,
            }
        }
        if RECORD && guard::refuses(vip_id) {
            return Reason::NewFlowLimit;
        }
    }
    match route.entry.kind {
        route_kind::TABLE => {
            found.write(route);
            FOUND
        }
        route_kind::DENY => Reason::Denied,
        // A default route that inherits, or is not in the epoch that names it, is none.
        _ => Reason::UnknownDestination,
    }
}

/// Hands a packet to the proxy; [`FOUND`]: the route's table decides.
#[inline(always)]
fn handed<C: Context, F: Maps, const RECORD: bool>(ctx: C, packet: &Packet<F>) -> Reason {
    if !packet.host {
        match ctx.listens::<F, RECORD>(packet) {
            Ok(false) => {}
            Ok(true) => return Reason::ToProxy,
            Err(reason) => return reason,
        }
    }
    if maps::l7_reset() { Reason::ProxyDown } else { FOUND }
}

/// The ids of VIP, class and route of a packet to a VIP; 0 for what there is not.
#[inline(always)]
pub(crate) fn ids<F: Maps>(epoch: Epoch, packet: &Packet<F>) -> (u32, u32, u32) {
    let source = F::source_id(&F::src(&packet.key).addr).and_then(|id| epoch.source(id));
    let class = source.map_or(0, |source| source.class);
    let Some((id, entry)) = vip(epoch, packet) else { return (0, class, 0) };
    let own = of_class(epoch, class, id, entry).map_or(entry.route, |route| route.id);
    (id, class, own)
}

/// The VIP that a packet is for, in this epoch.
#[inline(always)]
pub(crate) fn vip<F: Maps>(epoch: Epoch, packet: &Packet<F>) -> Option<(u32, VipEntry)> {
    let id = F::vip_id(&F::vip_key(F::proto(&packet.key), F::dst(&packet.key)))?;
    let entry = epoch.vip(id)?;
    (entry.route != 0).then_some((id, entry))
}

/// The route of a class's own, if it has one in this epoch.
#[inline(always)]
fn of_class(epoch: Epoch, class: u32, vip_id: u32, vip: VipEntry) -> Option<Route> {
    if class == 0 || vip.flags & vip_flags::CLASSES_AGREE != 0 {
        return None;
    }
    let id = maps::class_route(class, vip_id)?;
    let entry = epoch.route(id)?;
    // The dictionary may already, or still, have what this epoch does not.
    (entry.kind != route_kind::INHERIT && entry.kind != route_kind::NONE).then_some(Route {
        entry,
        id,
        epoch,
    })
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper takes nothing.
    unsafe { helpers::bpf_get_prandom_u32() }
}

/// What a slot stands for; `None`: an arena that does not have the table.
#[inline(always)]
pub(crate) fn target(table: &Table, slot: u32) -> Option<TargetWord> {
    let (word, shift) = table.slot_word(slot);
    let ordinal = (maps::arena(word)? >> shift) as u32 & 0xffff;
    Some(TargetWord::unpack(maps::arena(table.target_word(ordinal))?))
}

/// The counter of a table's target; 0: not counted.
#[inline(always)]
pub(crate) fn counter(first: u32, target: TargetWord) -> u32 {
    if first == 0 { 0 } else { first.wrapping_add(target.backend) }
}

/// The slot that a flow's hash falls on.
#[inline(always)]
pub(crate) fn hashed<F: Family>(route: &RouteHead, table: &Table, key: &F::Key) -> u32 {
    hash::slot(F::hash(key, route.flags & route_flags::HASH_SOURCE_ONLY != 0), table.slots)
}

/// The slot for a new flow. With `advance`, a turn that is taken counts.
#[inline(always)]
pub(crate) fn slot<F: Family>(route: &Route, key: &F::Key, advance: bool) -> u32 {
    let table = &route.entry.table;
    match route.entry.pick {
        pick::RANDOM => hash::slot(random(), table.slots),
        pick::ROUND_ROBIN => maps::turn(route.id, advance).checked_rem(table.slots).unwrap_or(0),
        pick::LEAST_REQUEST => apart::least_busy(&raw const route.entry),
        _ => hashed::<F>(&route.entry, table, key),
    }
}

/// The search for the least busy of some samples.
struct Search {
    table: Table,
    run: RunWord,
    slot: u32,
    active: u64,
}

/// A random slot fixes the backend, so that shares hold; the other samples come from that
/// backend's run, and of all the real with fewest live connections is taken.
#[inline(always)]
pub(crate) fn least_busy(route: &RouteHead) -> u32 {
    let table = route.table;
    let slot = hash::slot(random(), table.slots);
    let Some(first) = target(&table, slot) else { return slot };
    let Some(run) = maps::arena(table.run_word(first.backend)) else { return slot };
    let mut search =
        Search { table, run: RunWord::unpack(run), slot, active: maps::active(first.real) };
    // One verification of the body instead of one a round.
    let body: extern "C" fn(u32, *mut Search) -> i64 = sample;
    let rounds = u32::from(route.choices).saturating_sub(1);
    // SAFETY: `sample` has the signature that the helper calls, and `search` outlives the call.
    // An error is impossible with so few rounds, and would leave the first sample.
    let _rounds_done = unsafe {
        helpers::bpf_loop(rounds, body as *mut core::ffi::c_void, (&raw mut search).cast(), 0)
    };
    search.slot
}

/// One more sample. Returns 0: go on.
extern "C" fn sample(_round: u32, search: *mut Search) -> i64 {
    // SAFETY: the search that `least_busy` passes through the helper.
    let search = unsafe { &mut *search };
    let slot = search.run.first.wrapping_add(hash::slot(random(), search.run.slots));
    if search.run.slots != 0
        && let Some(found) = target(&search.table, slot)
    {
        let active = maps::active(found.real);
        if active < search.active {
            search.active = active;
            search.slot = slot;
        }
    }
    0
}
