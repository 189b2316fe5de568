//! The table of features: names, first kernels, what they are for and what their lack costs.

use std::fmt;

use super::super::{Hook, Link};

/// A release of Linux: major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u8, pub u8);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// How much balancer depends on a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It does not run without; what it needs it for.
    Always(&'static str),
    /// It does not run without, where the other feature is lacking too; what it needs it for, and
    /// how to get it on a kernel that was built with it.
    Without(Feature, &'static str, &'static str),
    /// It does not run until an administrator switches it on; what it needs it for, and how where
    /// that is one command everywhere.
    SetUp(&'static str, Option<&'static str>),
    /// It runs without; what stands in.
    Optional(&'static str),
}

/// Something that a kernel has or lacks. The documentation of each names its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// bpf(2); kernel commit 99c55f7d47c0.
    SystemCall,
    /// `net.core.bpf_jit_enable`; on x86-64 kernel commit 622582786c9e. Without it the verifier
    /// refuses callbacks (`fixup_call_args` in kernel/bpf/verifier.c).
    Jit,
    /// Kernel commit a10423b87a7e.
    PerCpuArrays,
    /// Kernel commit 29ba732acbee.
    LruHash,
    /// Kernel commit 56f668dfe00d.
    ArraysOfMaps,
    /// Pulling, storing, cutting, checksums, redirection: the youngest are those of kernel
    /// commits 36bbef52c7eb and 5293efe62df8.
    PacketHelpers,
    /// `BPF_PROG_TEST_RUN`; kernel commit 1cf1cae963c2.
    TestRuns,
    /// Kernel commit cc8b0b92a169.
    FunctionCalls,
    /// Function information of BTF; kernel commit 838e96904ff3.
    FunctionTypes,
    /// `__sk_buff.gso_segs`; kernel commit d9ff286a0f59.
    SegmentCount,
    /// Conditional jumps on half registers; kernel commit 092ed0968bb6.
    HalfJumps,
    /// `BPF_F_RDONLY_PROG`, `BPF_MAP_FREEZE`, `BPF_PSEUDO_MAP_VALUE`; kernel commits
    /// 591fe9888d78, 87df15de441b, d8eca5bbb2be.
    ConstantData,
    /// More than 4096 instructions; kernel commit c04c0d2b968a.
    LongPrograms,
    /// Kernel commit 2589726d12a1.
    BoundedLoops,
    /// `BPF_F_MMAPABLE`; kernel commit fc9702273e2e.
    MmapableArrays,
    /// `bpf_jiffies64`; kernel commit 5576b991e9c1.
    Jiffies,
    /// Batched calls on hash maps; kernel commit 057996380a42.
    BatchedReads,
    /// Kernel commit 457f44363a88.
    RingBuffers,
    /// `bpf_ktime_get_coarse_ns`; kernel commit d05512618056.
    CoarseClock,
    /// `BPF_FETCH` and compare-and-exchange; kernel commits 5ca419f2864a, 5ffa25502b5a.
    FetchingAtomics,
    /// `bpf_loop`; kernel commit e6f2dd0f8067.
    Loop,
    /// Batched updates of arrays of maps; kernel commit 9263dddc7b6f.
    BatchedInnerMaps,
    /// Kernel commit e420bed02507.
    Tcx,
    /// The clsact qdisc with classifier `bpf`; kernel commits 1f211a1b929c, e2e9b6541dd4.
    Clsact,
    /// `MEMBARRIER_CMD_GLOBAL` of membarrier(2); refused on kernels booted with `nohz_full`.
    Membarrier,
    /// `BPF_F_IPV6` of `bpf_l4_csum_replace`; kernel commit ead7f9b8de65.
    Ipv6ChecksumFlag,
    /// Pins; kernel commit b2197755b263.
    BpfFileSystem,
}

impl Feature {
    /// Every feature, in the order in which they are printed: what else depends on comes first.
    pub const ALL: [Self; 27] = [
        Self::SystemCall,
        Self::Jit,
        Self::PerCpuArrays,
        Self::LruHash,
        Self::ArraysOfMaps,
        Self::PacketHelpers,
        Self::TestRuns,
        Self::FunctionCalls,
        Self::FunctionTypes,
        Self::SegmentCount,
        Self::HalfJumps,
        Self::ConstantData,
        Self::LongPrograms,
        Self::BoundedLoops,
        Self::MmapableArrays,
        Self::Jiffies,
        Self::BatchedReads,
        Self::RingBuffers,
        Self::CoarseClock,
        Self::FetchingAtomics,
        Self::Loop,
        Self::BatchedInnerMaps,
        Self::Tcx,
        Self::Clsact,
        Self::Membarrier,
        Self::Ipv6ChecksumFlag,
        Self::BpfFileSystem,
    ];

