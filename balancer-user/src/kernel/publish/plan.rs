//! What the maps should hold, compared with what they hold. Nothing is written here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use balancer_ebpf::abi::{
    CHUNK_WORDS, ID_FIRST, PortUse, REAL_FIRST, Real, RouteEntry, RunWord, SLOTS_PER_WORD,
    SourceEntry, Table, VipEntry, map_names, pick, real_flags, route_kind, vip_flags,
};

use crate::{
    compile::{RouteSpec, Table as Compiled, Tables},
    resolve::VipKey,
};

use super::{
    super::{
        KernelError, View,
        read::real_address,
        view::{arena_word, entries},
    },
    Memory, PublishOptions,
    dictionary::{Change, change},
    ports::Ports,
    space::Space,
};

/// Everything that one publish will write before and at its flip.
pub(crate) struct Plan {
    pub(crate) vips: Change<VipKey>,
    pub(crate) sources: Change<IpAddr>,
    pub(crate) class_routes: Change<(u32, u32)>,
    /// By id, the whole half.
    pub(crate) vip_entries: Vec<VipEntry>,
    pub(crate) source_entries: Vec<SourceEntry>,
    pub(crate) route_entries: Vec<RouteEntry>,
    /// Ids whose entry differs from the current half's, rising. The other half is equal to the
    /// current one, so these are all that there is to write.
    pub(crate) vips_changed: Vec<u32>,
    pub(crate) sources_changed: Vec<u32>,
    pub(crate) routes_changed: Vec<u32>,
    /// Route id, place, content.
    pub(crate) new_tables: Vec<(u32, Table, Arc<Compiled>)>,
    /// Address of a new content → its place: routes that share a table share its words.
    placed: BTreeMap<*const Compiled, Table>,
    /// Places that the new set does not name.
    pub(crate) given_back: Vec<Table>,
    /// The arena once `new_tables` are in it.
    pub(crate) space: Space,
    pub(crate) new_reals: Vec<(u32, Real)>,
    pub(crate) returned: Vec<u32>,
    /// Ports of the new set's VIPs and reals.
    pub(crate) ports: Ports,
    /// Class routes that are new: they mean "the VIP's default" until the flip.
    pub(crate) inherit: Vec<u32>,
}

impl Plan {
    /// Whether the new set differs from the current one in any way that packets could see.
    pub(crate) fn flips(&self) -> bool {
        !self.vips_changed.is_empty()
            || !self.sources_changed.is_empty()
            || !self.routes_changed.is_empty()
            || !self.vips.is_empty()
            || !self.sources.is_empty()
            || !self.class_routes.is_empty()
    }

    /// Compares. `ifindex` tells the interface that a source must come from; `now_ns` is
    /// `CLOCK_MONOTONIC`.
    pub(crate) fn make(
        view: &View,
        memory: &Memory,
        tables: &Tables,
        options: &PublishOptions<'_>,
        ifindex: &BTreeMap<IpAddr, u32>,
        now_ns: u64,
    ) -> Result<Self, KernelError> {
        check_capacity(view, tables)?;
        let epoch = view.epoch();
        let old = &memory.assignment;
        let vips = change(
            "VIP",
            old.vips.iter().map(|(k, id)| (*k, *id)),
            tables.vips.iter().map(|(k, spec)| (*k, spec.id)),
        )?;
        let sources = change(
            "source",
            old.sources.iter().map(|(k, id)| (*k, *id)),
            tables.sources.iter().map(|(k, spec)| (*k, spec.id)),
        )?;
        let own = old.routes.iter().filter(|((class, _), _)| *class != 0);
        let class_routes = change(
            "class route",
            own.map(|(k, id)| (*k, *id)),
            tables.class_routes.iter().map(|(k, id)| (*k, *id)),
        )?;

        let mut plan = Self {
            vips,
            sources,
            class_routes,
            vip_entries: vec![VipEntry::default(); view.settings.vips as usize],
            source_entries: vec![SourceEntry::default(); view.settings.sources as usize],
            route_entries: vec![RouteEntry::default(); view.settings.routes as usize],
            vips_changed: Vec::new(),
            sources_changed: Vec::new(),
            routes_changed: Vec::new(),
            new_tables: Vec::new(),
            placed: BTreeMap::new(),
            given_back: Vec::new(),
            space: memory.space.clone(),
            new_reals: Vec::new(),
            returned: Vec::new(),
            ports: Ports::none(),
            inherit: Vec::new(),
        };
        for (key, spec) in &tables.vips {
            let flags = if spec.classes_agree { vip_flags::CLASSES_AGREE } else { 0 };
            plan.vip_entries[spec.id as usize] = VipEntry { route: spec.route, flags };
            plan.ports.add(key.addr.port(), PortUse::Vip);
        }
        for (address, spec) in &tables.sources {
            let ifindex = ifindex.get(address).copied().unwrap_or(0);
            plan.source_entries[spec.id as usize] = SourceEntry { class: spec.class, ifindex };
        }
        plan.routes(view, memory, tables, options, epoch, now_ns)?;
        plan.reals(view, tables)?;
        plan.compare(view, epoch);
        Ok(plan)
    }

