//! One set after the other, each whole.
//!
//! The order (design: write what nobody reads, flip, wait, clean up):
//!
//! 1. [`plan`]: capacities are checked, ids compared; nothing is written.
//! 2. `prepare`: reals, tables in free arena space, the other half of `VIPS`, `SOURCES` and
//!    `ROUTES`, dictionary entries (their ids read "none" or "the VIP's default" in the current
//!    half), port bits.
//! 3. `EPOCH`, one store with release order: a packet sees all of the old set or all of the new.
//! 4. A grace period: no packet reads the old half any more.
//! 5. `finish` and [`settle`]: the old half is made equal, dictionary entries that no half names
//!    are deleted, arena words given back, gone reals marked, ports that nothing uses cleared.
//!
//! What is given back to a hash map or to `REALS` is used again only after one more grace period
//! ([`memory`]): a program may hold it. Ids and arena words are reached through the half that a
//! packet's epoch names, so the period of step 4 suffices for them.

mod dictionary;
mod memory;
mod plan;
mod ports;
mod settle;
mod space;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    time::{Duration, Instant},
};

use aya::maps::{Map, PerCpuArray, PerCpuValues};
use balancer_ebpf::abi::{CHUNK_WORDS, Counter, RouteEntry, Settings, map_names, route_kind};

use crate::compile::{Patch, Tables};

use self::{
    dictionary::{Dictionaries, Edit},
    plan::{Moment, Plan},
};
use super::{Datapath, KernelError, View, netlink, read};

pub(crate) use memory::Memory;

/// The caller's step right before the flip: gets the number of the epoch that will be live. An
/// error leaves everything as it was.
pub type BeforeFlip<'a> =
    &'a mut dyn FnMut(u64) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a publish depends on besides the tables.
#[derive(Default)]
pub struct PublishOptions<'a> {
    /// How long the table before a change still serves connections without a flow entry.
    pub previous_for: Duration,
    /// How long a gone real keeps its flows; `None`: for ever (`on_gone: keep`).
    pub gone_reset: Option<Duration>,
    /// New flows that each CPU records a second; `None`: any number.
    pub new_flows: Option<NonZeroU32>,
    /// Connections for the proxy are reset while none listens; else the rest of their route holds.
    pub l7_reset: bool,
    /// Interfaces that will be attached to, besides those that are: sources behind them are
    /// checked for spoofing.
    pub interfaces: &'a [String],
    /// No interface was attached to and no route has changed since this process published last:
    /// the kernel is asked for sources that are new, not for all.
    pub interfaces_as_before: bool,
    /// See [`BeforeFlip`].
    pub before_flip: Option<BeforeFlip<'a>>,
}

/// What a publish wrote. All zero: the maps held these tables already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Dictionary entries added.
    pub keys_added: usize,
    /// Dictionary entries deleted.
    pub keys_deleted: usize,
    /// Elements of `VIPS`, `SOURCES` and `ROUTES` that changed.
    pub entries: usize,
    /// Tables written to the arena.
    pub tables: usize,
    /// Words of those.
    pub table_words: u64,
    /// Reals made, marked gone, returned or freed.
    pub reals: usize,
    /// Words of the port bitmap that changed.
    pub port_words: usize,
}

/// A finished publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The live epoch.
    pub epoch: u64,
    /// From the call to the flip: from then on new connections meet the new set.
    pub flip: Duration,
    /// The grace period after the flip.
    pub grace: Duration,
    /// What was written.
    pub written: Written,
}

impl Datapath {
    /// Makes `tables` the live set: all of it at one instant, or nothing. Where the maps hold
    /// these tables already, nothing is written and the epoch stays.
    ///
    /// # Errors
    /// [`KernelError::Full`] before anything is written. Any other failure before the flip
    /// leaves the current epoch untouched too; [`KernelError::AfterFlip`] says that the new set
    /// is live but not everything could be cleaned up.
    pub fn publish(
        &mut self,
        tables: &Tables,
        options: PublishOptions<'_>,
    ) -> Result<Published, KernelError> {
        self.publish_difference(tables, None, options)
    }

    /// [`Datapath::publish`] of tables that differ by `patch` from those that this process
    /// published last, and by nothing else: the time that it takes depends on the patch. Where
    /// nothing was published yet, or interfaces may be others, all of `tables` is looked at.
    ///
    /// # Errors
    /// As there.
    pub fn publish_patch(
        &mut self,
        tables: &Tables,
        patch: &Patch,
        options: PublishOptions<'_>,
    ) -> Result<Published, KernelError> {
        self.publish_difference(tables, Some(patch), options)
    }

    fn publish_difference(
        &mut self,
        tables: &Tables,
        patch: Option<&Patch>,
        mut options: PublishOptions<'_>,
    ) -> Result<Published, KernelError> {
        let begun = Instant::now();
        self.recall()?;
        let patch = patch.filter(|_| self.memory.published && options.interfaces_as_before);
        let published = self.publish_known(tables, patch, &mut options, begun);
        if published.is_err() {
            // The maps may be half written: learn from them again.
            self.memory.known = false;
            self.memory.must_wait = true;
        }
        published
    }

