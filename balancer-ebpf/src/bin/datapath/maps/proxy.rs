//! The proxy's listeners, and what the programs are told of them.

use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{btf_maps::SockMap, helpers::generated as helpers, macros::btf_map};
use balancer_ebpf::abi::{SHARDS_MAX, Settings};

use super::SETTINGS;

#[btf_map]
static PROXY_LISTENERS: SockMap<{ 2 * SHARDS_MAX as usize }> = SockMap::new();

/// A listener, which whoever asks must release; null: none is there.
#[inline(always)]
pub(crate) fn listener(index: u32) -> *mut c_void {
    let map = (&raw const PROXY_LISTENERS).cast_mut().cast();
    // SAFETY: a live map, and a key of its size.
    unsafe { helpers::bpf_map_lookup_elem(map, (&raw const index).cast()) }
}

/// A word of the settings; 0 where there are none.
#[inline(always)]
fn word(offset: usize) -> u32 {
    SETTINGS.get_ptr(0).map_or(0, |settings| {
        // SAFETY: a live array element, of which this is an aligned word; read whole.
        unsafe { settings.byte_add(offset).cast::<u32>().read_volatile() }
    })
}

/// How many shards the proxy has.
#[inline(always)]
pub(crate) fn shards() -> u32 {
    word(offset_of!(Settings, shards))
}

/// Whether its connections are reset while it does not listen.
#[inline(always)]
pub(crate) fn l7_reset() -> bool {
    word(offset_of!(Settings, l7_reset)) != 0
}

/// The bit of the mark of packets that are handed to the proxy.
#[inline(always)]
pub(crate) fn mark_handed() -> u32 {
    word(offset_of!(Settings, mark_handed))
}

/// Whether a packet with this mark is one that the proxy sent.
#[inline(always)]
pub(crate) fn is_proxys(mark: u32) -> bool {
    let own = word(offset_of!(Settings, mark_own));
    own != 0 && mark & (own | mark_handed()) == own
}
