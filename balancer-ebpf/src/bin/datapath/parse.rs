//! From a packet to what the walk needs to know of it.

use core::{cell::Cell, mem::MaybeUninit};

use balancer_ebpf::{
    abi::{TCP, UDP},
    flow::{End, Family, V4, V6},
    packet::{
        self, ETHERNET_LEN, EXTENSIONS_LEN_MAX, EXTENSIONS_MAX, HEADERS_MAX, IPV6_LEN, Ip, Next,
        Piece, VLAN_LEN, VLAN_TAGS_MAX, lengths_agree, udp_needs,
    },
    reason::Reason,
};

use crate::context::{Context, Place, Refused};

/// A packet of TCP or UDP. Without padding: a function that the verifier judges by itself takes it whole,
/// and no byte of it may be unset then.
#[repr(C)]
pub(crate) struct Packet<F: Family> {
    /// Addresses and ports, as a key of the flow maps.
    pub(crate) key: F::Key,
    pub(crate) place: Place,
    /// Offset of the payload's end; what follows is padding.
    pub(crate) end: u32,
    /// Of TCP; 0 for a datagram.
    pub(crate) flags: u8,
    /// The first of several fragments.
    pub(crate) fragment: bool,
    /// The node itself sends it.
    pub(crate) host: bool,
    /// What is left to do once the walk has translated the packet: in TC programs bits of
    /// `forwarding`, in XDP programs what the program returns, and `forwarding::SNAT`. A cell, because whoever sends the
    /// packet on has it as something to read.
    pub(crate) onward: Cell<u8>,
}

const _: () = {
    // `Maps::own_key` reads the key by words.
    assert!(align_of::<Packet<V4>>() == 4 && core::mem::offset_of!(Packet<V4>, key) == 0);
    assert!(align_of::<Packet<V6>>() == 4 && core::mem::offset_of!(Packet<V6>, key) == 0);
    assert!(size_of::<Packet<V4>>() == size_of::<<V4 as Family>::Key>() + 16);
    assert!(size_of::<Packet<V6>>() == size_of::<<V6 as Family>::Key>() + 16);
};

/// Why there is no [`Packet`].
pub(crate) enum NoPacket {
    /// A header is not, or not wholly, in the linear part.
    Short,
    /// It is none of ours.
    Not(Reason),
}

/// What is read of an IP header of this family.
pub(crate) trait Read: Family {
    /// Length of a header without options.
    const HEADER_LEN: u32;
    /// The header at offset `at`, and its addresses.
    fn header<C: Context>(ctx: C, at: u32) -> Result<(Ip, Self::Addr, Self::Addr), NoPacket>;
}

impl Read for V4 {
    const HEADER_LEN: u32 = packet::IPV4_LEN;
    #[inline(always)]
    fn header<C: Context>(ctx: C, at: u32) -> Result<(Ip, [u8; 4], [u8; 4]), NoPacket> {
        let words: [u32; 5] = ctx.words(at).ok_or(NoPacket::Short)?;
        let ip = packet::ipv4(&words).ok_or(NoPacket::Not(Reason::Malformed))?;
        Ok((ip, words[3].to_ne_bytes(), words[4].to_ne_bytes()))
    }
}

impl Read for V6 {
    const HEADER_LEN: u32 = IPV6_LEN;
    #[inline(always)]
    fn header<C: Context>(ctx: C, at: u32) -> Result<(Ip, [u8; 16], [u8; 16]), NoPacket> {
        let words: [u32; 10] = ctx.words(at).ok_or(NoPacket::Short)?;
        let mut ip = packet::ipv6(&words).ok_or(NoPacket::Not(Reason::Malformed))?;
        if packet::is_extension(ip.protocol) {
            extensions(ctx, at + IPV6_LEN, ip.protocol).add_to(&mut ip)?;
        }
        let address = |first: usize| {
            let mut bytes = [0; 16];
            let mut i = 0;
            while i < 4 {
                bytes[4 * i..4 * i + 4].copy_from_slice(&words[first + i].to_ne_bytes());
                i += 1;
            }
            bytes
        };
        Ok((ip, address(2), address(6)))
    }
}

/// What a walk along IPv6 extension headers found, in a word: functions that are not inlined
/// return nothing else. From the lowest bits on: their length (16 bits), the offset of the
/// fragment header, or 0 (16), the protocol of what follows them (8), the piece (2).
#[derive(Clone, Copy)]
pub(crate) struct Extensions(u64);

impl Extensions {
    /// The packet ends, or its linear part.
    const SHORT: u64 = u64::MAX;
    /// Its destination is not its receiver, or there are too many.
    const OTHER: u64 = u64::MAX - 1;

    #[inline(always)]
    fn add_to(self, ip: &mut Ip) -> Result<(), NoPacket> {
        match self.0 {
            Self::SHORT => return Err(NoPacket::Short),
            Self::OTHER => return Err(NoPacket::Not(Reason::NotTcp)),
            _ => {}
        }
        ip.header_len += (self.0 & 0xffff) as u32;
        ip.protocol = (self.0 >> 32) as u8;
        ip.piece = match self.0 >> 40 {
            0 => Piece::Whole,
            1 => Piece::First,
            _ => Piece::Later,
        };
        Ok(())
    }

    /// Offset of the fragment header, if there is one.
    #[inline(always)]
    pub(crate) fn fragment(self) -> Option<u32> {
        let at = (self.0 >> 16) as u16;
        (self.0 < Self::OTHER && at != 0).then_some(at.into())
    }
}

