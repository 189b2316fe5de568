//! Readers for `maps`: the arrays element by element, and what the kernel says of each map.

use std::{
    fs,
    ops::Range,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::maps::{ArrayOfMaps, Map, MapData, MapError, MapType};
use balancer_ebpf::{
    abi::{
        Counter, HOPS_MAX, Hops, NewFlows, NextHop, Real, RouteEntry, Settings, SnatPorts,
        SourceEntry, Trace, Traced, VipEntry, map_names,
    },
    reason::Reason,
};
use zerocopy::FromBytes as _;

use super::{
    KernelError, events,
    layout::{MapShape, SHAPES},
    read::{duplicate, each_raw, per_cpu},
    view::{View, entries},
};

/// A pinned map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRow {
    /// Name, as pinned.
    pub name: &'static str,
    /// The kernel's type, in bpftool's words.
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value, for one CPU.
    pub value_size: u32,
    /// Elements that are there; of an array, those that are not all zeros; of the ring buffer,
    /// bytes that nobody has read yet.
    pub used: u64,
    /// Elements that fit.
    pub capacity: u32,
    /// Bytes of kernel memory, as the kernel accounts for them; of the arena, with its chunks.
    pub memory: u64,
    /// The setting that sizes it; empty: fixed.
    pub setting: &'static str,
}

/// An element of an array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// Of `EPOCH`.
    Epoch(u64),
    /// Of `SETTINGS`.
    Settings(Settings),
    /// Of `PORTS`: two bits for each of 32 ports.
    Ports(u64),
    /// Of `REPLY_PORTS`: a bit for each of 64 ports.
    ReplyPorts(u64),
    /// Of `VIPS`.
    Vip(VipEntry),
    /// Of `SOURCES`.
    Source(SourceEntry),
    /// Of `ROUTES`.
    Route(RouteEntry),
    /// Of `ARENA`: the kernel's id of the map that the chunk is.
    Chunk(u32),
    /// Of `REALS`.
    Real(Real),
    /// Of `ACTIVE`: live connections.
    Active(u64),
    /// Of `TURNS`: each CPU's position.
    Turns(Vec<u32>),
    /// Of `NEW_FLOWS`: each CPU's.
    NewFlows(Vec<NewFlows>),
    /// Of `COUNTERS`: sum over all CPUs.
    Counter(Counter),
    /// Of `REASONS`: packets, sum over all CPUs.
    Reason(u64),
    /// Of `TRACE`.
    Trace(Trace),
    /// Of `TRACED`: sum over all CPUs.
    Traced(Traced),
    /// Of `HOPS`.
    Hops(Hops),
    /// Of `NEXT_HOPS`.
    NextHop(NextHop),
    /// Of `SNAT`.
    SnatPorts(SnatPorts),
}

impl Element {
    /// All zeros: never written, or given back. The epoch's element is never empty.
    pub fn is_empty(&self) -> bool {
        match self {
            // Epoch 0 says something: that nothing was published yet.
            Self::Epoch(_) => false,
            Self::Ports(word)
            | Self::ReplyPorts(word)
            | Self::Active(word)
            | Self::Reason(word) => *word == 0,
            Self::Settings(settings) => *settings == Settings::default(),
            Self::Vip(vip) => *vip == VipEntry::default(),
            Self::Source(source) => *source == SourceEntry::default(),
            Self::Route(route) => *route == RouteEntry::default(),
            // Only chunks that are there are read.
            Self::Chunk(_) => false,
            Self::Real(real) => *real == Real::default(),
            Self::Turns(turns) => turns.iter().all(|turn| *turn == 0),
            Self::NewFlows(cpus) => cpus.iter().all(|cpu| *cpu == NewFlows::default()),
            Self::Counter(counter) => *counter == Counter::default(),
            Self::Trace(trace) => *trace == Trace::default(),
            Self::Traced(traced) => *traced == Traced::default(),
            Self::Hops(hops) => *hops == Hops::default(),
            Self::NextHop(hop) => *hop == NextHop::default(),
            Self::SnatPorts(ports) => *ports == SnatPorts::default(),
        }
    }
}

