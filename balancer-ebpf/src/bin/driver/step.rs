//! What the bench tells the driver, and how a flow's number becomes an address and a port.
//! The bench includes this file too: it must know which flows the driver will send.

use zerocopy::{Immutable, IntoBytes};

/// State of the driver, host order unless said otherwise. Everything is a word, so that it
/// crosses as an array of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Step {
    /// Number of the next packet's flow.
    pub(crate) next: u32,
    /// Number of flows, a power of two, less one.
    pub(crate) mask: u32,
    /// The flow after `next` is `next × multiplier + increment`.
    pub(crate) multiplier: u32,
    /// See `multiplier`.
    pub(crate) increment: u32,
    /// Index in the program array `TARGETS` of what to go on with.
    pub(crate) target: u32,
    /// Address of the end that all flows share, network order; IPv4 in the first word.
    pub(crate) fixed_addr: [u32; 4],
    /// Its port, in the lower half.
    pub(crate) fixed_port: u32,
    /// Address of flow 0's client, like `fixed_addr`; its last word (IPv4: only word) counts up.
    pub(crate) client_addr: [u32; 4],
    /// The IPv4 header's checksum to restore, as it lies in memory.
    pub(crate) ip_check: u32,
    /// The TCP checksum to restore, as it lies in memory.
    pub(crate) tcp_check: u32,
}

/// Clients have this many ports each, from [`FIRST_PORT`] on.
const PORT_BITS: u32 = 14;
const FIRST_PORT: u32 = 1 << PORT_BITS;

/// What is added to the clients' first address for this flow.
#[inline(always)]
pub(crate) const fn address_offset(flow: u32) -> u32 {
    flow >> PORT_BITS
}

/// The client's port, host order.
#[inline(always)]
pub(crate) const fn port(flow: u32) -> u16 {
    (FIRST_PORT + (flow & (FIRST_PORT - 1))) as u16
}
