//! What the kernel side and user space agree on, and the packet logic that needs no kernel.
//!
//! The crate is a `no_std` library plus one binary, `datapath`, which is the eBPF object.
//! The library holds the layout of every map element ([`abi`]), what headers say ([`packet`]),
//! the flow hash ([`hash`]), keys and values of both families ([`flow`]), the checksum
//! arithmetic ([`checksum`]), what flags make of a connection ([`tcp_state`]) and silence of a
//! flow of datagrams ([`datagram`]), how many new flows are let in ([`guard`]), the reset that
//! refuses one ([`mod@reset`]), headers in front of a whole packet ([`outer`]), and why a packet met
//! its fate ([`reason`]). It knows
//! nothing of maps, helpers, allocation or time: those stay in the binary. User space links
//! the same library, so both sides compute the same hash and read the same bytes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod checksum;
pub mod datagram;
pub mod flow;
pub mod guard;
pub mod hash;
pub mod outer;
pub mod packet;
pub mod reason;
pub mod reset;
pub mod tcp_state;
