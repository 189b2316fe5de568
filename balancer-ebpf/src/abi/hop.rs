//! Next hops that user space keeps fresh, so that XDP programs need not ask for them again.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of a flow's `hop` that are the number of a next hop in `NEXT_HOPS` (0: none). The others are
/// the lowest bits of [`Hops::generation`] when it was found.
pub const HOP_BITS: u32 = 12;
/// Elements of `NEXT_HOPS`; the first one is nobody's.
pub const HOPS_MAX: usize = 1 << HOP_BITS;

/// What a flow remembers of a next hop that was found in this generation.
#[inline(always)]
pub const fn remembered_hop(generation: u64, id: u32) -> u32 {
    (generation as u32) << HOP_BITS | id
}

/// The number of a next hop that a flow remembers; `None`: it remembers none of this generation.
#[inline(always)]
pub const fn hop_of(remembered: u32, generation: u64) -> Option<u32> {
    let id = remembered & (HOPS_MAX as u32 - 1);
    if id != 0 && remembered == remembered_hop(generation, id) { Some(id) } else { None }
}

/// Whether what flows remember still holds: `HOPS`. 16 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Hops {
    /// The kernel's jiffies (all 64 bits) from which on nobody looks after next hops.
    pub until: u64,
    /// Goes up with every change of routes, neighbours or interfaces.
    pub generation: u64,
}

/// A frame's way to a neighbour: key of `HOP_IDS`. 16 bytes.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    IntoBytes,
    FromBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(4))]
pub struct HopKey {
    /// The neighbour's Ethernet address.
    pub to: [u8; 6],
    /// That of the interface.
    pub from: [u8; 6],
    /// Number of the interface that it leaves by.
    pub interface: u32,
}

/// A next hop, by its number: `NEXT_HOPS`. 24 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct NextHop {
    /// Where to.
    pub key: HopKey,
    /// The interface's MTU: bytes of the longest packet, without its Ethernet header.
    pub mtu: u32,
    /// Zero.
    pub unused: u32,
}

const _: () = {
    assert!(size_of::<Hops>() == 16);
    assert!(size_of::<HopKey>() == 16);
    assert!(size_of::<NextHop>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_generation_found_is_not_remembered() {
        let remembered = remembered_hop(5, 7);
        assert_eq!(hop_of(remembered, 5), Some(7));
        assert_eq!(hop_of(remembered, 6), None);
        assert_eq!(hop_of(remembered, 5 + (1 << 32)), Some(7), "the lowest bits count");
        assert_eq!(hop_of(0, 0), None, "a flow that remembers nothing");
        assert_eq!(hop_of(remembered_hop(5, 0), 5), None);
        let last = HOPS_MAX as u32 - 1;
        assert_eq!(hop_of(remembered_hop(u64::MAX, last), u64::MAX), Some(last));
    }
}