    fn routes(
        &mut self,
        view: &View,
        memory: &Memory,
        tables: &Tables,
        options: &PublishOptions<'_>,
        epoch: u64,
        now_ns: u64,
    ) -> Result<(), KernelError> {
        for id in ID_FIRST..view.settings.routes {
            // Somebody may hold the id from the dictionary until a grace period has passed.
            if view.route(epoch, id).kind == route_kind::INHERIT {
                self.route_entries[id as usize].kind = route_kind::INHERIT;
            }
        }
        for (key, id) in &self.class_routes.removed {
            if tables.routes.contains_key(id) {
                return Err(KernelError::Conflict(format!(
                    "route {id} is given back by class route {key:?} and given out again at once"
                )));
            }
            self.route_entries[*id as usize].kind = route_kind::INHERIT;
        }
        for (key, id) in &self.class_routes.added {
            match view.route(epoch, *id).kind {
                route_kind::INHERIT => {}
                route_kind::NONE => self.inherit.push(*id),
                _ => {
                    return Err(KernelError::Conflict(format!(
                        "class route {key:?} wants route {id}, which is in use"
                    )));
                }
            }
        }
        for (id, spec) in &tables.routes {
            let current = view.route(epoch, *id);
            // Of the same class and VIP as before, or an id that is used anew.
            let continues = memory.assignment.routes.get(&spec.owner) == Some(id);
            self.route_entries[*id as usize] =
                self.route(view, memory, options, *id, spec, continues.then_some(current), now_ns)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "one route's part of `routes`, called once")]
    fn route(
        &mut self,
        view: &View,
        memory: &Memory,
        options: &PublishOptions<'_>,
        id: u32,
        spec: &RouteSpec,
        current: Option<RouteEntry>,
        now_ns: u64,
    ) -> Result<RouteEntry, KernelError> {
        let mut entry = RouteEntry {
            kind: if spec.deny { route_kind::DENY } else { route_kind::TABLE },
            pick: spec.pick,
            choices: spec.choices,
            counters: spec.counters.first,
            counted: spec.counters.backends,
            ..RouteEntry::default()
        };
        if spec.deny {
            return Ok(entry);
        }
        let Some(compiled) = &spec.table else {
            return Err(KernelError::Conflict(format!("route {id} forwards but has no table")));
        };
        let current = current.filter(|c| c.kind == route_kind::TABLE);
        if let Some(current) = current
            && is_content(view, memory, id, &current.table, compiled)?
        {
            entry.table = current.table;
            if current.previous.slots > 0 && current.previous_until_ns > now_ns {
                entry.previous = current.previous;
                entry.previous_counters = current.previous_counters;
                entry.previous_until_ns = current.previous_until_ns;
            }
            return Ok(entry);
        }
        entry.table = self.place(view, id, compiled)?;
        // Only a hash finds a connection's slot again.
        if let Some(current) = current
            && (current.pick, spec.pick) == (pick::HASH, pick::HASH)
            && !options.previous_for.is_zero()
        {
            entry.previous = current.table;
            entry.previous_counters = current.counters;
            let window = u64::try_from(options.previous_for.as_nanos()).unwrap_or(u64::MAX);
            entry.previous_until_ns = now_ns.saturating_add(window);
        }
        Ok(entry)
    }