impl View {
    /// The names of all maps, in the order of [`View::maps`].
    pub fn map_names() -> impl Iterator<Item = &'static str> {
        SHAPES.iter().map(|shape| shape.name)
    }

    /// Every pinned map.
    ///
    /// # Errors
    /// A pin cannot be opened, or a system call on a map failed.
    pub fn maps(&self) -> Result<Vec<MapRow>, KernelError> {
        SHAPES.iter().map(|shape| self.map_row(shape)).collect()
    }

    fn map_row(&self, shape: &MapShape) -> Result<MapRow, KernelError> {
        let name = shape.name;
        let failed = |e: MapError| super::map_failed(name, e);
        let map = self.pinned(name)?;
        let info = map.info().map_err(failed)?;
        let mut bytes = memory(name, map.fd().as_fd())?;
        let used = match self.array_len(name)? {
            _ if name == map_names::EVENTS => events::unread(&map)?,
            None => {
                let mut count = 0;
                each_raw(name, &map, |_, _| count += 1)?;
                count
            }
            Some(len) => {
                let elements = self.array(name, 0..len)?;
                elements.iter().filter(|element| !element.is_empty()).count() as u64
            }
        };
        if name == map_names::ARENA {
            for chunk in self.chunk_maps()? {
                bytes += memory(name, chunk.fd().as_fd())?;
            }
        }
        Ok(MapRow {
            name,
            kind: kind(info.map_type().map_err(failed)?),
            key_size: info.key_size(),
            value_size: info.value_size(),
            used,
            capacity: info.max_entries(),
            memory: bytes,
            setting: shape.setting,
        })
    }

    /// How many elements an array has, of the arena: chunks that are there, of the ring buffer:
    /// none, for nobody can look without taking, none of what programs write while they look at one
    /// packet, and none of the listeners, which only programs can look up; `None`: the map is a hash map.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn array_len(&self, name: &str) -> Result<Option<u32>, KernelError> {
        Ok(Some(match name {
            map_names::EPOCH => self.epoch.len() as u32,
            map_names::SETTINGS => 1,
            map_names::PORTS => self.ports.len() as u32,
            map_names::REPLY_PORTS => self.reply_ports.len() as u32,
            map_names::VIPS => 2 * self.settings.vips,
            map_names::SOURCES => 2 * self.settings.sources,
            map_names::ROUTES => 2 * self.settings.routes,
            map_names::ARENA => self.arena.refresh()? as u32,
            map_names::REALS => self.real_capacity() as u32,
            map_names::ACTIVE => self.active.len() as u32,
            map_names::TURNS | map_names::NEW_FLOWS => entries(name, &self.pinned(name)?)?,
            map_names::COUNTERS => entries(name, &self.counters)?,
            map_names::REASONS => Reason::ALL.len() as u32,
            map_names::TRACE | map_names::TRACED => 1,
            map_names::EVENTS | map_names::SCRATCH | map_names::PROXY_LISTENERS => 0,
            map_names::HOPS | map_names::SNAT => 1,
            map_names::NEXT_HOPS => HOPS_MAX as u32,
            _ => return Ok(None),
        }))
    }

    /// Elements of an array. `range` lies within [`View::array_len`]; of a hash map there are
    /// none.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn array(&self, name: &str, range: Range<u32>) -> Result<Vec<Element>, KernelError> {
        let at = range.start as usize..range.end as usize;
        Ok(match name {
            map_names::EPOCH => at.map(|i| Element::Epoch(self.epoch.load_acquire(i))).collect(),
            map_names::SETTINGS => {
                at.map(|i| Element::Settings(self.settings_words.read(i))).collect()
            }
            map_names::PORTS => at.map(|i| Element::Ports(self.ports.load(i))).collect(),
            map_names::REPLY_PORTS => {
                at.map(|i| Element::ReplyPorts(self.reply_ports.load(i))).collect()
            }
            map_names::VIPS => at.map(|i| Element::Vip(self.vips.read(i))).collect(),
            map_names::SOURCES => at.map(|i| Element::Source(self.sources.read(i))).collect(),
            map_names::ROUTES => at.map(|i| Element::Route(self.routes.read(i))).collect(),
            map_names::ARENA => {
                let mut ids = Vec::new();
                for chunk in self.chunk_maps()? {
                    let info = chunk.info().map_err(|e| super::map_failed(name, e))?;
                    ids.push(Element::Chunk(info.id()));
                }
                ids.into_iter().take(at.end).skip(at.start).collect()
            }
            map_names::REALS => at.map(|i| Element::Real(self.reals.read(i))).collect(),
            map_names::ACTIVE => at.map(|i| Element::Active(self.active.load(i))).collect(),
            map_names::TURNS => {
                let turns = per_cpu::<u32>(name, &self.pinned(name)?)?;
                let read = |i| {
                    let values = turns.get(&i, 0).map_err(|e| super::map_failed(name, e))?;
                    Ok(Element::Turns(values.to_vec()))
                };
                range.map(read).collect::<Result<_, KernelError>>()?
            }
            map_names::NEW_FLOWS => {
                let cpus = per_cpu::<[u8; size_of::<NewFlows>()]>(name, &self.pinned(name)?)?;
                let read = |i| {
                    let values = cpus.get(&i, 0).map_err(|e| super::map_failed(name, e))?;
                    let one =
                        |bytes: &[u8; _]| NewFlows::read_from_bytes(bytes).unwrap_or_default();
                    Ok(Element::NewFlows(values.iter().map(one).collect()))
                };
                range.map(read).collect::<Result<_, KernelError>>()?
            }
            map_names::COUNTERS => self
                .counters(range.start, range.end - range.start)?
                .into_iter()
                .map(|row| Element::Counter(row.counter))
                .collect(),
            map_names::REASONS => {
                let rows = self.reasons()?.into_iter();
                rows.take(at.end).skip(at.start).map(|row| Element::Reason(row.1)).collect()
            }
            map_names::TRACE => vec![Element::Trace(events::asked(&self.pinned(name)?)?)],
            map_names::TRACED => vec![Element::Traced(events::traced(&self.pinned(name)?)?)],
            map_names::HOPS => vec![Element::Hops(self.hops())],
            map_names::SNAT => vec![Element::SnatPorts(self.snat_ports())],
            map_names::NEXT_HOPS => at.map(|i| Element::NextHop(self.next_hops.read(i))).collect(),
            _ => Vec::new(),
        })
    }

    pub(crate) fn pinned(&self, name: &str) -> Result<MapData, KernelError> {
        MapData::from_pin(self.pins.map(name)).map_err(|e| super::map_failed(name, e))
    }

    fn chunk_maps(&self) -> Result<Vec<MapData>, KernelError> {
        let failed = |e: MapError| super::map_failed(map_names::ARENA, e);
        let count = self.arena.refresh()? as u32;
        let outer = duplicate(map_names::ARENA, &self.arena.outer)?;
        let outer: ArrayOfMaps<_, MapData> =
            ArrayOfMaps::try_from(Map::ArrayOfMaps(outer)).map_err(failed)?;
        (0..count).map(|chunk| outer.get(&chunk, 0).map_err(failed)).collect()
    }
}

/// What the kernel accounts for a map (`memlock` in fdinfo).
fn memory(name: &str, map: BorrowedFd<'_>) -> Result<u64, KernelError> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = fs::read_to_string(&path)
        .map_err(|e| KernelError::system(format!("reading {path} of map {name}"), e))?;
    text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok()).ok_or_else(
        || {
            let missing = std::io::Error::other("it has no line `memlock`");
            KernelError::system(format!("reading {path} of map {name}"), missing)
        },
    )
}

fn kind(kind: MapType) -> String {
    match kind {
        MapType::Hash => "hash".to_owned(),
        MapType::LruHash => "lru_hash".to_owned(),
        MapType::Array => "array".to_owned(),
        MapType::PerCpuArray => "percpu_array".to_owned(),
        MapType::ArrayOfMaps => "array_of_maps".to_owned(),
        MapType::RingBuf => "ringbuf".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}
