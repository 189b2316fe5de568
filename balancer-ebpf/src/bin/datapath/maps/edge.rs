//! What XDP may send to.

use aya_ebpf::{btf_maps::HashMap, macros::btf_map};
use balancer_ebpf::abi::XDP_DEVICES_MAX;

/// Not a map of devices: `bpf_redirect` needs none, and an element of this one can be read back.
#[btf_map]
static XDP_DEVICES: HashMap<u32, u32, XDP_DEVICES_MAX> = HashMap::new();

/// Whether the driver of this interface takes packets of XDP programs. One that does not would
/// lose them without a word.
#[inline(always)]
pub(crate) fn takes_frames(interface: u32) -> bool {
    XDP_DEVICES.get_ptr(interface).is_some()
}
