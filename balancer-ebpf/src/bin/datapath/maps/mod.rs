//! Every map of the object, and the only functions that touch one.
//!
//! Capacities here are those of an object loaded as it is (by bpftool, veristat); user space
//! sets its own before loading. What each map holds is told in `balancer_ebpf::abi`.
//!
//! A pointer into a map stays readable and writable until the program ends. The element behind
//! it may be recycled for another key by another CPU (LRU maps do that), or be written by user
//! space: so what must fit together is copied at once, and a stale write can only touch what
//! tolerates it (a time stamp, a bit of state).

mod edge;
mod events;
mod flows;
mod fragments;
mod guard;
mod proxy;
mod scratch;
mod snat;

use aya_ebpf::{
    Global,
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray},
    helpers::generated as helpers,
    macros::btf_map,
};
use balancer_ebpf::{
    abi::{
        CHUNK_WORDS, ClassVip, Counter, Flow4, Flow6, FlowKey4, FlowKey6, Interface, PORT_WORDS,
        PortUse, REPLY_PORT_WORDS, Real, RouteEntry, Settings, SourceEntry, Table, VipEntry,
        VipKey4, VipKey6, port_bit, reply_port_bit,
    },
    flow::{End, Family},
    reason::Reason,
};

pub(crate) use edge::{asks_for_snat, hop_generation, hop_id, next_hop, own_address, takes_frames};
pub(crate) use events::{leave, room, traced};
pub(crate) use flows::{Entry, Maps, NotInserted, Stage};
pub(crate) use fragments::{fragment, remember_fragment};
pub(crate) use guard::{new_flows, new_flows_limit};
pub(crate) use proxy::{is_proxys, l7_reset, listener, mark_handed, shards};
pub(crate) use scratch::{Use, scratch};
pub(crate) use snat::snat_ports;

use crate::atomic;

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
static REPLY_PORTS: Array<u64, REPLY_PORT_WORDS, MMAPABLE> = Array::new();
#[btf_map]
static INTERFACES: HashMap<u32, Interface, IDS> = HashMap::new();
#[btf_map]
static VIP_IDS4: HashMap<VipKey4, u32, IDS> = HashMap::new();
#[btf_map]
static VIP_IDS6: HashMap<VipKey6, u32, IDS> = HashMap::new();
#[btf_map]
static VIP_ADDRESSES4: HashMap<[u8; 4], u32, IDS> = HashMap::new();
#[btf_map]
static VIP_ADDRESSES6: HashMap<[u8; 16], u32, IDS> = HashMap::new();
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

/// Jiffies a second.
#[inline(always)]
pub(crate) fn hz() -> u32 {
    HZ.load()
}

/// Flags for the checksum helper when it is given IPv6 addresses.
#[inline(always)]
pub(crate) fn ipv6_csum_flag() -> u64 {
    IPV6_CSUM_FLAG.load()
}

/// The low 32 bits of jiffies.
#[inline(always)]
pub(crate) fn jiffies() -> u32 {
    // SAFETY: the helper takes nothing and only reads the kernel's tick.
    unsafe { helpers::bpf_jiffies64() as u32 }
}

/// Whether some VIP or real has this port (network order).
#[inline(always)]
pub(crate) fn port_used(port: [u8; 2], used: PortUse) -> bool {
    let (word, bit) = port_bit(u16::from_be_bytes(port), used);
    // SAFETY: a live array element; a volatile aligned word is read whole.
    PORTS.get_ptr(word).is_some_and(|p| unsafe { p.read_volatile() } & bit != 0)
}

/// Whether replies from this port (network order) may have to be translated where they come in.
#[inline(always)]
pub(crate) fn answers_inward(port: [u8; 2]) -> bool {
    let (word, bit) = reply_port_bit(u16::from_be_bytes(port));
    // SAFETY: a live array element; a volatile aligned word is read whole.
    REPLY_PORTS.get_ptr(word).is_some_and(|p| unsafe { p.read_volatile() } & bit != 0)
}

/// Has replies from this port looked at where they come in.
#[inline(always)]
pub(crate) fn answer_inward(port: [u8; 2]) {
    let (word, bit) = reply_port_bit(u16::from_be_bytes(port));
    if let Some(ports) = REPLY_PORTS.get_ptr_mut(word) {
        // SAFETY: a live aligned array element, which only programs write, and only so.
        unsafe {
            if ports.read_volatile() & bit == 0 {
                atomic::fetch_or(ports, bit);
            }
        }
    }
}

/// Bits of `interface_flags` that hold now.
#[inline(always)]
pub(crate) fn interface(ifindex: u32) -> u32 {
    INTERFACES.get_ptr(ifindex).map_or(0, |interface| {
        // SAFETY: a live element, whose aligned words are read whole; both are replaced together.
        // The helper takes nothing.
        let (until, flags, now) = unsafe {
            (
                (&raw const (*interface).until).read_volatile(),
                (&raw const (*interface).flags).read_volatile(),
                helpers::bpf_jiffies64(),
            )
        };
        if now < until { flags } else { 0 }
    })
}

