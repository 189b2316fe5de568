//! What the programs are told besides the published set.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Settings of the programs, read off the established path only. 72 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Settings {
    /// [`ABI_VERSION`](super::ABI_VERSION) of the maps.
    pub abi_version: u32,
    /// 1 once every map is pinned and complete: what is found without it is thrown away.
    pub ready: u32,
    /// How long a gone real keeps its flows, nanoseconds; `u64::MAX`: for ever (`on_gone: keep`).
    pub gone_reset_ns: u64,
    /// Capacity of one half of `VIPS`.
    pub vips: u32,
    /// Capacity of one half of `SOURCES`.
    pub sources: u32,
    /// Capacity of one half of `ROUTES`.
    pub routes: u32,
    /// Jiffies a second.
    pub hz: u32,
    /// Low 32 bits of jiffies at `base_ns`, to turn jiffies into time.
    pub base_jiffies: u32,
    /// New flows that a CPU records a second (`limits.new_flows`); 0: any number.
    pub new_flows: u32,
    /// `CLOCK_MONOTONIC` when `base_jiffies` was read, nanoseconds.
    pub base_ns: u64,
    /// 1: connections of routes with [`PROXY`](super::route_flags::PROXY) are reset while no proxy listens; 0: the
    /// rest of their route holds then.
    pub l7_reset: u32,
    /// Shards of the proxy, each with a listener for each family: see [`listener`]. 0: none has
    /// listened yet.
    pub shards: u32,
    /// The bit of the mark that packets get that are handed over.
    pub mark_handed: u32,
    /// The bit of the mark that the proxy's own packets have.
    pub mark_own: u32,
    /// The routing table that delivers packets with `mark_handed`; 0: none was made.
    pub proxy_table: u32,
    /// Zero.
    pub unused: u32,
}

/// Shards that a proxy may have.
pub const SHARDS_MAX: u32 = 64;

/// The element of `PROXY_LISTENERS` that has a shard's listener for IPv4, or IPv6.
#[inline(always)]
pub const fn listener(shard: u32, ipv6: bool) -> u32 {
    2 * shard + ipv6 as u32
}

const _: () = assert!(size_of::<Settings>() == 72);
