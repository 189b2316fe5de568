//! The layout of everything that crosses between the programs and user space.
//!
//! Addresses and ports are byte arrays as on the wire (network order); every other number is
//! in host order. Each struct derives zerocopy's `IntoBytes`, so a padding byte is a compile
//! error, and `FromBytes`, so any bytes of the right length are a valid value.
//!
//! Two kinds of maps (see `docs/datapath.md`): *dictionaries* (hash maps from a key to an id;
//! an element is written once and never updated in place) and *two-half arrays* (mmapable
//! arrays of `2 × capacity` elements; a packet reads [`EPOCH`](map_names::EPOCH) once and uses
//! element `(epoch & 1) × capacity + id` of each).

mod device;
mod event;
mod flow;
mod fragment;
mod guard;
mod hop;
mod names;
mod settings;

pub use device::{DEVICES_MAX, Device, SnatPorts};
pub use event::{EVENTS_BYTES, Event, Trace, Traced};
pub use flow::{Flow4, Flow6, FlowKey4, FlowKey6, FlowState, direction, flow_state, forwarding};
pub use fragment::{FRAGMENTS_FOLLOW_S, FRAGMENTS_MAX, Fragment, FragmentKey};
pub use guard::NewFlows;
pub use hop::{HOP_BITS, HOPS_MAX, HopKey, Hops, NextHop, hop_of, remembered_hop};
pub use names::{
    ROUTES_CAPACITY, SOURCES_CAPACITY, VIPS_CAPACITY, global_names, map_names, program_names,
};
pub use settings::{SHARDS_MAX, Settings, listener};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Grows whenever the meaning or layout of anything in this module changes. User space refuses
/// to adopt pinned maps of another version.
pub const ABI_VERSION: u32 = 4;

/// The IP protocol number of TCP.
pub const TCP: u8 = 6;
/// The IP protocol number of UDP.
pub const UDP: u8 = 17;

/// The IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// The IP protocol number of ICMPv6.
pub const ICMP6: u8 = 58;

/// Words in `PORTS`: two bits for each of 65,536 ports.
pub const PORT_WORDS: usize = 65_536 * 2 / 64;

/// What a port is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum PortUse {
    /// Some VIP has this port: ingress looks at packets *to* it.
    Vip = 0b01,
    /// Some real has this port: egress looks at packets *from* it.
    Real = 0b10,
}

/// The word of `PORTS` and the bit in it that say whether `port` (host order) is used so.
#[inline(always)]
pub const fn port_bit(port: u16, used: PortUse) -> (u32, u64) {
    ((port >> 5) as u32, (used as u64) << ((port & 31) * 2))
}

/// Words in `REPLY_PORTS`: a bit for each of 65,536 ports.
pub const REPLY_PORT_WORDS: usize = 65_536 / 64;

/// The word of `REPLY_PORTS` and the bit in it that say whether replies from `port` (host order)
/// may have to be translated where they come in: some flow with a bit of [`forwarding`] has a real
/// with that port. A program sets it before the flow's first packet goes on; nothing clears it.
#[inline(always)]
pub const fn reply_port_bit(port: u16) -> (u32, u64) {
    (port as u32 / 64, 1 << (port % 64))
}

/// What `INTERFACES` says of an interface, and for how long. 16 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct Interface {
    /// The kernel's jiffies (all 64 bits) from which on it says nothing any more, so that what
    /// nobody looks after ends by itself; [`Interface::FOR_GOOD`]: never.
    pub until: u64,
    /// Bits of [`interface_flags`].
    pub flags: u32,
    /// Zero.
    pub unused: u32,
}

impl Interface {
    /// No jiffies that a kernel ever counts to.
    pub const FOR_GOOD: u64 = u64::MAX;
}

/// Bits of what `INTERFACES` says of an interface.
pub mod interface_flags {
    /// Packets may go past the stack from it and to it ([`forwarding::DIRECT`](super::forwarding::DIRECT)).
    pub const DIRECT: u32 = 1;
    /// It is one end of a veth pair whose other end lies in another network namespace: what is sent
    /// to it may be put there at once.
    pub const PEER: u32 = 2;
    /// Of [`ASKED`]: those are direct that nothing would miss packets of.
    pub const AUTO: u32 = 4;
    /// Of [`ASKED`]: all are direct that can be.
    pub const FORCED: u32 = 8;
    /// The element, of no interface, that says what was asked for. Absent: the stack.
    pub const ASKED: u32 = 0;
}

