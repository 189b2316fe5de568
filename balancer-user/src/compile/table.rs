//! One resolved route into one table.

use std::{collections::HashMap, fmt::Write, net::SocketAddr, sync::Arc};

use balancer_ebpf::abi::{REAL_BLACKHOLE, TARGETS_MAX, TargetWord, pick, route_flags};

use super::{
    Table,
    apportion::{Share, evenly},
    fill::{grouped, maglev, ring, smooth},
    size::{Division, Moved, TableSize, TableSizeError, divide, divide_by, moved},
};
use crate::{
    policy::LoadBalancer,
    resolve::{Backend, BackendState, Route},
};

/// A table and what there is to say about it.
pub(super) struct Built {
    pub(super) table: Table,
    /// A share that is more than 1 % off, and only a larger table could help.
    pub(super) moved: Option<Moved>,
}

/// Why a route has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No backend has a weight above 0: there is nothing to pick from.
    #[error("no backend has a weight above 0")]
    NoBackend,
    /// Slots are numbered targets; there are more targets than numbers.
    #[error("{0} targets, but one table names at most {TARGETS_MAX}")]
    TooManyTargets(u64),
    /// Each target needs a slot.
    #[error("{targets} targets need as many slots, but the table has {slots}")]
    TooFewSlots {
        /// Targets.
        targets: u64,
        /// Slots.
        slots: u32,
    },
}

/// Compiles the table of `route`, of the lowest rung that will do or of the `size` given.
/// `id` tells the id of a real.
pub fn table(
    route: &Route,
    id: impl FnMut(SocketAddr) -> u32,
    size: Option<TableSize>,
) -> Result<Table, TableError> {
    build(route, id, size, &mut Sequences::default()).map(|built| built.table)
}

pub(super) fn build(
    route: &Route,
    mut id: impl FnMut(SocketAddr) -> u32,
    size: Option<TableSize>,
    sequences: &mut Sequences,
) -> Result<Built, TableError> {
    let backends: Vec<usize> = weighted(route).map(|(index, _)| index).collect();
    if backends.is_empty() {
        return Err(TableError::NoBackend);
    }
    let shares: Vec<Share> = backends
        .iter()
        .map(|&index| {
            let backend = &route.backends[index];
            let targets = reals(backend).len().max(1);
            Share { weight: u64::from(backend.weight), at_least: targets as u32 }
        })
        .collect();
    let targets: u64 = shares.iter().map(|s| u64::from(s.at_least)).sum();
    if targets > TARGETS_MAX as u64 {
        return Err(TableError::TooManyTargets(targets));
    }
    let division = match size {
        None => divide(&shares),
        Some(size) => divide_by(&shares, size),
    }
    .ok_or(TableError::TooFewSlots {
        targets,
        slots: size.map_or(super::LARGEST.slots(), TableSize::slots),
    })?;

    let mut words = Vec::with_capacity(targets as usize);
    for (ordinal, &index) in backends.iter().enumerate() {
        let backend = ordinal as u32;
        match reals(&route.backends[index]) {
            [] => words.push(TargetWord { real: REAL_BLACKHOLE, backend }),
            reals => {
                words.extend(reals.iter().map(|&addr| TargetWord { real: id(addr), backend }));
            }
        }
    }
    let (slots, runs) = fill(route, &backends, &division, sequences);
    Ok(Built {
        table: Table { backends, runs, targets: words, slots },
        moved: moved(&shares, &division),
    })
}

/// Backends that take something, with their index in the route.
pub(super) fn weighted(route: &Route) -> impl Iterator<Item = (usize, &Backend)> {
    route.backends.iter().enumerate().filter(|(_, backend)| backend.weight > 0)
}

/// The reals that take a backend's share; none: its share is refused (decision D10).
pub(super) fn reals(backend: &Backend) -> &[SocketAddr] {
    match backend.state {
        BackendState::Ok => &backend.reals,
        BackendState::Empty | BackendState::Invalid | BackendState::Drained => &[],
    }
}

/// How a table is indexed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pick {
    /// One of [`pick`].
    pub(super) pick: u8,
    /// Samples for least request.
    pub(super) choices: u8,
    /// Bits of [`route_flags`].
    pub(super) flags: u8,
}

/// How the table of a route is indexed.
pub(super) fn pick_of(route: &Route) -> Pick {
    // Requests are told apart by the proxy alone.
    let proxy = if route.http.is_some() { route_flags::PROXY } else { 0 };
    let plain = |pick| Pick { pick, choices: 0, flags: proxy };
    match route.load_balancer {
        LoadBalancer::Maglev | LoadBalancer::RingHash { .. } => {
            let by_source = if route.hashing.by_source { route_flags::HASH_SOURCE_ONLY } else { 0 };
            Pick { flags: proxy | by_source, ..plain(pick::HASH) }
        }
        LoadBalancer::Random => plain(pick::RANDOM),
        LoadBalancer::RoundRobin => plain(pick::ROUND_ROBIN),
        LoadBalancer::LeastRequest { choice_count } => Pick {
            choices: u8::try_from(choice_count.max(2)).unwrap_or(u8::MAX),
            ..plain(pick::LEAST_REQUEST)
        },
    }
}

