//! Asks the running kernel for each feature by using it, in the smallest way.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
};

use nix::sched::{CloneFlags, unshare};

use super::{
    super::{
        KernelError, attach, netlink,
        snippet::{self, EXIT, add, call, copy, helper, instruction, set},
        sys::{self, BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY, MapCreate},
    },
    Feature, Presence,
};

const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_PERCPU_ARRAY: u32 = 6;
const BPF_MAP_TYPE_LRU_HASH: u32 = 9;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const BPF_MAP_TYPE_RINGBUF: u32 = 27;
const BPF_F_RDONLY_PROG: u32 = 1 << 7;
/// The kernel's own number beside the portable ones: a JIT compiler that cannot do it says so.
const ENOTSUPP: i32 = 524;
/// The loopback's index, the same in every network namespace (LOOPBACK_IFINDEX).
const LOOPBACK: u32 = 1;
/// The stack's end (`r10`), and the word below it.
const FRAME: u8 = 10;
const WORD: i16 = -8;

/// Every feature but the place of the pins.
pub(super) fn all() -> Result<Vec<(Feature, Presence)>, KernelError> {
    lift_memory_limit().map_err(|e| {
        KernelError::system("raising the limit of locked memory (RLIMIT_MEMLOCK)", e)
    })?;
    let mut answers: Vec<(Feature, Presence)> = Vec::new();
    for feature in Feature::ALL {
        if feature == Feature::BpfFileSystem {
            continue;
        }
        let has = |wanted| answers.contains(&(wanted, Presence::Here));
        let answer = match obstacle(feature, has) {
            Some(why) => Presence::NotAsked(why),
            None if ask(feature)? => Presence::Here,
            None => Presence::Lacking,
        };
        answers.push((feature, answer));
    }
    Ok(answers)
}

/// A feature that a fall-back stands in for.
pub(super) fn optional(feature: Feature) -> Result<bool, KernelError> {
    ask(feature)
}

/// Why a feature is not asked for, given what the kernel has.
fn obstacle(feature: Feature, has: impl Fn(Feature) -> bool) -> Option<&'static str> {
    match feature {
        Feature::SystemCall | Feature::Membarrier | Feature::BpfFileSystem => None,
        Feature::Clsact => has(Feature::Tcx).then_some("tcx is used"),
        _ if !has(Feature::SystemCall) => Some("needs bpf(2)"),
        Feature::Loop if !has(Feature::Jit) => Some("needs the JIT compiler"),
        Feature::Loop if !has(Feature::FunctionTypes) => Some("needs BTF of functions"),
        Feature::BatchedInnerMaps if !has(Feature::ArraysOfMaps) => Some("needs arrays of maps"),
        Feature::BatchedReads if !has(Feature::LruHash) => Some("needs LRU hash maps"),
        // These are run, not only loaded.
        Feature::FetchingAtomics | Feature::Ipv6ChecksumFlag if !has(Feature::TestRuns) => {
            Some("needs test runs")
        }
        _ => None,
    }
}

fn ask(feature: Feature) -> Result<bool, KernelError> {
    let asked = match feature {
        Feature::Tcx => return attach::knows_tcx(),
        Feature::SystemCall => known(map(BPF_MAP_TYPE_ARRAY, 0)),
        Feature::Jit => jit(),
        Feature::PerCpuArrays => known(map(BPF_MAP_TYPE_PERCPU_ARRAY, 0)),
        Feature::LruHash => known(map(BPF_MAP_TYPE_LRU_HASH, 0)),
        Feature::ArraysOfMaps => known(array_of_maps()),
        Feature::PacketHelpers => known(snippet::load(&PACKET_HELPERS)),
        Feature::TestRuns => known(snippet::load(&NOTHING).and_then(|p| snippet::run(p.as_fd()))),
        Feature::FunctionCalls => known(snippet::load(&FUNCTIONS)),
        Feature::FunctionTypes => known(snippet::load_two_functions(&FUNCTIONS, 2)),
        Feature::SegmentCount => known(snippet::load(&[load_word(0, 1, GSO_SEGS), EXIT])),
        Feature::HalfJumps => known(snippet::load(&HALF_JUMP)),
        Feature::ConstantData => known(constant_data()),
        Feature::LongPrograms => {
            known(snippet::load(&[vec![set(0, 0); 4096], vec![EXIT]].concat()))
        }
        Feature::BoundedLoops => known(snippet::load(&BOUNDED_LOOP)),
        Feature::MmapableArrays => known(map(BPF_MAP_TYPE_ARRAY, BPF_F_MMAPABLE)),
        Feature::Jiffies => known(snippet::load(&[call(helper::JIFFIES64), EXIT])),
        Feature::BatchedReads => known(batched_read()),
        Feature::RingBuffers => known(ring_buffer()),
        Feature::CoarseClock => known(snippet::load(&[call(helper::KTIME_GET_COARSE_NS), EXIT])),
        Feature::FetchingAtomics => known(fetching_atomics()),
        Feature::Loop => known(snippet::load_two_functions(&LOOP, 7)),
        Feature::BatchedInnerMaps => known(batched_inner_maps()),
        Feature::Clsact => clsact(),
        Feature::Membarrier => sys::knows_membarrier(),
        Feature::Ipv6ChecksumFlag => snippet::knows_ipv6_checksum_flag(),
        Feature::BpfFileSystem => return Ok(true),
    };
    asked.map_err(|e| KernelError::system(format!("probing the kernel for {}", feature.name()), e))
}

