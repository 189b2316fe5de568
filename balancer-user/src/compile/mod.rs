//! Resolved routes into tables and ids: what the maps should hold.
//!
//! Belongs here: apportionment, the ladder of table sizes, the five fills, ids. Does not know
//! policies' text, the clock or the kernel. Compile is a function of ([`Resolved`],
//! [`Assignment`], [`Limits`]): equal inputs give equal bytes. It fails on capacity only, and
//! says which limit.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use balancer_ebpf::abi::TargetWord;

use crate::resolve::{Resolved, VipKey};

pub mod apportion;
mod compiler;
mod error;
mod fill;
mod ids;
#[cfg(test)]
mod limit_tests;
mod patch;
mod size;
mod table;
#[cfg(test)]
mod tests;

pub use compiler::Compiler;
pub use error::CapacityError;
pub use fill::{maglev, murmur, ring, smooth};
pub use patch::Patch;
pub use size::{LARGEST, RUNGS, TableSize, TableSizeError};
pub use table::{TableError, table};

/// Compiles everything that the maps should hold. Fails only if something does not fit, before
/// anything is written. [`Compiler`] gives the same result and remembers tables.
pub fn compile(
    resolved: &Resolved,
    assignment: &Assignment,
    limits: &Limits,
) -> Result<Tables, CapacityError> {
    Compiler::new().compile(resolved, assignment, limits)
}

/// Ids that are in use: read back from the maps, empty at first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assignment {
    /// VIP → id.
    pub vips: BTreeMap<VipKey, u32>,
    /// Source address → id.
    pub sources: BTreeMap<IpAddr, u32>,
    /// Source address → class, as in the current epoch.
    pub classes: BTreeMap<IpAddr, u32>,
    /// (class id, VIP id) → route id; class 0 is the VIP's default route.
    pub routes: BTreeMap<(u32, u32), u32>,
    /// Real → (id, generation). Ids whose real is gone but may still have flows are here too.
    pub reals: BTreeMap<SocketAddr, (u32, u32)>,
    /// Route id → its counters.
    pub counters: BTreeMap<u32, CounterRun>,
    /// The last generation of ids that are free, so that the next one is newer.
    pub free_real_generations: BTreeMap<u32, u32>,
    /// Ids that must not be given out yet (their grace has not passed, or flows may use them).
    pub quarantine: Quarantine,
}

/// Counters of one route: as many ids in a row as it has backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterRun {
    /// First counter id.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// Fingerprint of the list of backends ([`balancer_ebpf::abi::RouteEntry::counted`]).
    pub backends: u32,
}

/// Ids not to be given out yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quarantine {
    /// Real ids.
    pub reals: std::collections::BTreeSet<u32>,
    /// Counter ids.
    pub counters: std::collections::BTreeSet<u32>,
}

/// Capacities (`limits` of the configuration).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections tracked at once, each family. Each takes two entries of a flow map.
    pub flows: u32,
    /// Connections in their handshake at once, each family.
    pub half_open: u32,
    /// VIPs.
    pub services: u32,
    /// Workload addresses.
    pub sources: u32,
    /// Routes: VIPs, plus one for each VIP × source class that differs from the VIP's default.
    pub routes: u32,
    /// Reals, those that drain included.
    pub reals: u32,
    /// Route × backend counters.
    pub counters: u32,
    /// Slots of all tables, old and new during a change.
    pub arena_slots: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 262_144,
            half_open: 65_536,
            services: 16_384,
            sources: 16_384,
            routes: 32_768,
            reals: 65_536,
            counters: 65_536,
            arena_slots: 4_194_304,
        }
    }
}

/// What the maps should hold after the next publish.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Every VIP with its id, default route id and whether all classes agree.
    pub vips: BTreeMap<VipKey, VipSpec>,
    /// Every source with its id and class id.
    pub sources: BTreeMap<IpAddr, SourceSpec>,
    /// (class id, VIP id) → route id, only where it differs from the VIP's default.
    pub class_routes: BTreeMap<(u32, u32), u32>,
    /// Route id → what it does.
    pub routes: BTreeMap<u32, RouteSpec>,
    /// Reals that some table names: id → address and generation.
    pub reals: BTreeMap<u32, RealSpec>,
    /// Addresses of the inventory: a real of the maps that is not among them is gone.
    pub inventory: Vec<SocketAddr>,
    /// Warnings: a share moved by more than 1 %, and so on.
    pub warnings: Vec<String>,
}

/// See [`Tables::vips`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipSpec {
    /// VIP id.
    pub id: u32,
    /// Route id of class 0.
    pub route: u32,
    /// No class has a route of its own.
    pub classes_agree: bool,
    /// Index into `Resolved::vips`.
    pub resolved: usize,
}

/// See [`Tables::sources`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceSpec {
    /// Source id.
    pub id: u32,
    /// Class id; 0: like everybody.
    pub class: u32,
}

/// See [`Tables::routes`].
#[derive(Clone, Debug, PartialEq)]
pub struct RouteSpec {
    /// Class id and VIP id that it belongs to.
    pub owner: (u32, u32),
    /// Index into `Resolved::routes`.
    pub resolved: usize,
    /// Refuse instead (no table).
    pub deny: bool,
    /// One of [`balancer_ebpf::abi::pick`].
    pub pick: u8,
    /// Samples for least request.
    pub choices: u8,
    /// Bits of [`balancer_ebpf::abi::route_flags`].
    pub flags: u8,
    /// Counters, one for each backend of the table; none where `deny`.
    pub counters: CounterRun,
    /// The table; `None` only where `deny`.
    pub table: Option<Arc<Table>>,
}

/// See [`Tables::reals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealSpec {
    /// Address and port.
    pub addr: SocketAddr,
    /// Generation.
    pub generation: u32,
}

/// A compiled table: slot → target → (real id, backend ordinal).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Backend ordinal → index into the resolved route's `backends` (zero weights have none).
    pub backends: Vec<usize>,
    /// First slot and number of slots of each backend where slots are grouped, else zeros.
    pub runs: Vec<(u32, u32)>,
    /// Targets: sorted by (backend, address of the real), so that the slots of one route are
    /// the same on every node, whatever ids its reals have there.
    pub targets: Vec<TargetWord>,
    /// Slot → ordinal of a target. Tables with the same sequence of slots share it.
    pub slots: Arc<[u16]>,
}
