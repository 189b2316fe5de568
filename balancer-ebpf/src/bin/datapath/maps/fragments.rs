//! Where the first fragments of packets went.

use aya_ebpf::{btf_maps::LruHashMap, macros::btf_map};
use balancer_ebpf::abi::{FRAGMENTS_FOLLOW_S, FRAGMENTS_MAX, Fragment, FragmentKey};

use super::{hz, jiffies};

#[btf_map]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment, FRAGMENTS_MAX> = LruHashMap::new();

/// The addresses that the first fragment was given, source first, if it came a moment ago.
#[inline(always)]
pub(crate) fn fragment(key: &FragmentKey) -> Option<([u8; 16], [u8; 16])> {
    // SAFETY: a live element; any bytes are a valid value.
    let found = unsafe { FRAGMENTS.get_ptr(key)?.read() };
    let age = jiffies().wrapping_sub(found.seen);
    (age < FRAGMENTS_FOLLOW_S * hz()).then_some((found.src, found.dst))
}

/// Notes what addresses a first fragment was given; false: the map refused. An identification
/// that is used again means another packet.
#[inline(always)]
pub(crate) fn remember_fragment(key: &FragmentKey, src: [u8; 16], dst: [u8; 16]) -> bool {
    const BPF_ANY: u64 = 0;
    FRAGMENTS.insert(key, Fragment { src, dst, seen: jiffies() }, BPF_ANY).is_ok()
}
