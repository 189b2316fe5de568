//! Loaded programs, kept for the next test. Loading takes the verifier half a second, and ten
//! times that in a guest without KVM; resetting the maps takes milliseconds.
//!
//! A test that panics does not give its programs back: nobody has to wonder whether what it left
//! made the next one fail.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, HashMap, Map, MapData},
    programs::{Program, ProgramError},
};
use balancer_ebpf::abi::{
    CHUNK_WORDS, Flow4, ROUTES_CAPACITY, SOURCES_CAPACITY, VIPS_CAPACITY, global_names, map_names,
    program_names,
};
use balancer_user::kernel::object;
use harness::{Bpffs, Root, maps};

use super::{HALF, HZ};

/// Where the worlds of all tests come from.
static POOL: Pool = Pool(Mutex::new(Vec::new()));

/// Loaded programs that nobody uses.
pub(super) struct Pool(pub(super) Mutex<Vec<Loaded>>);

/// What programs are loaded with. The globals are the same for all: they are constants here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Entries of each map of flows.
    pub(super) flows: u32,
    /// The map of half-open IPv4 flows is a plain hash map with room for one entry.
    pub(super) one_half_open: bool,
}

/// All that a map holds, by key; of a map in a map its id.
pub(super) type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// The programs as the verifier took them, and their maps.
pub(super) struct Loaded {
    parameters: Parameters,
    /// Where they go when a test has done with them.
    pub(super) home: &'static Pool,
    pub(super) ebpf: Ebpf,
    /// The arena's first and only chunk.
    pub(super) chunk: Array<MapData, u64>,
    /// The same map once more: aya's typed map hides what it is made of.
    chunk_data: MapData,
}

impl Pool {
    fn kept(&self) -> MutexGuard<'_, Vec<Loaded>> {
        self.0.lock().expect("nobody panics while holding the pool")
    }

    /// What a test gave back, reset.
    pub(super) fn take(&self, parameters: Parameters) -> Option<Loaded> {
        let mut taken = {
            let mut kept = self.kept();
            let at = kept.iter().position(|kept| kept.parameters == parameters)?;
            kept.swap_remove(at)
        };
        taken.reset();
        Some(taken)
    }
}

impl Loaded {
    /// Programs with these parameters, and maps as after loading: given back by another test and
    /// reset, else loaded.
    pub(super) fn take(parameters: Parameters) -> Self {
        POOL.take(parameters).unwrap_or_else(|| Self::load(parameters))
    }

    pub(super) fn give_back(self) {
        self.home.kept().push(self);
    }

    /// Loads the embedded object.
    ///
    /// # Panics
    /// If the verifier refuses a program: with the telling lines of its log.
    pub(super) fn load(parameters: Parameters) -> Self {
        let mut loader = EbpfLoader::new();
        loader.btf(None);
        for name in [map_names::VIPS, map_names::SOURCES, map_names::ROUTES] {
            loader.map_max_entries(name, 2 * HALF);
        }
        for name in
            [map_names::FLOWS4, map_names::FLOWS6, map_names::HALF_OPEN4, map_names::HALF_OPEN6]
        {
            loader.map_max_entries(name, parameters.flows);
        }
        let bpffs = parameters.one_half_open.then(|| {
            let root = Root::check().expect("whoever makes worlds has asked");
            Bpffs::mount(root, "world").expect("a bpffs")
        });
        // The loader takes a map that is pinned where it would pin its own.
        let pin = bpffs.as_ref().map(|bpffs| bpffs.pins());
        if let Some(pin) = &pin {
            let map = HashMap::<MapData, [u8; 16], [u8; size_of::<Flow4>()]>::create(1, 0)
                .expect("a map");
            map.pin(pin).expect("a bpffs");
            loader.map_pin_path(map_names::HALF_OPEN4, pin);
        }
        let mut ebpf = loader
            .override_global(global_names::HZ, &HZ, true)
            .override_global(VIPS_CAPACITY, &HALF, true)
            .override_global(SOURCES_CAPACITY, &HALF, true)
            .override_global(ROUTES_CAPACITY, &HALF, true)
            .load(object::datapath().expect("built with the object"))
            .expect("the kernel takes the maps");
        for name in program_names::ALL {
            let loaded = match ebpf.program_mut(name).expect(name) {
                Program::SchedClassifier(program) => program.load(),
                Program::Xdp(program) => program.load(),
                other => panic!("{name}: a program of another kind: {other:?}"),
            };
            loaded.unwrap_or_else(|e| panic!("{name}: {}", telling(&e)));
        }
        const MMAPABLE: u32 = 1 << 10;
        let chunk = Array::create(CHUNK_WORDS as u32, MMAPABLE).expect("a chunk");
        let mut arena: ArrayOfMaps<_, Array<MapData, u64>> =
            ebpf.map_mut(map_names::ARENA).expect("ARENA").try_into().expect("an array of maps");
        arena.set(0, &chunk, 0).expect("the first chunk");
        let ids = maps::content(data(ebpf.map(map_names::ARENA).expect("ARENA")))
            .expect("the ids of the chunks");
        let id = ids[&0u32.to_ne_bytes().to_vec()].as_slice().try_into().expect("an id");
        let chunk_data = MapData::from_id(u32::from_ne_bytes(id)).expect("the first chunk");
        Self { parameters, home: &POOL, ebpf, chunk, chunk_data }
    }

    /// Makes every map what it is after loading.
    pub(super) fn reset(&mut self) {
        for (name, map) in self.ebpf.maps() {
            // The globals are frozen, the one chunk stays where it is, and a listener leaves its map
            // when the test closes it.
            let kept = [map_names::ARENA, map_names::PROXY_LISTENERS];
            if !name.starts_with('.') && !kept.contains(&name) {
                maps::reset(data(map)).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            }
        }
        maps::zero(&self.chunk_data, CHUNK_WORDS as u32).expect("the chunk");
    }

    /// The number by which the kernel knows the chunk: no other world has it.
    pub(super) fn chunk_id(&self) -> u32 {
        self.chunk_data.info().expect("the chunk").id()
    }

    /// All that all maps hold, by name; the chunk is named after its place in the arena. The
    /// arena itself holds the chunk's id, which no other has: instead of it there is how many
    /// chunks there are.
    pub(super) fn content(&self) -> BTreeMap<String, Content> {
        let all = |name: &str, map: &MapData| {
            // Nobody but programs can look there.
            if name == map_names::PROXY_LISTENERS {
                return (name.to_owned(), Content::new());
            }
            let content = maps::content(map).unwrap_or_else(|e| panic!("{name}: {e:#}"));
            (name.to_owned(), content)
        };
        let mut found: BTreeMap<_, _> =
            self.ebpf.maps().map(|(name, map)| all(name, data(map))).collect();
        for id in found.get_mut(map_names::ARENA).expect("ARENA").values_mut() {
            assert_eq!(id[..], self.chunk_id().to_ne_bytes(), "another chunk is in the arena");
            id.clear();
        }
        found.extend([all("ARENA[0]", &self.chunk_data)]);
        found
    }
}

pub(super) fn data(map: &Map) -> &MapData {
    match map {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SockMap(data) => data,
        other => panic!("a map of another kind: {other:?}"),
    }
}

/// The lines of a verifier's log that tell, and how many are left out.
fn telling(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return format!("{error}");
    };
    let log = verifier_log.to_string();
    let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(40)..];
    format!(
        "{io_error}\n{}\n({} earlier lines left out)",
        last.join("\n"),
        lines.len() - last.len()
    )
}
