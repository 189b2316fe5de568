//! What can go wrong between us and the kernel, in words that say what to do.

use std::{io, path::PathBuf};

use super::verifier::Rejection;

/// A failure of this room. Nothing that was running is touched by any of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The process may not use BPF.
    #[error(
        "{action} needs root (the capabilities {missing}); run the command as root, for example with sudo"
    )]
    NotPermitted {
        /// What was tried.
        action: String,
        /// Names of the capabilities that are missing.
        missing: String,
    },
    /// The pin directory would not lie on a BPF file system.
    #[error(
        "{} is not on a BPF file system, so nothing can be pinned there; mount one:\n    mount -t bpf bpf {}\nor name another directory with --bpffs",
        .path.display(), .mount_at.display()
    )]
    NoBpffs {
        /// The pin directory.
        path: PathBuf,
        /// The directory to mount it on.
        mount_at: PathBuf,
    },
    /// The directory that should hold the pin directory is missing.
    #[error(
        "{} does not exist, so {} cannot be made in it; make it inside a BPF file system, or name another directory with --bpffs",
        .parent.display(), .path.display()
    )]
    NoParent {
        /// The pin directory.
        path: PathBuf,
        /// Its parent.
        parent: PathBuf,
    },
    /// Another process writes.
    #[error(
        "{} is in use by {}; wait until it ends, or stop it: two writers at once would mix two sets",
        .path.display(), match .pid { Some(pid) => format!("process {pid}"), None => "another process (of another pid namespace)".into() }
    )]
    Busy {
        /// The pin directory.
        path: PathBuf,
        /// The other process.
        pid: Option<u32>,
    },
    /// Another process reads the events.
    #[error(
        "the events of {} are read by {} already; stop it first: what one tracer reads, no other one sees",
        .path.display(), match .pid { Some(pid) => format!("process {pid}"), None => "another process (of another pid namespace)".into() }
    )]
    Traced {
        /// The pin directory.
        path: PathBuf,
        /// The other process.
        pid: Option<u32>,
    },
    /// What was being traced is not pinned any more.
    #[error("what was loaded at {} has been unloaded or replaced", .path.display())]
    Replaced {
        /// The pin directory.
        path: PathBuf,
    },
    /// Nothing is pinned.
    #[error("nothing is loaded at {}; load policies with: balancer load -f PATH", .path.display())]
    NotLoaded {
        /// The pin directory.
        path: PathBuf,
    },
    /// A first load was cut short.
    #[error(
        "what is pinned at {} is not complete ({missing}): a first load was cut short; the next `balancer load` makes it anew",
        .path.display()
    )]
    Incomplete {
        /// The pin directory.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// Pins of a first load that was cut short, but programs are attached.
    #[error(
        "what is pinned at {} is not complete ({missing}), yet programs of it are attached; remove it with: balancer unload --bpffs {}",
        .path.display(), .path.display()
    )]
    IncompleteButAttached {
        /// The pin directory.
        path: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// Something is loaded already.
    #[error("a datapath is loaded at {} already; publish into it, or remove it with: balancer unload", .path.display())]
    AlreadyLoaded {
        /// The pin directory.
        path: PathBuf,
    },
    /// Pinned by another version.
    #[error(
        "the maps at {} have layout version {found}, this program speaks {expected}; use the version that loaded them, or unload (connections are cut) and load again",
        .path.display()
    )]
    AbiVersion {
        /// The pin directory.
        path: PathBuf,
        /// `SETTINGS.abi_version`.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A pinned map has another shape.
    #[error(
        "the pinned map {map} has {what} {found} where this program expects {expected}; unload and load again"
    )]
    MapShape {
        /// Name of the map.
        map: String,
        /// `key size`, `value size`, …
        what: &'static str,
        /// What the kernel says.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// A capacity does not suffice. Nothing was written.
    #[error(
        "map {map} is full: {needed} of {capacity} are needed; raise {setting} and load again after `balancer unload` (sizes are fixed when maps are made)"
    )]
    Full {
        /// Name of the map.
        map: &'static str,
        /// What would be in it.
        needed: u64,
        /// What fits.
        capacity: u64,
        /// The setting that sizes it.
        setting: &'static str,
    },
    /// A limit that no map can have.
    #[error("{setting} is {value}: {why}")]
    Limit {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The maps would not fit into memory. Nothing was allocated.
    #[error(
        "the maps would take {needed_mib} MiB, but only {available_mib} MiB of memory are available; the largest is {map} with {map_mib} MiB ({detail}): lower {setting}"
    )]
    Memory {
        /// Of all maps.
        needed_mib: u64,
        /// `MemAvailable`.
        available_mib: u64,
        /// The largest map.
        map: &'static str,
        /// Its share.
        map_mib: u64,
        /// How that comes about.
        detail: String,
        /// The setting that sizes it.
        setting: &'static str,
    },
    /// The verifier refused a program.
    #[error(transparent)]
    Rejected(#[from] Box<Rejection>),
    /// The object cannot be read or lacks something.
    #[error("the eBPF object cannot be used: {0}")]
    Object(String),
    /// A system call on a map failed.
    #[error("{call} on map {map} failed: {}", explain(.source))]
    Map {
        /// Name of the map.
        map: String,
        /// The call.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Some other system call failed.
    #[error("{action} failed: {}", explain(.source))]
    System {
        /// What was tried, with its object.
        action: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No such interface.
    #[error("there is no interface {name} in this network namespace; there are: {}", .present.join(", "))]
    NoInterface {
        /// As asked for.
        name: String,
        /// Those that exist.
        present: Vec<String>,
    },
    /// Somebody else's filter is where ours belongs.
    #[error(
        "interface {interface} ({direction}) has a filter of another program ({owner}) at priority {priority}, handle {handle:#x}, where balancer's belongs; remove it with: tc filter del dev {interface} {direction} pref {priority}"
    )]
    ForeignFilter {
        /// Interface.
        interface: String,
        /// `ingress` or `egress`.
        direction: &'static str,
        /// What is known of it.
        owner: String,
        /// Its priority.
        priority: u16,
        /// Its handle.
        handle: u32,
    },
    /// Somebody else's XDP program is where ours belongs, and only one fits.
    #[error(
        "interface {interface} has an XDP program of somebody else{}, which is not touched, and there is room for one; attach to the hook tc there, or have it removed: ip link set dev {interface} xdp off",
        if *.program == 0 { String::new() } else { format!(" (id {})", .program) }
    )]
    ForeignXdp {
        /// Interface.
        interface: String,
        /// The kernel's id of the program; 0: not known.
        program: u32,
    },
    /// The driver runs no XDP programs.
    #[error(
        "the driver of interface {interface} does not run XDP programs with its present settings ({error}): it may have none of it, receive in a way that excludes it (LRO), or have too large an MTU; attach to the hook tc there, which translates, or ask by name for XDP before the stack, which is slower: `generic: true` beside `hook: xdp`, on the command line {generic}"
    )]
    NoNativeXdp {
        /// Interface.
        interface: String,
        /// What asks for XDP before the stack on the command line.
        generic: String,
        /// The kernel's word.
        error: io::Error,
    },
    /// More interfaces than the map has room for.
    #[error(
        "{wanted} interfaces are to have XDP in the driver or `snat`, and there is room for {}; attach the others to the hook tc without `snat`",
        balancer_ebpf::abi::DEVICES_MAX
    )]
    DevicesFull {
        /// How many ask for it.
        wanted: usize,
    },
    /// A connection that cannot exist.
    #[error("this is no connection: {0}")]
    Tuple(String),
    /// The caller wants ids that contradict the maps.
    #[error("the compiled tables contradict the loaded maps: {0}; this is a fault of balancer")]
    Conflict(String),
    /// The new set is live, but something after that failed.
    #[error(
        "epoch {epoch} is live, but cleaning up after it failed ({source}); the next `balancer load` does it"
    )]
    AfterFlip {
        /// The live epoch.
        epoch: u64,
        /// What failed.
        source: Box<KernelError>,
    },
    /// The caller's own step before the flip failed; nothing was published.
    #[error("nothing was published: {0}")]
    BeforeFlip(String),
}

impl KernelError {
    pub(crate) fn system(action: impl Into<String>, source: io::Error) -> Self {
        Self::System { action: action.into(), source }
    }
    pub(crate) fn map(map: impl Into<String>, call: &'static str, source: io::Error) -> Self {
        Self::Map { map: map.into(), call, source }
    }
}

/// The error and what it usually means here.
fn explain(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "run as root",
        Some(libc::ENOMEM) => "the kernel has no memory for it; lower `limits`",
        Some(libc::E2BIG) => "the map is full or too large; see `limits`",
        Some(libc::EEXIST) => "it is there already",
        Some(libc::ENOSPC) => "there is no room left in it",
        Some(libc::ENODEV) => "the interface is gone",
        // 524 is the kernel's own ENOTSUPP, of a JIT compiler.
        Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS | 524) => {
            "this kernel does not know it; `balancer status --requirements` says what it lacks"
        }
        _ => return error.to_string(),
    };
    format!("{error} ({hint})")
}
