//! The pinned maps, opened: everything that can be done without the right to write.

use std::{
    num::NonZeroU32,
    os::fd::AsFd as _,
    path::Path,
    sync::{PoisonError, RwLock},
};

use aya::maps::{ArrayOfMaps, Map, MapData, MapError};
use balancer_ebpf::abi::{
    ABI_VERSION, CHUNK_WORDS, REAL_FIRST, SLOTS_PER_WORD, Settings, map_names, program_names,
};

use crate::compile::Limits;

use super::{
    KernelError,
    layout::{Pins, SHAPES, shape},
    mapped::{Access, Mapped},
    sys,
};

/// The maps of a loaded datapath. All methods read.
#[derive(Debug)]
pub struct View {
    pub(crate) pins: Pins,
    /// The pin of `EPOCH` as a file: those of another load are others.
    pinned: Option<(u64, u64)>,
    pub(crate) settings: Settings,
    pub(crate) epoch: Mapped,
    pub(crate) settings_words: Mapped,
    pub(crate) ports: Mapped,
    pub(crate) reply_ports: Mapped,
    pub(crate) interfaces: MapData,
    pub(crate) vips: Mapped,
    pub(crate) sources: Mapped,
    pub(crate) routes: Mapped,
    pub(crate) reals: Mapped,
    pub(crate) active: Mapped,
    pub(crate) arena: Arena,
    pub(crate) vip_ids4: MapData,
    pub(crate) vip_ids6: MapData,
    pub(crate) vip_addresses: [MapData; 2],
    pub(crate) source_ids4: MapData,
    pub(crate) source_ids6: MapData,
    pub(crate) class_routes: MapData,
    pub(crate) flows: [MapData; 2],
    pub(crate) half_open: [MapData; 2],
    pub(crate) fragments: MapData,
    pub(crate) counters: MapData,
    pub(crate) reasons: MapData,
    pub(crate) hops: Mapped,
    pub(crate) next_hops: Mapped,
    pub(crate) hop_ids: MapData,
    pub(crate) snat: Mapped,
}

/// The arena: chunks come, none ever goes.
#[derive(Debug)]
pub(crate) struct Arena {
    pub(crate) outer: MapData,
    access: Access,
    chunks: RwLock<Vec<Mapped>>,
}

impl Arena {
    /// Maps chunks that were added since the last look. Returns how many there are.
    pub(crate) fn refresh(&self) -> Result<usize, KernelError> {
        let failed = |e: MapError| super::map_failed(map_names::ARENA, e);
        let mut chunks = self.chunks.write().unwrap_or_else(PoisonError::into_inner);
        let info = self.outer.info().map_err(failed)?;
        let outer = super::read::duplicate(map_names::ARENA, &self.outer)?;
        let outer: ArrayOfMaps<_, MapData> =
            ArrayOfMaps::try_from(Map::ArrayOfMaps(outer)).map_err(failed)?;
        while (chunks.len() as u32) < info.max_entries() {
            let chunk = match outer.get(&(chunks.len() as u32), 0) {
                Ok(chunk) => chunk,
                Err(MapError::KeyNotFound) => break,
                Err(e) => return Err(failed(e)),
            };
            let mapped = Mapped::new(chunk.fd().as_fd(), CHUNK_WORDS, self.access)
                .map_err(|e| KernelError::map(map_names::ARENA, "mmap", e))?;
            chunks.push(mapped);
        }
        Ok(chunks.len())
    }