    /// Finds room for a table that is not in the arena.
    fn place(
        &mut self,
        view: &View,
        id: u32,
        compiled: &Arc<Compiled>,
    ) -> Result<Table, KernelError> {
        if let Some(shared) = self.placed.get(&Arc::as_ptr(compiled)) {
            return Ok(*shared);
        }
        let mut table = Table {
            offset: 0,
            slots: compiled.slots.len() as u32,
            targets: compiled.targets.len() as u32,
            backends: compiled.runs.len() as u32,
        };
        table.offset = self.space.take(table.words(), CHUNK_WORDS as u32).map_err(|full| {
            let slots = u64::from(SLOTS_PER_WORD);
            KernelError::Full {
                map: map_names::ARENA,
                needed: full.needed * slots,
                capacity: view
                    .arena
                    .capacity()
                    .map_or(0, |chunks| u64::from(chunks) * CHUNK_WORDS as u64 * slots),
                setting: "limits.arena_slots",
            }
        })?;
        self.placed.insert(Arc::as_ptr(compiled), table);
        self.new_tables.push((id, table, Arc::clone(compiled)));
        Ok(table)
    }

    fn reals(&mut self, view: &View, tables: &Tables) -> Result<(), KernelError> {
        for (id, spec) in &tables.reals {
            let current: Real = view.reals.read(*id as usize);
            self.ports.add(spec.addr.port(), PortUse::Real);
            match real_address(&current) {
                Some(addr) if addr == spec.addr && current.generation == spec.generation => {
                    if current.flags & real_flags::GONE != 0 {
                        self.returned.push(*id);
                    }
                }
                Some(addr) => {
                    return Err(KernelError::Conflict(format!(
                        "real {id} is {addr} of generation {}, not {} of {}",
                        current.generation, spec.addr, spec.generation
                    )));
                }
                None if current.generation != 0 && spec.generation == current.generation => {
                    return Err(KernelError::Conflict(format!(
                        "real {id} had generation {} before and is to have it again",
                        current.generation
                    )));
                }
                None => self.new_reals.push((*id, real(spec.addr, spec.generation))),
            }
        }
        Ok(())
    }

    fn compare(&mut self, view: &View, epoch: u64) {
        let settings = &view.settings;
        for (id, entry) in (0..).zip(&self.vip_entries) {
            let current: VipEntry = view.vips.read(View::at(epoch, settings.vips, id));
            if current != *entry {
                self.vips_changed.push(id);
            }
        }
        for (id, entry) in (0..).zip(&self.source_entries) {
            let current: SourceEntry = view.sources.read(View::at(epoch, settings.sources, id));
            if current != *entry {
                self.sources_changed.push(id);
            }
        }
        for (id, entry) in (0..).zip(&self.route_entries) {
            let current = view.route(epoch, id);
            if current == *entry {
                continue;
            }
            self.routes_changed.push(id);
            for table in [current.table, current.previous] {
                if table.slots > 0 && table != entry.table && table != entry.previous {
                    self.given_back.push(table);
                }
            }
        }
        // Another route may share the words, in either set.
        self.given_back.sort_unstable_by_key(|table| table.offset);
        self.given_back.dedup();
        if !self.given_back.is_empty() {
            let mut kept = BTreeSet::new();
            for table in self.route_entries.iter().flat_map(|e| [e.table, e.previous]) {
                if self.given_back.binary_search_by_key(&table.offset, |t| t.offset).is_ok()
                    && table.slots > 0
                {
                    kept.insert(table.offset);
                }
            }
            self.given_back.retain(|table| !kept.contains(&table.offset));
        }
    }

    /// Real ids that the new set's previous tables name.
    pub(crate) fn reals_of_previous(&self, view: &View) -> Result<BTreeSet<u32>, KernelError> {
        let mut named = BTreeSet::new();
        for entry in self.route_entries.iter().filter(|e| e.previous.slots > 0) {
            let table = entry.previous;
            view.arena.with(table.offset, table.words(), |chunks| {
                named.extend((0..table.targets).map(|t| {
                    balancer_ebpf::abi::TargetWord::unpack(arena_word(chunks, table.target_word(t)))
                        .real
                }));
            })?;
        }
        Ok(named)
    }
}

