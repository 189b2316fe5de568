//! What each class's route to each VIP does before and after.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use balancer_ebpf::abi::pick;

use super::{
    BackendChange, Both, Change, RealChange, RouteChange, Side,
    pairs::{Pair, Pairs},
    rules,
    spread::{Spread, moved, slots_per_target},
};
use crate::{
    compile::RouteSpec,
    policy::Tags,
    resolve::{Destination, Route, Vip, VipKey},
};

/// A VIP and the classes of those who dial it.
pub(super) type Dialled = (VipKey, Pair);

/// A route on one side.
#[derive(Clone, Copy)]
struct Found<'a> {
    side: Side<'a>,
    route: &'a Route,
    spec: &'a RouteSpec,
}

/// Id of the route that a class has to a VIP.
pub(super) fn route_id(side: Side<'_>, vip: VipKey, class: u32) -> Option<u32> {
    let vip = side.tables.vips.get(&vip)?;
    let own = side.tables.class_routes.get(&(class, vip.id));
    Some(own.copied().unwrap_or(vip.route))
}

impl<'a> Found<'a> {
    fn new(side: Side<'a>, vip: VipKey, class: u32) -> Option<Self> {
        let spec = side.tables.routes.get(&route_id(side, vip, class)?)?;
        Some(Self { side, route: side.resolved.routes.get(spec.resolved)?, spec })
    }

    fn spread(&self) -> Option<Spread<'a>> {
        self.spec.table.as_deref().map(|table| Spread::new(self.side.tables, table))
    }
}

/// The routes that change, and how many do not.
pub(super) fn changes(
    before: Side<'_>,
    after: Side<'_>,
) -> (BTreeMap<Dialled, RouteChange>, usize) {
    let pairs = Pairs::new(before, after);
    let (mut changed, mut unchanged) = (BTreeMap::new(), 0);
    let keys: BTreeSet<VipKey> =
        before.tables.vips.keys().chain(after.tables.vips.keys()).copied().collect();
    for key in keys {
        let (old, new) = (vip_at(before, key), vip_at(after, key));
        let mut dialled = pairs.with_own(own_classes(before, old), own_classes(after, new));
        dialled.insert((0, 0));
        for pair in dialled {
            let found = (Found::new(before, key, pair.0), Found::new(after, key, pair.1));
            if same(found) {
                unchanged += 1;
                continue;
            }
            let Some(vip) = new.or(old) else { continue };
            let mut change = change(found, vip, pair);
            change.from = pairs.names(pair);
            changed.insert((key, pair), change);
        }
    }
    (changed, unchanged)
}

fn vip_at(side: Side<'_>, key: VipKey) -> Option<&Vip> {
    side.resolved.vips.get(side.tables.vips.get(&key)?.resolved)
}

/// Ids of the classes that have a route of their own to a VIP.
fn own_classes<'a>(side: Side<'a>, vip: Option<&'a Vip>) -> impl Iterator<Item = u32> + 'a {
    // A class's id is that of its sources.
    let classes = vip.into_iter().flat_map(|vip| vip.class_routes.keys());
    classes.filter_map(move |&class| {
        let source = side.resolved.classes.get(class)?.sources.first()?;
        side.tables.sources.get(source).map(|spec| spec.class)
    })
}

/// Equal routes have equal tables: compile is a function of them.
fn same((before, after): (Option<Found<'_>>, Option<Found<'_>>)) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(a), Some(b)) => a.route == b.route && a.spec.deny == b.spec.deny,
        _ => false,
    }
}

