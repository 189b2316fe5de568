//! How much of each map a set takes.

use std::{collections::BTreeSet, net::SocketAddr};

use serde::Serialize;

use crate::{
    compile::{Assignment, Limits, Tables},
    kernel::{self, KernelError},
};

/// A limit, and what the sets take of it.
#[derive(Serialize)]
pub(super) struct RoomLine {
    /// The key that sets it.
    pub(super) setting: &'static str,
    /// What it counts.
    pub(super) of: &'static str,
    /// Maps that it sizes.
    pub(super) maps: Vec<&'static str>,
    /// Of the set before.
    pub(super) before: u32,
    /// Of the set after; reals that drain are among them.
    pub(super) needed: u32,
    pub(super) limit: u32,
    /// Kernel memory for as many as are needed.
    pub(super) bytes_needed: u64,
    /// Kernel memory at the limit; the arena takes its part only as it fills.
    pub(super) bytes_at_limit: u64,
}

/// One row for each limit that policies use up.
pub(super) fn rows(
    assignment: &Assignment,
    before: &Tables,
    after: &Tables,
    limits: &Limits,
) -> Result<Vec<RoomLine>, KernelError> {
    let mut needed = after.needs();
    // Those that the new set does not name drain, and keep their ids.
    let named: BTreeSet<SocketAddr> = after.reals.values().map(|real| real.addr).collect();
    needed.reals += assignment.reals.keys().filter(|addr| !named.contains(addr)).count() as u32;
    let before = before.needs();
    let (bytes, most) = (kernel::map_memory(&needed)?, kernel::map_memory(limits)?);
    let line = |setting: &'static str, of, get: fn(&Limits) -> u32| {
        let sum = |rows: &[kernel::MapMemory]| {
            rows.iter().filter(|row| row.setting == setting).map(|row| row.bytes).sum()
        };
        let maps = most.iter().filter(|row| row.setting == setting).map(|row| row.name);
        RoomLine {
            setting,
            of,
            maps: maps.collect(),
            before: get(&before),
            needed: get(&needed),
            limit: get(limits),
            bytes_needed: sum(&bytes),
            bytes_at_limit: sum(&most),
        }
    };
    Ok(vec![
        line("limits.services", "VIPs", |limits| limits.services),
        line("limits.sources", "sources", |limits| limits.sources),
        line("limits.routes", "routes", |limits| limits.routes),
        line("limits.reals", "reals", |limits| limits.reals),
        line("limits.counters", "counters", |limits| limits.counters),
        line("limits.arena_slots", "slots of tables", |limits| limits.arena_slots),
    ])
}