    fn facts(self) -> (&'static str, Version, Need) {
        use Need::{Always, Optional, SetUp, Without};
        match self {
            Self::SystemCall => ("bpf(2)", Version(3, 18), Always("programs and maps")),
            Self::Jit => (
                "the JIT compiler",
                Version(3, 16),
                SetUp(
                    "callbacks in programs, and speed",
                    Some("sysctl -w net.core.bpf_jit_enable=1"),
                ),
            ),
            Self::PerCpuArrays => ("per-CPU arrays", Version(4, 6), Always("counters")),
            Self::LruHash => ("LRU hash maps", Version(4, 10), Always("the tables of flows")),
            Self::ArraysOfMaps => ("arrays of maps", Version(4, 12), Always("the arena of tables")),
            Self::PacketHelpers => (
                "packet helpers",
                Version(4, 9),
                Always("rewriting packets and their checksums, resets"),
            ),
            Self::TestRuns => (
                "test runs of classifiers",
                Version(4, 12),
                Always("reading jiffies, explain --tuple"),
            ),
            Self::FunctionCalls => ("calls between functions", Version(4, 16), Always("programs")),
            Self::FunctionTypes => {
                ("BTF of functions", Version(5, 0), Always("callbacks, and source lines in errors"))
            }
            Self::SegmentCount => {
                ("segment count of packets", Version(5, 1), Always("counting packets"))
            }
            Self::HalfJumps => ("32-bit jumps", Version(5, 1), Always("programs")),
            Self::ConstantData => ("constant data", Version(5, 2), Always("settings of programs")),
            Self::LongPrograms => {
                ("programs over 4096 instructions", Version(5, 2), Always("programs"))
            }
            Self::BoundedLoops => ("bounded loops", Version(5, 3), Always("programs")),
            Self::MmapableArrays => {
                ("mmapable arrays", Version(5, 5), Always("publishing a whole set at once"))
            }
            Self::Jiffies => {
                ("helper jiffies64", Version(5, 6), Always("when a flow was last seen"))
            }
            Self::BatchedReads => {
                ("batched reads of hash maps", Version(5, 6), Always("reading flows"))
            }
            Self::RingBuffers => ("ring buffers", Version(5, 8), Always("events")),
            Self::CoarseClock => (
                "helper ktime_get_coarse_ns",
                Version(5, 11),
                Always("deadlines of gone reals and previous tables"),
            ),
            Self::FetchingAtomics => (
                "atomic operations that return the old value",
                Version(5, 12),
                Always("counting live connections"),
            ),
            Self::Loop => ("helper loop", Version(5, 17), Always("least request")),
            Self::BatchedInnerMaps => (
                "batched updates of arrays of maps",
                Version(5, 19),
                Always("growing the arena of tables"),
            ),
            Self::Tcx => ("tcx", Version(6, 6), Optional("using clsact")),
            Self::Clsact => (
                "clsact with BPF filters",
                Version(4, 5),
                Without(Self::Tcx, "attaching", "modprobe -a sch_ingress cls_bpf"),
            ),
            Self::Membarrier => {
                ("membarrier", Version(4, 3), Optional("waiting by an update of the arena"))
            }
            Self::Ipv6ChecksumFlag => {
                ("IPv6 checksum flag", Version(6, 16), Optional("summed up by the programs"))
            }
            Self::BpfFileSystem => {
                ("a BPF file system", Version(4, 4), SetUp("pins, which outlive the command", None))
            }
        }
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        self.facts().0
    }

    /// The first kernel that has it; some stable kernels before that have it too.
    pub fn since(self) -> Version {
        self.facts().1
    }

    /// How much depends on it.
    pub fn need(self) -> Need {
        self.facts().2
    }

    /// The command that may bring it on a kernel that is new enough.
    pub fn remedy(self) -> Option<&'static str> {
        match self.need() {
            Need::Without(_, _, how) => Some(how),
            Need::SetUp(_, how) => how,
            Need::Always(_) | Need::Optional(_) => None,
        }
    }

    /// What its lack costs.
    pub fn without_it(self) -> String {
        match self.need() {
            Need::Always(what) => format!("does not run: {what}"),
            Need::Without(other, what, _) => {
                format!("without {} does not run: {what}", other.name())
            }
            Need::SetUp(what, _) => format!("does not run until it is set up: {what}"),
            Need::Optional(instead) => instead.to_owned(),
        }
    }
}

/// What is said of tcx: which hook is in use, whatever the kernel has.
pub(super) fn hooks_in_use(has: bool, links: &[Link]) -> String {
    if !has {
        return "no, using clsact".to_owned();
    }
    let mut others: Vec<&str> =
        links.iter().filter(|l| l.hook == Hook::Clsact).map(|l| &*l.interface).collect();
    others.dedup();
    if others.is_empty() {
        "yes".to_owned()
    } else {
        format!("yes, but using clsact on {}", others.join(", "))
    }
}