/// Words (`u64`) in one chunk of `ARENA`: 128 KiB.
pub const CHUNK_WORDS: usize = 16_384;
/// Slots packed into one word: 16 bits each, the lowest slot in the lowest bits.
pub const SLOTS_PER_WORD: u32 = 4;
/// Targets that one table can name; a slot is an ordinal below this.
pub const TARGETS_MAX: usize = 65_536;

/// Real id of an unset slot: the packet drops.
pub const REAL_NONE: u32 = 0;
/// Real id of a share that has no usable real: the connection is reset (decision D10).
pub const REAL_BLACKHOLE: u32 = 1;
/// The first id that names a real.
pub const REAL_FIRST: u32 = 2;
/// VIP, source, route, class and counter ids start here; 0 means "none" (class 0 is everybody
/// whose address is no source).
pub const ID_FIRST: u32 = 1;

/// Address, port and protocol that clients dial (IPv4). 8 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct VipKey4 {
    /// IPv4 address, network order.
    pub addr: [u8; 4],
    /// Port, network order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub zero: u8,
}

/// Address, port and protocol that clients dial (IPv6). 20 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct VipKey6 {
    /// IPv6 address, network order.
    pub addr: [u8; 16],
    /// Port, network order.
    pub port: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub zero: u8,
}

/// Key of `CLASS_ROUTES`. Absent means: the VIP's default route.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct ClassVip {
    /// Source class, never 0.
    pub class: u32,
    /// VIP id.
    pub vip: u32,
}

/// What `VIPS` says of a VIP id. One aligned `u64` read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct VipEntry {
    /// Route of class 0 and of every class without one of its own; 0: no VIP in this epoch.
    pub route: u32,
    /// Bits of [`vip_flags`].
    pub flags: u32,
}

/// Bits of [`VipEntry::flags`].
pub mod vip_flags {
    /// No class has a route of its own: `CLASS_ROUTES` need not be asked.
    pub const CLASSES_AGREE: u32 = 1;
    /// The proxy has connections to it, or had since it became a VIP: a TCP packet without a flow entry
    /// may belong to one of its sockets.
    pub const PROXIED: u32 = 2;
}

/// What `SOURCES` says of a source id. One aligned `u64` read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct SourceEntry {
    /// Source class; 0: like an address that is no source.
    pub class: u32,
    /// The only interface that this address may come from; 0: not checked.
    pub ifindex: u32,
}

/// Values of [`RouteEntry::kind`].
pub mod route_kind {
    /// Not in this epoch.
    pub const NONE: u8 = 0;
    /// The VIP's default route.
    pub const INHERIT: u8 = 1;
    /// A table decides.
    pub const TABLE: u8 = 2;
    /// Connections are refused (`no_route: deny`, decision D6).
    pub const DENY: u8 = 3;
}

/// Values of [`RouteEntry::pick`]: how a table is indexed.
pub mod pick {
    /// By the flow hash: maglev, ring hash.
    pub const HASH: u8 = 0;
    /// By a random number.
    pub const RANDOM: u8 = 1;
    /// By this CPU's turn.
    pub const ROUND_ROBIN: u8 = 2;
    /// A random slot fixes the backend; of `choices` samples in its run the least busy real.
    pub const LEAST_REQUEST: u8 = 3;
}

/// Bits of [`RouteEntry::flags`].
pub mod route_flags {
    /// The hash covers addresses only, so that a client sticks to its real.
    pub const HASH_SOURCE_ONLY: u8 = 1;
    /// The proxy takes its connections. What the entry says besides holds while none listens
    /// ([`Settings::l7_reset`](super::Settings::l7_reset)), and where none can be handed over.
    pub const PROXY: u8 = 2;
}

/// Where a table lies in the arena, and its shape. 16 bytes.
///
/// From word `offset` on: `backends` words ([`RunWord`]), `targets` words ([`TargetWord`]),
/// then `slots` slots of 16 bits, four to a word, each the ordinal of a target.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Table {
    /// First word in the arena (`u64` words, counted over all chunks).
    pub offset: u32,
    /// Number of slots; 0: no table.
    pub slots: u32,
    /// Number of targets.
    pub targets: u32,
    /// Number of backends.
    pub backends: u32,
}

