//! Where things are pinned, and the shape of every map.
//!
//! ```text
//! <bpffs>/maps/NAME            every map
//! <bpffs>/progs/NAME           every program
//! <bpffs>/links/IFACE-in|out   tcx links
//! <bpffs>/links/IFACE-xdp      XDP links
//! <bpffs>/clsact/IFACE         symbolic link: what we added where tcx is missing
//! ```

use std::path::{Path, PathBuf};

use balancer_ebpf::{
    abi::{
        CHUNK_WORDS, ClassVip, Counter, DEVICES_MAX, Device, EVENTS_BYTES, FRAGMENTS_MAX, Flow4,
        Flow6, FlowKey4, FlowKey6, Fragment, FragmentKey, HOPS_MAX, HopKey, Hops, Interface,
        NewFlows, NextHop, PORT_WORDS, REPLY_PORT_WORDS, Real, RouteEntry, SHARDS_MAX,
        SLOTS_PER_WORD, Settings, SnatPorts, SourceEntry, Trace, Traced, VipEntry, VipKey4,
        VipKey6, map_names,
    },
    reason::Reason,
};

use crate::compile::Limits;

use super::KernelError;

/// Paths below the pin directory.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    pub(crate) dir: PathBuf,
}

impl Pins {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }
    pub(crate) fn maps(&self) -> PathBuf {
        self.dir.join("maps")
    }
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }
    pub(crate) fn programs(&self) -> PathBuf {
        self.dir.join("progs")
    }
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }
    pub(crate) fn links(&self) -> PathBuf {
        self.dir.join("links")
    }
    pub(crate) fn clsact(&self) -> PathBuf {
        self.dir.join("clsact")
    }
}

/// An interface's name as a file name: bpffs refuses dots (kernel/bpf/inode.c keeps them for
/// itself), which VLAN interfaces have.
pub(crate) fn escape_interface(name: &str) -> String {
    name.replace('%', "%25").replace('.', "%2e")
}

/// The inverse of [`escape_interface`].
pub(crate) fn unescape_interface(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// Name, sizes and the setting behind them of one map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapShape {
    pub(crate) name: &'static str,
    pub(crate) key: u32,
    pub(crate) value: u32,
    /// Elements for these limits.
    pub(crate) entries: fn(&Limits) -> u64,
    /// The setting that decides; empty: fixed.
    pub(crate) setting: &'static str,
    /// Bytes of kernel memory for each element, beyond key and value.
    pub(crate) overhead: u32,
    /// One value for each possible CPU.
    pub(crate) per_cpu: bool,
}

const fn map(
    name: &'static str,
    key: usize,
    value: usize,
    entries: fn(&Limits) -> u64,
    setting: &'static str,
) -> MapShape {
    MapShape {
        name,
        key: key as u32,
        value: value as u32,
        entries,
        setting,
        overhead: 0,
        per_cpu: false,
    }
}

impl MapShape {
    /// Hash elements carry a list node, a hash and padding (kernel/bpf/hashtab.c: 48 bytes),
    /// and a bucket of 16 bytes each.
    const fn hash(mut self) -> Self {
        self.overhead = 64;
        self
    }
    /// A ring buffer: its elements are bytes.
    const fn bytes(mut self) -> Self {
        self.overhead = 1;
        self
    }
    const fn per_cpu(mut self) -> Self {
        self.per_cpu = true;
        self
    }
}

/// Ids start at 1: element 0 stands for "none".
fn with_zero(limit: u32) -> u64 {
    u64::from(limit) + 1
}

fn reals(limits: &Limits) -> u64 {
    u64::from(limits.reals) + u64::from(balancer_ebpf::abi::REAL_FIRST)
}

/// Chunks of the arena for the slots of `limits`. Run and target words count as the slots that
/// would fit in their place.
fn chunks(limits: &Limits) -> u64 {
    u64::from(limits.arena_slots).div_ceil(u64::from(SLOTS_PER_WORD)).div_ceil(CHUNK_WORDS as u64)
}

/// Interfaces that packets can go past the stack from and to.
pub(crate) const INTERFACES_MAX: u64 = 4096;