    /// Runs `f` on the chunks that hold the words from `offset` on, `words` of them.
    pub(crate) fn with<T>(
        &self,
        offset: u32,
        words: u32,
        f: impl FnOnce(&[Mapped]) -> T,
    ) -> Result<T, KernelError> {
        let last = (u64::from(offset) + u64::from(words)).div_ceil(CHUNK_WORDS as u64) as usize;
        let known = self.chunks.read().unwrap_or_else(PoisonError::into_inner).len();
        if last > known && self.refresh()? < last {
            return Err(KernelError::Conflict(format!(
                "a table lies at words {offset}..{}, beyond the arena's chunks",
                u64::from(offset) + u64::from(words)
            )));
        }
        Ok(f(&self.chunks.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Adds `count` chunks behind those that are there. All or none of them are seen by
    /// programs when this returns.
    pub(crate) fn grow(&self, count: usize) -> Result<(), KernelError> {
        let failed = |call| move |e| KernelError::map(map_names::ARENA, call, e);
        let first = self.refresh()?;
        let mut made = Vec::new();
        let mut words = Vec::new();
        for _ in 0..count {
            let chunk = sys::create_words("ARENA.chunk", CHUNK_WORDS as u32)
                .map_err(failed("BPF_MAP_CREATE (a chunk)"))?;
            words.push(
                Mapped::new(chunk.as_fd(), CHUNK_WORDS, self.access).map_err(failed("mmap"))?,
            );
            made.push(chunk);
        }
        let fds: Vec<_> = made.iter().map(|chunk| chunk.as_fd()).collect();
        sys::insert_inner_maps(self.outer.fd().as_fd(), first as u32, &fds)
            .map_err(failed("BPF_MAP_UPDATE_BATCH"))?;
        self.chunks.write().unwrap_or_else(PoisonError::into_inner).extend(words);
        Ok(())
    }

    /// Puts the first chunk where it is already: like every update of an array of maps this
    /// waits for all running programs (kernel/bpf/syscall.c, maybe_wait_bpf_programs).
    pub(crate) fn touch(&self) -> Result<(), KernelError> {
        if self.refresh()? == 0 {
            return self.grow(1);
        }
        let failed = |e: MapError| super::map_failed(map_names::ARENA, e);
        let outer = super::read::duplicate(map_names::ARENA, &self.outer)?;
        let outer: ArrayOfMaps<_, MapData> =
            ArrayOfMaps::try_from(Map::ArrayOfMaps(outer)).map_err(failed)?;
        let first = outer.get(&0, 0).map_err(failed)?;
        sys::insert_inner_maps(self.outer.fd().as_fd(), 0, &[first.fd().as_fd()])
            .map_err(|e| KernelError::map(map_names::ARENA, "BPF_MAP_UPDATE_BATCH", e))
    }

    pub(crate) fn chunks(&self) -> usize {
        self.chunks.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Chunks that fit.
    pub(crate) fn capacity(&self) -> Result<u32, KernelError> {
        Ok(self.outer.info().map_err(|e| super::map_failed(map_names::ARENA, e))?.max_entries())
    }
}

/// The word `at` of the arena.
pub(crate) fn arena_word(chunks: &[Mapped], at: u32) -> u64 {
    chunks[at as usize / CHUNK_WORDS].load(at as usize % CHUNK_WORDS)
}

impl View {
    /// Opens and checks every pinned map.
    ///
    /// # Errors
    /// [`KernelError::NotLoaded`], [`KernelError::Incomplete`], [`KernelError::AbiVersion`],
    /// [`KernelError::MapShape`].
    pub(crate) fn open(dir: &Path, access: Access) -> Result<Self, KernelError> {
        let pins = Pins::new(dir);
        if !pins.maps().is_dir() {
            if let Err(e) = std::fs::read_dir(dir)
                && e.kind() == std::io::ErrorKind::PermissionDenied
            {
                super::lock::require_privileges("reading what is loaded")?;
                return Err(KernelError::system(format!("reading {}", dir.display()), e));
            }
            return Err(KernelError::NotLoaded { path: dir.to_owned() });
        }
        super::lock::require_privileges("opening pinned maps")?;
        let incomplete =
            |missing: String| KernelError::Incomplete { path: dir.to_owned(), missing };
        let open = |name: &str| -> Result<MapData, KernelError> {
            let path = pins.map(name);
            if !path.exists() {
                return Err(incomplete(format!("map {name} is missing")));
            }
            MapData::from_pin(&path).map_err(|e| super::map_failed(name, e))
        };
        // The layout's version first: the rest means nothing without it.
        let settings_map = open(map_names::SETTINGS)?;
        check_shape(map_names::SETTINGS, &settings_map)?;
        let settings_words = mapped(map_names::SETTINGS, &settings_map, access)?;
        let settings: Settings = settings_words.read(0);
        if settings.abi_version == 0 || settings.ready != 1 {
            return Err(incomplete("SETTINGS.ready is not set".into()));
        }
        if settings.abi_version != ABI_VERSION {
            return Err(KernelError::AbiVersion {
                path: dir.to_owned(),
                found: settings.abi_version,
                expected: ABI_VERSION,
            });
        }
        let checked = |name: &str| {
            let map = open(name)?;
            check_shape(name, &map)?;
            Ok::<_, KernelError>(map)
        };
        for shape in SHAPES {
            checked(shape.name)?;
        }
        for name in program_names::ALL {
            if !pins.program(name).exists() {
                return Err(incomplete(format!("program {name} is missing")));
            }
        }
        let words = |name: &str| mapped(name, &checked(name)?, access);
        let halves = |name: &str, half: u32| {
            let entries = entries(name, &checked(name)?)?;
            if entries != 2 * half {
                return Err(KernelError::MapShape {
                    map: name.into(),
                    what: "capacity",
                    found: entries,
                    expected: 2 * half,
                });
            }
            words(name)
        };
        let arena =
            Arena { outer: checked(map_names::ARENA)?, access, chunks: RwLock::new(Vec::new()) };
        arena.refresh()?;
        Ok(Self {
            settings,
            epoch: words(map_names::EPOCH)?,
            settings_words,
            ports: words(map_names::PORTS)?,
            reply_ports: words(map_names::REPLY_PORTS)?,
            interfaces: checked(map_names::INTERFACES)?,
            vips: halves(map_names::VIPS, settings.vips)?,
            sources: halves(map_names::SOURCES, settings.sources)?,
            routes: halves(map_names::ROUTES, settings.routes)?,
            reals: words(map_names::REALS)?,
            active: words(map_names::ACTIVE)?,
            arena,
            vip_ids4: checked(map_names::VIP_IDS4)?,
            vip_ids6: checked(map_names::VIP_IDS6)?,
            vip_addresses: [
                checked(map_names::VIP_ADDRESSES4)?,
                checked(map_names::VIP_ADDRESSES6)?,
            ],
            source_ids4: checked(map_names::SOURCE_IDS4)?,
            source_ids6: checked(map_names::SOURCE_IDS6)?,
            class_routes: checked(map_names::CLASS_ROUTES)?,
            flows: [checked(map_names::FLOWS4)?, checked(map_names::FLOWS6)?],
            half_open: [checked(map_names::HALF_OPEN4)?, checked(map_names::HALF_OPEN6)?],
            fragments: checked(map_names::FRAGMENTS)?,
            counters: checked(map_names::COUNTERS)?,
            reasons: checked(map_names::REASONS)?,
            hops: words(map_names::HOPS)?,
            next_hops: words(map_names::NEXT_HOPS)?,
            hop_ids: checked(map_names::HOP_IDS)?,
            snat: words(map_names::SNAT)?,
            pinned: pinned(&pins),
            pins,
        })
    }

    /// The limits that the maps were made with.
    ///
    /// # Errors
    /// A system call on a map failed.
    pub fn limits(&self) -> Result<Limits, KernelError> {
        Ok(Limits {
            flows: entries(map_names::FLOWS4, &self.flows[0])? / 2,
            half_open: entries(map_names::HALF_OPEN4, &self.half_open[0])? / 2,
            services: self.settings.vips - 1,
            sources: self.settings.sources - 1,
            routes: self.settings.routes - 1,
            reals: self.real_capacity() as u32 - REAL_FIRST,
            counters: entries(map_names::COUNTERS, &self.counters)? - 1,
            arena_slots: self
                .arena
                .capacity()?
                .saturating_mul(CHUNK_WORDS as u32)
                .saturating_mul(SLOTS_PER_WORD),
        })
    }

    /// New flows that each CPU may record a second; `None`: any number.
    pub fn new_flows(&self) -> Option<NonZeroU32> {
        let settings: Settings = self.settings_words.read(0);
        NonZeroU32::new(settings.new_flows)
    }

    /// The pin directory.
    pub fn path(&self) -> &Path {
        &self.pins.dir
    }

    /// Whether these maps are still those that are pinned: after `unload` they live only here.
    pub fn is_pinned(&self) -> bool {
        self.pinned.is_some() && pinned(&self.pins) == self.pinned
    }

    /// The number of the published set; 0: nothing was published yet.
    pub fn epoch(&self) -> u64 {
        self.epoch.load_acquire(0)
    }

    pub(crate) fn real_capacity(&self) -> usize {
        self.reals.len() / (size_of::<balancer_ebpf::abi::Real>() / 8)
    }

    /// Index of element `id` in a two-half array.
    pub(crate) fn at(epoch: u64, capacity: u32, id: u32) -> usize {
        (epoch & 1) as usize * capacity as usize + id as usize
    }

    /// Runs `read` with the current epoch, again if another set was published meanwhile: the
    /// half that an epoch names is not written until after the next flip.
    pub(crate) fn consistent<T>(
        &self,
        mut read: impl FnMut(u64) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        loop {
            let before = self.epoch();
            let value = read(before)?;
            // Reads above must not move below this look.
            std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
            if self.epoch() == before {
                return Ok(value);
            }
        }
    }
}

/// Which file the pin of `EPOCH` is.
fn pinned(pins: &Pins) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let pin = std::fs::metadata(pins.map(map_names::EPOCH)).ok()?;
    Some((pin.dev(), pin.ino()))
}

pub(crate) fn entries(name: &str, map: &MapData) -> Result<u32, KernelError> {
    Ok(map.info().map_err(|e| super::map_failed(name, e))?.max_entries())
}

pub(super) fn mapped(name: &str, map: &MapData, access: Access) -> Result<Mapped, KernelError> {
    let words = entries(name, map)? as usize * shape(name)?.value as usize / 8;
    Mapped::new(map.fd().as_fd(), words, access).map_err(|e| KernelError::map(name, "mmap", e))
}

fn check_shape(name: &str, map: &MapData) -> Result<(), KernelError> {
    let expected = shape(name)?;
    let info = map.info().map_err(|e| super::map_failed(name, e))?;
    for (what, found, expected) in [
        ("key size", info.key_size(), expected.key),
        ("value size", info.value_size(), expected.value),
    ] {
        if found != expected {
            return Err(KernelError::MapShape { map: name.into(), what, found, expected });
        }
    }
    Ok(())
}
