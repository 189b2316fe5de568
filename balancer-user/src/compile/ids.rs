//! Ids: small numbers for VIPs, sources, classes, routes, reals and counters.
//!
//! An id stays with what it names (its natural key) as long as that is in the maps, so that
//! what does not change is not rewritten. New keys get the smallest free ids, in the order of
//! the keys. An id whose owner has just gone is not free: packets that began in the current
//! epoch still use it, and so may flows. It becomes free when the caller's [`Assignment`] no
//! longer names it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use balancer_ebpf::abi::{ID_FIRST, REAL_FIRST};

use super::{Assignment, CapacityError, CounterRun, Limits, Tables};
use crate::resolve::Resolved;

/// A kind of id: what it is for, and what bounds it.
struct Kind {
    what: &'static str,
    limit: &'static str,
    allowed: u32,
    first: u32,
}

/// Gives an id to each key: the one that it had, else the smallest one that is not in `taken`
/// (which holds those that are kept).
fn number(
    kind: &Kind,
    had: &[Option<u32>],
    mut taken: Vec<u32>,
) -> Result<Vec<u32>, CapacityError> {
    taken.sort_unstable();
    let mut free = Free::new(kind.first, &taken);
    let ids: Vec<u32> = had.iter().map(|id| id.unwrap_or_else(|| free.take())).collect();
    let highest = ids.iter().copied().max().unwrap_or(kind.first);
    let needed = u64::from(highest - kind.first) + 1;
    if !ids.is_empty() && needed > u64::from(kind.allowed) {
        taken.dedup();
        let held = (taken.len() - had.iter().flatten().count()) as u64;
        let wanted = ids.len() as u64;
        return Err(CapacityError::Limit {
            what: kind.what,
            wanted,
            held,
            limit: kind.limit,
            allowed: kind.allowed,
            needed: needed.max(wanted + held),
        });
    }
    Ok(ids)
}

/// Looks up sorted `keys` in a map by walking both once.
fn join<'a, K: Ord + Clone + 'a, V: Copy>(
    keys: impl Iterator<Item = K> + 'a,
    map: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = Option<V>> + 'a {
    let mut entries = map.iter().peekable();
    let mut before = None;
    keys.map(move |key| {
        debug_assert!(before.as_ref().is_none_or(|before| *before < key), "keys must be sorted");
        if cfg!(debug_assertions) {
            before = Some(key.clone());
        }
        while entries.next_if(|entry| *entry.0 < key).is_some() {}
        entries.peek().filter(|entry| *entry.0 == key).map(|entry| *entry.1)
    })
}

/// Numbers that are not taken, rising.
struct Free<'a> {
    next: u32,
    taken: &'a [u32],
}

impl<'a> Free<'a> {
    fn new(first: u32, taken: &'a [u32]) -> Self {
        Self { next: first, taken }
    }

    fn take(&mut self) -> u32 {
        while let Some((&first, rest)) = self.taken.split_first()
            && first <= self.next
        {
            if first == self.next {
                self.next += 1;
            }
            self.taken = rest;
        }
        let free = self.next;
        self.next += 1;
        free
    }
}

/// Ids of VIPs, in their order.
pub(super) fn vips(
    resolved: &Resolved,
    assignment: &Assignment,
    limits: &Limits,
) -> Result<Vec<u32>, CapacityError> {
    let kind = Kind { what: "VIPs", limit: "services", allowed: limits.services, first: ID_FIRST };
    let had: Vec<_> = join(resolved.vips.iter().map(|vip| vip.key), &assignment.vips).collect();
    number(&kind, &had, assignment.vips.values().copied().collect())
}

/// Ids of sources, in their order.
pub(super) fn sources(
    resolved: &Resolved,
    assignment: &Assignment,
    limits: &Limits,
) -> Result<Vec<u32>, CapacityError> {
    let kind = Kind {
        what: "workload addresses",
        limit: "sources",
        allowed: limits.sources,
        first: ID_FIRST,
    };
    let addresses = resolved.sources.iter().map(|source| source.address);
    let had: Vec<_> = join(addresses, &assignment.sources).collect();
    number(&kind, &had, assignment.sources.values().copied().collect())
}