impl Table {
    /// Words that the whole table takes.
    pub const fn words(&self) -> u32 {
        self.backends + self.targets + self.slots.div_ceil(SLOTS_PER_WORD)
    }
    /// The word that holds the ordinal of `slot`, and how far to shift it.
    #[inline(always)]
    pub const fn slot_word(&self, slot: u32) -> (u32, u32) {
        let first = self.offset + self.backends + self.targets;
        (first + (slot >> 2), (slot & 3) * 16)
    }
    /// The word of the target with this ordinal.
    #[inline(always)]
    pub const fn target_word(&self, ordinal: u32) -> u32 {
        self.offset + self.backends + ordinal
    }
    /// The word of the backend with this ordinal.
    #[inline(always)]
    pub const fn run_word(&self, ordinal: u32) -> u32 {
        self.offset + ordinal
    }
}

/// The slots of one backend where slots are grouped by backend (least request), else 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunWord {
    /// First slot.
    pub first: u32,
    /// Number of slots.
    pub slots: u32,
}

impl RunWord {
    /// As stored in the arena.
    pub const fn pack(self) -> u64 {
        self.first as u64 | (self.slots as u64) << 32
    }
    /// From the arena.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self { first: word as u32, slots: (word >> 32) as u32 }
    }
}

/// What a slot's ordinal stands for: a real, as a member of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetWord {
    /// Real id, or [`REAL_BLACKHOLE`].
    pub real: u32,
    /// Ordinal of the backend; the counter id is [`RouteEntry::counters`] plus this.
    pub backend: u32,
}

impl TargetWord {
    /// As stored in the arena.
    pub const fn pack(self) -> u64 {
        self.real as u64 | (self.backend as u64) << 32
    }
    /// From the arena.
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        Self { real: word as u32, backend: (word >> 32) as u32 }
    }
}

/// What `ROUTES` says of a route id. 56 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct RouteEntry {
    /// One of [`route_kind`].
    pub kind: u8,
    /// One of [`pick`].
    pub pick: u8,
    /// Bits of [`route_flags`].
    pub flags: u8,
    /// Samples for least request, at least 2.
    pub choices: u8,
    /// Counter id of the first backend; the others follow.
    pub counters: u32,
    /// The table for new connections.
    pub table: Table,
    /// The table before the last change, for connections without an entry; `slots` 0: none.
    pub previous: Table,
    /// Counter id of the first backend of `previous`.
    pub previous_counters: u32,
    /// Fingerprint of the list of backends that `counters` counts: user space gives a route
    /// with another list other counters. The programs do not look at it.
    pub counted: u32,
    /// `previous` counts until then: nanoseconds of `CLOCK_MONOTONIC`.
    pub previous_until_ns: u64,
}

/// One address and port with an id. All but `flags` and `gone_at_ns` is immutable while the
/// generation lasts. 40 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Real {
    /// IPv4 (first four bytes, the rest zero) or IPv6 address, network order.
    pub addr: [u8; 16],
    /// Port, network order.
    pub port: [u8; 2],
    /// 4 or 6; 0: unused id.
    pub family: u8,
    /// Zero (the forwarding mode, when there is more than one).
    pub mode: u8,
    /// Bits of [`real_flags`]. Written alone, after `gone_at_ns`.
    pub flags: u32,
    /// Compared with the flow's on each use: a reused id is never taken for its predecessor.
    pub generation: u32,
    /// Zero (the next hop's index, when forwarding can bypass the stack).
    pub hop: u32,
    /// When the real left the inventory, nanoseconds of `CLOCK_MONOTONIC`.
    pub gone_at_ns: u64,
}

/// Bits of [`Real::flags`].
pub mod real_flags {
    /// Out of the inventory since `gone_at_ns`: no new flows; established ones are reset once
    /// [`Settings::gone_reset_ns`](super::Settings::gone_reset_ns) have passed (decision D15).
    pub const GONE: u32 = 1;
}

/// What `COUNTERS` holds for each route × backend. 40 bytes; add up the CPUs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Counter {
    /// Connections for which this backend was picked (blackholes included).
    pub connections: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, Ethernet header included.
    pub bytes_in: u64,
    /// Packets from reals.
    pub packets_out: u64,
    /// Bytes from reals, Ethernet header included.
    pub bytes_out: u64,
}

const _: () = {
    assert!(size_of::<VipKey4>() == 8);
    assert!(size_of::<VipKey6>() == 20);
    assert!(size_of::<FlowKey4>() == 16);
    assert!(size_of::<FlowKey6>() == 40);
    assert!(size_of::<FlowState>() == 24);
    assert!(size_of::<Flow4>() == 40);
    assert!(size_of::<Flow6>() == 64);
    assert!(size_of::<Real>() == 40);
    assert!(size_of::<RouteEntry>() == 56);
    assert!(size_of::<Counter>() == 40);
};
