//! What is put in front of packets: the header of the tunnel that carries one to its real, and
//! those of the ICMP error that answers one.

use aya_ebpf::{
    bindings::{BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6},
    helpers::generated as helpers,
};
use balancer_ebpf::{
    abi::{ICMP, ICMP6},
    checksum,
    flow::{Family, V4, V6},
    outer::{self as headers, ICMP_LEN, QUOTED4, QUOTED6},
    packet::ETHERNET_LEN,
};

use crate::{
    context::{Context, Refused, Translate},
    parse::{Packet, Read},
};

/// What differs between the families of what is put in front of a packet.
pub(crate) trait Outer: Translate + Read {
    /// What an Ethernet header announces it by, as it lies in memory.
    const ETHERTYPE: u16;
    /// Bytes that an ICMP error quotes.
    const QUOTED: u32;
    /// What tells `bpf_skb_adjust_room` of a tunnel.
    const ROOM: u64;
    /// Writes the header of a tunnel to offset `at`, around a packet that has `len` bytes and begins
    /// with the word `first`.
    fn around<C: Context>(
        ctx: C,
        at: u32,
        packet: (u32, u32),
        source: &[u32; 4],
        to: &Self::Addr,
    ) -> Result<(), Refused>;
    /// Writes the headers of the error that says which MTU fits, behind those of Ethernet;
    /// `quoted`: the sum of what follows them.
    fn too_big<C: Context>(
        ctx: C,
        mtu: u32,
        quoted: u64,
        from: &Self::Addr,
        to: &Self::Addr,
    ) -> Result<(), Refused>;
}

impl Outer for V4 {
    const ETHERTYPE: u16 = 0x0800u16.to_be();
    const QUOTED: u32 = QUOTED4;
    const ROOM: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64;
    #[inline(always)]
    fn around<C: Context>(
        ctx: C,
        at: u32,
        (first, len): (u32, u32),
        source: &[u32; 4],
        to: &[u8; 4],
    ) -> Result<(), Refused> {
        ctx.store(at, &headers::around4(first, len, source[0], u32::from_ne_bytes(*to)), false)
    }
    #[inline(always)]
    fn too_big<C: Context>(
        ctx: C,
        mtu: u32,
        quoted: u64,
        from: &[u8; 4],
        to: &[u8; 4],
    ) -> Result<(), Refused> {
        let (from, to) = (u32::from_ne_bytes(*from), u32::from_ne_bytes(*to));
        ctx.store(ETHERNET_LEN, &headers::ipv4(ICMP, 0, ICMP_LEN + QUOTED4, from, to), false)?;
        ctx.store(ETHERNET_LEN + Self::HEADER_LEN, &headers::too_big4(mtu, quoted), false)
    }
}

impl Outer for V6 {
    const ETHERTYPE: u16 = 0x86ddu16.to_be();
    const QUOTED: u32 = QUOTED6;
    const ROOM: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64;
    #[inline(always)]
    fn around<C: Context>(
        ctx: C,
        at: u32,
        (first, len): (u32, u32),
        source: &[u32; 4],
        to: &[u8; 16],
    ) -> Result<(), Refused> {
        ctx.store(at, &headers::around6(first, len, *source, words(to)), false)
    }
    #[inline(always)]
    fn too_big<C: Context>(
        ctx: C,
        mtu: u32,
        quoted: u64,
        from: &[u8; 16],
        to: &[u8; 16],
    ) -> Result<(), Refused> {
        let (from, to) = (words(from), words(to));
        let addresses = checksum::sum(&from) + checksum::sum(&to);
        let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
        let header = headers::ipv6(ICMP6, first, ICMP_LEN + QUOTED6, from, to);
        ctx.store(ETHERNET_LEN, &header, false)?;
        let error = headers::too_big6(mtu, quoted, addresses);
        ctx.store(ETHERNET_LEN + Self::HEADER_LEN, &error, false)
    }
}

#[inline(always)]
fn words(addr: &[u8; 16]) -> [u32; 4] {
    let words = V6::words(addr);
    let word = |i: usize| u32::from_ne_bytes(words[i]);
    [word(0), word(1), word(2), word(3)]
}

/// Turns the packet into the ICMP error that says which MTU fits; 0: done.
#[inline(never)]
pub(crate) fn tell_sender<C: Context, F: Outer>(ctx: C, packet: &Packet<F>, mtu: u32) -> u32 {
    u32::from(told(ctx, packet, mtu).is_err())
}

#[inline(always)]
fn told<C: Context, F: Outer>(ctx: C, packet: &Packet<F>, mtu: u32) -> Result<(), Refused> {
    if ctx.len() < ETHERNET_LEN + F::QUOTED {
        return Err(Refused);
    }
    ctx.swap_ethernet()?;
    let frame: [u32; 3] = ctx.words(0).ok_or(Refused)?;
    ctx.cut(ETHERNET_LEN + F::QUOTED)?;
    let before = F::HEADER_LEN + ICMP_LEN;
    ctx.grow(before)?;
    let quoted = ctx.bytes(ETHERNET_LEN + before, F::QUOTED).ok_or(Refused)?;
    // SAFETY: inside the bytes just checked; the helper only reads them.
    let sum = unsafe {
        helpers::bpf_csum_diff(core::ptr::null_mut(), 0, quoted as *mut u32, F::QUOTED, 0)
    };
    if sum < 0 {
        return Err(Refused);
    }
    ctx.store(0, &frame, false)?;
    ctx.put_pair(ETHERNET_LEN - 2, F::ETHERTYPE)?;
    let (client, vip) = (F::src(&packet.key).addr, F::dst(&packet.key).addr);
    F::too_big(ctx, mtu, sum as u64, &vip, &client)
}