/// Every map.
pub(crate) const SHAPES: &[MapShape] = &[
    map(map_names::EPOCH, 4, 8, |_| 1, ""),
    map(map_names::SETTINGS, 4, size_of::<Settings>(), |_| 1, ""),
    map(map_names::PORTS, 4, 8, |_| PORT_WORDS as u64, ""),
    map(map_names::REPLY_PORTS, 4, 8, |_| REPLY_PORT_WORDS as u64, ""),
    map(map_names::INTERFACES, 4, size_of::<Interface>(), |_| INTERFACES_MAX, "").hash(),
    map(map_names::VIP_IDS4, size_of::<VipKey4>(), 4, |l| with_zero(l.services), "limits.services")
        .hash(),
    map(map_names::VIP_IDS6, size_of::<VipKey6>(), 4, |l| with_zero(l.services), "limits.services")
        .hash(),
    map(map_names::VIP_ADDRESSES4, 4, 4, |l| with_zero(l.services), "limits.services").hash(),
    map(map_names::VIP_ADDRESSES6, 16, 4, |l| with_zero(l.services), "limits.services").hash(),
    map(map_names::SOURCE_IDS4, 4, 4, |l| with_zero(l.sources), "limits.sources").hash(),
    map(map_names::SOURCE_IDS6, 16, 4, |l| with_zero(l.sources), "limits.sources").hash(),
    map(
        map_names::CLASS_ROUTES,
        size_of::<ClassVip>(),
        4,
        |l| with_zero(l.routes),
        "limits.routes",
    )
    .hash(),
    map(
        map_names::VIPS,
        4,
        size_of::<VipEntry>(),
        |l| 2 * with_zero(l.services),
        "limits.services",
    ),
    map(
        map_names::SOURCES,
        4,
        size_of::<SourceEntry>(),
        |l| 2 * with_zero(l.sources),
        "limits.sources",
    ),
    map(
        map_names::ROUTES,
        4,
        size_of::<RouteEntry>(),
        |l| 2 * with_zero(l.routes),
        "limits.routes",
    ),
    map(map_names::ARENA, 4, 4, chunks, "limits.arena_slots"),
    map(map_names::REALS, 4, size_of::<Real>(), reals, "limits.reals"),
    map(
        map_names::FLOWS4,
        size_of::<FlowKey4>(),
        size_of::<Flow4>(),
        |l| 2 * u64::from(l.flows),
        "limits.flows",
    )
    .hash(),
    map(
        map_names::FLOWS6,
        size_of::<FlowKey6>(),
        size_of::<Flow6>(),
        |l| 2 * u64::from(l.flows),
        "limits.flows",
    )
    .hash(),
    map(
        map_names::HALF_OPEN4,
        size_of::<FlowKey4>(),
        size_of::<Flow4>(),
        |l| 2 * u64::from(l.half_open),
        "limits.half_open",
    )
    .hash(),
    map(
        map_names::HALF_OPEN6,
        size_of::<FlowKey6>(),
        size_of::<Flow6>(),
        |l| 2 * u64::from(l.half_open),
        "limits.half_open",
    )
    .hash(),
    map(
        map_names::FRAGMENTS,
        size_of::<FragmentKey>(),
        size_of::<Fragment>(),
        |_| FRAGMENTS_MAX as u64,
        "",
    )
    .hash(),
    map(map_names::ACTIVE, 4, 8, reals, "limits.reals"),
    map(map_names::TURNS, 4, 4, |l| with_zero(l.routes), "limits.routes").per_cpu(),
    map(
        map_names::NEW_FLOWS,
        4,
        size_of::<NewFlows>(),
        |l| with_zero(l.services),
        "limits.services",
    )
    .per_cpu(),
    map(map_names::COUNTERS, 4, size_of::<Counter>(), |l| with_zero(l.counters), "limits.counters")
        .per_cpu(),
    map(map_names::REASONS, 4, 8, |_| Reason::ALL.len() as u64, "").per_cpu(),
    map(map_names::EVENTS, 0, 0, |_| EVENTS_BYTES as u64, "").bytes(),
    map(map_names::TRACE, 4, size_of::<Trace>(), |_| 1, ""),
    map(map_names::TRACED, 4, size_of::<Traced>(), |_| 1, "").per_cpu(),
    map(map_names::DEVICES, 4, size_of::<Device>(), |_| DEVICES_MAX as u64, "").hash(),
    map(map_names::SNAT, 4, size_of::<SnatPorts>(), |_| 1, ""),
    map(map_names::SCRATCH, 4, 64, |_| 3, "").per_cpu(),
    map(map_names::HOPS, 4, size_of::<Hops>(), |_| 1, ""),
    map(map_names::NEXT_HOPS, 4, size_of::<NextHop>(), |_| HOPS_MAX as u64, ""),
    map(map_names::HOP_IDS, size_of::<HopKey>(), 4, |_| HOPS_MAX as u64, "").hash(),
    map(map_names::PROXY_LISTENERS, 4, 4, |_| 2 * u64::from(SHARDS_MAX), ""),
];

/// The shape of the map of this name.
pub(crate) fn shape(name: &str) -> Result<&'static MapShape, KernelError> {
    SHAPES
        .iter()
        .find(|s| s.name == name)
        .ok_or_else(|| KernelError::Object(format!("it has a map {name} that is not known here")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_map_has_a_shape() {
        for name in map_names::ALL {
            assert!(shape(name).is_ok(), "{name}");
        }
        assert_eq!(SHAPES.len(), map_names::ALL.len());
    }

    #[test]
    fn interface_names_with_dots_survive_the_pin_directory() {
        for name in ["eth0", "eth0.100", "a%2eb", "%", "a.b.c%25"] {
            let escaped = escape_interface(name);
            assert!(!escaped.contains('.'), "{escaped}");
            assert_eq!(unescape_interface(&escaped), name);
        }
    }

    #[test]
    fn default_limits_give_the_expected_capacities() {
        let limits = Limits::default();
        let entries = |name| (shape(name).expect("shape").entries)(&limits);
        assert_eq!(entries(map_names::FLOWS4), 524_288);
        assert_eq!(entries(map_names::VIPS), 2 * 16_385);
        assert_eq!(entries(map_names::REALS), 65_538);
        assert_eq!(entries(map_names::ARENA), 64);
    }
}
