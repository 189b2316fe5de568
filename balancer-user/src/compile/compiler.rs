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
    size::Moved,
    table::{self, TableError},
};
use crate::{
    policy::LoadBalancer,
    resolve::{Backend, Decision, Resolved, Route, Vip},
};

/// [`compile`](super::compile) with a memory: a route whose backends, reals, ids and load
/// balancer are those of the last call keeps its table, so that one change among thousands of
/// services costs one table.
#[derive(Debug, Default)]
pub struct Compiler {
    tables: HashMap<Content, Remembered>,
}

/// Everything that a table depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Content {
    load_balancer: LoadBalancer,
    backends: Vec<Backend>,
    ids: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Remembered {
    table: Arc<Table>,
    moved: Option<Moved>,
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
        let vip_ids = ids::vips(resolved, assignment, limits)?;
        let source_ids = ids::sources(resolved, assignment, limits)?;
        let class_ids = ids::classes(resolved, assignment);

        let mut owned: Vec<((u32, u32), usize, &Vip)> = Vec::with_capacity(resolved.vips.len());
        for (vip, &id) in resolved.vips.iter().zip(vip_ids.values()) {
            owned.push(((0, id), vip.route, vip));
            let own = vip.class_routes.iter();
            owned.extend(own.map(|(&class, &route)| ((class_ids[class], id), route, vip)));
        }
        owned.sort_unstable_by_key(|(owner, ..)| *owner);
        let owners: Vec<(u32, u32)> = owned.iter().map(|(owner, ..)| *owner).collect();
        let route_ids = ids::routes(&owners, assignment, limits)?;

        // A route that several VIPs or classes share is compiled once, and named in messages
        // by the first of them.
        let mut named_by: Vec<Option<&Vip>> = vec![None; resolved.routes.len()];
        for (_, route, vip) in &owned {
            named_by[*route].get_or_insert(vip);
        }
        let addrs = used_reals(resolved, &named_by);
        let reals = ids::reals(&addrs, assignment, limits)?;
        let id_of = |addr: SocketAddr| addrs.binary_search(&addr).map_or(0, |i| reals[i].0);

        let mut warnings = Vec::new();
        let mut tables: Vec<Option<Arc<Table>>> = vec![None; resolved.routes.len()];
        let mut remembered = HashMap::with_capacity(self.tables.len());
        for (index, (route, vip)) in resolved.routes.iter().zip(&named_by).enumerate() {
            let Some(vip) = vip.filter(|_| forwards(route)) else { continue };
            let built = self.table(route, id_of, vip, &mut remembered)?;
            warnings.extend(warnings_of(route, vip, &built));
            tables[index] = Some(built.table);
        }
        self.tables = remembered;
        check_arena(&tables, limits)?;

        let lists = owned.iter().zip(route_ids.values()).map(|((_, index, _), &id)| {
            let table = tables[*index].as_ref();
            let count = table.map_or(0, |table| table.backends.len() as u32);
            (id, (count, table.map_or(0, |_| fingerprint(&resolved.routes[*index]))))
        });
        let lists: BTreeMap<u32, (u32, u32)> = lists.filter(|(_, list)| list.0 > 0).collect();
        let counters = ids::counters(&lists, assignment, limits)?;

        let routes = owned.iter().zip(route_ids.values()).map(|(&(owner, index, _), &id)| {
            let table = tables[index].clone();
            let (pick, choices) = table::pick_of(resolved.routes[index].load_balancer);
            let counters = counters.get(&id).copied().unwrap_or_default();
            let deny = table.is_none();
            (id, RouteSpec { owner, resolved: index, deny, pick, choices, counters, table })
        });
        let vips = resolved.vips.iter().zip(&vip_ids).enumerate().map(|(i, (vip, (&key, &id)))| {
            let route = route_ids[&(0, id)];
            let classes_agree = vip.class_routes.is_empty();
            (key, VipSpec { id, route, classes_agree, resolved: i })
        });
        let sources = resolved.sources.iter().zip(&source_ids).map(|(source, (&address, &id))| {
            (address, SourceSpec { id, class: class_ids[source.class] })
        });
        Ok(Tables {
            vips: vips.collect(),
            sources: sources.collect(),
            class_routes: route_ids
                .iter()
                .filter(|(o, _)| o.0 != 0)
                .map(|(o, id)| (*o, *id))
                .collect(),
            routes: routes.collect(),
            reals: addrs
                .iter()
                .zip(&reals)
                .map(|(&addr, &(id, generation))| (id, RealSpec { addr, generation }))
                .collect(),
            inventory: resolved.inventory.clone(),
            warnings,
        })
    }

    /// The route's table, remembered or new.
    fn table(
        &self,
        route: &Route,
        id_of: impl Fn(SocketAddr) -> u32,
        vip: &Vip,
        remembered: &mut HashMap<Content, Remembered>,
    ) -> Result<Remembered, CapacityError> {
        let reals = table::weighted(route).flat_map(|(_, backend)| table::reals(backend));
        let content = Content {
            load_balancer: route.load_balancer,
            backends: route.backends.clone(),
            ids: reals.map(|&addr| id_of(addr)).collect(),
        };
        if let Some(known) = remembered.get(&content).or_else(|| self.tables.get(&content)) {
            let known = known.clone();
            remembered.insert(content, known.clone());
            return Ok(known);
        }
        let built = table::build(route, id_of, None).map_err(|error| CapacityError::Targets {
            vip: vip.key.addr,
            service: vip.service.clone(),
            targets: match error {
                TableError::TooManyTargets(targets) | TableError::TooFewSlots { targets, .. } => {
                    targets
                }
                TableError::NoBackend => 0,
            },
            allowed: balancer_ebpf::abi::TARGETS_MAX as u64,
        })?;
        let new = Remembered { table: Arc::new(built.table), moved: built.moved };
        remembered.insert(content, new.clone());
        Ok(new)
    }
}

