//! The whole: resolved routes into [`Tables`], with a memory of tables.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use balancer_ebpf::abi::{SLOTS_PER_WORD, Table as Placed};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Assignment, CapacityError, Limits, RealSpec, RouteSpec, SourceSpec, Table, Tables, VipSpec,
    ids,
    patch::Kept,
    size::{Moved, TableSize},
    table::{self, Pick, Sequences, TableError},
};
use crate::{
    policy::LoadBalancer,
    resolve::{Decision, Resolved, Route, Vip},
};

/// [`compile`](super::compile) with a memory: a route whose backends, reals, ids and load
/// balancer are those of the last call keeps its table (the same `Arc`), so that one change
/// among thousands of services costs one table.
#[derive(Debug, Default)]
pub struct Compiler {
    pub(super) tables: HashMap<Content, Remembered>,
    sequences: Sequences,
    /// What [`Compiler::patch`] has to know of the tables that were made last.
    pub(super) kept: Option<Kept>,
}

/// Everything that a route's table depends on: see [`content`].
pub(super) type Content = Arc<[u32]>;

#[derive(Clone, Debug)]
pub(super) struct Remembered {
    pub(super) table: Arc<Table>,
    moved: Option<Moved>,
    /// How many routes of the last set have it.
    pub(super) users: u32,
}

/// A route that a VIP and a class have.
struct Owned {
    /// Class id and VIP id.
    owner: (u32, u32),
    /// Index into `Resolved::routes`.
    route: usize,
    /// Index into `Resolved::vips`.
    index: usize,
}

impl Compiler {
    /// Nothing remembered.
    pub fn new() -> Self {
        Self::default()
    }

    /// See [`compile`](super::compile): the result is the same.
    pub fn compile(
        &mut self,
        resolved: &Resolved,
        assignment: &Assignment,
        limits: &Limits,
    ) -> Result<Tables, CapacityError> {
        // Until this one is whole there is nothing to go on from.
        self.kept = None;
        let vip_ids = ids::vips(resolved, assignment, limits)?;
        let source_ids = ids::sources(resolved, assignment, limits)?;
        let class_ids = ids::classes(resolved, assignment);
        let owned = owned(resolved, &vip_ids, &class_ids);
        let owners: Vec<(u32, u32)> = owned.iter().map(|owned| owned.owner).collect();
        let route_ids = ids::routes(&owners, assignment, limits)?;

        // A route that several VIPs or classes share is compiled once, and named in messages
        // by the first of them.
        let mut named_by: Vec<Option<usize>> = vec![None; resolved.routes.len()];
        for owned in &owned {
            named_by[owned.route].get_or_insert(owned.index);
        }
        let used = UsedReals::new(resolved, &named_by);
        let reals = ids::reals(&used.addrs, assignment, limits)?;

        let mut warnings = BTreeMap::new();
        let mut contents: Vec<Option<Content>> = vec![None; resolved.routes.len()];
        let mut tables: Vec<Option<Arc<Table>>> = vec![None; resolved.routes.len()];
        self.tables.values_mut().for_each(|remembered| remembered.users = 0);
        let mut ids = used.places.iter().map(|&place| reals[place as usize].0);
        for (index, (route, vip)) in resolved.routes.iter().zip(&named_by).enumerate() {
            let Some(vip) = vip.filter(|_| forwards(route)) else { continue };
            let vip = &resolved.vips[vip];
            let ids: Vec<u32> = ids.by_ref().take(reals_of(route).count()).collect();
            let (content, built) = self.table(route, &ids, vip)?;
            let said = warnings_of(route, vip, &built);
            if !said.is_empty() {
                warnings.insert(index, said);
            }
            tables[index] = Some(built.table);
            contents[index] = Some(content);
        }
        self.tables.retain(|_, remembered| remembered.users > 0);
        let slots = arena_slots(tables.iter().flatten());
        check_arena(slots, limits)?;

        let lists = owned.iter().zip(&route_ids).filter_map(|(owned, &id)| {
            let table = tables[owned.route].as_ref()?;
            let backends = fingerprint(&resolved.routes[owned.route]);
            Some((id, (table.backends.len() as u32, backends)))
        });
        let counters = ids::counters(&lists.collect(), assignment, limits)?;

        let mut defaults = vec![0; resolved.vips.len()];
        let mut class_routes = BTreeMap::new();
        let mut routes = BTreeMap::new();
        for (owned, &id) in owned.iter().zip(&route_ids) {
            match owned.owner {
                (0, _) => defaults[owned.index] = id,
                owner => _ = class_routes.insert(owner, id),
            }
            let table = tables[owned.route].clone();
            let Pick { pick, choices, flags } = table::pick_of(&resolved.routes[owned.route]);
            let spec = RouteSpec {
                owner: owned.owner,
                resolved: owned.route,
                deny: table.is_none(),
                pick,
                choices,
                flags,
                counters: counters.get(&id).copied().unwrap_or_default(),
                table,
            };
            routes.insert(id, spec);
        }
        let vips = resolved.vips.iter().zip(&vip_ids).zip(&defaults).enumerate();
        let sources = resolved.sources.iter().zip(&source_ids);
        let tables = Tables {
            vips: vips
                .map(|(index, ((vip, &id), &route))| {
                    let classes_agree = vip.class_routes.is_empty();
                    (vip.key, VipSpec { id, route, classes_agree, resolved: index })
                })
                .collect(),
            sources: sources
                .map(|(source, &id)| {
                    (source.address, SourceSpec { id, class: class_ids[source.class] })
                })
                .collect(),
            class_routes,
            routes,
            reals: used
                .addrs
                .iter()
                .zip(&reals)
                .map(|(&addr, &(id, generation))| (id, RealSpec { addr, generation }))
                .collect(),
            inventory: resolved.inventory.clone(),
            warnings: warnings.values().flatten().cloned().collect(),
        };
        let owners = owned.iter().zip(&route_ids).map(|(owned, &id)| (owned.route, id));
        let mut kept = Kept::new(*limits, owners.collect(), class_ids, assignment, &tables);
        (kept.named_by, kept.contents, kept.warnings, kept.slots) =
            (named_by, contents, warnings, slots);
        self.kept = Some(kept);
        Ok(tables)
    }

