//! What is remembered of a fragmented packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of `FRAGMENTS`: what the fragments of one packet have in common (RFC 791, 2.3; RFC 8200,
/// 4.5). 40 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
pub struct FragmentKey {
    /// Source address, network order; IPv4: the first four bytes, the rest zero.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Identification, network order; IPv4: the last two bytes, the first zero.
    pub id: [u8; 4],
    /// IP protocol number.
    pub proto: u8,
    /// 4 or 6.
    pub family: u8,
    /// 1: met where packets leave, 0: where they come in. A fragment that is translated at one of
    /// the two must not be at the other.
    pub leaving: u8,
    /// Zero.
    pub zero: u8,
}

/// Value of `FRAGMENTS`: what became of the first fragment. 36 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, FromBytes, Immutable, KnownLayout,
)]
#[repr(C, align(4))]
pub struct Fragment {
    /// The source address that it was given, as in the key.
    pub src: [u8; 16],
    /// The destination address that it was given, as in the key.
    pub dst: [u8; 16],
    /// Low 32 bits of the kernel's jiffies when it came.
    pub seen: u32,
}

/// Elements of `FRAGMENTS`. A fragment without its first one is dropped, so a flood of first
/// fragments costs others no more than the packets that are in pieces at that moment.
pub const FRAGMENTS_MAX: usize = 16_384;

/// Seconds for which fragments follow their first one: as long as a receiver waits for them
/// (RFC 8200, 4.5: 60; Linux waits 30 for IPv4).
pub const FRAGMENTS_FOLLOW_S: u32 = 60;

const _: () = {
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<Fragment>() == 36);
};
