//! The interfaces with an XDP program of ours.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use balancer_ebpf::{
    abi::{XDP_DEVICES_MAX, XdpDevice},
    flow::Family,
};

/// A hash map and not a map of devices: that knows only the interfaces of one network namespace, and
/// no element of this one can be read back.
#[btf_map]
static XDP_DEVICES: HashMap<u32, XdpDevice, XDP_DEVICES_MAX> = HashMap::new();

/// Whether the driver of this interface takes packets of XDP programs. One that does not would
/// lose them without a word.
#[inline(always)]
pub(crate) fn takes_frames(interface: u32) -> bool {
    // SAFETY: a live element; an aligned word is read whole.
    XDP_DEVICES
        .get_ptr(interface)
        .is_some_and(|device| unsafe { (&raw const (*device).takes_frames).read_volatile() } != 0)
}

/// Writes the node's address at this interface; what is left of `source` stays. False: it has none
/// of the family.
#[inline(always)]
pub(crate) fn tunnel_source<F: Family>(interface: u32, source: &mut [u32; 4]) -> bool {
    let Some(device) = XDP_DEVICES.get_ptr(interface) else { return false };
    let (first, words) = if F::NUMBER == 4 { (1, 1) } else { (2, 4) };
    let (mut any, mut i) = (0, 0);
    while i < words {
        // SAFETY: a live element of six words, of which the first is no address, the second that
        // of IPv4, and the others that of IPv6.
        source[i] = unsafe { device.cast::<u32>().add(first + i).read_volatile() };
        any |= source[i];
        i += 1;
    }
    any != 0
}

const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(XdpDevice, source4) == 4 && offset_of!(XdpDevice, source6) == 8);
};