/// A real as the maps hold it, in the inventory.
fn real(addr: std::net::SocketAddr, generation: u32) -> Real {
    let mut real = Real { port: addr.port().to_be_bytes(), generation, ..Real::default() };
    match addr.ip() {
        IpAddr::V4(ip) => {
            real.addr[..4].copy_from_slice(&ip.octets());
            real.family = 4;
        }
        IpAddr::V6(ip) => {
            real.addr = ip.octets();
            real.family = 6;
        }
    }
    real
}

/// Whether `place` holds this table already.
fn is_content(
    view: &View,
    memory: &Memory,
    route: u32,
    place: &Table,
    compiled: &Arc<Compiled>,
) -> Result<bool, KernelError> {
    if let Some(known) = memory.tables.get(&route) {
        return Ok(Arc::ptr_eq(known, compiled) || known == compiled);
    }
    let shape = (place.slots as usize, place.targets as usize, place.backends as usize);
    if shape != (compiled.slots.len(), compiled.targets.len(), compiled.runs.len()) {
        return Ok(false);
    }
    view.arena.with(place.offset, place.words(), |chunks| {
        (place.offset..).zip(words(compiled)).all(|(at, word)| arena_word(chunks, at) == word)
    })
}

/// A table as the arena holds it.
pub(crate) fn words(table: &Compiled) -> impl Iterator<Item = u64> + '_ {
    let runs =
        table.runs.iter().map(|(first, slots)| RunWord { first: *first, slots: *slots }.pack());
    let targets = table.targets.iter().map(|t| t.pack());
    let slots = table
        .slots
        .chunks(SLOTS_PER_WORD as usize)
        .map(|four| four.iter().rev().fold(0u64, |word, slot| word << 16 | u64::from(*slot)));
    runs.chain(targets).chain(slots)
}

/// Every id must have an element. Checked before anything is written.
fn check_capacity(view: &View, tables: &Tables) -> Result<(), KernelError> {
    let full = |map, highest: Option<u32>, capacity: u32, reserved: u32, setting| match highest {
        Some(id) if id >= capacity => Err(KernelError::Full {
            map,
            needed: u64::from(id) + 1 - u64::from(reserved),
            capacity: u64::from(capacity - reserved),
            setting,
        }),
        _ => Ok(()),
    };
    let settings = &view.settings;
    let vips = tables.vips.values().map(|v| v.id).max();
    full(map_names::VIPS, vips, settings.vips, ID_FIRST, "limits.services")?;
    let sources = tables.sources.values().map(|s| s.id).max();
    full(map_names::SOURCES, sources, settings.sources, ID_FIRST, "limits.sources")?;
    let routes = tables.routes.keys().next_back().copied();
    full(map_names::ROUTES, routes, settings.routes, ID_FIRST, "limits.routes")?;
    let reals = tables.reals.keys().next_back().copied();
    full(map_names::REALS, reals, view.real_capacity() as u32, REAL_FIRST, "limits.reals")?;
    let counters = tables
        .routes
        .values()
        .filter_map(|r| {
            let run = r.counters;
            (run.first != 0 && run.count > 0).then(|| run.first.saturating_add(run.count - 1))
        })
        .max();
    let capacity = entries(map_names::COUNTERS, &view.counters)?;
    full(map_names::COUNTERS, counters, capacity, ID_FIRST, "limits.counters")?;
    for (key, spec) in &tables.vips {
        if !tables.routes.contains_key(&spec.route) {
            return Err(KernelError::Conflict(format!(
                "VIP {} names route {}, which is not among the routes",
                key.addr, spec.route
            )));
        }
    }
    for (key, route) in &tables.class_routes {
        if !tables.routes.contains_key(route) {
            return Err(KernelError::Conflict(format!(
                "class route {key:?} names route {route}, which is not among the routes"
            )));
        }
    }
    if let Some(id) = tables.reals.keys().next().filter(|id| **id < REAL_FIRST) {
        return Err(KernelError::Conflict(format!("real id {id} is reserved")));
    }
    Ok(())
}