/// Ids of classes, by their index in `resolved.classes`. A class keeps the id that most of its
/// sources had (of several, the smallest); where several classes would keep one id, the one
/// with most sources that had it does. A new class gets an id that no source has now.
pub(super) fn classes(resolved: &Resolved, assignment: &Assignment) -> Vec<u32> {
    let mut votes: BTreeMap<(usize, u32), u32> = BTreeMap::new();
    for (index, class) in resolved.classes.iter().enumerate().skip(1) {
        for source in &class.sources {
            if let Some(&id) = assignment.classes.get(source).filter(|&&id| id != 0) {
                *votes.entry((index, id)).or_insert(0) += 1;
            }
        }
    }
    let mut claims: Vec<(u32, u32, usize)> =
        votes.into_iter().map(|((index, id), n)| (n, id, index)).collect();
    // Most votes first; then the smaller id, then the class with the smaller first source.
    claims.sort_unstable_by_key(|&(n, id, index)| {
        (std::cmp::Reverse(n), id, resolved.classes[index].sources.first().copied())
    });

    let mut ids = vec![0; resolved.classes.len()];
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    for (_, id, index) in claims {
        if ids[index] == 0 && taken.insert(id) {
            ids[index] = id;
        }
    }
    let mut open: Vec<usize> = (1..ids.len()).filter(|&index| ids[index] == 0).collect();
    open.sort_by_key(|&index| resolved.classes[index].sources.first().copied());
    taken.extend(assignment.classes.values());
    let taken: Vec<u32> = taken.into_iter().collect();
    let mut free = Free::new(ID_FIRST, &taken);
    for index in open {
        ids[index] = free.take();
    }
    ids
}

/// Ids of routes. `wanted` are their (class id, VIP id), sorted, each once.
pub(super) fn routes(
    wanted: &[(u32, u32)],
    assignment: &Assignment,
    limits: &Limits,
) -> Result<Vec<u32>, CapacityError> {
    let kind = Kind { what: "routes", limit: "routes", allowed: limits.routes, first: ID_FIRST };
    let had: Vec<_> = join(wanted.iter().copied(), &assignment.routes).collect();
    number(&kind, &had, assignment.routes.values().copied().collect())
}

/// Ids and generations of reals. `wanted` is sorted, each once.
pub(super) fn reals(
    wanted: &[SocketAddr],
    assignment: &Assignment,
    limits: &Limits,
) -> Result<Vec<(u32, u32)>, CapacityError> {
    let kind = Kind { what: "reals", limit: "reals", allowed: limits.reals, first: REAL_FIRST };
    let had: Vec<Option<(u32, u32)>> = join(wanted.iter().copied(), &assignment.reals).collect();
    let had_ids: Vec<Option<u32>> = had.iter().map(|had| had.map(|(id, _)| id)).collect();
    let named = assignment.reals.values().map(|(id, _)| *id);
    let taken = named.chain(assignment.quarantine.reals.iter().copied()).collect();
    let ids = number(&kind, &had_ids, taken)?;
    let with_generation = ids.into_iter().zip(had).map(|(id, had)| {
        let generation = had.map_or_else(
            // 0 is no generation: a flow entry of zeros matches nothing.
            || {
                let last = assignment.free_real_generations.get(&id).copied().unwrap_or(0);
                last.wrapping_add(1).max(1)
            },
            |(_, generation)| generation,
        );
        (id, generation)
    });
    Ok(with_generation.collect())
}

