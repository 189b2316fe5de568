//! What the kernel side and user space agree on, and the packet logic that needs no kernel.
//!
//! The crate is a `no_std` library plus one binary, `datapath`, which is the eBPF object.
//! The library holds the layout of every map element ([`abi`]), the flow hash ([`hash`]), the
//! checksum arithmetic ([`checksum`]), and why a packet met its fate ([`reason`]). It knows
//! nothing of maps, helpers, allocation or time: those stay in the binary. User space links
//! the same library, so both sides compute the same hash and read the same bytes.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod abi;
pub mod hash;
pub mod reason;
