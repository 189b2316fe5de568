//! What user space finds maps, programs and globals by.

/// Map names, as in the object and below the pin directory.
pub mod map_names {
    /// `array[1]` of `u64`, mmapable: the number of the published set. Its parity names the half.
    pub const EPOCH: &str = "EPOCH";
    /// `array[1]` of [`Settings`](crate::abi::Settings), mmapable.
    pub const SETTINGS: &str = "SETTINGS";
    /// `array[PORT_WORDS]` of `u64`, mmapable: two bits per port, see [`port_bit`](crate::abi::port_bit).
    pub const PORTS: &str = "PORTS";
    /// `array[REPLY_PORT_WORDS]` of `u64`, mmapable: a bit per port, see
    /// [`reply_port_bit`](crate::abi::reply_port_bit). Only programs write it.
    pub const REPLY_PORTS: &str = "REPLY_PORTS";
    /// Hash: number of an interface (`u32`) → [`Interface`](crate::abi::Interface). Absent: no
    /// flags.
    pub const INTERFACES: &str = "INTERFACES";
    /// Dictionary [`VipKey4`](crate::abi::VipKey4) → VIP id (`u32`).
    pub const VIP_IDS4: &str = "VIP_IDS4";
    /// Dictionary [`VipKey6`](crate::abi::VipKey6) → VIP id (`u32`).
    pub const VIP_IDS6: &str = "VIP_IDS6";
    /// Dictionary IPv4 address (4 bytes) → source id (`u32`).
    pub const SOURCE_IDS4: &str = "SOURCE_IDS4";
    /// Dictionary IPv6 address (16 bytes) → source id (`u32`).
    pub const SOURCE_IDS6: &str = "SOURCE_IDS6";
    /// IPv4 address (4 bytes) → how many VIPs have it (`u32`).
    pub const VIP_ADDRESSES4: &str = "VIP_ADDRESSES4";
    /// IPv6 address (16 bytes) → how many VIPs have it (`u32`).
    pub const VIP_ADDRESSES6: &str = "VIP_ADDRESSES6";
    /// Dictionary [`ClassVip`](crate::abi::ClassVip) → route id (`u32`).
    pub const CLASS_ROUTES: &str = "CLASS_ROUTES";
    /// Two-half array of [`VipEntry`](crate::abi::VipEntry), by VIP id.
    pub const VIPS: &str = "VIPS";
    /// Two-half array of [`SourceEntry`](crate::abi::SourceEntry), by source id.
    pub const SOURCES: &str = "SOURCES";
    /// Two-half array of [`RouteEntry`](crate::abi::RouteEntry), by route id.
    pub const ROUTES: &str = "ROUTES";
    /// Array of mmapable arrays of [`CHUNK_WORDS`](crate::abi::CHUNK_WORDS) `u64`: all tables.
    pub const ARENA: &str = "ARENA";
    /// Array, mmapable, of [`Real`](crate::abi::Real), by real id.
    pub const REALS: &str = "REALS";
    /// LRU hash [`FlowKey4`](crate::abi::FlowKey4) → [`Flow4`](crate::abi::Flow4).
    pub const FLOWS4: &str = "FLOWS4";
    /// LRU hash [`FlowKey6`](crate::abi::FlowKey6) → [`Flow6`](crate::abi::Flow6).
    pub const FLOWS6: &str = "FLOWS6";
    /// LRU hash like [`FLOWS4`]: connections whose handshake is not complete.
    pub const HALF_OPEN4: &str = "HALF_OPEN4";
    /// LRU hash like [`FLOWS6`]: connections whose handshake is not complete.
    pub const HALF_OPEN6: &str = "HALF_OPEN6";
    /// LRU hash [`FragmentKey`](crate::abi::FragmentKey) → [`Fragment`](crate::abi::Fragment).
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Array, mmapable, of `u64`, by real id: live connections.
    pub const ACTIVE: &str = "ACTIVE";
    /// Per-CPU array of `u32`, by route id: round-robin position.
    pub const TURNS: &str = "TURNS";
    /// Per-CPU array of [`NewFlows`](crate::abi::NewFlows), by VIP id; element 0: of all VIPs.
    pub const NEW_FLOWS: &str = "NEW_FLOWS";
    /// Per-CPU array of [`Counter`](crate::abi::Counter), by counter id.
    pub const COUNTERS: &str = "COUNTERS";
    /// Per-CPU array of `u64` (packets), by [`Reason`](crate::reason::Reason).
    pub const REASONS: &str = "REASONS";
    /// Ring buffer of [`EVENTS_BYTES`](crate::abi::EVENTS_BYTES), of [`Event`](crate::abi::Event).
    pub const EVENTS: &str = "EVENTS";
    /// `array[1]` of [`Trace`](crate::abi::Trace), mmapable: what the tracer asks for.
    pub const TRACE: &str = "TRACE";
    /// Per-CPU `array[1]` of [`Traced`](crate::abi::Traced).
    pub const TRACED: &str = "TRACED";
    /// Hash of [`DEVICES_MAX`](crate::abi::DEVICES_MAX): index of an interface with programs of ours
    /// (`u32`) → [`Device`](crate::abi::Device).
    pub const DEVICES: &str = "DEVICES";
    /// `array[1]` of [`SnatPorts`](crate::abi::SnatPorts), mmapable.
    pub const SNAT: &str = "SNAT";
    /// Per-CPU `array[3]` of 64 bytes: what a program works with and the stack has no room for. Nobody else
    /// reads or writes it.
    pub const SCRATCH: &str = "SCRATCH";
    /// `array[1]` of [`Hops`](crate::abi::Hops), mmapable.
    pub const HOPS: &str = "HOPS";
    /// Array of [`NextHop`](crate::abi::NextHop), by number.
    pub const NEXT_HOPS: &str = "NEXT_HOPS";
    /// Hash [`HopKey`](crate::abi::HopKey) → number of the next hop (`u32`).
    pub const HOP_IDS: &str = "HOP_IDS";
    /// Map of sockets, of 2 × [`SHARDS_MAX`](crate::abi::SHARDS_MAX) listeners of the proxy, by
    /// [`listener`](crate::abi::listener). One that closes leaves it by itself.
    pub const PROXY_LISTENERS: &str = "PROXY_LISTENERS";
    /// Every map of the object, in no particular order.
    pub const ALL: &[&str] = &[
        EPOCH,
        SETTINGS,
        PORTS,
        REPLY_PORTS,
        INTERFACES,
        VIP_IDS4,
        VIP_IDS6,
        VIP_ADDRESSES4,
        VIP_ADDRESSES6,
        SOURCE_IDS4,
        SOURCE_IDS6,
        CLASS_ROUTES,
        VIPS,
        SOURCES,
        ROUTES,
        ARENA,
        REALS,
        FLOWS4,
        FLOWS6,
        HALF_OPEN4,
        HALF_OPEN6,
        FRAGMENTS,
        ACTIVE,
        TURNS,
        NEW_FLOWS,
        COUNTERS,
        REASONS,
        EVENTS,
        TRACE,
        TRACED,
        DEVICES,
        SNAT,
        SCRATCH,
        HOPS,
        NEXT_HOPS,
        HOP_IDS,
        PROXY_LISTENERS,
    ];
}

