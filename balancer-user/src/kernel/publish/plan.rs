//! What the maps should hold, compared with what they hold. Nothing is written here.

mod patch;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use balancer_ebpf::abi::{
    CHUNK_WORDS, PortUse, Real, RouteEntry, RunWord, SLOTS_PER_WORD, SourceEntry, Table, VipEntry,
    map_names, pick, real_flags, route_kind,
};

use crate::{
    compile::{RealSpec, RouteSpec, Table as Compiled},
    resolve::VipKey,
};

use super::{
    super::{KernelError, View, read::real_address, view::arena_word},
    Memory, PublishOptions,
    dictionary::Change,
    ports::Ports,
    space::Space,
};

/// Everything that one publish will write before and at its flip.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) vips: Change<VipKey>,
    pub(crate) sources: Change<IpAddr>,
    pub(crate) class_routes: Change<(u32, u32)>,
    /// Elements that differ from the current half's, by rising id. The other half is equal to the
    /// current one, so these are all that there is to write.
    pub(crate) vip_entries: Vec<(u32, VipEntry)>,
    pub(crate) source_entries: Vec<(u32, SourceEntry)>,
    pub(crate) route_entries: Vec<(u32, RouteEntry)>,
    /// Class of each source that is new or whose element differs.
    pub(crate) classes: Vec<(IpAddr, u32)>,
    /// Route id, place, content.
    pub(crate) new_tables: Vec<(u32, Table, Arc<Compiled>)>,
    /// Address of a new content → its place: routes that share a table share its words.
    placed: BTreeMap<*const Compiled, Table>,
    /// Offset of a place → how many routes more (or fewer) name it.
    pub(crate) places: BTreeMap<u32, i64>,
    /// Places that the new set does not name.
    pub(crate) given_back: Vec<Table>,
    /// The arena once `new_tables` are in it.
    pub(crate) space: Space,
    pub(crate) new_reals: Vec<(u32, Real)>,
    pub(crate) returned: Vec<u32>,
    /// Ports of VIPs and reals, old and new.
    pub(crate) ports: Ports,
    /// Class routes that are new: they mean "the VIP's default" until the flip.
    pub(crate) inherit: Vec<u32>,
}

/// What a plan is made for.
pub(crate) struct Moment<'a, 'b> {
    pub(crate) view: &'a View,
    pub(crate) memory: &'a Memory,
    pub(crate) options: &'a PublishOptions<'b>,
    /// The interface that a source must come from, of those that were asked for.
    pub(crate) ifindex: BTreeMap<IpAddr, u32>,
    /// The live epoch.
    pub(crate) epoch: u64,
    /// `CLOCK_MONOTONIC`.
    pub(crate) now_ns: u64,
}

impl Plan {
    /// Whether the new set differs from the current one in any way that packets could see.
    pub(crate) fn flips(&self) -> bool {
        !self.vip_entries.is_empty()
            || !self.source_entries.is_empty()
            || !self.route_entries.is_empty()
            || !self.vips.is_empty()
            || !self.sources.is_empty()
            || !self.class_routes.is_empty()
    }

    /// The element of a route. Where it is one of `current`'s class and VIP, a table that it
    /// has stays, or becomes the previous one.
    fn route(
        &mut self,
        moment: &Moment<'_, '_>,
        id: u32,
        spec: &RouteSpec,
    ) -> Result<RouteEntry, KernelError> {
        let Moment { view, memory, options, epoch, now_ns, .. } = *moment;
        // Of the same class and VIP as before, or an id that is used anew.
        let continues = memory.assignment.routes.get(&spec.owner) == Some(&id);
        let current = continues.then(|| view.route(epoch, id));
        let mut entry = RouteEntry {
            kind: if spec.deny { route_kind::DENY } else { route_kind::TABLE },
            pick: spec.pick,
            choices: spec.choices,
            flags: spec.flags,
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

    /// A real that tables name: new, as it is, or back.
    fn real(&mut self, view: &View, id: u32, spec: &RealSpec) -> Result<(), KernelError> {
        let current: Real = view.reals.read(id as usize);
        self.ports.add(spec.addr.port(), PortUse::Real);
        match real_address(&current) {
            Some(addr) if addr == spec.addr && current.generation == spec.generation => {
                if current.flags & real_flags::GONE != 0 {
                    self.returned.push(id);
                }
                Ok(())
            }
            Some(addr) => Err(KernelError::Conflict(format!(
                "real {id} is {addr} of generation {}, not {} of {}",
                current.generation, spec.addr, spec.generation
            ))),
            None if current.generation != 0 && spec.generation == current.generation => {
                Err(KernelError::Conflict(format!(
                    "real {id} had generation {} before and is to have it again",
                    current.generation
                )))
            }
            None => {
                self.new_reals.push((id, real(spec.addr, spec.generation)));
                Ok(())
            }
        }
    }

    /// Takes in what the element of a route should be.
    fn route_entry(&mut self, current: &RouteEntry, id: u32, entry: RouteEntry) {
        if *current == entry {
            return;
        }
        for (tables, more) in
            [([current.table, current.previous], -1), ([entry.table, entry.previous], 1)]
        {
            for table in tables.iter().filter(|table| table.slots > 0) {
                *self.places.entry(table.offset).or_insert(0) += more;
                if more < 0 {
                    self.given_back.push(*table);
                }
            }
        }
        self.route_entries.push((id, entry));
    }

    /// Of the places that some route gives back, those that no route names any more.
    fn give_back(&mut self, memory: &Memory) {
        let Self { given_back, places, .. } = self;
        given_back.sort_unstable_by_key(|table| table.offset);
        given_back.dedup_by_key(|table| table.offset);
        given_back.retain(|table| {
            let named = memory.places.get(&table.offset).copied().map_or(0, i64::from);
            named + places.get(&table.offset).copied().unwrap_or(0) <= 0
        });
    }
}

/// Real ids that the previous tables of the current half name.
pub(crate) fn reals_of_previous(
    view: &View,
    memory: &Memory,
) -> Result<BTreeSet<u32>, KernelError> {
    let mut named = BTreeSet::new();
    for id in &memory.previous {
        let table = view.route(view.epoch(), *id).previous;
        view.arena.with(table.offset, table.words(), |chunks| {
            named.extend((0..table.targets).map(|t| {
                balancer_ebpf::abi::TargetWord::unpack(arena_word(chunks, table.target_word(t)))
                    .real
            }));
        })?;
    }
    Ok(named)
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
