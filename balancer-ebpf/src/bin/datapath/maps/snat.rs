//! The source ports of flows whose reals see the node as their client.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use balancer_ebpf::abi::SnatPorts;

use super::MMAPABLE;

#[btf_map]
static SNAT: Array<SnatPorts, 1, MMAPABLE> = Array::new();

/// The lowest port and how many there are; 0: nobody asks for such flows.
#[inline(always)]
pub(crate) fn snat_ports() -> (u32, u32) {
    let Some(ports) = SNAT.get_ptr(0) else { return (0, 0) };
    // SAFETY: a live array element, 8 bytes and aligned to them.
    let word = unsafe { ports.cast::<u64>().read_volatile() };
    let [first, count] = super::halves(word);
    (first, count)
}
