//! What the writer remembers between two publishes, and how it learns it from the maps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use balancer_ebpf::abi::{
    CHUNK_WORDS, ID_FIRST, RouteEntry, SourceEntry, VipEntry, map_names, route_kind,
};

use crate::compile::{Assignment, CounterRun, Table, Tables};

use super::{
    super::{Datapath, KernelError, View, read::real_address, sys, view::entries},
    dictionary::{Dictionaries, Edit, remember},
    plan::Plan,
    space::Space,
};

/// Mirrors of the maps: an unchanged element costs no system call.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The rest says what the maps hold, and both halves are equal.
    pub(crate) known: bool,
    pub(crate) assignment: Assignment,
    /// Table of each route, as this process wrote it.
    pub(crate) tables: BTreeMap<u32, Arc<Table>>,
    pub(crate) space: Space,
    /// Hash elements or real ids were given back since the last grace period.
    pub(crate) must_wait: bool,
    /// Counter ids that are given out may have counted before.
    pub(crate) zero_counters: bool,
}

impl Memory {
    /// Nothing is known: another process may have been killed a moment ago.
    pub(crate) fn unknown() -> Self {
        Self {
            known: false,
            assignment: Assignment::default(),
            tables: BTreeMap::new(),
            space: Space::default(),
            must_wait: true,
            zero_counters: true,
        }
    }

    /// Maps that this process has just made.
    pub(crate) fn fresh() -> Self {
        Self { must_wait: false, zero_counters: false, ..Self::unknown() }
    }

    /// What the maps hold, for who may only read.
    pub(crate) fn of_view(view: &View) -> Result<Self, KernelError> {
        Ok(Self { assignment: view.assignment()?, space: space(view)?, ..Self::unknown() })
    }

    /// Asks the maps which counters are still held back, once half of all are.
    pub(crate) fn thin_quarantine(&mut self, view: &View) -> Result<(), KernelError> {
        let capacity = entries(map_names::COUNTERS, &view.counters)? as usize;
        if self.assignment.quarantine.counters.len() > capacity / 2 {
            let (quarantine, swept) = view.quarantine(&self.assignment)?;
            self.assignment.quarantine = quarantine;
            self.zero_counters |= swept;
        }
        Ok(())
    }

    /// The plan was carried out.
    pub(crate) fn remember(&mut self, tables: &Tables, plan: &Plan) {
        let ids = &mut self.assignment;
        remember(&mut ids.vips, &plan.vips);
        remember(&mut ids.sources, &plan.sources);
        for (address, _) in &plan.sources.removed {
            ids.classes.remove(address);
        }
        // A source of class 0 that is new has an entry like that of none.
        let new: BTreeSet<&IpAddr> =
            plan.sources.added.iter().map(|(address, _)| address).collect();
        for (address, spec) in &tables.sources {
            if plan.sources_changed.binary_search(&spec.id).is_ok() || new.contains(address) {
                ids.classes.insert(*address, spec.class);
            }
        }
        remember(&mut ids.routes, &plan.class_routes);
        for (key, id) in &plan.vips.removed {
            ids.vips.remove(key);
            ids.routes.remove(&(0, *id));
        }
        for spec in tables.vips.values() {
            if plan.vips_changed.binary_search(&spec.id).is_ok() {
                ids.routes.insert((0, spec.id), spec.route);
            }
        }
        for id in &plan.routes_changed {
            let entry = &plan.route_entries[*id as usize];
            let counters =
                (entry.kind == route_kind::TABLE && entry.counters != 0).then_some(CounterRun {
                    first: entry.counters,
                    count: entry.table.backends,
                    backends: entry.counted,
                });
            let before = match counters {
                Some(range) => ids.counters.insert(*id, range),
                None => ids.counters.remove(id),
            };
            if let Some(run) = before
                && counters != before
            {
                // Flows may name them.
                ids.quarantine.counters.extend((run.first..).take(run.count as usize));
            }
            self.tables.remove(id);
        }
        for id in &plan.routes_changed {
            if let Some(run) = ids.counters.get(id) {
                for counter in (run.first..).take(run.count as usize) {
                    ids.quarantine.counters.remove(&counter);
                }
            }
            if let Some(table) = tables.routes.get(id).and_then(|r| r.table.as_ref()) {
                self.tables.insert(*id, Arc::clone(table));
            }
        }
        for (id, real) in &plan.new_reals {
            ids.free_real_generations.remove(id);
            if let Some(addr) = real_address(real) {
                ids.reals.insert(addr, (*id, real.generation));
            }
        }
    }
}