/// First counter ids, by route id. `wanted`: route id → (number of backends, fingerprint of
/// their list). A route keeps its run while that list stays the same: a counter never goes on
/// for another backend.
pub(super) fn counters(
    wanted: &BTreeMap<u32, (u32, u32)>,
    assignment: &Assignment,
    limits: &Limits,
) -> Result<BTreeMap<u32, CounterRun>, CapacityError> {
    let mut taken: Vec<(u32, u32)> =
        assignment.counters.values().map(|run| (run.first, run.count)).collect();
    taken.extend(assignment.quarantine.counters.iter().map(|&id| (id, 1)));
    taken.sort_unstable();
    let mut gaps =
        gaps(&taken, u64::from(ID_FIRST), u64::from(ID_FIRST) + u64::from(limits.counters));

    let mut runs = BTreeMap::new();
    let mut lowest = 0;
    for ((&route, &(count, backends)), had) in
        wanted.iter().zip(join(wanted.keys().copied(), &assignment.counters))
    {
        if let Some(run) = had.filter(|run| (run.count, run.backends) == (count, backends)) {
            runs.insert(route, run);
            continue;
        }
        while gaps.get(lowest).is_some_and(|gap| gap.0 == gap.1) {
            lowest += 1;
        }
        let room = gaps[lowest..].iter_mut().find(|gap| gap.1 - gap.0 >= u64::from(count));
        let Some(gap) = room else { return Err(too_few_counters(wanted, assignment, limits)) };
        // Below the end of the counters, a u32.
        runs.insert(route, CounterRun { first: gap.0 as u32, count, backends });
        gap.0 += u64::from(count);
    }
    Ok(runs)
}

/// Stretches from `first` to `end` that no entry of `taken` (start, length; sorted) touches.
fn gaps(taken: &[(u32, u32)], first: u64, end: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::new();
    let mut at = first;
    for &(start, length) in taken {
        if u64::from(start).min(end) > at {
            gaps.push((at, u64::from(start).min(end)));
        }
        at = at.max(u64::from(start) + u64::from(length));
    }
    if at < end {
        gaps.push((at, end));
    }
    gaps
}

fn too_few_counters(
    wanted: &BTreeMap<u32, (u32, u32)>,
    assignment: &Assignment,
    limits: &Limits,
) -> CapacityError {
    let sum = |counts: &mut dyn Iterator<Item = u32>| counts.map(u64::from).sum::<u64>();
    let kept = |route: &u32, run: &CounterRun| {
        wanted.get(route).is_some_and(|&list| list == (run.count, run.backends))
    };
    let let_go = assignment.counters.iter().filter(|(id, run)| !kept(id, run));
    let held =
        sum(&mut let_go.map(|(_, run)| run.count)) + assignment.quarantine.counters.len() as u64;
    let wanted_all = sum(&mut wanted.values().map(|list| list.0));
    // Runs stay where they are, so the free ids may be too scattered for a new run: behind all
    // that is taken there is room for every one.
    let ends = assignment.counters.values().map(|run| u64::from(run.first) + u64::from(run.count));
    let quarantined = assignment.quarantine.counters.last().map(|&id| u64::from(id) + 1);
    let behind = ends.chain(quarantined).max().unwrap_or(u64::from(ID_FIRST)) - u64::from(ID_FIRST);
    CapacityError::Limit {
        what: "counters (one for each backend of each route)",
        wanted: wanted_all,
        held,
        limit: "counters",
        allowed: limits.counters,
        needed: behind + wanted_all,
    }
}

impl Assignment {
    /// The ids in use once `tables` are published and one grace period has passed: those of
    /// `tables`, and reals that are named no more but may still have flows.
    pub fn after(&self, tables: &Tables) -> Self {
        let mut reals = self.reals.clone();
        reals.extend(tables.reals.iter().map(|(&id, real)| (real.addr, (id, real.generation))));
        let mut free = self.free_real_generations.clone();
        tables.reals.keys().for_each(|id| {
            free.remove(id);
        });
        let defaults = tables.vips.values().map(|vip| ((0, vip.id), vip.route));
        let own = tables.class_routes.iter().map(|(&owner, &route)| (owner, route));
        Self {
            vips: tables.vips.iter().map(|(&key, vip)| (key, vip.id)).collect(),
            sources: tables.sources.iter().map(|(&addr, source)| (addr, source.id)).collect(),
            classes: tables.sources.iter().map(|(&addr, source)| (addr, source.class)).collect(),
            routes: defaults.chain(own).collect(),
            reals,
            counters: tables
                .routes
                .iter()
                .filter(|(_, route)| !route.deny)
                .map(|(&id, route)| (id, route.counters))
                .collect(),
            free_real_generations: free,
            quarantine: self.quarantine.clone(),
        }
    }
}
