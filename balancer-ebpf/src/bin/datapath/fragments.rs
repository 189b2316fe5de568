//! Packets in pieces. Only the first piece has the ports: the others go where it went, by the
//! addresses and the identification that they have in common.

use balancer_ebpf::{
    abi::FragmentKey,
    flow::{Family, V4, V6},
    packet::{HEADERS_MAX, IPV6_LEN},
    reason::Reason,
};

use crate::{
    context::{Context, Refused, Side, Translate},
    maps::{self, Maps},
    parse::{self, Packet, Read},
};

/// What fragments of one packet have in common besides their addresses.
pub(crate) trait Pieces: Maps + Translate + Read {
    /// The identification of the fragment whose IP header is at offset `at`, network order.
    fn id<C: Context>(ctx: C, at: u32) -> Option<[u8; 4]>;
    /// Writes an address into the IP header of a fragment that has no other checksum.
    fn write<C: Context>(
        ctx: C,
        at: u32,
        side: Side,
        from: &Self::Addr,
        to: &Self::Addr,
    ) -> Result<(), Refused>;
}

impl Pieces for V4 {
    #[inline(always)]
    fn id<C: Context>(ctx: C, at: u32) -> Option<[u8; 4]> {
        let [a, b] = ctx.pair(at + 4)?;
        Some([0, 0, a, b])
    }

    #[inline(always)]
    fn write<C: Context>(
        ctx: C,
        at: u32,
        side: Side,
        from: &[u8; 4],
        to: &[u8; 4],
    ) -> Result<(), Refused> {
        Self::write_address(ctx, at, side, from, to)
    }
}

impl Pieces for V6 {
    #[inline(always)]
    fn id<C: Context>(ctx: C, at: u32) -> Option<[u8; 4]> {
        let [word] = ctx.words::<1>(at + 4)?;
        let first = word.to_ne_bytes()[2];
        let header = parse::extensions(ctx, at + IPV6_LEN, first).fragment()?;
        let [id] = ctx.words::<1>(header + 4)?;
        Some(id.to_ne_bytes())
    }

    /// No checksum makes up for the change, so a sum that a device has made must learn of it.
    #[inline(always)]
    fn write<C: Context>(
        ctx: C,
        at: u32,
        side: Side,
        _from: &[u8; 16],
        to: &[u8; 16],
    ) -> Result<(), Refused> {
        ctx.store(at + if side == Side::Source { 8 } else { 24 }, to, true)
    }
}

#[inline(always)]
fn key<F: Family>(
    src: &F::Addr,
    dst: &F::Addr,
    id: [u8; 4],
    proto: u8,
    leaving: bool,
) -> FragmentKey {
    FragmentKey {
        src: F::wide(src),
        dst: F::wide(dst),
        id,
        proto,
        family: F::NUMBER,
        leaving: leaving.into(),
        zero: 0,
    }
}

/// Notes where a first fragment went; false: it could not be.
#[inline(always)]
pub(crate) fn follow<C: Context, F: Pieces>(ctx: C, packet: &Packet<F>, leaving: bool) -> bool {
    let at = packet.place.ip;
    let Ok((ip, src, dst)) = F::header(ctx, at) else { return false };
    let Some(id) = F::id(ctx, at) else { return false };
    let (from, to) = (F::src(&packet.key).addr, F::dst(&packet.key).addr);
    let key = key::<F>(&from, &to, id, ip.protocol, leaving);
    maps::remember_fragment(&key, F::wide(&src), F::wide(&dst))
}

/// A later fragment, with its IP header at offset `at`.
#[inline(always)]
pub(crate) fn later<C: Context, F: Pieces>(ctx: C, at: u32, leaving: bool) -> Reason {
    if ctx.pull(HEADERS_MAX).is_err() {
        return Reason::Malformed;
    }
    let Ok((ip, src, dst)) = F::header(ctx, at) else { return Reason::Malformed };
    let Some(id) = F::id(ctx, at) else { return Reason::Malformed };
    let key = key::<F>(&src, &dst, id, ip.protocol, leaving);
    let Some((new_src, new_dst)) = maps::fragment(&key) else {
        return unknown::<F>(&dst, leaving);
    };
    let (new_src, new_dst) = (F::real_addr(&new_src), F::real_addr(&new_dst));
    let written = F::write(ctx, at, Side::Source, &src, &new_src)
        .and_then(|()| F::write(ctx, at, Side::Destination, &dst, &new_dst));
    match written {
        Ok(()) => Reason::FragmentFollowed,
        Err(Refused) => Reason::RewriteFailed,
    }
}

/// A fragment whose first one was not sent on. Let through, one to a VIP would go wherever the
/// VIP's address is routed.
#[inline(always)]
pub(crate) fn unknown<F: Maps>(dst: &F::Addr, leaving: bool) -> Reason {
    if !leaving && F::is_vip_address(dst) { Reason::Fragment } else { Reason::FragmentTail }
}
