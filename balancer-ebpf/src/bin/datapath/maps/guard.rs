//! What each CPU has let in of new flows.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use balancer_ebpf::abi::NewFlows;

use super::{IDS, SETTINGS};

#[btf_map]
static NEW_FLOWS: PerCpuArray<NewFlows, IDS> = PerCpuArray::new();

/// This CPU's allowance for a VIP; 0: for all together.
#[inline(always)]
pub(crate) fn new_flows(vip: u32) -> Option<*mut NewFlows> {
    NEW_FLOWS.get_ptr_mut(vip)
}

/// New flows that this CPU may record a second; 0: any number.
#[inline(always)]
pub(crate) fn new_flows_limit() -> u32 {
    SETTINGS.get_ptr(0).map_or(0, |settings| {
        // SAFETY: a live array element; an aligned word is read whole.
        unsafe { (&raw const (*settings).new_flows).read_volatile() }
    })
}
