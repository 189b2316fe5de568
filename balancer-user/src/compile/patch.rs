//! A small change: tables changed in place, in time proportional to the change.
//!
//! The result is what [`compile`](super::compile) would give of the whole, ids and bytes
//! included. Whatever stands in the way of that (a limit, something unforeseen) is no error here:
//! the caller compiles the whole, which also words what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use balancer_ebpf::abi::{ID_FIRST, REAL_BLACKHOLE, REAL_FIRST};

use super::{
    Assignment, Compiler, CounterRun, Limits, RealSpec, RouteSpec, SourceSpec, Table, Tables,
    compiler::{self, Content},
    ids,
    table::{self, Pick},
};
use crate::resolve::{Parts, Resolved};

/// What [`Compiler::patch`] changed in its tables.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// Ids of routes whose [`RouteSpec`] is another now; rising.
    pub routes: Vec<u32>,
    /// Ids of reals that tables name now and did not before; rising.
    pub reals_added: Vec<u32>,
    /// Reals that no table names any more, by rising id.
    pub reals_removed: Vec<(u32, SocketAddr)>,
    /// Sources that are new; sorted.
    pub sources_added: Vec<IpAddr>,
    /// Sources that are gone, with the ids that they had; sorted.
    pub sources_removed: Vec<(IpAddr, u32)>,
    /// Reals that came into the inventory or left it; sorted.
    pub inventory: Vec<SocketAddr>,
}

impl Patch {
    /// Whether the tables are as they were.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a compiler has to know of the tables that it made last.
#[derive(Debug)]
pub(super) struct Kept {
    limits: Limits,
    /// (index into `Resolved::routes`, id of a route that is made of it), sorted.
    owners: Vec<(usize, u32)>,
    class_ids: Vec<u32>,
    /// By index of the route: the VIP (index into `Resolved::vips`) that names it in messages.
    pub(super) named_by: Vec<Option<usize>>,
    /// By index of the route: what its table was made of.
    pub(super) contents: Vec<Option<Content>>,
    /// By index of the route.
    pub(super) warnings: BTreeMap<usize, Vec<String>>,
    /// How many of those the tables begin with; the caller may have added others.
    said: usize,
    /// Slots of the arena that all tables take.
    pub(super) slots: u64,
    /// By real id: how many targets name it, each table counted once for each route.
    uses: Vec<u32>,
    /// Real ids that nothing ever had. Those that were given back have a generation.
    fresh_reals: Numbers,
    free_sources: Numbers,
    /// Ids of sources that went with the last change: free once that is published.
    leaving_sources: Vec<u32>,
}

impl Kept {
    /// Of `tables`, which are made of `assignment` and will be published.
    pub(super) fn new(
        limits: Limits,
        mut owners: Vec<(usize, u32)>,
        class_ids: Vec<u32>,
        assignment: &Assignment,
        tables: &Tables,
    ) -> Self {
        owners.sort_unstable();
        let mut uses = Vec::new();
        let mut counted = None;
        for &(index, id) in &owners {
            let table = tables.routes.get(&id).and_then(|route| route.table.as_ref());
            if let Some(table) = table.filter(|_| counted != Some(index)) {
                named(table).for_each(|real| *seat(&mut uses, real) += 1);
            }
            counted = Some(index);
        }
        let known = assignment.reals.values().map(|(id, _)| *id);
        let known = known.chain(assignment.free_real_generations.keys().copied());
        let sources = tables.sources.values().map(|source| source.id);
        Self {
            limits,
            owners,
            class_ids,
            named_by: Vec::new(),
            contents: Vec::new(),
            warnings: BTreeMap::new(),
            said: tables.warnings.len(),
            slots: 0,
            uses,
            fresh_reals: Numbers::but(
                REAL_FIRST,
                known.chain(tables.reals.keys().copied()).collect(),
            ),
            free_sources: Numbers::but(ID_FIRST, sources.collect()),
            leaving_sources: Vec::new(),
        }
    }

    /// Ids of the routes that are made of the one at `index`.
    fn ids_of(&self, index: usize) -> impl Iterator<Item = u32> + '_ {
        let first = self.owners.partition_point(|owner| owner.0 < index);
        self.owners[first..].iter().take_while(move |owner| owner.0 == index).map(|owner| owner.1)
    }