fn change(
    (before, after): (Option<Found<'_>>, Option<Found<'_>>),
    vip: &Vip,
    pair: Pair,
) -> RouteChange {
    fn both<'a, T>(
        before: Option<Found<'a>>,
        after: Option<Found<'a>>,
        of: impl Fn(Found<'a>) -> Option<T>,
    ) -> Both<Option<T>> {
        Both { before: before.and_then(&of), after: after.and_then(&of) }
    }
    let spreads = (before.and_then(|f| f.spread()), after.and_then(|f| f.spread()));
    let slots = both(before, after, |f| f.spec.table.as_ref().map(|t| t.slots.len() as u32));
    let by_hash = [before, after].iter().flatten().all(|f| f.spec.pick == pick::HASH);
    RouteChange {
        change: match (before, after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        },
        vip: vip.key.to_string(),
        mesh: vip.destination.mesh().to_owned(),
        service: vip.destination.to_string(),
        class: Both { before: pair.0, after: pair.1 },
        from: Vec::new(),
        policy: both(before, after, |f| f.route.policy.clone()),
        decision: both(before, after, |f| Some(f.route.decision)),
        load_balancer: both(before, after, |f| Some(f.route.load_balancer.name())),
        rung_changes: matches!((slots.before, slots.after), (Some(a), Some(b)) if a != b),
        slots,
        moved: match (&spreads.0, &spreads.1) {
            (Some(old), Some(new)) => Some(moved(old, new, by_hash)),
            _ => None,
        },
        backends: backends(before.zip(spreads.0), after.zip(spreads.1), before, after),
        flows: None,
        http: rules::changes(
            before.and_then(|found| found.route.http.as_deref()),
            after.and_then(|found| found.route.http.as_deref()),
        ),
    }
}

/// What a backend is known by: what it names, tags, and which of several alike.
type Name = (Destination, Tags, usize);

/// A backend on one side, with the slots of its reals.
#[derive(Default)]
struct Part {
    weight: u32,
    state: Option<crate::resolve::BackendState>,
    share: f64,
    reals: BTreeMap<SocketAddr, f64>,
}

fn backends(
    before: Option<(Found<'_>, Spread<'_>)>,
    after: Option<(Found<'_>, Spread<'_>)>,
    old: Option<Found<'_>>,
    new: Option<Found<'_>>,
) -> Vec<BackendChange> {
    let mut old = parts(old, before.as_ref().map(|(_, spread)| spread));
    let new = parts(new, after.as_ref().map(|(_, spread)| spread));
    let mut changes = Vec::new();
    for (name, part) in new {
        let at = old.iter().position(|(other, _)| *other == name);
        let was = at.map(|at| old.remove(at).1);
        changes.push(backend(name, was, Some(part)));
    }
    changes.extend(old.into_iter().map(|(name, part)| backend(name, Some(part), None)));
    changes
}

fn backend(
    (destination, tags, _): Name,
    before: Option<Part>,
    after: Option<Part>,
) -> BackendChange {
    let weight = |part: &Option<Part>| part.as_ref().map(|part| part.weight);
    let state = |part: &Option<Part>| part.as_ref().and_then(|part| part.state);
    let weight = Both { before: weight(&before), after: weight(&after) };
    let state = Both { before: state(&before), after: state(&after) };
    let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let addresses: BTreeSet<SocketAddr> =
        before.reals.keys().chain(after.reals.keys()).copied().collect();
    let of = |part: &Part, address| part.reals.get(address).copied().unwrap_or(0.0);
    let reals = addresses.iter().map(|address| RealChange {
        address: address.to_string(),
        share: Both { before: of(&before, address), after: of(&after, address) },
    });
    BackendChange {
        service: destination.to_string(),
        tags,
        weight,
        state,
        reals: reals.collect(),
        share: Both { before: before.share, after: after.share },
    }
}

/// The backends of a route, in written order.
fn parts(found: Option<Found<'_>>, spread: Option<&Spread<'_>>) -> Vec<(Name, Part)> {
    let Some(found) = found else { return Vec::new() };
    let mut alike: BTreeMap<(&Destination, &Tags), usize> = BTreeMap::new();
    let mut parts: Vec<(Name, Part)> = Vec::with_capacity(found.route.backends.len());
    for backend in &found.route.backends {
        let n = alike.entry((&backend.destination, &backend.tags)).or_insert(0);
        let name = (backend.destination.clone(), backend.tags.clone(), *n);
        *n += 1;
        let reals = backend.reals.iter().map(|real| (*real, 0.0)).collect();
        let part = Part { weight: backend.weight, state: Some(backend.state), share: 0.0, reals };
        parts.push((name, part));
    }
    let Some(spread) = spread else { return parts };
    let all = spread.table.slots.len() as f64;
    let slots = slots_per_target(spread.table);
    for ((target, real), slots) in spread.table.targets.iter().zip(&spread.reals).zip(slots) {
        let index = spread.table.backends.get(target.backend as usize);
        let Some((_, part)) = index.and_then(|&index| parts.get_mut(index)) else { continue };
        let share = f64::from(slots) / all;
        part.share += share;
        if let Some(real) = real {
            *part.reals.entry(*real).or_insert(0.0) += share;
        }
    }
    parts
}