/// Counts a packet under its reason.
#[inline(always)]
pub(crate) fn count_reason(reason: Reason) {
    if let Some(count) = REASONS.get_ptr_mut(reason as u32) {
        // SAFETY: this CPU's own element; programs on one CPU do not interrupt each other here.
        unsafe { *count += 1 }
    }
}

/// This CPU's counters of a backend; id 0 is "not counted".
#[inline(always)]
pub(crate) fn counter(id: u32) -> Option<*mut Counter> {
    if id == 0 { None } else { COUNTERS.get_ptr_mut(id) }
}

/// The number of the published set, to be read once a packet.
#[derive(Clone, Copy)]
pub(crate) struct Epoch(u32);

impl Epoch {
    /// The number's low 32 bits.
    #[inline(always)]
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn read() -> Self {
        // SAFETY: a live array element; a volatile aligned word is read whole.
        Self(EPOCH.get_ptr(0).map_or(0, |p| unsafe { p.read_volatile() } as u32))
    }

    /// Where the element of `id` lies; `None` beyond the half, which would be the other half.
    #[inline(always)]
    fn index(self, id: u32, capacity: u32) -> Option<u32> {
        if id < capacity { Some((self.0 & 1) * capacity + id) } else { None }
    }

    #[inline(always)]
    pub(crate) fn vip(self, id: u32) -> Option<VipEntry> {
        let entry = VIPS.get_ptr(self.index(id, VIPS_CAPACITY.load())?)?;
        // SAFETY: a live array element, 8 bytes and aligned to them.
        let word = unsafe { entry.cast::<u64>().read_volatile() };
        let [route, flags] = halves(word);
        Some(VipEntry { route, flags })
    }

    #[inline(always)]
    pub(crate) fn source(self, id: u32) -> Option<SourceEntry> {
        let entry = SOURCES.get_ptr(self.index(id, SOURCES_CAPACITY.load())?)?;
        // SAFETY: a live array element, 8 bytes and aligned to them.
        let word = unsafe { entry.cast::<u64>().read_volatile() };
        let [class, ifindex] = halves(word);
        Some(SourceEntry { class, ifindex })
    }

    /// Copies a route out, without its previous table. User space may begin to rewrite this half
    /// one grace period after it has ceased to be the current one, which no packet outlives.
    #[inline(always)]
    pub(crate) fn route(self, id: u32) -> Option<RouteHead> {
        let entry = ROUTES.get_ptr(self.index(id, ROUTES_CAPACITY.load())?)?;
        // SAFETY: a live array element, which begins with these fields.
        Some(unsafe { entry.cast::<RouteHead>().read_volatile() })
    }

    /// Copies a route's previous table out.
    #[inline(always)]
    pub(crate) fn previous(self, id: u32) -> Option<Previous> {
        let entry = ROUTES.get_ptr(self.index(id, ROUTES_CAPACITY.load())?)?;
        // SAFETY: a live array element, in which these fields lie at this offset.
        Some(unsafe { entry.byte_add(size_of::<RouteHead>()).cast::<Previous>().read_volatile() })
    }
}

/// The first fields of [`RouteEntry`]. In two halves because the stack is short.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct RouteHead {
    pub(crate) kind: u8,
    pub(crate) pick: u8,
    pub(crate) flags: u8,
    pub(crate) choices: u8,
    pub(crate) counters: u32,
    pub(crate) table: Table,
}

/// The last fields of [`RouteEntry`].
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Previous {
    pub(crate) table: Table,
    pub(crate) counters: u32,
    counted: u32,
    pub(crate) until_ns: u64,
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(RouteHead, kind) == offset_of!(RouteEntry, kind));
    assert!(offset_of!(RouteHead, pick) == offset_of!(RouteEntry, pick));
    assert!(offset_of!(RouteHead, flags) == offset_of!(RouteEntry, flags));
    assert!(offset_of!(RouteHead, choices) == offset_of!(RouteEntry, choices));
    assert!(offset_of!(RouteHead, counters) == offset_of!(RouteEntry, counters));
    assert!(offset_of!(RouteHead, table) == offset_of!(RouteEntry, table));
    let head = size_of::<RouteHead>();
    assert!(head + offset_of!(Previous, table) == offset_of!(RouteEntry, previous));
    assert!(head + offset_of!(Previous, counters) == offset_of!(RouteEntry, previous_counters));
    assert!(head + offset_of!(Previous, counted) == offset_of!(RouteEntry, counted));
    assert!(head + offset_of!(Previous, until_ns) == offset_of!(RouteEntry, previous_until_ns));
    assert!(head + size_of::<Previous>() == size_of::<RouteEntry>());
};