/// Program names, as in the object.
pub mod program_names {
    /// TC ingress: VIP → real; real → VIP of flows that do not go through the stack.
    pub const INGRESS: &str = "balancer_in";
    /// TC egress: real → VIP; VIP → real of connections that the node itself opens.
    pub const EGRESS: &str = "balancer_out";
    /// The ingress walk without recording, for `BPF_PROG_TEST_RUN` only: the return value is the
    /// number of the [`Reason`](crate::reason::Reason), the packet out is what would be sent.
    pub const ASK: &str = "balancer_ask";
    /// XDP: both directions, addresses translated.
    pub const XDP_NAT: &str = "balancer_xdp";
    /// The same for generic XDP.
    pub const XDP_NAT_GENERIC: &str = "balancer_xdp_skb";
    /// XDP: to reals that answer clients by themselves, in a tunnel.
    pub const XDP_IPIP: &str = "balancer_xdp_ip";
    /// The same, in a frame addressed to the real.
    pub const XDP_L2: &str = "balancer_xdp_l2";
    /// Those of XDP.
    pub const XDP: &[&str] = &[XDP_NAT, XDP_NAT_GENERIC, XDP_IPIP, XDP_L2];
    /// Every program of the object.
    pub const ALL: &[&str] = &[INGRESS, EGRESS, ASK, XDP_NAT, XDP_NAT_GENERIC, XDP_IPIP, XDP_L2];
}

/// Names of the read-only globals that user space sets before loading.
pub mod global_names {
    /// `u32`: jiffies a second (the kernel's `CONFIG_HZ`).
    pub const HZ: &str = "HZ";
    /// `u64`: flags added to the checksum helper for IPv6 addresses: `BPF_F_IPV6` (1 << 7) where
    /// the kernel knows it, else 0. Then the programs themselves put right what the helper does
    /// to the sum of a device that sums up the whole packet (`CHECKSUM_COMPLETE`): one call more.
    pub const IPV6_CSUM_FLAG: &str = "IPV6_CSUM_FLAG";
}

// The halves' capacities must be known to the programs without a map lookup: they are
// read-only globals of these names, set together with the maps' sizes.
/// Global `u32`: capacity of one half of `VIPS`.
pub const VIPS_CAPACITY: &str = "VIPS_CAPACITY";
/// Global `u32`: capacity of one half of `SOURCES`.
pub const SOURCES_CAPACITY: &str = "SOURCES_CAPACITY";
/// Global `u32`: capacity of one half of `ROUTES`.
pub const ROUTES_CAPACITY: &str = "ROUTES_CAPACITY";