    /// The route's table, remembered or new, which gets one more user. `ids` are those of
    /// [`reals_of`] the route.
    pub(super) fn table(
        &mut self,
        route: &Route,
        ids: &[u32],
        vip: &Vip,
    ) -> Result<(Content, Remembered), CapacityError> {
        let content = content(route, ids);
        if let Some((content, _)) = self.tables.get_key_value(content.as_slice()) {
            let content = Arc::clone(content);
            if let Some(known) = self.tables.get_mut(&content) {
                known.users += 1;
                return Ok((content, known.clone()));
            }
        }
        let mut ids = ids.iter().copied();
        let id = |_| ids.next().unwrap_or(balancer_ebpf::abi::REAL_NONE);
        let built = table::build(route, id, table::size_of(route), &mut self.sequences).map_err(
            |error| CapacityError::Targets {
                vip: vip.key,
                service: vip.destination.to_string(),
                targets: match error {
                    TableError::TooManyTargets(targets)
                    | TableError::TooFewSlots { targets, .. } => targets,
                    TableError::NoBackend => 0,
                },
                allowed: balancer_ebpf::abi::TARGETS_MAX as u64,
            },
        )?;
        let new = Remembered { table: Arc::new(built.table), moved: built.moved, users: 1 };
        let content = Content::from(content);
        self.tables.insert(Arc::clone(&content), new.clone());
        Ok((content, new))
    }
}

/// Everything that the route's table depends on, written out: routes with equal content have
/// equal tables. `ids` are those of its reals, in order of targets.
fn content(route: &Route, ids: &[u32]) -> Vec<u32> {
    let mut content = Vec::with_capacity(16 + ids.len());
    let split = |n: u64| [n as u32, (n >> 32) as u32];
    let by_name = match route.load_balancer {
        LoadBalancer::RoundRobin => {
            content.push(0);
            false
        }
        // How many samples least request takes is no part of the table.
        LoadBalancer::Random => {
            content.push(1);
            false
        }
        LoadBalancer::LeastRequest { .. } => {
            content.push(2);
            false
        }
        LoadBalancer::Maglev => {
            content.push(3);
            true
        }
        LoadBalancer::RingHash { function, min_ring_size, max_ring_size } => {
            content.push(4 + function as u32);
            content.extend(split(min_ring_size).into_iter().chain(split(max_ring_size)));
            true
        }
    };
    content.push(table::size_of(route).map_or(0, TableSize::slots));
    let mut ids = ids.iter().copied();
    for (index, backend) in table::weighted(route) {
        let reals = table::reals(backend);
        content.extend([index as u32, backend.weight, reals.len() as u32]);
        content.extend(ids.by_ref().take(reals.len()));
        if by_name {
            // Hashes of names decide: those of the backends and of the reals' addresses.
            let mut names = table::name(backend);
            for addr in reals {
                names.push('\n');
                names.push_str(&addr.to_string());
            }
            content.push(names.len() as u32);
            content.extend(names.bytes().map(u32::from));
        }
    }
    content
}

/// The routes that VIPs and classes have, sorted by (class id, VIP id).
fn owned(resolved: &Resolved, vip_ids: &[u32], class_ids: &[u32]) -> Vec<Owned> {
    let mut owned = Vec::with_capacity(resolved.vips.len());
    for (index, (vip, &id)) in resolved.vips.iter().zip(vip_ids).enumerate() {
        owned.push(Owned { owner: (0, id), route: vip.route, index });
        owned.extend(vip.class_routes.iter().map(|(&class, &route)| Owned {
            owner: (class_ids[class], id),
            route,
            index,
        }));
    }
    owned.sort_unstable_by_key(|owned| owned.owner);
    owned
}

/// The reals that the tables will name.
struct UsedReals {
    /// Sorted, each once.
    addrs: Vec<SocketAddr>,
    /// For each real of each backend of each route that has a table, in this order, its place
    /// in `addrs`.
    places: Vec<u32>,
}