/// The two fields of an 8-byte entry, in the order in which they lie in memory.
#[inline(always)]
fn halves(word: u64) -> [u32; 2] {
    if cfg!(target_endian = "little") {
        [word as u32, (word >> 32) as u32]
    } else {
        [(word >> 32) as u32, word as u32]
    }
}

/// Route of a class at a VIP, where it differs from the VIP's default.
#[inline(always)]
pub(crate) fn class_route(class: u32, vip: u32) -> Option<u32> {
    CLASS_ROUTES.get_ptr(ClassVip { class, vip }).map(|id| {
        // SAFETY: a live element, written once and before its key could be found.
        unsafe { *id }
    })
}

/// A word of the arena; `None` beyond it.
#[inline(always)]
pub(crate) fn arena(word: u32) -> Option<u64> {
    let chunk_words = CHUNK_WORDS as u32;
    ARENA.get_value(word / chunk_words, &(word % chunk_words)).map(|value| {
        let value: *const u64 = value;
        // SAFETY: a live array element; a volatile aligned word is read whole.
        unsafe { value.read_volatile() }
    })
}

/// This CPU's turn on a route. With `advance` the next packet gets the next one.
#[inline(always)]
pub(crate) fn turn(route: u32, advance: bool) -> u32 {
    let Some(turn) = TURNS.get_ptr_mut(route) else { return 0 };
    // SAFETY: this CPU's own element.
    let now = unsafe { *turn };
    if advance {
        // SAFETY: as above.
        unsafe { *turn = now.wrapping_add(1) }
    }
    now
}

/// Live connections of a real.
#[inline(always)]
pub(crate) fn active(real: u32) -> u64 {
    // SAFETY: a live array element; a volatile aligned word is read whole.
    ACTIVE.get_ptr(real).map_or(0, |p| unsafe { p.read_volatile() })
}

/// One more live connection.
#[inline(always)]
pub(crate) fn active_up(real: u32) {
    if let Some(count) = ACTIVE.get_ptr_mut(real) {
        // SAFETY: a live aligned array element.
        unsafe { atomic::fetch_add(count, 1) };
    }
}

/// One live connection less. A sweep of user space may have corrected the count meanwhile: it
/// never goes below 0, which would read as the busiest real of all.
#[inline(always)]
pub(crate) fn active_down(real: u32) {
    if let Some(count) = ACTIVE.get_ptr_mut(real) {
        // SAFETY: a live aligned array element.
        if unsafe { atomic::fetch_add(count, u64::MAX) } == 0 {
            // SAFETY: as above.
            unsafe { atomic::fetch_add(count, 1) };
        }
    }
}

/// A real, where it lies.
#[derive(Clone, Copy)]
pub(crate) struct RealRef(*const Real);

/// Finds a real by its id.
#[inline(always)]
pub(crate) fn real(id: u32) -> Option<RealRef> {
    REALS.get_ptr(id).map(RealRef)
}

impl RealRef {
    /// For functions that are not inlined: the pointer, or null.
    #[inline(always)]
    pub(crate) fn into_raw(real: Option<Self>) -> *const Real {
        real.map_or(core::ptr::null(), |real| real.0)
    }
    /// The reverse of [`Self::into_raw`].
    #[inline(always)]
    pub(crate) fn from_raw(real: *const Real) -> Option<Self> {
        if real.is_null() { None } else { Some(Self(real)) }
    }
    #[inline(always)]
    pub(crate) fn generation(self) -> u32 {
        // SAFETY: a live array element; each field is aligned and read whole.
        unsafe { (&raw const (*self.0).generation).read_volatile() }
    }
    #[inline(always)]
    pub(crate) fn flags(self) -> u32 {
        // SAFETY: as in `generation`.
        unsafe { (&raw const (*self.0).flags).read_volatile() }
    }
    #[inline(always)]
    pub(crate) fn gone_at_ns(self) -> u64 {
        // SAFETY: as in `generation`.
        unsafe { (&raw const (*self.0).gone_at_ns).read_volatile() }
    }
    #[inline(always)]
    pub(crate) fn family(self) -> u8 {
        // SAFETY: as in `generation`.
        unsafe { (&raw const (*self.0).family).read_volatile() }
    }
    /// Address and port: immutable while the generation lasts, which the caller compares.
    #[inline(always)]
    pub(crate) fn end<F: Family>(self) -> End<F::Addr> {
        // SAFETY: a live array element.
        let (addr, port) = unsafe { (&(*self.0).addr, (*self.0).port) };
        End { addr: F::real_addr(addr), port }
    }
}

/// How long a gone real keeps its flows, nanoseconds.
#[inline(always)]
pub(crate) fn gone_reset_ns() -> u64 {
    SETTINGS.get_ptr(0).map_or(u64::MAX, |settings| {
        // SAFETY: a live array element; an aligned word is read whole.
        unsafe { (&raw const (*settings).gone_reset_ns).read_volatile() }
    })
}
