//! One packet that every loader's programs are shown.

use std::net::SocketAddr;

use balancer_ebpf::{
    abi::{PortUse, port_bit},
    reason::Reason,
};
use harness::{Segment, packet::flags::SYN};

/// What the programs return for a packet that is not theirs.
pub(crate) const TC_ACT_UNSPEC: u32 = u32::MAX;

/// Where [`to_no_vip`] goes.
const DESTINATION: &str = "10.9.9.9:80";

/// A SYN to an address that is no VIP, at a port that VIPs use: it is parsed and looked up.
pub(crate) fn to_no_vip() -> Vec<u8> {
    Segment::new("10.0.0.7:40000", DESTINATION).flags(SYN).bytes()
}

/// What becomes of it.
pub(crate) const REASON: Reason = Reason::UnknownDestination;

/// The element of `PORTS` to set, and its value, for VIPs to use that port.
pub(crate) fn port() -> (u32, u64) {
    let destination: SocketAddr = DESTINATION.parse().expect("an address and a port");
    port_bit(destination.port(), PortUse::Vip)
}