/// Whether a call worked; the errors of a kernel that does not know something are a "no", all
/// others say nothing about it.
fn known<T>(result: io::Result<T>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) => match e.raw_os_error() {
            // The verifier's words for what it does not know: EINVAL, and EACCES for fields of
            // the context. E2BIG: attributes, or more instructions than it takes.
            Some(
                libc::EINVAL
                | libc::EACCES
                | libc::E2BIG
                | libc::ENOSYS
                | libc::EOPNOTSUPP
                | ENOTSUPP,
            ) => Ok(false),
            _ => Err(e),
        },
    }
}

/// Before 5.11 maps and programs count as locked memory, and a probe that is refused for that
/// would tell nothing. Holds for this process, which ends soon.
fn lift_memory_limit() -> io::Result<()> {
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel reads a live struct of the type that the call takes.
    let returned = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const all) };
    match io::Error::last_os_error() {
        _ if returned == 0 => Ok(()),
        // Without CAP_SYS_RESOURCE: newer kernels need none of this.
        e if e.raw_os_error() == Some(libc::EPERM) => Ok(()),
        e => Err(e),
    }
}

/// Looks at a program: the sysctl that switches the compiler on is seen in the first network
/// namespace only.
fn jit() -> io::Result<bool> {
    snippet::is_compiled(snippet::load(&NOTHING)?.as_fd())
}

/// A map of a few words.
fn map(map_type: u32, map_flags: u32) -> io::Result<OwnedFd> {
    sys::create_map(MapCreate {
        map_type,
        key_size: 4,
        value_size: 8,
        max_entries: 64,
        map_flags,
        ..MapCreate::default()
    })
}

/// The kernel wants whole pages, and pages are up to 64 KiB.
fn ring_buffer() -> io::Result<OwnedFd> {
    sys::create_map(MapCreate {
        map_type: BPF_MAP_TYPE_RINGBUF,
        max_entries: 64 << 10,
        ..MapCreate::default()
    })
}

fn array_of_maps() -> io::Result<(OwnedFd, OwnedFd)> {
    let inner = map(BPF_MAP_TYPE_ARRAY, 0)?;
    let outer = sys::create_map(MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        inner_map_fd: inner.as_raw_fd() as u32,
        ..MapCreate::default()
    })?;
    Ok((outer, inner))
}

fn batched_inner_maps() -> io::Result<()> {
    let (outer, inner) = array_of_maps()?;
    sys::insert_inner_maps(outer.as_fd(), 0, &[inner.as_fd()])
}

fn batched_read() -> io::Result<()> {
    for kind in [BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH] {
        sys::for_each_element(map(kind, 0)?.as_fd(), 4, 8, |_, _| {})?;
    }
    Ok(())
}

/// A frozen array that programs may only read, read by its address.
fn constant_data() -> io::Result<OwnedFd> {
    let data = sys::create_map(MapCreate {
        map_type: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: 8,
        max_entries: 1,
        map_flags: BPF_F_RDONLY_PROG,
        ..MapCreate::default()
    })?;
    sys::freeze(data.as_fd())?;
    const PSEUDO_MAP_VALUE: u8 = 2;
    let [low, high] = address(1, PSEUDO_MAP_VALUE, data.as_raw_fd());
    snippet::load(&[low, high, load_word(0, 1, 0), EXIT])
}