    /// Ids and generations for reals that the maps do not have, as [`ids::reals`] gives them:
    /// the smallest that are free, in the order of the addresses.
    fn number_reals(
        &mut self,
        new: &BTreeSet<SocketAddr>,
        assignment: &Assignment,
    ) -> Option<BTreeMap<SocketAddr, (u32, u32)>> {
        let held = &assignment.quarantine.reals;
        let mut returned = assignment
            .free_real_generations
            .iter()
            .filter(|(id, _)| !held.contains(*id))
            .peekable();
        let mut given = BTreeMap::new();
        for &addr in new {
            let fresh = self.fresh_reals.first_not_in(held);
            let (id, generation) = match returned.peek() {
                Some((id, generation)) if **id < fresh => {
                    let next = (**id, generation.wrapping_add(1).max(1));
                    returned.next();
                    next
                }
                _ => {
                    self.fresh_reals.take(fresh);
                    (fresh, 1)
                }
            };
            if id - REAL_FIRST >= self.limits.reals {
                return None;
            }
            given.insert(addr, (id, generation));
        }
        Some(given)
    }
}

impl Compiler {
    /// Makes `tables` what [`Compiler::compile`] would make of `resolved`: they are of its last
    /// call (or of this function's), are live, and `parts` is all in which `resolved` differs
    /// from what they were made of.
    ///
    /// `None`: compile the whole instead, whether or not that succeeds; `tables` are as they were.
    pub fn patch(
        &mut self,
        tables: &mut Tables,
        resolved: &Resolved,
        parts: &Parts,
        assignment: &Assignment,
        limits: &Limits,
    ) -> Option<Patch> {
        let mut kept = self.kept.take()?;
        let alike = kept.limits == *limits
            && kept.named_by.len() == resolved.routes.len()
            && kept.class_ids.len() == resolved.classes.len();
        if !alike {
            return None;
        }
        for id in kept.leaving_sources.drain(..) {
            kept.free_sources.give(id);
        }
        let sources = sources(&mut kept, tables, resolved, parts)?;
        let routes = self.routes(&mut kept, tables, resolved, parts, assignment)?;
        let patch = apply(&mut kept, tables, parts, sources, routes);
        self.kept = Some(kept);
        Some(patch)
    }

    /// The routes that changed, and the reals that their tables name.
    fn routes(
        &mut self,
        kept: &mut Kept,
        tables: &Tables,
        resolved: &Resolved,
        parts: &Parts,
        assignment: &Assignment,
    ) -> Option<Routes> {
        let mut changed = Vec::with_capacity(parts.routes.len());
        let mut new = BTreeSet::new();
        for &index in &parts.routes {
            let route = resolved.routes.get(index)?;
            let Some(vip) = kept.named_by[index] else { continue };
            let reals: Vec<SocketAddr> = if compiler::forwards(route) {
                compiler::reals_of(route).collect()
            } else {
                vec![]
            };
            new.extend(reals.iter().filter(|addr| !assignment.reals.contains_key(*addr)));
            changed.push((index, route, resolved.vips.get(vip)?, reals));
        }
        let given = kept.number_reals(&new, assignment)?;

        let mut outcome = Routes::default();
        let mut counters = BTreeMap::new();
        for (index, route, vip, reals) in changed {
            let numbered: Option<Vec<(u32, u32)>> = reals
                .iter()
                .map(|addr| assignment.reals.get(addr).or_else(|| given.get(addr)).copied())
                .collect();
            let numbered = numbered?;
            let ids: Vec<u32> = numbered.iter().map(|(id, _)| *id).collect();
            let mut table = None;
            kept.warnings.remove(&index);
            let content = if compiler::forwards(route) {
                let (content, built) = self.table(route, &ids, vip).ok()?;
                if built.users == 1 {
                    kept.slots += compiler::slots_of(&built.table);
                }
                let said = compiler::warnings_of(route, vip, &built);
                if !said.is_empty() {
                    kept.warnings.insert(index, said);
                }
                table = Some(built.table);
                Some(content)
            } else {
                None
            };
            let before = std::mem::replace(&mut kept.contents[index], content);
            if let Some(before) = before {
                let remembered = self.tables.get_mut(&before)?;
                for real in named(&remembered.table) {
                    *outcome.uses.entry(real).or_insert(0) -= 1;
                }
                remembered.users -= 1;
                if remembered.users == 0 {
                    kept.slots -= compiler::slots_of(&remembered.table);
                    self.tables.remove(&before);
                }
            }
            for (&addr, (id, generation)) in reals.iter().zip(numbered) {
                *outcome.uses.entry(id).or_insert(0) += 1;
                outcome.reals.insert(id, RealSpec { addr, generation });
            }
            let Pick { pick, choices, flags } = table::pick_of(route);
            let list = table
                .as_ref()
                .map(|table| (table.backends.len() as u32, compiler::fingerprint(route)));
            for id in kept.ids_of(index) {
                let old = tables.routes.get(&id).filter(|old| old.resolved == index)?;
                if let Some(list) = list {
                    counters.insert(id, list);
                }
                let (deny, table) = (table.is_none(), table.clone());
                let spec = RouteSpec { deny, pick, choices, flags, table, ..old.clone() };
                outcome.specs.insert(id, spec);
            }
        }
        compiler::check_arena(kept.slots, &kept.limits).ok()?;
        let runs = runs(&counters, assignment, &kept.limits)?;
        for (id, spec) in &mut outcome.specs {
            spec.counters = runs.get(id).copied().unwrap_or_default();
        }
        Some(outcome)
    }
}

