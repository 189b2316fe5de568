//! Readers: what the maps hold, as plain rows.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    time::Duration,
};

use aya::maps::{Map, MapData, PerCpuArray};
use balancer_ebpf::{
    abi::{
        ClassVip, Counter, ID_FIRST, REAL_FIRST, Real, RouteEntry, RunWord, SourceEntry, Table,
        TargetWord, VipEntry, VipKey4, VipKey6, map_names, real_flags, route_kind, vip_flags,
    },
    reason::Reason,
};
use zerocopy::FromBytes;

use crate::resolve::VipKey;

use super::{
    KernelError,
    layout::shape,
    sys,
    view::{View, arena_word},
};

/// A VIP of the published set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VipRow {
    /// What is dialled.
    pub key: VipKey,
    /// VIP id.
    pub id: u32,
    /// Route of class 0.
    pub route: u32,
    /// No class has a route of its own.
    pub classes_agree: bool,
    /// The proxy has connections to it, or may have some of before.
    pub proxied: bool,
}

/// A source of the published set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRow {
    /// Address.
    pub address: IpAddr,
    /// Source id.
    pub id: u32,
    /// Class id; 0: like everybody.
    pub class: u32,
    /// The only interface that it may come from; 0: not checked.
    pub ifindex: u32,
}

/// A class's own route to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassRouteRow {
    /// Class id.
    pub class: u32,
    /// VIP id.
    pub vip: u32,
    /// Route id.
    pub route: u32,
}

/// A route of the published set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRow {
    /// Route id.
    pub id: u32,
    /// What the map says.
    pub entry: RouteEntry,
    /// How long the previous table still counts; `None`: there is none, or no longer.
    pub previous_for: Option<Duration>,
}

/// A table, read out of the arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableContent {
    /// Slots of each backend where they are grouped, else zeros.
    pub runs: Vec<RunWord>,
    /// Ordinal → real id and backend ordinal.
    pub targets: Vec<TargetWord>,
    /// Slot → ordinal of a target.
    pub slots: Vec<u16>,
}

impl TableContent {
    /// Number of slots of each target, by ordinal.
    pub fn slots_per_target(&self) -> Vec<u32> {
        let mut count = vec![0; self.targets.len()];
        for slot in &self.slots {
            if let Some(n) = count.get_mut(usize::from(*slot)) {
                *n += 1;
            }
        }
        count
    }
}

/// A real, in the inventory or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealRow {
    /// Real id.
    pub id: u32,
    /// Address and port.
    pub addr: SocketAddr,
    /// Generation.
    pub generation: u32,
    /// Since when it is out of the inventory.
    pub gone_for: Option<Duration>,
    /// Live connections.
    pub active: u64,
}

/// A counter that is not zero or belongs to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Counter id.
    pub id: u32,
    /// Sum over all CPUs.
    pub counter: Counter,
}

impl View {
    /// VIPs, sorted by key.
    ///
    /// # Errors
    /// A system call on a map failed (so for every reader).
    pub fn vips(&self) -> Result<Vec<VipRow>, KernelError> {
        self.consistent(|epoch| {
            let mut rows = Vec::new();
            for (key, id) in self.vip_dictionary()? {
                let entry: VipEntry = self.vips.read(Self::at(epoch, self.settings.vips, id));
                if entry.route != 0 {
                    rows.push(VipRow {
                        key,
                        id,
                        route: entry.route,
                        classes_agree: entry.flags & vip_flags::CLASSES_AGREE != 0,
                        proxied: entry.flags & vip_flags::PROXIED != 0,
                    });
                }
            }
            rows.sort_unstable_by_key(|r| r.key);
            Ok(rows)
        })
    }