/// Adds 3 to 5 and exchanges the 8 for a 9: what was there is 5, then 8.
fn fetching_atomics() -> io::Result<()> {
    let program = snippet::load(&[
        instruction(0x7a, FRAME, 0, WORD, 5),
        set(1, 3),
        instruction(0xdb, FRAME, 1, WORD, FETCH_ADD),
        set(0, 8),
        set(2, 9),
        instruction(0xc3, FRAME, 2, WORD, COMPARE_EXCHANGE),
        instruction(0x0f, 0, 1, 0, 0),
        EXIT,
    ])?;
    match snippet::run(program.as_fd())? {
        13 => Ok(()),
        other => Err(io::Error::other(format!("atomic operations returned {other}, not 13"))),
    }
}

const FETCH_ADD: i32 = 0x01;
const COMPARE_EXCHANGE: i32 = 0xf1;

/// In a namespace of its own, which goes with the thread and takes the qdisc along.
fn clsact() -> io::Result<bool> {
    thread::scope(|scope| {
        let asked = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            netlink::knows_clsact(LOOPBACK)
        });
        asked.join().unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
    })
}

/// Loads an address into a register: two words of instructions.
const fn address(to: u8, pseudo: u8, value: i32) -> [u64; 2] {
    [instruction(0x18, to, pseudo, 0, value), 0]
}

/// `to = *(u32 *)(from + offset)`.
const fn load_word(to: u8, from: u8, offset: i16) -> u64 {
    instruction(0x61, to, from, offset, 0)
}

/// Offset of `gso_segs` in `struct __sk_buff` (linux/bpf.h).
const GSO_SEGS: i16 = 164;

const NOTHING: [u64; 2] = [set(0, 0), EXIT];

const BOUNDED_LOOP: [u64; 4] = [
    set(0, 0),
    add(0, 1),
    // Back to the addition while below 8.
    instruction(0xa5, 0, 0, -2, 8),
    EXIT,
];

const HALF_JUMP: [u64; 3] = [set(0, 1), instruction(0x56, 0, 0, 0, 1), EXIT];

/// Calls the second function, which begins two instructions later.
const FUNCTIONS: [u64; 4] = [instruction(0x85, 0, 1, 0, 1), EXIT, set(0, 0), EXIT];

/// Calls the second function once by the helper.
const LOOP: [u64; 9] = {
    const PSEUDO_FUNCTION: u8 = 4;
    let [low, high] = address(2, PSEUDO_FUNCTION, 5);
    [set(1, 1), low, high, set(3, 0), set(4, 0), call(helper::LOOP), EXIT, set(0, 0), EXIT]
};

/// Every helper on packets that the programs call. `r6` keeps the context, the stack has a word.
const PACKET_HELPERS: [u64; 37] = [
    copy(6, 1),
    instruction(0x7a, FRAME, 0, WORD, 0),
    call(helper::GET_PRANDOM_U32),
    // bpf_skb_pull_data(context, 64)
    copy(1, 6),
    set(2, 64),
    call(helper::SKB_PULL_DATA),
    // bpf_skb_store_bytes(context, 0, word, 8, 0)
    copy(1, 6),
    set(2, 0),
    copy(3, FRAME),
    add(3, WORD as i32),
    set(4, 8),
    set(5, 0),
    call(helper::SKB_STORE_BYTES),
    // bpf_l4_csum_replace(context, 64, 0, 0, 2)
    copy(1, 6),
    set(2, 64),
    set(3, 0),
    set(4, 0),
    set(5, 2),
    call(helper::L4_CSUM_REPLACE),
    // bpf_csum_diff(word, 8, word, 8, 0)
    copy(1, FRAME),
    add(1, WORD as i32),
    set(2, 8),
    copy(3, 1),
    set(4, 8),
    set(5, 0),
    call(helper::CSUM_DIFF),
    // bpf_csum_update(context, 0)
    copy(1, 6),
    set(2, 0),
    call(helper::CSUM_UPDATE),
    // bpf_skb_change_tail(context, 64, 0)
    copy(1, 6),
    set(2, 64),
    set(3, 0),
    call(helper::SKB_CHANGE_TAIL),
    // bpf_redirect(1, 0)
    set(1, 1),
    set(2, 0),
    call(helper::REDIRECT),
    EXIT,
];
