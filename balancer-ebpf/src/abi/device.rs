//! What the programs know of interfaces with programs of ours.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Interfaces that can be attached to.
pub const DEVICES_MAX: usize = 1024;

/// What `DEVICES` says of an interface with programs of ours. 28 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
pub struct Device {
    /// 1: it has an XDP program of ours, and its driver takes packets that such programs send. 0: it
    /// would lose them.
    pub takes_frames: u32,
    /// The node's IPv4 address there, network order, where tunnels to reals begin and which reals
    /// see as their client's in flows with [`SNAT`](super::forwarding::SNAT); zero: none.
    pub source4: [u8; 4],
    /// The same of IPv6.
    pub source6: [u8; 16],
    /// 1: flows that begin with a packet that comes in here are such.
    pub snat: u32,
}

/// The element of `SNAT`: the source ports of flows with [`SNAT`](super::forwarding::SNAT). 8 bytes, read as one
/// word.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct SnatPorts {
    /// The lowest.
    pub first: u32,
    /// How many there are; 0: no interface asks for such flows.
    pub count: u32,
}

const _: () = {
    assert!(size_of::<Device>() == 28);
    assert!(size_of::<SnatPorts>() == 8);
};