    /// Sources that have a class or an expected interface, sorted by address.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn sources(&self) -> Result<Vec<SourceRow>, KernelError> {
        self.consistent(|epoch| {
            let mut rows = Vec::new();
            for (address, id) in self.source_dictionary()? {
                let entry: SourceEntry =
                    self.sources.read(Self::at(epoch, self.settings.sources, id));
                rows.push(SourceRow { address, id, class: entry.class, ifindex: entry.ifindex });
            }
            rows.sort_unstable_by_key(|r| r.address);
            Ok(rows)
        })
    }

    /// Routes that classes have of their own, sorted by class and VIP.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn class_routes(&self) -> Result<Vec<ClassRouteRow>, KernelError> {
        self.consistent(|epoch| {
            let mut rows = Vec::new();
            for ((class, vip), route) in self.class_route_dictionary()? {
                if self.is_route(epoch, route) {
                    rows.push(ClassRouteRow { class, vip, route });
                }
            }
            rows.sort_unstable_by_key(|r| (r.class, r.vip));
            Ok(rows)
        })
    }

    /// Routes, by id.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn routes(&self) -> Result<Vec<RouteRow>, KernelError> {
        let now = now()?;
        self.consistent(|epoch| {
            Ok((ID_FIRST..self.settings.routes)
                .filter_map(|id| {
                    let entry = self.route(epoch, id);
                    let left = entry.previous_until_ns.saturating_sub(now);
                    let previous = entry.previous.slots > 0 && left > 0;
                    (entry.kind == route_kind::TABLE || entry.kind == route_kind::DENY).then(|| {
                        RouteRow {
                            id,
                            entry,
                            previous_for: previous.then(|| Duration::from_nanos(left)),
                        }
                    })
                })
                .collect())
        })
    }

    /// The content of a table of a route that was read from this view.
    ///
    /// # Errors
    /// [`KernelError::Conflict`] if the arena has no such words.
    pub fn table(&self, table: &Table) -> Result<TableContent, KernelError> {
        self.arena.with(table.offset, table.words(), |chunks| TableContent {
            runs: (0..table.backends)
                .map(|b| RunWord::unpack(arena_word(chunks, table.run_word(b))))
                .collect(),
            targets: (0..table.targets)
                .map(|t| TargetWord::unpack(arena_word(chunks, table.target_word(t))))
                .collect(),
            slots: (0..table.slots)
                .map(|slot| {
                    let (word, shift) = table.slot_word(slot);
                    (arena_word(chunks, word) >> shift) as u16
                })
                .collect(),
        })
    }

    /// Reals, by id.
    ///
    /// # Errors
    /// The clock cannot be read.
    pub fn reals(&self) -> Result<Vec<RealRow>, KernelError> {
        let now = now()?;
        Ok((REAL_FIRST..self.real_capacity() as u32)
            .filter_map(|id| {
                let real: Real = self.reals.read(id as usize);
                let gone = real.flags & real_flags::GONE != 0;
                Some(RealRow {
                    id,
                    addr: real_address(&real)?,
                    generation: real.generation,
                    gone_for: gone
                        .then(|| Duration::from_nanos(now.saturating_sub(real.gone_at_ns))),
                    active: self.active.load(id as usize),
                })
            })
            .collect())
    }

    /// Counters `first` and the `count - 1` after it, summed over all CPUs.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn counters(&self, first: u32, count: u32) -> Result<Vec<CounterRow>, KernelError> {
        let map = per_cpu::<[u8; size_of::<Counter>()]>(map_names::COUNTERS, &self.counters)?;
        (first..first.saturating_add(count))
            .map(|id| {
                let values =
                    map.get(&id, 0).map_err(|e| super::map_failed(map_names::COUNTERS, e))?;
                let mut counter = Counter::default();
                for value in values.iter() {
                    let one = Counter::read_from_bytes(value).unwrap_or_default();
                    counter.connections += one.connections;
                    counter.packets_in += one.packets_in;
                    counter.bytes_in += one.bytes_in;
                    counter.packets_out += one.packets_out;
                    counter.bytes_out += one.bytes_out;
                }
                Ok(CounterRow { id, counter })
            })
            .collect()
    }

    /// Packets for each reason, in the order of [`Reason::ALL`].
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn reasons(&self) -> Result<Vec<(Reason, u64)>, KernelError> {
        let map = per_cpu::<u64>(map_names::REASONS, &self.reasons)?;
        Reason::ALL
            .iter()
            .map(|reason| {
                let values = map
                    .get(&(*reason as u32), 0)
                    .map_err(|e| super::map_failed(map_names::REASONS, e))?;
                Ok((*reason, values.iter().sum()))
            })
            .collect()
    }

    pub(crate) fn vip_dictionary(&self) -> Result<Vec<(VipKey, u32)>, KernelError> {
        let mut rows = Vec::new();
        each(map_names::VIP_IDS4, &self.vip_ids4, |key: &VipKey4, id: &u32| {
            rows.push((VipKey::numbered(v4_address(key.addr, key.port), key.proto), *id));
        })?;
        each(map_names::VIP_IDS6, &self.vip_ids6, |key: &VipKey6, id: &u32| {
            rows.push((VipKey::numbered(v6_address(key.addr, key.port), key.proto), *id));
        })?;
        Ok(rows)
    }

    pub(crate) fn source_dictionary(&self) -> Result<Vec<(IpAddr, u32)>, KernelError> {
        let mut rows = Vec::new();
        each(map_names::SOURCE_IDS4, &self.source_ids4, |key: &[u8; 4], id: &u32| {
            rows.push((IpAddr::from(*key), *id));
        })?;
        each(map_names::SOURCE_IDS6, &self.source_ids6, |key: &[u8; 16], id: &u32| {
            rows.push((IpAddr::from(*key), *id));
        })?;
        Ok(rows)
    }

    pub(crate) fn class_route_dictionary(&self) -> Result<Vec<ClassRouteId>, KernelError> {
        let mut rows = Vec::new();
        each(map_names::CLASS_ROUTES, &self.class_routes, |key: &ClassVip, id: &u32| {
            rows.push(((key.class, key.vip), *id));
        })?;
        Ok(rows)
    }

    pub(crate) fn route(&self, epoch: u64, id: u32) -> RouteEntry {
        self.routes.read(Self::at(epoch, self.settings.routes, id))
    }

    /// The route exists in this epoch (and is not "like the VIP's default").
    pub(crate) fn is_route(&self, epoch: u64, id: u32) -> bool {
        id < self.settings.routes
            && matches!(self.route(epoch, id).kind, route_kind::TABLE | route_kind::DENY)
    }
}

