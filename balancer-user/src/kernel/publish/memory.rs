//! What the writer remembers between two publishes, and how it learns it from the maps.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use balancer_ebpf::abi::{
    CHUNK_WORDS, ID_FIRST, PortUse, REAL_FIRST, Real, RouteEntry, SourceEntry, VipEntry, map_names,
    route_kind,
};

use crate::compile::{Assignment, CounterRun, Patch, Table, Tables};

use super::{
    super::{
        Datapath, KernelError, View, addresses::Addresses, read::real_address, sys, view::entries,
    },
    dictionary::{Dictionaries, Edit, remember},
    plan::Plan,
    ports::PortUses,
    space::Space,
};

/// Mirrors of the maps: an unchanged element costs no system call.
#[derive(Debug)]
pub(crate) struct Memory {
    /// The rest says what the maps hold, and both halves are equal.
    pub(crate) known: bool,
    /// Since then this process has published, so that what it published last is live.
    pub(crate) published: bool,
    pub(crate) assignment: Assignment,
    /// Table of each route, as this process wrote it.
    pub(crate) tables: BTreeMap<u32, Arc<Table>>,
    pub(crate) space: Space,
    /// Offset of each place of the arena → how often routes name it.
    pub(crate) places: HashMap<u32, u32>,
    /// Routes that still have the table before a change.
    pub(crate) previous: BTreeSet<u32>,
    /// Reals of the maps that no live table names.
    pub(crate) unnamed: BTreeSet<u32>,
    /// Ports of the VIPs, and of all reals of the maps.
    pub(crate) ports: PortUses,
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
            published: false,
            assignment: Assignment::default(),
            tables: BTreeMap::new(),
            space: Space::default(),
            places: HashMap::new(),
            previous: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            ports: PortUses::default(),
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
        let mut memory =
            Self { assignment: view.assignment()?, space: space(view)?, ..Self::unknown() };
        memory.count(view);
        Ok(memory)
    }

    /// Counts who names what in the current half.
    fn count(&mut self, view: &View) {
        (self.places, self.previous, self.ports) = Default::default();
        for id in ID_FIRST..view.settings.routes {
            let route = view.route(view.epoch(), id);
            for table in [route.table, route.previous].into_iter().filter(|t| t.slots > 0) {
                *self.places.entry(table.offset).or_insert(0) += 1;
            }
            if route.previous.slots > 0 {
                self.previous.insert(id);
            }
        }
        for key in self.assignment.vips.keys() {
            self.ports.add(key.addr.port(), PortUse::Vip);
        }
        for addr in self.assignment.reals.keys() {
            self.ports.add(addr.port(), PortUse::Real);
        }
    }

    /// The reals that the live tables do not name, after a small change.
    pub(crate) fn name_reals(&mut self, patch: &Patch) {
        self.unnamed.extend(patch.reals_removed.iter().map(|(id, _)| *id));
        patch.reals_added.iter().for_each(|id| _ = self.unnamed.remove(id));
    }

    /// The same, whatever they named before.
    pub(crate) fn name_all_reals(&mut self, view: &View, tables: &Tables) {
        let mut named = tables.reals.keys().copied().peekable();
        self.unnamed = (REAL_FIRST..view.real_capacity() as u32)
            .filter(|id| named.next_if_eq(id).is_none())
            .filter(|id| real_address(&view.reals.read::<Real>(*id as usize)).is_some())
            .collect();
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
        ids.classes.extend(plan.classes.iter().copied());
        remember(&mut ids.routes, &plan.class_routes);
        for (key, id) in &plan.vips.removed {
            ids.routes.remove(&(0, *id));
            self.ports.remove(key.addr.port(), PortUse::Vip);
        }
        for (key, _) in &plan.vips.added {
            self.ports.add(key.addr.port(), PortUse::Vip);
        }
        for (id, entry) in plan.vip_entries.iter().filter(|(_, entry)| entry.route != 0) {
            ids.routes.insert((0, *id), entry.route);
        }
        for (id, entry) in &plan.route_entries {
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
            if entry.previous.slots > 0 {
                self.previous.insert(*id);
            } else {
                self.previous.remove(id);
            }
        }
        for (id, _) in &plan.route_entries {
            if let Some(run) = ids.counters.get(id) {
                for counter in (run.first..).take(run.count as usize) {
                    ids.quarantine.counters.remove(&counter);
                }
            }
            if let Some(table) = tables.routes.get(id).and_then(|r| r.table.as_ref()) {
                self.tables.insert(*id, Arc::clone(table));
            }
        }
        for (offset, more) in &plan.places {
            let named = self.places.get(offset).copied().map_or(0, i64::from) + more;
            match u32::try_from(named) {
                Ok(named @ 1..) => _ = self.places.insert(*offset, named),
                _ => _ = self.places.remove(offset),
            }
        }
        for (id, real) in &plan.new_reals {
            ids.free_real_generations.remove(id);
            if let Some(addr) = real_address(real) {
                ids.reals.insert(addr, (*id, real.generation));
                self.ports.add(addr.port(), PortUse::Real);
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
        self.memory.count(&self.view);
        self.memory.published = false;
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

    Addresses::open(view)?.repair(view)?;
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
