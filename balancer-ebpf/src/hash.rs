//! The flow hash: the same number in the kernel and in user space.
//!
//! A short multiply-and-fold mix of the 5-tuple (the finalizer of MurmurHash3 after each
//! word). It is not keyed: the nodes of a zone must agree on it, so that a connection that
//! moves to another node finds the same slot.

use crate::abi::{FlowKey4, FlowKey6};

#[inline(always)]
const fn mix(h: u64, v: u64) -> u64 {
    let mut x = (h ^ v).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 32;
    x
}

#[inline(always)]
const fn finish(h: u64) -> u32 {
    let x = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (x >> 32) as u32
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline(always)]
fn word(b: &[u8], at: usize) -> u64 {
    (u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])) as u64
}

/// Hash of an IPv4 flow. With `source_only` the ports and the destination do not count.
#[inline(always)]
pub fn flow4(key: &FlowKey4, source_only: bool) -> u32 {
    let src = word(&key.src, 0);
    if source_only {
        return finish(mix(SEED, src));
    }
    let ports = word(&[key.sport[0], key.sport[1], key.dport[0], key.dport[1]], 0);
    let h = mix(SEED, src << 32 | word(&key.dst, 0));
    finish(mix(h, ports << 8 | key.proto as u64))
}

/// Hash of an IPv6 flow. With `source_only` the ports and the destination do not count.
#[inline(always)]
pub fn flow6(key: &FlowKey6, source_only: bool) -> u32 {
    let mut h = mix(SEED, word(&key.src, 0) << 32 | word(&key.src, 4));
    h = mix(h, word(&key.src, 8) << 32 | word(&key.src, 12));
    if source_only {
        return finish(h);
    }
    let ports = word(&[key.sport[0], key.sport[1], key.dport[0], key.dport[1]], 0);
    h = mix(h, word(&key.dst, 0) << 32 | word(&key.dst, 4));
    h = mix(h, word(&key.dst, 8) << 32 | word(&key.dst, 12));
    finish(mix(h, ports << 8 | key.proto as u64))
}

/// Hash of a client, which all packets of a connection have in common: the last word of its address
/// and its port. Of little else than the latter, for the price of one word.
#[inline(always)]
pub const fn client(address: [u8; 4], port: [u8; 2]) -> u32 {
    let (address, port) = (u32::from_be_bytes(address), u16::from_be_bytes(port));
    finish(mix(SEED, (address as u64) << 32 | port as u64))
}

/// The slot of a table of `slots` that a hash falls on: the hash as a fraction of 2³²
/// (no division, and no bias that matters below 2²⁰ slots).
#[inline(always)]
pub const fn slot(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}