impl Datapath {
    /// Makes memory and maps agree: repairs what a killed writer left, reads the ids back.
    pub(crate) fn recall(&mut self) -> Result<(), KernelError> {
        if self.memory.known {
            return Ok(());
        }
        repair(&self.view, &mut self.memory)?;
        let (assignment, swept) = self.view.assignment_and_sweep()?;
        self.memory.assignment = assignment;
        self.memory.zero_counters |= swept;
        self.memory.tables.clear();
        self.memory.space = space(&self.view)?;
        self.memory.known = true;
        Ok(())
    }
}

/// Waits until every program run that has begun has ended.
pub(crate) fn grace(view: &View) -> Result<(), KernelError> {
    match sys::membarrier() {
        Ok(()) => Ok(()),
        // Booted with nohz_full, or built without it.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
            view.arena.touch()
        }
        Err(e) => Err(KernelError::system("membarrier", e)),
    }
}

/// Makes the other half equal to the current one and deletes dictionary entries that the
/// current half does not name. A source that it does not name reads like one of class 0: it
/// stays, counts as known, and goes with the next publish that does not want it.
fn repair(view: &View, memory: &mut Memory) -> Result<(), KernelError> {
    let epoch = view.epoch();
    let other = epoch ^ 1;
    let settings = &view.settings;
    let mut waited = false;
    let mut wait_once = || {
        if waited {
            return Ok(());
        }
        waited = true;
        // The writer may have been killed between its flip and the end of its grace period:
        // programs may still read the other half.
        grace(view)
    };
    macro_rules! copy {
        ($map:expr, $capacity:expr, $entry:ty) => {
            for id in 0..$capacity {
                let current: $entry = $map.read(View::at(epoch, $capacity, id));
                let at = View::at(other, $capacity, id);
                if $map.read::<$entry>(at) != current {
                    wait_once()?;
                    $map.write(at, &current);
                }
            }
        };
    }
    copy!(view.vips, settings.vips, VipEntry);
    copy!(view.sources, settings.sources, SourceEntry);
    copy!(view.routes, settings.routes, RouteEntry);

    let mut dictionaries = Dictionaries::open(view)?;
    for (key, id) in view.vip_dictionary()? {
        if view.vips.read::<VipEntry>(View::at(epoch, settings.vips, id)).route == 0 {
            dictionaries.vip(&key, Edit::Delete)?;
            memory.must_wait = true;
        }
    }
    for (key, id) in view.class_route_dictionary()? {
        if !view.is_route(epoch, id) {
            dictionaries.class_route(key, Edit::Delete)?;
            memory.must_wait = true;
        }
    }
    Ok(())
}

/// The free words of the arena: all that no route of the current half names.
fn space(view: &View) -> Result<Space, KernelError> {
    let epoch = view.epoch();
    let words = view.arena.refresh()? as u64 * CHUNK_WORDS as u64;
    let capacity = u64::from(view.arena.capacity()?) * CHUNK_WORDS as u64;
    let clamp = |n: u64| n.min(u64::from(u32::MAX)) as u32;
    let used = (ID_FIRST..view.settings.routes).map(|id| view.route(epoch, id)).flat_map(|r| {
        let live = r.kind == route_kind::TABLE;
        [r.table, r.previous].into_iter().filter(move |_| live)
    });
    Ok(Space::new(clamp(words), clamp(capacity), used))
}