/// Follows the extension headers from offset `at` on, the first of which has the protocol number
/// `first`. Behind the header of a later fragment nothing more can be read.
#[inline(always)]
pub(crate) fn extensions<C: Context>(ctx: C, at: u32, first: u8) -> Extensions {
    Extensions(walk_extensions(ctx, at, first))
}

/// Not inlined: it stands in the way of few packets, and of several readers.
#[inline(never)]
fn walk_extensions<C: Context>(ctx: C, start: u32, first: u8) -> u64 {
    let (mut len, mut next, mut fragment, mut found) = (0, first, 0, 0);
    let mut headers = 0;
    while headers < EXTENSIONS_MAX && packet::is_extension(next) && found < 2 {
        let Some([word]) = ctx.words::<1>(start + len) else { return Extensions::SHORT };
        let Some(header) = packet::extension(next, word) else { return Extensions::OTHER };
        if let Some(piece) = header.piece {
            fragment = start + len;
            found = match piece {
                Piece::Whole => 0,
                Piece::First => 1,
                Piece::Later => 2,
            };
        }
        len += header.len;
        next = header.next;
        if len > EXTENSIONS_LEN_MAX {
            return Extensions::OTHER;
        }
        headers += 1;
    }
    u64::from(len) | u64::from(fragment) << 16 | u64::from(next) << 32 | found << 40
}

/// What the Ethernet header and its tags announce, and where that begins.
#[inline(always)]
pub(crate) fn ethernet<C: Context>(ctx: C) -> Result<(Next, u32), NoPacket> {
    let mut at = ETHERNET_LEN;
    let mut next = packet::next(ctx.pair(at - 2).ok_or(NoPacket::Short)?);
    let mut tags = 0;
    while tags < VLAN_TAGS_MAX && next == Next::Vlan {
        at += VLAN_LEN;
        next = packet::next(ctx.pair(at - 2).ok_or(NoPacket::Short)?);
        tags += 1;
    }
    Ok((next, at))
}

/// Reads the headers of IP and TCP or UDP from offset `at` on into `packet`, making them linear first if
/// need be. What `NonVip` means here: nothing speaks against the packet yet.
///
/// Not inlined, so that what it needs of the stack is free again for the walk. The packet is
/// written where it is read: handed on in a `Result`, it would have unset registers on its way
/// where there is none, which the verifier refuses.
#[inline(never)]
pub(crate) fn tcp<C: Context, F: Read>(
    ctx: C,
    at: u32,
    direction: u8,
    packet: &mut MaybeUninit<Packet<F>>,
) -> Reason {
    match linear(ctx, || read::<C, F>(ctx, at, direction, packet)) {
        Ok(()) => Reason::NonVip,
        Err(reason) => reason,
    }
}

#[inline(always)]
fn read<C: Context, F: Read>(
    ctx: C,
    at: u32,
    direction: u8,
    packet: &mut MaybeUninit<Packet<F>>,
) -> Result<(), NoPacket> {
    let (ip, src, dst) = F::header(ctx, at)?;
    if ip.piece == Piece::Later {
        return Err(NoPacket::Not(Reason::FragmentTail));
    }
    let is_tcp = ip.protocol == TCP;
    if !is_tcp && ip.protocol != UDP {
        return Err(NoPacket::Not(Reason::NotTcp));
    }
    let place = Place { ip: at, tcp: at + ip.header_len };
    let malformed = NoPacket::Not(Reason::Malformed);
    let (sport, dport, needs, flags) = if is_tcp {
        let tcp = packet::tcp(&ctx.words(place.tcp).ok_or(NoPacket::Short)?).ok_or(malformed)?;
        (tcp.sport, tcp.dport, tcp.header_len, tcp.flags)
    } else {
        let udp = packet::udp(&ctx.words(place.tcp).ok_or(NoPacket::Short)?).ok_or(malformed)?;
        (udp.sport, udp.dport, udp_needs(&ip, &udp), 0)
    };
    let available = ctx.len().wrapping_sub(at);
    if !lengths_agree(&ip, needs, available) {
        return Err(NoPacket::Not(Reason::Malformed));
    }
    packet.write(Packet {
        key: F::key(
            ip.protocol,
            End { addr: src, port: sport },
            End { addr: dst, port: dport },
            direction,
        ),
        place,
        end: at + if ip.total_len == 0 { available } else { ip.total_len },
        flags,
        fragment: ip.piece == Piece::First,
        host: false,
        onward: Cell::new(0),
    });
    Ok(())
}

/// Reads; where the headers are not linear, makes them so and reads again.
///
/// # Errors
/// The packet is none of ours, or really ends within its headers, or the kernel has no memory
/// to move it: the stack may decide.
#[inline(always)]
pub(crate) fn linear<C: Context, T>(
    ctx: C,
    mut read: impl FnMut() -> Result<T, NoPacket>,
) -> Result<T, Reason> {
    let mut pulled = false;
    loop {
        match read() {
            Ok(value) => return Ok(value),
            Err(NoPacket::Not(reason)) => return Err(reason),
            Err(NoPacket::Short) if !pulled => {
                ctx.pull(HEADERS_MAX).map_err(|Refused| Reason::Malformed)?;
                pulled = true;
            }
            Err(NoPacket::Short) => return Err(Reason::Malformed),
        }
    }
}