/// Whether a route has a table. One whose weights are all 0 refuses, like one that is rejected.
fn forwards(route: &Route) -> bool {
    match route.decision {
        Decision::Forward | Decision::Direct => table::weighted(route).next().is_some(),
        Decision::Reject => false,
    }
}

/// The reals that some table will name, sorted, each once.
fn used_reals(resolved: &Resolved, named_by: &[Option<&Vip>]) -> Vec<SocketAddr> {
    let routes = resolved.routes.iter().zip(named_by);
    let used = routes.filter(|(route, vip)| vip.is_some() && forwards(route));
    let mut addrs: Vec<SocketAddr> = used
        .flat_map(|(route, _)| table::weighted(route))
        .flat_map(|(_, backend)| table::reals(backend))
        .copied()
        .collect();
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

/// Checks that the tables fit into the arena; equal ones lie there once.
fn check_arena(tables: &[Option<Arc<Table>>], limits: &Limits) -> Result<(), CapacityError> {
    let mut distinct: Vec<&Arc<Table>> = tables.iter().flatten().collect();
    distinct.sort_unstable_by_key(|table| Arc::as_ptr(table));
    distinct.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let words = distinct.iter().map(|table| u64::from(table.shape(0).words()));
    let wanted = words.sum::<u64>() * u64::from(SLOTS_PER_WORD);
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
fn fingerprint(route: &Route) -> u32 {
    let names: Vec<String> = table::weighted(route).map(|(_, b)| table::name(b)).collect();
    // The low half: it has to tell apart the lists of one route over time, no more.
    xxh3_64(names.join("\0").as_bytes()) as u32
}

/// What people should know about a table that is not quite what the policy says.
fn warnings_of(route: &Route, vip: &Vip, built: &Remembered) -> Vec<String> {
    let of = format!("route of VIP {} (service {}, mesh {})", vip.key.addr, vip.service, vip.mesh);
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