/// An element of `CLASS_ROUTES`: (class, VIP), route.
type ClassRouteId = ((u32, u32), u32);

/// Address and port of a real; `None` for an id that is not in use.
pub(crate) fn real_address(real: &Real) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(real.port);
    match real.family {
        4 => {
            let [a, b, c, d, ..] = real.addr;
            Some(SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)))
        }
        6 => Some(SocketAddr::from((Ipv6Addr::from(real.addr), port))),
        _ => None,
    }
}

pub(super) fn v4_address(addr: [u8; 4], port: [u8; 2]) -> SocketAddr {
    SocketAddr::from((addr, u16::from_be_bytes(port)))
}

pub(super) fn v6_address(addr: [u8; 16], port: [u8; 2]) -> SocketAddr {
    SocketAddr::from((addr, u16::from_be_bytes(port)))
}

pub(crate) fn now() -> Result<u64, KernelError> {
    sys::monotonic_ns().map_err(|e| KernelError::system("reading CLOCK_MONOTONIC", e))
}

/// Possible CPUs: per-CPU maps hold a value for each.
pub(crate) fn cpus() -> Result<usize, KernelError> {
    aya::util::nr_cpus().map_err(|(path, e)| KernelError::system(format!("reading {path}"), e))
}

/// Hands every element of a hash map to `visit`, typed. The sizes were checked on opening.
pub(crate) fn each<K: FromBytes, V: FromBytes>(
    name: &str,
    map: &MapData,
    mut visit: impl FnMut(&K, &V),
) -> Result<(), KernelError> {
    each_raw(name, map, |key, value| {
        if let (Ok(key), Ok(value)) = (K::read_from_bytes(key), V::read_from_bytes(value)) {
            visit(&key, &value);
        }
    })
}

pub(crate) fn each_raw(
    name: &str,
    map: &MapData,
    visit: impl FnMut(&[u8], &[u8]),
) -> Result<(), KernelError> {
    let shape = shape(name)?;
    let value = if shape.per_cpu {
        // The kernel hands out one value for each possible CPU, each padded to 8 bytes.
        (shape.value as usize).next_multiple_of(8) * cpus()?
    } else {
        shape.value as usize
    };
    sys::for_each_element(map.fd().as_fd(), shape.key as usize, value, visit)
        .map_err(|e| KernelError::map(name, "BPF_MAP_LOOKUP_BATCH", e))
}

/// The map as a per-CPU array, through a descriptor of its own.
pub(crate) fn per_cpu<V: aya::Pod>(
    name: &str,
    map: &MapData,
) -> Result<PerCpuArray<MapData, V>, KernelError> {
    PerCpuArray::try_from(Map::PerCpuArray(duplicate(name, map)?))
        .map_err(|e| super::map_failed(name, e))
}

/// The same map behind a descriptor of its own: aya's typed maps own theirs.
pub(crate) fn duplicate(name: &str, map: &MapData) -> Result<MapData, KernelError> {
    let fd = map.fd().as_fd().try_clone_to_owned();
    MapData::from_fd(fd.map_err(|e| KernelError::map(name, "dup", e))?)
        .map_err(|e| super::map_failed(name, e))
}