    fn publish_known(
        &mut self,
        tables: &Tables,
        patch: Option<&Patch>,
        options: &mut PublishOptions<'_>,
        begun: Instant,
    ) -> Result<Published, KernelError> {
        let (view, memory) = (&self.view, &mut self.memory);
        let now_ns = read::now()?;
        let epoch = view.epoch();
        let ifindex = expected_interfaces(view, memory, tables, patch, options)?;
        let moment = Moment { view, memory, options, ifindex, epoch, now_ns };
        let plan = match patch {
            Some(patch) => Plan::patch(&moment, tables, patch)?,
            None => Plan::whole(&moment, tables)?,
        };
        let mut written = Written::default();

        if memory.must_wait && (plan.flips() || !plan.new_reals.is_empty()) {
            let adds = [
                plan.vips.added.len(),
                plan.sources.added.len(),
                plan.class_routes.added.len(),
                plan.new_reals.len(),
            ];
            if adds.iter().any(|n| *n > 0) {
                memory::grace(view)?;
                memory.must_wait = false;
            }
        }
        let (next, flip, grace) = if plan.flips() {
            let next = epoch + 1;
            prepare(view, memory, &plan, next, &mut written)?;
            call_before_flip(options, next)?;
            view.epoch.store_release(0, next);
            let flip = begun.elapsed();
            let waiting = Instant::now();
            let after = |source| KernelError::AfterFlip { epoch: next, source: Box::new(source) };
            memory::grace(view).map_err(after)?;
            let grace = waiting.elapsed();
            finish(view, memory, tables, &plan, epoch, &mut written).map_err(after)?;
            (next, flip, grace)
        } else {
            write_reals(view, &plan, &mut written);
            call_before_flip(options, epoch)?;
            (epoch, begun.elapsed(), Duration::ZERO)
        };
        let after = |source| KernelError::AfterFlip { epoch: next, source: Box::new(source) };
        match patch {
            Some(patch) => memory.name_reals(patch),
            None => memory.name_all_reals(view, tables),
        }
        settle::settle(view, memory, tables, options, now_ns, &mut written).map_err(after)?;
        memory.published = true;
        memory.thin_quarantine(view).map_err(after)?;
        let keep = u64::MAX;
        let gone_reset_ns =
            options.gone_reset.map_or(keep, |d| u64::try_from(d.as_nanos()).unwrap_or(keep));
        let new_flows = options.new_flows.map_or(0, NonZeroU32::get);
        let settings: Settings = view.settings_words.read(0);
        let l7_reset = options.l7_reset.into();
        let settings = Settings { gone_reset_ns, new_flows, l7_reset, ..settings };
        view.settings_words.write(0, &settings);
        Ok(Published { epoch: next, flip, grace, written })
    }
}

impl View {
    /// Whether a publish of `tables` would begin: nothing is written. `previous_for` as in
    /// [`PublishOptions`]: a table that stays for a while takes room.
    ///
    /// # Errors
    /// What [`Datapath::publish`] would refuse with before it writes, above all
    /// [`KernelError::Full`].
    pub fn foresee(&self, tables: &Tables, previous_for: Duration) -> Result<(), KernelError> {
        let memory = Memory::of_view(self)?;
        let moment = Moment {
            view: self,
            memory: &memory,
            options: &PublishOptions { previous_for, ..PublishOptions::default() },
            ifindex: BTreeMap::new(),
            epoch: self.epoch(),
            now_ns: read::now()?,
        };
        Plan::whole(&moment, tables).map(drop)
    }
}

fn call_before_flip(options: &mut PublishOptions<'_>, epoch: u64) -> Result<(), KernelError> {
    match &mut options.before_flip {
        Some(hook) => hook(epoch).map_err(|e| KernelError::BeforeFlip(e.to_string())),
        None => Ok(()),
    }
}

/// Step 1: what nobody reads yet.
fn prepare(
    view: &View,
    memory: &Memory,
    plan: &Plan,
    next: u64,
    written: &mut Written,
) -> Result<(), KernelError> {
    write_reals(view, plan, written);
    let missing = (plan.space.words() as usize).div_ceil(CHUNK_WORDS);
    let missing = missing.saturating_sub(view.arena.chunks());
    if missing > 0 {
        view.arena.grow(missing)?;
    }
    for (_, place, table) in &plan.new_tables {
        view.arena.with(place.offset, place.words(), |chunks| {
            for (at, word) in (place.offset as usize..).zip(plan::words(table)) {
                chunks[at / CHUNK_WORDS].store(at % CHUNK_WORDS, word);
            }
        })?;
        written.tables += 1;
        written.table_words += u64::from(place.words());
    }
    if memory.zero_counters {
        zero_new_counters(view, plan, next - 1)?;
    }
    written.entries = write_half(view, plan, next);
    for id in &plan.inherit {
        let entry = RouteEntry { kind: route_kind::INHERIT, ..RouteEntry::default() };
        view.routes.write(View::at(next - 1, view.settings.routes, *id), &entry);
    }
    written.port_words += plan.ports.set_in(&view.ports);
    let added = plan.vips.added.len() + plan.sources.added.len() + plan.class_routes.added.len();
    if added == 0 {
        return Ok(());
    }
    let mut dictionaries = Dictionaries::open(view)?;
    for (key, id) in &plan.vips.added {
        dictionaries.vip(key, Edit::Add(*id))?;
    }
    for (address, id) in &plan.sources.added {
        dictionaries.source(address, Edit::Add(*id))?;
    }
    for (key, id) in &plan.class_routes.added {
        dictionaries.class_route(*key, Edit::Add(*id))?;
    }
    written.keys_added = added;
    Ok(())
}