/// What becomes of the routes that changed.
#[derive(Default)]
struct Routes {
    specs: BTreeMap<u32, RouteSpec>,
    /// Real id → how many targets more (or fewer) name it.
    uses: BTreeMap<u32, i64>,
    /// The reals that their tables name.
    reals: BTreeMap<u32, RealSpec>,
}

/// Counters as [`ids::counters`] gives them: routes that keep theirs take none from the others.
fn runs(
    wanted: &BTreeMap<u32, (u32, u32)>,
    assignment: &Assignment,
    limits: &Limits,
) -> Option<BTreeMap<u32, CounterRun>> {
    let keeps = |id: &u32, list: &(u32, u32)| {
        let run = assignment.counters.get(id).copied();
        run.filter(|run| (run.count, run.backends) == *list)
    };
    let kept: Option<BTreeMap<u32, CounterRun>> =
        wanted.iter().map(|(id, list)| Some((*id, keeps(id, list)?))).collect();
    // Another list of backends: the free counters have to be looked for.
    kept.or_else(|| ids::counters(wanted, assignment, limits).ok())
}

/// Sources that come, with what they get. `None`: a class has no member left that had its id.
fn sources(
    kept: &mut Kept,
    tables: &Tables,
    resolved: &Resolved,
    parts: &Parts,
) -> Option<Vec<(IpAddr, SourceSpec)>> {
    let new = |address: &IpAddr| parts.sources_added.binary_search(address).is_ok();
    let stays = |class: usize| {
        class == 0 || resolved.classes[class].sources.iter().any(|address| !new(address))
    };
    for address in &parts.sources_removed {
        let id = tables.sources.get(address)?.class;
        if !stays(kept.class_ids.iter().position(|class| *class == id)?) {
            return None;
        }
    }
    let mut added = Vec::with_capacity(parts.sources_added.len());
    for &address in &parts.sources_added {
        let at = resolved.sources.binary_search_by_key(&address, |source| source.address).ok()?;
        let class = resolved.sources[at].class;
        if tables.sources.contains_key(&address) || !stays(class) {
            return None;
        }
        let id = kept.free_sources.first();
        kept.free_sources.take(id);
        if id - ID_FIRST >= kept.limits.sources {
            return None;
        }
        added.push((address, SourceSpec { id, class: kept.class_ids[class] }));
    }
    Some(added)
}

