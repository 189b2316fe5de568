//! Every map of the object, and the only functions that touch one.
//!
//! Capacities here are those of an object loaded as it is (by bpftool, veristat); user space
//! sets its own before loading. What each map holds is told in `balancer_ebpf::abi`.

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use balancer_ebpf::{
    abi::{
        CHUNK_WORDS, ClassVip, Counter, Flow4, Flow6, FlowKey4, FlowKey6, PORT_WORDS, PortUse,
        Real, RouteEntry, Settings, SourceEntry, VipEntry, VipKey4, VipKey6, port_bit,
    },
    reason::Reason,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;
/// Elements in one half of a two-half array, and of each dictionary and array by id.
const IDS: usize = 1024;
/// Flows in each map of flows.
const FLOWS: usize = 4096;
/// Chunks of the arena.
const CHUNKS: usize = 64;

#[unsafe(no_mangle)]
static HZ: Global<u32> = Global::new(100);
#[unsafe(no_mangle)]
static IPV6_CSUM_FLAG: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static VIPS_CAPACITY: Global<u32> = Global::new(IDS as u32);
#[unsafe(no_mangle)]
static SOURCES_CAPACITY: Global<u32> = Global::new(IDS as u32);
#[unsafe(no_mangle)]
static ROUTES_CAPACITY: Global<u32> = Global::new(IDS as u32);

#[btf_map]
static EPOCH: Array<u64, 1, MMAPABLE> = Array::new();
#[btf_map]
static SETTINGS: Array<Settings, 1, MMAPABLE> = Array::new();
#[btf_map]
static PORTS: Array<u64, PORT_WORDS, MMAPABLE> = Array::new();
#[btf_map]
static VIP_IDS4: HashMap<VipKey4, u32, IDS> = HashMap::new();
#[btf_map]
static VIP_IDS6: HashMap<VipKey6, u32, IDS> = HashMap::new();
#[btf_map]
static SOURCE_IDS4: HashMap<[u8; 4], u32, IDS> = HashMap::new();
#[btf_map]
static SOURCE_IDS6: HashMap<[u8; 16], u32, IDS> = HashMap::new();
#[btf_map]
static CLASS_ROUTES: HashMap<ClassVip, u32, IDS> = HashMap::new();
#[btf_map]
static VIPS: Array<VipEntry, { 2 * IDS }, MMAPABLE> = Array::new();
#[btf_map]
static SOURCES: Array<SourceEntry, { 2 * IDS }, MMAPABLE> = Array::new();
#[btf_map]
static ROUTES: Array<RouteEntry, { 2 * IDS }, MMAPABLE> = Array::new();
#[btf_map]
static ARENA: ArrayOfMaps<Array<u64, CHUNK_WORDS, MMAPABLE>, CHUNKS> = ArrayOfMaps::new();
#[btf_map]
static REALS: Array<Real, IDS, MMAPABLE> = Array::new();
#[btf_map]
static FLOWS4: LruHashMap<FlowKey4, Flow4, FLOWS> = LruHashMap::new();
#[btf_map]
static FLOWS6: LruHashMap<FlowKey6, Flow6, FLOWS> = LruHashMap::new();
#[btf_map]
static HALF_OPEN4: LruHashMap<FlowKey4, Flow4, FLOWS> = LruHashMap::new();
#[btf_map]
static HALF_OPEN6: LruHashMap<FlowKey6, Flow6, FLOWS> = LruHashMap::new();
#[btf_map]
static ACTIVE: Array<u64, IDS, MMAPABLE> = Array::new();
#[btf_map]
static TURNS: PerCpuArray<u32, IDS> = PerCpuArray::new();
#[btf_map]
static COUNTERS: PerCpuArray<Counter, IDS> = PerCpuArray::new();
#[btf_map]
static REASONS: PerCpuArray<u64, { Reason::ALL.len() }> = PerCpuArray::new();

/// Whether some VIP or real has this port (network order).
#[inline(always)]
pub(crate) fn port_used(port: [u8; 2], used: PortUse) -> bool {
    let (word, bit) = port_bit(u16::from_be_bytes(port), used);
    // SAFETY: the pointer is into a live array element; user space may write it meanwhile, and
    // a volatile aligned word is read whole.
    PORTS.get_ptr(word).is_some_and(|p| unsafe { p.read_volatile() } & bit != 0)
}
