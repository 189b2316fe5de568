//! Readers for `status`: how full the maps are, which programs are pinned.

use std::collections::BTreeMap;

use aya::programs::ProgramInfo;
use balancer_ebpf::abi::{
    CHUNK_WORDS, Device, ID_FIRST, REAL_FIRST, Real, VipEntry, map_names, route_kind,
};
use zerocopy::FromBytes as _;

use super::{
    KernelError,
    layout::shape,
    read::each_raw,
    view::{View, entries},
};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapFill {
    /// Map.
    pub name: &'static str,
    /// Elements in use; for the arena, words.
    pub used: u64,
    /// Elements that fit; for the arena, words.
    pub capacity: u64,
    /// The setting that sizes it.
    pub setting: &'static str,
}

/// A pinned program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramRow {
    /// Name, as in the object.
    pub name: String,
    /// The kernel's id.
    pub id: u32,
    /// The kernel's tag: a hash of the instructions.
    pub tag: u64,
}

impl View {
    /// How full each map is that a setting sizes. Looks at every flow.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn fill(&self) -> Result<Vec<MapFill>, KernelError> {
        let mut rows = self.fill_of_set()?;
        for (maps, names) in [
            (&self.flows, [map_names::FLOWS4, map_names::FLOWS6]),
            (&self.half_open, [map_names::HALF_OPEN4, map_names::HALF_OPEN6]),
        ] {
            for (map, name) in maps.iter().zip(names) {
                let mut used = 0;
                each_raw(name, map, |_, _| used += 1)?;
                rows.push(row(name, used, u64::from(entries(name, map)?))?);
            }
        }
        Ok(rows)
    }

    /// How full the maps are that hold the published set: [`View::fill`] without the flows.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn fill_of_set(&self) -> Result<Vec<MapFill>, KernelError> {
        let epoch = self.epoch();
        let settings = &self.settings;
        let routes = (ID_FIRST..settings.routes).map(|id| self.route(epoch, id));
        let (mut routes_used, mut counters) = (0, 0);
        // Routes may share a table.
        let mut tables = BTreeMap::new();
        for route in routes.filter(|r| r.kind != route_kind::NONE && r.kind != route_kind::INHERIT)
        {
            routes_used += 1;
            counters += u64::from(route.table.backends);
            for table in [route.table, route.previous].iter().filter(|table| table.slots > 0) {
                tables.insert(table.offset, u64::from(table.words()));
            }
        }
        let words = tables.values().sum();
        let vips = (ID_FIRST..settings.vips)
            .filter(|id| self.vips.read::<VipEntry>(Self::at(epoch, settings.vips, *id)).route != 0)
            .count();
        let sources = self.source_dictionary()?.len();
        let reals = (REAL_FIRST as usize..self.real_capacity())
            .filter(|id| self.reals.read::<Real>(*id).family != 0)
            .count();
        Ok(vec![
            row(map_names::VIPS, vips as u64, u64::from(settings.vips) - 1)?,
            row(map_names::SOURCES, sources as u64, u64::from(settings.sources) - 1)?,
            row(map_names::ROUTES, routes_used, u64::from(settings.routes) - 1)?,
            row(map_names::REALS, reals as u64, (self.real_capacity() as u64).saturating_sub(2))?,
            row(
                map_names::COUNTERS,
                counters,
                u64::from(entries(map_names::COUNTERS, &self.counters)?) - 1,
            )?,
            row(map_names::ARENA, words, u64::from(self.arena.capacity()?) * CHUNK_WORDS as u64)?,
        ])
    }

    /// The pinned programs, by name.
    ///
    /// # Errors
    /// A pin cannot be opened.
    pub fn programs(&self) -> Result<Vec<ProgramRow>, KernelError> {
        let dir = self.pins.programs();
        let reading = |e| KernelError::system(format!("reading {}", dir.display()), e);
        let mut rows = Vec::new();
        for entry in std::fs::read_dir(&dir).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let failed = |e| super::program_failed(format!("opening program {name}"), e);
            let info = ProgramInfo::from_pin(entry.path()).map_err(failed)?;
            rows.push(ProgramRow { id: info.id(), tag: info.tag(), name });
        }
        rows.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(rows)
    }
}

impl View {
    /// The interfaces with programs of ours, by index, and what these know of them.
    ///
    /// # Errors
    /// See [`View::vips`].
    pub fn devices(&self) -> Result<Vec<(u32, Device)>, KernelError> {
        let name = map_names::DEVICES;
        let mut found = Vec::new();
        each_raw(name, &self.pinned(name)?, |key, value| {
            if let (Ok(key), Ok(device)) =
                (<[u8; 4]>::try_from(key), Device::read_from_bytes(value))
            {
                found.push((u32::from_ne_bytes(key), device));
            }
        })?;
        found.sort_unstable_by_key(|(index, _)| *index);
        Ok(found)
    }
}

fn row(name: &str, used: u64, capacity: u64) -> Result<MapFill, KernelError> {
    let shape = shape(name)?;
    Ok(MapFill { name: shape.name, used, capacity, setting: shape.setting })
}