impl UsedReals {
    fn new(resolved: &Resolved, named_by: &[Option<usize>]) -> Self {
        let routes = resolved.routes.iter().zip(named_by);
        let used = routes.filter(|(route, vip)| vip.is_some() && forwards(route));
        let mut named: Vec<(SocketAddr, u32)> =
            used.flat_map(|(route, _)| reals_of(route)).zip(0..).collect();
        named.sort_unstable();
        let mut addrs: Vec<SocketAddr> = Vec::with_capacity(named.len());
        let mut places = vec![0; named.len()];
        for (addr, seat) in named {
            if addrs.last() != Some(&addr) {
                addrs.push(addr);
            }
            places[seat as usize] = addrs.len() as u32 - 1;
        }
        Self { addrs, places }
    }
}

/// The reals of a route's targets, in their order: one may be there for several backends.
pub(super) fn reals_of(route: &Route) -> impl Iterator<Item = SocketAddr> {
    table::weighted(route).flat_map(|(_, backend)| table::reals(backend)).copied()
}

/// Whether a route has a table. One whose weights are all 0 refuses, like one that is rejected.
pub(super) fn forwards(route: &Route) -> bool {
    match route.decision {
        Decision::Forward | Decision::Direct => table::weighted(route).next().is_some(),
        Decision::Reject => false,
    }
}

/// Slots of the arena that the tables take; equal ones lie there once.
fn arena_slots<'a>(tables: impl Iterator<Item = &'a Arc<Table>>) -> u64 {
    let mut distinct: Vec<&Arc<Table>> = tables.collect();
    distinct.sort_unstable_by_key(|table| Arc::as_ptr(table));
    distinct.dedup_by(|a, b| Arc::ptr_eq(a, b));
    distinct.into_iter().map(|table| slots_of(table)).sum()
}

/// Slots of the arena that a table takes.
pub(super) fn slots_of(table: &Table) -> u64 {
    u64::from(table.shape(0).words()) * u64::from(SLOTS_PER_WORD)
}

/// Checks that tables of so many slots fit into the arena.
pub(super) fn check_arena(wanted: u64, limits: &Limits) -> Result<(), CapacityError> {
    if wanted > u64::from(limits.arena_slots) {
        return Err(CapacityError::Limit {
            what: "slots of tables (each real that a table names counts as four)",
            wanted,
            held: 0,
            limit: "arena_slots",
            allowed: limits.arena_slots,
            needed: wanted,
        });
    }
    Ok(())
}

impl Tables {
    /// What these tables take of each limit that they use up; 0 of the others. Slots of tables
    /// are counted as [`Limits::arena_slots`] counts them.
    pub fn needs(&self) -> Limits {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let tables = self.routes.values().filter_map(|route| route.table.as_ref());
        Limits {
            flows: 0,
            half_open: 0,
            services: count(self.vips.len()),
            sources: count(self.sources.len()),
            routes: count(self.routes.len()),
            reals: count(self.reals.len()),
            counters: self.routes.values().map(|route| route.counters.count).sum(),
            arena_slots: u32::try_from(arena_slots(tables)).unwrap_or(u32::MAX),
        }
    }
}

impl Table {
    /// What the programs are told of this table when it lies at word `offset` of the arena.
    pub fn shape(&self, offset: u32) -> Placed {
        Placed {
            offset,
            slots: self.slots.len() as u32,
            targets: self.targets.len() as u32,
            backends: self.backends.len() as u32,
        }
    }
}

/// A number that stays the same as long as the list of backends (service and tags, in order)
/// does.
pub(super) fn fingerprint(route: &Route) -> u32 {
    let names: Vec<String> = table::weighted(route).map(|(_, b)| table::name(b)).collect();
    // The low half: it has to tell apart the lists of one route over time, no more.
    xxh3_64(names.join("\0").as_bytes()) as u32
}

/// What people should know about a table that is not quite what the policy says.
pub(super) fn warnings_of(route: &Route, vip: &Vip, built: &Remembered) -> Vec<String> {
    let of = format!("route of VIP {} ({})", vip.key, vip.destination.owner());
    let mut warnings = Vec::new();
    if let Some(moved) = built.moved {
        let backend = &route.backends[built.table.backends[moved.share]];
        let sum: u64 = table::weighted(route).map(|(_, b)| u64::from(b.weight)).sum();
        let slots = built.table.slots.len();
        let targets = &built.table.targets;
        let belongs = |&&t: &&u16| targets[usize::from(t)].backend as usize == moved.share;
        let given = built.table.slots.iter().filter(belongs).count();
        warnings.push(format!(
            "{of}: backend {} has weight {} of {sum} but gets {given} of {slots} slots, which is \
             more than 1 % off; a table of {} slots would do, but {slots} is the largest: use \
             weights that are closer to one another",
            table::name(backend).replace('\n', " "),
            backend.weight,
            moved.slots_needed,
        ));
    }
    if let LoadBalancer::LeastRequest { choice_count } = route.load_balancer
        && choice_count > u32::from(u8::MAX)
    {
        warnings.push(format!(
            "{of}: leastRequest takes {} samples, not the {choice_count} of choiceCount",
            u8::MAX
        ));
    }
    warnings
}
