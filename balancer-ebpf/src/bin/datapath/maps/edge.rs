//! The interfaces with programs of ours, and next hops by them that user space keeps fresh.

use core::ptr::NonNull;

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::generated as helpers,
    macros::btf_map,
};
use balancer_ebpf::{
    abi::{DEVICES_MAX, Device, HOPS_MAX, HopKey, Hops, NextHop},
    flow::Family,
};

use super::MMAPABLE;

#[btf_map]
static HOPS: Array<Hops, 1, MMAPABLE> = Array::new();
#[btf_map]
static NEXT_HOPS: Array<NextHop, HOPS_MAX, MMAPABLE> = Array::new();
#[btf_map]
static HOP_IDS: HashMap<HopKey, u32, HOPS_MAX> = HashMap::new();

/// The generation of next hops that flows may remember now; `None`: nobody looks after them.
#[inline(always)]
pub(crate) fn hop_generation() -> Option<u64> {
    let hops = HOPS.get_ptr(0)?;
    // SAFETY: a live element, whose aligned words are read whole. The helper takes nothing.
    unsafe {
        let until = (&raw const (*hops).until).read_volatile();
        let generation = (&raw const (*hops).generation).read_volatile();
        (helpers::bpf_jiffies64() < until).then_some(generation)
    }
}

/// The number of a next hop, if it may be remembered. `addresses`: as they lie in a frame.
#[inline(always)]
pub(crate) fn hop_id([a, b, c]: [u32; 3], interface: u32) -> Option<u32> {
    let key: HopKey = zerocopy::transmute!([a, b, c, interface]);
    // SAFETY: a live element, written once and before its key could be found.
    HOP_IDS.get_ptr(key).map(|id| unsafe { *id })
}

/// A next hop, where it lies. It does not change while a flow may remember it.
#[derive(Clone, Copy)]
pub(crate) struct Next(NonNull<NextHop>);

/// The next hop with this number.
#[inline(always)]
pub(crate) fn next_hop(id: u32) -> Option<Next> {
    NEXT_HOPS.get_ptr(id).and_then(|next| NonNull::new(next.cast_mut())).map(Next)
}

impl Next {
    /// Ethernet addresses, destination first, as they lie in a frame.
    #[inline(always)]
    pub(crate) fn addresses(self) -> [u32; 3] {
        let words = self.0.as_ptr().cast::<u32>();
        // SAFETY: a live element that begins with twelve bytes of addresses, aligned to four.
        unsafe { [words.read(), words.add(1).read(), words.add(2).read()] }
    }

    /// The interface that it is reached by.
    #[inline(always)]
    pub(crate) fn interface(self) -> u32 {
        // SAFETY: a live element.
        unsafe { (*self.0.as_ptr()).key.interface }
    }

    /// Bytes of the longest packet that fits.
    #[inline(always)]
    pub(crate) fn mtu(self) -> u32 {
        // SAFETY: a live element.
        unsafe { (*self.0.as_ptr()).mtu }
    }
}

/// A hash map and not a map of devices: that knows only the interfaces of one network namespace, and
/// no element of this one can be read back.
#[btf_map]
static DEVICES: HashMap<u32, Device, DEVICES_MAX> = HashMap::new();

/// Whether the driver of this interface takes packets of XDP programs. One that does not would
/// lose them without a word.
#[inline(always)]
pub(crate) fn takes_frames(interface: u32) -> bool {
    // SAFETY: a live element; an aligned word is read whole.
    DEVICES
        .get_ptr(interface)
        .is_some_and(|device| unsafe { (&raw const (*device).takes_frames).read_volatile() } != 0)
}

/// Whether flows that begin with a packet that comes in by this interface have their source
/// translated too.
#[inline(always)]
pub(crate) fn asks_for_snat(interface: u32) -> bool {
    // SAFETY: a live element; an aligned word is read whole.
    DEVICES
        .get_ptr(interface)
        .is_some_and(|device| unsafe { (&raw const (*device).snat).read_volatile() } != 0)
}

/// Writes the node's address at this interface; what is left of `source` stays. False: it has none
/// of the family.
#[inline(always)]
pub(crate) fn own_address<F: Family>(interface: u32, source: &mut [u32; 4]) -> bool {
    let Some(device) = DEVICES.get_ptr(interface) else { return false };
    let (first, words) = if F::NUMBER == 4 { (1, 1) } else { (2, 4) };
    let (mut any, mut i) = (0, 0);
    while i < words {
        // SAFETY: a live element, of whose words the first is no address, the second that of IPv4,
        // and the four that follow that of IPv6.
        source[i] = unsafe { device.cast::<u32>().add(first + i).read_volatile() };
        any |= source[i];
        i += 1;
    }
    any != 0
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(Device, source4) == 4 && offset_of!(Device, source6) == 8);
};