/// Nothing can stand in the way any more.
fn apply(
    kept: &mut Kept,
    tables: &mut Tables,
    parts: &Parts,
    sources: Vec<(IpAddr, SourceSpec)>,
    routes: Routes,
) -> Patch {
    let mut patch = Patch::default();
    for address in &parts.sources_removed {
        if let Some(spec) = tables.sources.remove(address) {
            kept.leaving_sources.push(spec.id);
            patch.sources_removed.push((*address, spec.id));
        }
    }
    patch.sources_added = sources.iter().map(|(address, _)| *address).collect();
    tables.sources.extend(sources);
    for (id, spec) in routes.specs {
        if tables.routes.get(&id) != Some(&spec) {
            tables.routes.insert(id, spec);
            patch.routes.push(id);
        }
    }
    for (id, more) in routes.uses {
        let uses = seat(&mut kept.uses, id);
        let before = *uses;
        *uses = u32::try_from(i64::from(before) + more).unwrap_or(0);
        match (before, *uses) {
            (0, 1..) => {
                tables.reals.extend(routes.reals.get(&id).map(|spec| (id, *spec)));
                patch.reals_added.push(id);
            }
            (1.., 0) => {
                let gone = tables.reals.remove(&id);
                patch.reals_removed.extend(gone.map(|spec| (id, spec.addr)));
            }
            _ => {}
        }
    }
    edit(&mut tables.inventory, &parts.inventory_added, &parts.inventory_removed);
    patch.inventory =
        parts.inventory_added.iter().chain(&parts.inventory_removed).copied().collect();
    patch.inventory.sort_unstable();
    let warnings = kept.warnings.values().flatten();
    if !warnings.clone().eq(tables.warnings.iter().take(kept.said)) {
        let warnings: Vec<String> = warnings.cloned().collect();
        let before = std::mem::replace(&mut kept.said, warnings.len());
        tables.warnings.splice(..before.min(tables.warnings.len()), warnings);
    }
    patch
}

/// Adds to and takes from a sorted list.
fn edit(list: &mut Vec<SocketAddr>, added: &[SocketAddr], removed: &[SocketAddr]) {
    /// From so many on, the whole list is sorted once instead of moved for each.
    const MANY: usize = 8;
    if added.len() + removed.len() >= MANY {
        list.retain(|addr| removed.binary_search(addr).is_err());
        list.extend_from_slice(added);
        list.sort();
        list.dedup();
        return;
    }
    for addr in removed {
        if let Ok(at) = list.binary_search(addr) {
            list.remove(at);
        }
    }
    for addr in added {
        if let Err(at) = list.binary_search(addr) {
            list.insert(at, *addr);
        }
    }
}

/// The reals that a table's targets name, one after the other.
fn named(table: &Arc<Table>) -> impl Iterator<Item = u32> + '_ {
    table.targets.iter().map(|target| target.real).filter(|real| *real != REAL_BLACKHOLE)
}

fn seat(uses: &mut Vec<u32>, id: u32) -> &mut u32 {
    let at = id as usize;
    if uses.len() <= at {
        uses.resize(at + 1, 0);
    }
    &mut uses[at]
}

/// Numbers that are free: first → behind the last, of each stretch.
#[derive(Debug)]
struct Numbers(BTreeMap<u32, u32>);

impl Numbers {
    /// All from `first` on but `taken`.
    fn but(first: u32, mut taken: Vec<u32>) -> Self {
        taken.sort_unstable();
        let mut free = BTreeMap::new();
        let mut at = first;
        for id in taken {
            if id > at {
                free.insert(at, id);
            }
            at = at.max(id.saturating_add(1));
        }
        free.insert(at, u32::MAX);
        Self(free)
    }

    /// The smallest.
    fn first(&self) -> u32 {
        self.0.first_key_value().map_or(u32::MAX, |(first, _)| *first)
    }

    /// The smallest that is not held.
    fn first_not_in(&self, held: &BTreeSet<u32>) -> u32 {
        let mut ids = self.0.iter().flat_map(|(first, end)| *first..*end);
        ids.find(|id| !held.contains(id)).unwrap_or(u32::MAX)
    }

    fn take(&mut self, id: u32) {
        let Some((&first, &end)) = self.0.range(..=id).next_back().filter(|(_, end)| **end > id)
        else {
            return;
        };
        self.0.remove(&first);
        if first < id {
            self.0.insert(first, id);
        }
        if id + 1 < end {
            self.0.insert(id + 1, end);
        }
    }

    fn give(&mut self, id: u32) {
        let end = self.0.remove(&(id + 1)).unwrap_or(id + 1);
        self.0.insert(id, end);
    }
}

#[cfg(test)]
mod tests;
