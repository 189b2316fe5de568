//! What each CPU remembers of the new flows that it let in.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What of an allowance of new flows is used up, see [`guard`](crate::guard): an element of
/// `NEW_FLOWS`, of one CPU. Element 0 is that of all VIPs together, the others are by VIP id. 16 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct NewFlows {
    /// What was used up at `at`; a flow takes jiffies a second.
    pub used: u64,
    /// Low 32 bits of jiffies.
    pub at: u32,
    /// Of element 0: the VIP of the flow that is being recorded; 0: none.
    pub vip: u32,
}

const _: () = assert!(size_of::<NewFlows>() == 16);
