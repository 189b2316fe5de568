//! System calls that neither aya nor nix offer: batched map calls, `membarrier`, descriptors of
//! pins, bare maps.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::time::{ClockId, clock_getres, clock_gettime};

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_MAP_FREEZE: libc::c_int = 22;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;
pub(super) const BPF_MAP_TYPE_ARRAY: u32 = 2;
pub(super) const BPF_F_MMAPABLE: u32 = 1 << 10;
const MEMBARRIER_CMD_QUERY: libc::c_int = 0;
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Elements asked for in one call.
const BATCH: usize = 4096;

/// `bpf(2)` with one of the attribute structs below.
pub(super) fn bpf<A>(command: libc::c_int, attributes: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: `attributes` is a live, exclusively borrowed struct of the size that is passed
    // along; the kernel reads and writes within it, and the pointers in it are kept alive by the
    // callers for the duration of the call.
    let returned =
        unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut A, size_of::<A>()) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Hands every element of a hash map to `visit`. The kernel walks whole buckets, so elements
/// that come and go meanwhile neither restart the walk nor hide others.
pub(crate) fn for_each_element(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    visit: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    for_first_elements(map, key_size, value_size, usize::MAX, visit)
}

/// [`for_each_element`] for the first `limit` elements only: of an array, those with the smallest
/// indices.
pub(crate) fn for_first_elements(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
    mut limit: usize,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    if limit == 0 {
        return Ok(());
    }
    let mut room = BATCH.min(limit);
    let (mut keys, mut values) = (vec![0; room * key_size], vec![0; room * value_size]);
    let mut position: Option<u32> = None;
    loop {
        let mut next = 0u32;
        let mut batch = Batch {
            in_batch: position.as_ref().map_or(0, |p| p as *const u32 as u64),
            out_batch: &raw mut next as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: room as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        let last = match bpf(BPF_MAP_LOOKUP_BATCH, &mut batch) {
            Ok(_) => false,
            Err(e) => match e.raw_os_error() {
                Some(libc::ENOENT) => true,
                // One bucket holds more than there is room for.
                Some(libc::ENOSPC) => {
                    room *= 2;
                    keys.resize(room * key_size, 0);
                    values.resize(room * value_size, 0);
                    continue;
                }
                Some(libc::EINTR) => continue,
                _ => return Err(e),
            },
        };
        let count = batch.count as usize;
        for (key, value) in
            keys.chunks_exact(key_size).zip(values.chunks_exact(value_size)).take(count.min(limit))
        {
            visit(key, value);
        }
        limit -= count.min(limit);
        if last || limit == 0 {
            return Ok(());
        }
        position = Some(next);
    }
}

/// A map to be made (`BPF_MAP_CREATE`).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct MapCreate {
    pub(crate) map_type: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) map_flags: u32,
    pub(crate) inner_map_fd: u32,
    pub(crate) numa_node: u32,
    pub(crate) map_name: [u8; 16],
}

/// Makes a map.
pub(crate) fn create_map(mut map: MapCreate) -> io::Result<OwnedFd> {
    let fd = bpf(BPF_MAP_CREATE, &mut map)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Makes a mmapable array of `words` words, all zero.
pub(crate) fn create_words(name: &str, words: u32) -> io::Result<OwnedFd> {
    let mut create = MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: words,
        map_flags: BPF_F_MMAPABLE,
        ..MapCreate::default()
    };
    // The last byte stays zero.
    for (to, from) in create.map_name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    create_map(create)
}

/// Makes a map read-only for user space.
pub(crate) fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    let mut fd = map.as_raw_fd() as u32;
    bpf(BPF_MAP_FREEZE, &mut fd).map(drop)
}

/// Puts `maps` into an array of maps from `first` on: one RCU wait for all of them, where
/// element-wise updates wait for each.
pub(crate) fn insert_inner_maps(
    outer: BorrowedFd<'_>,
    first: u32,
    maps: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let keys: Vec<u32> = (first..).take(maps.len()).collect();
    let values: Vec<u32> = maps.iter().map(|m| m.as_raw_fd() as u32).collect();
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: maps.len() as u32,
        map_fd: outer.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    bpf(BPF_MAP_UPDATE_BATCH, &mut batch).map(drop)
}

#[repr(C)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Opens the object that is pinned at `path`.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjectGet { path: name.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &mut get)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Pins an object.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let fd = object.as_raw_fd() as u32;
    bpf(BPF_OBJ_PIN, &mut ObjectGet { path: name.as_ptr() as u64, fd, flags: 0 }).map(drop)
}

#[repr(C)]
struct XdpLinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Puts an XDP program on an interface of the calling thread's namespace, in its driver or, with
/// `generic`, before the stack. It goes with the last descriptor or pin of the link.
pub(crate) fn link_xdp(
    program: BorrowedFd<'_>,
    interface: u32,
    generic: bool,
) -> io::Result<OwnedFd> {
    /// `BPF_XDP` (linux/bpf.h), `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` (linux/if_link.h).
    const BPF_XDP: u32 = 37;
    const SKB_MODE: u32 = 1 << 1;
    const DRV_MODE: u32 = 1 << 2;
    let mut create = XdpLinkCreate {
        program: program.as_raw_fd() as u32,
        interface,
        attach_type: BPF_XDP,
        flags: if generic { SKB_MODE } else { DRV_MODE },
    };
    let fd = bpf(BPF_LINK_CREATE, &mut create)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Lets a link carry another program: each packet meets the one or the other.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let (link, program) = (link.as_raw_fd() as u32, program.as_raw_fd() as u32);
    bpf(BPF_LINK_UPDATE, &mut LinkUpdate { link, program, flags: 0, old_program: 0 }).map(drop)
}

#[repr(C)]
struct LinkDetach {
    fd: u32,
    flags: u32,
}

/// Takes a link's program off its hook at once. Removing the pin does that too, but some time
/// after unlink(2) has returned.
pub(crate) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut detach = LinkDetach { fd: link.as_raw_fd() as u32, flags: 0 };
    bpf(BPF_LINK_DETACH, &mut detach).map(drop)
}

/// Waits until every program run that had begun has ended (`membarrier(2)`,
/// `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu`).
///
/// # Errors
/// `EINVAL` on kernels booted with `nohz_full`.
pub(crate) fn membarrier() -> io::Result<()> {
    // SAFETY: the call takes numbers only.
    let returned = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether [`membarrier`] works here: asks, and does not wait.
pub(crate) fn knows_membarrier() -> io::Result<bool> {
    // SAFETY: the call takes numbers only.
    let known = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) };
    if known >= 0 {
        return Ok(known & libc::c_long::from(MEMBARRIER_CMD_GLOBAL) != 0);
    }
    match io::Error::last_os_error() {
        // A kernel without CONFIG_MEMBARRIER.
        e if e.raw_os_error() == Some(libc::ENOSYS) => Ok(false),
        e => Err(e),
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, as `bpf_ktime_get_ns` has it.
pub(crate) fn monotonic_ns() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

/// Jiffies a second: the coarse clock advances once a tick (clock_getres(2)).
pub(crate) fn hz() -> io::Result<u32> {
    let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let ns = tick.tv_sec() as u64 * 1_000_000_000 + tick.tv_nsec() as u64;
    if ns == 0 {
        return Err(io::Error::other("the kernel names no resolution of its coarse clock"));
    }
    // Ticks that do not divide a second are reported rounded (3,333,333 ns for 300 Hz).
    Ok((1_000_000_000 + ns / 2).checked_div(ns).unwrap_or(0) as u32)
}