/// Step 3, after the grace period: the old half, what only it named, and our memory.
fn finish(
    view: &View,
    memory: &mut Memory,
    tables: &Tables,
    plan: &Plan,
    old: u64,
    written: &mut Written,
) -> Result<(), KernelError> {
    write_half(view, plan, old);
    written.keys_deleted =
        plan.vips.removed.len() + plan.sources.removed.len() + plan.class_routes.removed.len();
    memory.space = plan.space.clone();
    plan.given_back.iter().for_each(|table| memory.space.give(table));
    memory.remember(tables, plan);
    if written.keys_deleted == 0 {
        return Ok(());
    }
    // A program may have found one of these elements and not yet read its id.
    memory.must_wait = true;
    let mut dictionaries = Dictionaries::open(view)?;
    for (key, _) in &plan.vips.removed {
        dictionaries.vip(key, Edit::Delete)?;
    }
    for (address, _) in &plan.sources.removed {
        dictionaries.source(address, Edit::Delete)?;
    }
    for (key, _) in &plan.class_routes.removed {
        dictionaries.class_route(*key, Edit::Delete)?;
    }
    Ok(())
}

/// Makes the half of `epoch`, which is equal to the one that the plan was compared with, what
/// the plan says. Returns the number of elements that changed.
fn write_half(view: &View, plan: &Plan, epoch: u64) -> usize {
    let settings = &view.settings;
    let mut changed = 0;
    for (id, entry) in &plan.vip_entries {
        changed += usize::from(view.vips.write(View::at(epoch, settings.vips, *id), entry));
    }
    for (id, entry) in &plan.source_entries {
        changed += usize::from(view.sources.write(View::at(epoch, settings.sources, *id), entry));
    }
    for (id, entry) in &plan.route_entries {
        changed += usize::from(view.routes.write(View::at(epoch, settings.routes, *id), entry));
    }
    changed
}

fn write_reals(view: &View, plan: &Plan, written: &mut Written) {
    for (id, real) in &plan.new_reals {
        view.reals.write(*id as usize, real);
        view.active.store(*id as usize, 0);
    }
    for id in &plan.returned {
        settle::bring_back(view, *id);
    }
    written.reals += plan.new_reals.len() + plan.returned.len();
}

/// Counter ids that a route gets anew must not begin with somebody else's counts.
fn zero_new_counters(view: &View, plan: &Plan, current: u64) -> Result<(), KernelError> {
    let failed = |e| super::map_failed(map_names::COUNTERS, e);
    let map = read::duplicate(map_names::COUNTERS, &view.counters)?;
    let mut map: PerCpuArray<_, [u8; size_of::<Counter>()]> =
        PerCpuArray::try_from(Map::PerCpuArray(map)).map_err(failed)?;
    for (id, new) in &plan.route_entries {
        let old = view.route(current, *id);
        if new.counters == 0 {
            continue;
        }
        let kept = old.kind == route_kind::TABLE && old.counters == new.counters;
        let first = if kept { new.counters + old.table.backends } else { new.counters };
        for counter in first..new.counters + new.table.backends {
            let zeros = vec![[0; size_of::<Counter>()]; read::cpus()?];
            let zeros = PerCpuValues::try_from(zeros)
                .map_err(|e| KernelError::map(map_names::COUNTERS, "sizing", e))?;
            map.set(counter, zeros, 0).map_err(failed)?;
        }
    }
    Ok(())
}

/// The interface that a source must come from, where one is expected: of each that the kernel has
/// to be asked for.
fn expected_interfaces(
    view: &View,
    memory: &Memory,
    tables: &Tables,
    patch: Option<&Patch>,
    options: &PublishOptions<'_>,
) -> Result<BTreeMap<IpAddr, u32>, KernelError> {
    let known = &memory.assignment.sources;
    let ask: Vec<IpAddr> = match patch {
        Some(patch) => patch.sources_added.clone(),
        None if memory.published && options.interfaces_as_before => {
            tables.sources.keys().filter(|address| !known.contains_key(address)).copied().collect()
        }
        None => tables.sources.keys().copied().collect(),
    };
    if ask.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut attached = BTreeSet::new();
    for link in view.links()?.into_iter().filter(|l| l.live) {
        attached.extend(netlink::interface_index(&link.interface)?);
    }
    for name in options.interfaces {
        attached.extend(netlink::interface_index(name)?);
    }
    if attached.is_empty() {
        return Ok(BTreeMap::new());
    }
    netlink::expected_interfaces(ask.into_iter(), &attached)
}