/// The size that a route's policy asks for: the largest where it asks for more.
pub(super) fn size_of(route: &Route) -> Option<TableSize> {
    let asked = route.hashing.slots?;
    match TableSize::new(asked) {
        Err(TableSizeError::TooLarge(_)) => Some(super::LARGEST),
        size => size.ok(),
    }
}

type Runs = Vec<(u32, u32)>;

/// Smooth sequences that were computed, by the targets' counts: thousands of services with as
/// many reals each have the same.
#[derive(Debug, Default)]
pub(super) struct Sequences(HashMap<Vec<u32>, Arc<[u16]>>);

impl Sequences {
    /// More are not kept, so that a process that runs for long does not grow.
    const MOST: usize = 64;

    fn smooth(&mut self, counts: Vec<u32>) -> Arc<[u16]> {
        if let Some(known) = self.0.get(&counts) {
            return Arc::clone(known);
        }
        let slots: Arc<[u16]> = smooth::fill(&counts).into();
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(counts, slots.clone());
        slots
    }
}

fn fill(
    route: &Route,
    backends: &[usize],
    division: &Division,
    sequences: &mut Sequences,
) -> (Arc<[u16]>, Runs) {
    let lists: Vec<&[SocketAddr]> =
        backends.iter().map(|&index| reals(&route.backends[index])).collect();
    let ungrouped = vec![(0, 0); backends.len()];
    match route.load_balancer {
        LoadBalancer::Maglev => (fill_maglev(route, backends, &lists, division).into(), ungrouped),
        LoadBalancer::RingHash { function, min_ring_size, max_ring_size } => {
            let shape =
                ring::RingShape { function, min_points: min_ring_size, max_points: max_ring_size };
            (fill_ring(route, backends, &lists, division, shape).into(), ungrouped)
        }
        LoadBalancer::Random => (grouped(&counts(&lists, division)).into(), ungrouped),
        LoadBalancer::RoundRobin => (sequences.smooth(counts(&lists, division)), ungrouped),
        LoadBalancer::LeastRequest { .. } => {
            let mut first = 0;
            let runs = division.slots.iter().map(|&slots| {
                let run = (first, slots);
                first += slots;
                run
            });
            (grouped(&counts(&lists, division)).into(), runs.collect())
        }
    }
}

/// Slots of each target, in order of targets. Within a backend they differ by one at most.
fn counts(lists: &[&[SocketAddr]], division: &Division) -> Vec<u32> {
    lists
        .iter()
        .zip(&division.slots)
        .flat_map(|(reals, &slots)| evenly(slots, reals.len().max(1)))
        .collect()
}

fn fill_maglev(
    route: &Route,
    backends: &[usize],
    lists: &[&[SocketAddr]],
    division: &Division,
) -> Vec<u16> {
    let mut targets = Vec::new();
    for ((&index, reals), &slots) in backends.iter().zip(lists).zip(&division.slots) {
        let mut names: Vec<String> = reals.iter().map(ToString::to_string).collect();
        if names.is_empty() {
            names.push(name(&route.backends[index]));
        }
        // The slots that do not come out even go to the first by name, as in Envoy.
        let mut by_name: Vec<usize> = (0..names.len()).collect();
        by_name.sort_unstable_by(|&a, &b| names[a].cmp(&names[b]));
        let mut counts = vec![0; names.len()];
        for (i, count) in by_name.into_iter().zip(evenly(slots, names.len())) {
            counts[i] = count;
        }
        targets.extend(names.into_iter().zip(counts));
    }
    maglev::fill(&targets, division.size)
}

/// Which slots belong to which backend is Maglev's choice, by the backends' names: exact, and
/// independent of their reals. Within a backend its own ring decides.
fn fill_ring(
    route: &Route,
    backends: &[usize],
    lists: &[&[SocketAddr]],
    division: &Division,
    shape: ring::RingShape,
) -> Vec<u16> {
    let owners: Vec<(String, u32)> = backends
        .iter()
        .zip(&division.slots)
        .map(|(&index, &slots)| (name(&route.backends[index]), slots))
        .collect();
    let owner = maglev::fill(&owners, division.size);
    let mut places: Vec<Vec<u32>> =
        division.slots.iter().map(|&n| Vec::with_capacity(n as usize)).collect();
    for (slot, &backend) in (0..).zip(&owner) {
        places[usize::from(backend)].push(slot);
    }

    let mut slots = vec![0u16; owner.len()];
    let mut first = 0u16;
    for (reals, places) in lists.iter().zip(places) {
        let names: Vec<String> = reals.iter().map(ToString::to_string).collect();
        let within = match names.as_slice() {
            [] | [_] => vec![0; places.len()],
            names => ring::fill(names, shape, &places, division.size.slots()),
        };
        for (place, target) in places.into_iter().zip(within) {
            slots[place as usize] = first + target;
        }
        // The last backend may end at the last ordinal.
        first = first.wrapping_add(names.len().max(1) as u16);
    }
    slots
}

/// What a backend is called where a hash of it is needed: its service and tags.
pub(super) fn name(backend: &Backend) -> String {
    let mut name = backend.destination.to_string();
    if let Some(kind) = backend.destination.object_kind() {
        // Neither a space nor a line break can be part of a name.
        let _ = write!(name, "\n{}", kind.name());
    }
    for (tag, value) in &backend.tags {
        // Writing to a string cannot fail. The separator cannot be part of a tag.
        let _ = write!(name, "\n{tag}={value}");
    }
    name
}
