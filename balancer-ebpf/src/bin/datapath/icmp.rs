//! ICMP: errors about packets of known flows, and echo requests to VIPs.
//!
//! An error quotes the packet that it is about, as that was where the error was made. Its
//! receiver must find its own packet in it, so addresses and ports are translated back, outside
//! and inside (RFC 5508, 4.2; RFC 792; RFC 4443).

use balancer_ebpf::{
    abi::{FlowState, ICMP, ICMP6, TCP, UDP, direction, forwarding},
    checksum,
    flow::{End, Family, V4, V6},
    packet::{HEADERS_MAX, IPV4_LEN, IPV6_LEN, Piece},
    reason::Reason,
};

use crate::{
    context::{Check, Context, Place, Refused, Side, Skb, Translate, straight},
    fragments::{Pieces, unknown},
    maps::{self, Entry, Maps, Stage},
    outer::Outer,
};

/// Length of an ICMP header; what an error quotes follows.
const HEADER_LEN: u32 = 8;
/// Offset of the checksum in it.
const CHECK: u32 = 2;
/// Hop count of what is answered.
const HOPS: u8 = 64;
/// An IP header with more than this is not looked behind: what it quotes would be too far away.
const OUTER_LEN_MAX: u32 = 60;

/// What differs between ICMP and ICMPv6.
pub(crate) trait Messages: Pieces + Outer {
    /// The protocol number.
    const PROTOCOL: u8;
    /// Type of an echo request, and of its reply.
    const ECHO: [u8; 2];
    /// Length of an IP header with nothing more.
    const PLAIN_LEN: u32;
    /// Whether this type is an error: it quotes the packet that it is about.
    fn is_error(kind: u8) -> bool;
    /// Writes an address outside; what ICMPv6 sums up of it too.
    fn readdress(
        skb: Skb,
        place: &Place,
        side: Side,
        from: &Self::Addr,
        to: &Self::Addr,
    ) -> Result<(), Refused>;
    /// Writes an address into what is quoted; what that adds to the sum of all bytes.
    fn requote(
        skb: Skb,
        at: u32,
        side: Side,
        from: &Self::Addr,
        to: &Self::Addr,
    ) -> Result<u64, Refused>;
    /// Turns an IP header round, with a fresh hop count.
    fn turn_round(skb: Skb, at: u32) -> Result<(), Refused>;
}

impl Messages for V4 {
    const PROTOCOL: u8 = ICMP;
    const ECHO: [u8; 2] = [8, 0];
    const PLAIN_LEN: u32 = IPV4_LEN;

    /// Destination unreachable, time exceeded, parameter problem. Not redirects: they speak of the
    /// next hop of whoever they are sent to.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn readdress(
        skb: Skb,
        place: &Place,
        side: Side,
        from: &[u8; 4],
        to: &[u8; 4],
    ) -> Result<(), Refused> {
        Self::write_address(skb, place.ip, side, from, to)
    }

    /// The header's own checksum makes up for the address.
    #[inline(always)]
    fn requote(
        skb: Skb,
        at: u32,
        side: Side,
        from: &[u8; 4],
        to: &[u8; 4],
    ) -> Result<u64, Refused> {
        Self::write_address(skb, at, side, from, to)?;
        Ok(0)
    }

    #[inline(always)]
    fn turn_round(skb: Skb, at: u32) -> Result<(), Refused> {
        let [hops, src, dst]: [u32; 3] = skb.words(at + 8).ok_or(Refused)?;
        let [before, protocol, a, b] = hops.to_ne_bytes();
        let word = |hops| u32::from_ne_bytes([hops, protocol, 0, 0]);
        let check = checksum::replace(u16::from_ne_bytes([a, b]), word(before), word(HOPS));
        let [a, b] = check.to_ne_bytes();
        skb.store(at + 8, &[u32::from_ne_bytes([HOPS, protocol, a, b]), dst, src], true)
    }
}

impl Messages for V6 {
    const PROTOCOL: u8 = ICMP6;
    const ECHO: [u8; 2] = [128, 129];
    const PLAIN_LEN: u32 = IPV6_LEN;

    /// All four kinds of errors of RFC 4443.
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn readdress(
        skb: Skb,
        place: &Place,
        side: Side,
        from: &[u8; 16],
        to: &[u8; 16],
    ) -> Result<(), Refused> {
        skb.sum_address::<V6>(check(place), from, to)?;
        Self::write_address(skb, place.ip, side, from, to)
    }

    #[inline(always)]
    fn requote(
        skb: Skb,
        at: u32,
        side: Side,
        from: &[u8; 16],
        to: &[u8; 16],
    ) -> Result<u64, Refused> {
        Self::write_address(skb, at, side, from, to)?;
        Ok(changed::<V6>(from, to))
    }

    #[inline(always)]
    fn turn_round(skb: Skb, at: u32) -> Result<(), Refused> {
        let words: [u32; 9] = skb.words(at + 4).ok_or(Refused)?;
        let [a, b, next, _] = words[0].to_ne_bytes();
        let [s0, s1, s2, s3, d0, d1, d2, d3] =
            [words[1], words[2], words[3], words[4], words[5], words[6], words[7], words[8]];
        let turned = [u32::from_ne_bytes([a, b, next, HOPS]), d0, d1, d2, d3, s0, s1, s2, s3];
        skb.store(at + 4, &turned, true)
    }
}

/// The checksum of an ICMP message.
#[inline(always)]
fn check(place: &Place) -> Check {
    Check { at: place.tcp + CHECK, optional: false }
}

/// What a change of address adds to a sum, to be folded.
#[inline(always)]
fn changed<F: Family>(from: &F::Addr, to: &F::Addr) -> u64 {
    let (from, to) = (F::words(from), F::words(to));
    let (mut sum, mut i) = (0, 0);
    while i < from.len() {
        sum += u64::from(!u32::from_ne_bytes(from[i])) + u64::from(u32::from_ne_bytes(to[i]));
        i += 1;
    }
    sum
}

/// What an ICMP message outside says.
struct Message<F: Family> {
    src: F::Addr,
    dst: F::Addr,
    place: Place,
    /// Where it ends.
    end: u32,
}

/// An error that goes to its real as it is. As a word, for functions that the verifier judges by
/// themselves.
struct Sending {
    real: u32,
    /// Where the packet ends.
    end: u32,
    /// Inside another packet.
    tunnel: bool,
}

impl Sending {
    const TUNNEL: u64 = 1 << 63;

    /// Not 0: no real has that id.
    #[inline(always)]
    fn into_word(self) -> u64 {
        let tunnel = if self.tunnel { Self::TUNNEL } else { 0 };
        u64::from(self.real) | u64::from(self.end) << 32 | tunnel
    }

    #[inline(always)]
    fn from_word(word: u64) -> Self {
        let end = (word & !Self::TUNNEL) >> 32;
        Self { real: word as u32, end: end as u32, tunnel: word & Self::TUNNEL != 0 }
    }
}

/// Sends an error to its real as it is, its IP header at offset `at`; the verdict. `send`: what [`icmp`]
/// has said of it.
#[inline(always)]
pub(crate) fn send<F: Outer>(skb: Skb, at: u32, send: u64) -> i32 {
    let Sending { real, end, tunnel } = Sending::from_word(send);
    let Some(real) = maps::real(real) else { return Skb::DROP };
    straight::to_real::<F>(skb, at, end, &real.end::<F>().addr, tunnel)
}

/// The packet that an error quotes, as it was sent.
struct Quoted<F: Family> {
    proto: u8,
    src: End<F::Addr>,
    dst: End<F::Addr>,
    place: Place,
}

/// A packet that is not TCP, with its IP header at offset `at`. `send`: a [`Sending`], of an error that
/// goes to its real as it is; else it stays 0. That is done where the stack is shallow again.
#[inline(always)]
pub(crate) fn icmp<F: Messages>(skb: Skb, at: u32, leaving: bool, send: &mut u64) -> Reason {
    // Few packets come here: what they may quote is made linear at once.
    if skb.pull(HEADERS_MAX).is_err() {
        return Reason::NotTcp;
    }
    let Ok((ip, src, dst)) = F::header(skb, at) else { return Reason::NotTcp };
    if ip.protocol != F::PROTOCOL || ip.header_len > OUTER_LEN_MAX {
        return Reason::NotTcp;
    }
    if ip.piece != Piece::Whole {
        return match unknown::<F>(&dst, leaving) {
            Reason::FragmentTail => Reason::NotTcp,
            reason => reason,
        };
    }
    let place = Place { ip: at, tcp: at + ip.header_len };
    let Some([first, _rest]) = skb.words::<2>(place.tcp) else { return Reason::NotTcp };
    let [kind, code, ..] = first.to_ne_bytes();
    let end = at + ip.total_len;
    let (message, plain) = (Message::<F> { src, dst, place, end }, ip.header_len == F::PLAIN_LEN);
    if F::is_error(kind) {
        return error(skb, &message, leaving, send);
    }
    let asks = kind == F::ECHO[0] && code == 0 && plain;
    if asks && !leaving && F::is_vip_address(&message.dst) && !F::is_martian(&message.src) {
        return match echo::<F>(skb, &message.place) {
            Ok(()) => Reason::Echo,
            Err(Refused) => Reason::RewriteFailed,
        };
    }
    Reason::NotTcp
}

/// Makes the answer of the request.
#[inline(always)]
fn echo<F: Messages>(skb: Skb, place: &Place) -> Result<(), Refused> {
    let word = |kind| u32::from_ne_bytes([kind, 0, 0, 0]);
    skb.sum_ports(check(place), word(F::ECHO[0]), word(F::ECHO[1]))?;
    // The checksum has made up for it.
    skb.store(place.tcp, &F::ECHO[1], false)?;
    F::turn_round(skb, place.ip)?;
    skb.swap_ethernet()
}

/// An error: about a packet from a VIP, met by its client or on the way there; or about one to a
/// real.
#[inline(always)]
fn error<F: Messages>(skb: Skb, message: &Message<F>, leaving: bool, send: &mut u64) -> Reason {
    let at = message.place.tcp + HEADER_LEN;
    let Ok((ip, src, dst)) = F::header(skb, at) else { return Reason::NotTcp };
    if (ip.protocol != TCP && ip.protocol != UDP) || ip.piece == Piece::Later {
        return Reason::NotTcp;
    }
    let place = Place { ip: at, tcp: at + ip.header_len };
    let Some([ports]) = skb.words::<1>(place.tcp) else { return Reason::NotTcp };
    let [a, b, c, d] = ports.to_ne_bytes();
    let (src, dst) = (End { addr: src, port: [a, b] }, End { addr: dst, port: [c, d] });
    let quoted = Quoted::<F> { proto: ip.protocol, src, dst, place };
    if differ::<F>(&message.dst, &quoted.src.addr) {
        // To another address than that which sent the packet: no stack makes such an error.
        return Reason::NotTcp;
    }
    let mut done = Ok(false);
    if !leaving {
        done = about_reply::<F>(skb, message, &quoted, send);
    }
    // The node's own requests are translated where they leave, and errors about them come in.
    if let Ok(false) = done {
        done = about_request::<F>(skb, message, &quoted, leaving);
    }
    match done {
        Ok(true) => Reason::IcmpError,
        Ok(false) => Reason::NotTcp,
        Err(Refused) => Reason::RewriteFailed,
    }
}

#[inline(always)]
fn find<F: Maps>(key: &F::Key) -> Option<Entry<F>> {
    match F::find(Stage::Open, key) {
        Some(entry) => Some(entry),
        None => F::find(Stage::HalfOpen, key),
    }
}

/// The error is about a packet that the VIP sent to its client: the real sent it.
#[inline(always)]
fn about_reply<F: Messages>(
    skb: Skb,
    message: &Message<F>,
    quoted: &Quoted<F>,
    send: &mut u64,
) -> Result<bool, Refused> {
    let key = F::key(quoted.proto, quoted.dst, quoted.src, direction::FORWARD);
    let Some(entry) = find::<F>(&key) else { return Ok(false) };
    let state: FlowState = entry.state_copy();
    let named = maps::real(state.real).filter(|real| real.generation() == state.generation);
    let Some(real) = named else { return Ok(false) };
    if state.forwarding & forwarding::DSR != 0 {
        if message.end <= quoted.place.ip {
            // Longer than its length says.
            return Ok(false);
        }
        // The real has the VIP's address: the error is for it as it is.
        let tunnel = state.forwarding & forwarding::DSR_IPIP != 0;
        *send = Sending { real: state.real, end: message.end, tunnel }.into_word();
        return Ok(true);
    }
    let end = real.end::<F>();
    let seen = if state.forwarding & forwarding::SNAT == 0 {
        quoted.dst.addr
    } else {
        *F::client(entry.view())
    };
    let client = End { addr: seen, port: state.client_port };
    requoted::<F>(skb, message, quoted, Side::Source, end, client)?;
    F::readdress(skb, &message.place, Side::Destination, &message.dst, &end.addr)?;
    Ok(true)
}

/// The error is about a packet that was sent to a real: its client sent it to the VIP. Where it comes
/// in, only the node itself may be that client, or be taken for it: errors to others are translated where
/// they leave.
#[inline(always)]
fn about_request<F: Messages>(
    skb: Skb,
    message: &Message<F>,
    quoted: &Quoted<F>,
    leaving: bool,
) -> Result<bool, Refused> {
    let key = F::key(quoted.proto, quoted.dst, quoted.src, direction::REPLY);
    let Some(entry) = find::<F>(&key) else { return Ok(false) };
    let (vip, state) = (F::vip(entry.view()), entry.state_copy());
    let snat = state.forwarding == forwarding::SNAT;
    if !leaving && !snat && state.forwarding != forwarding::HOST {
        return Ok(false);
    }
    let addr = if snat { *F::client(entry.view()) } else { quoted.src.addr };
    let client = End { addr, port: state.client_port };
    requoted::<F>(skb, message, quoted, Side::Destination, vip, client)?;
    if snat {
        F::readdress(skb, &message.place, Side::Destination, &message.dst, &client.addr)?;
    }
    if !differ::<F>(&message.src, &quoted.dst.addr) {
        // The real itself refused: its client knows it by the VIP. A router keeps its name.
        F::readdress(skb, &message.place, Side::Source, &message.src, &vip.addr)?;
    }
    Ok(true)
}

#[inline(always)]
fn differ<F: Family>(a: &F::Addr, b: &F::Addr) -> bool {
    let port = [0; 2];
    let (a, b) = (End { addr: *a, port }, End { addr: *b, port });
    !F::same(&a, &b)
}

/// Translates what is quoted: `side` becomes `end`, the other side `other`. All checksums that are there stay as right or wrong as they were.
#[inline(always)]
fn requoted<F: Messages>(
    skb: Skb,
    message: &Message<F>,
    quoted: &Quoted<F>,
    side: Side,
    end: End<F::Addr>,
    other: End<F::Addr>,
) -> Result<(), Refused> {
    let (before, beside, (src, dst)) = match side {
        Side::Source => (quoted.src, (quoted.dst, Side::Destination), (end.port, other.port)),
        Side::Destination => (quoted.dst, (quoted.src, Side::Source), (other.port, end.port)),
    };
    let (before, (beside, other_side)) = (before.addr, beside);
    let mut all = F::requote(skb, quoted.place.ip, side, &before, &end.addr)?;
    let mut addresses = changed::<F>(&before, &end.addr);
    if differ::<F>(&beside.addr, &other.addr) {
        all += F::requote(skb, quoted.place.ip, other_side, &beside.addr, &other.addr)?;
        addresses += changed::<F>(&beside.addr, &other.addr);
    }
    let old = [quoted.src.port, quoted.dst.port].as_flattened().as_chunks::<4>().0[0];
    let new = [src[0], src[1], dst[0], dst[1]];
    let (old, new) = (u32::from_ne_bytes(old), u32::from_ne_bytes(new));
    let ports = u64::from(!old) + u64::from(new);
    all += ports;
    // Not every quotation is so long, and not every datagram has one.
    let inner = Check::of(&quoted.place, quoted.proto);
    if let Some(check) = skb.pair(inner.at)
        && !(inner.optional && check == [0; 2])
    {
        let check = u16::from_ne_bytes(check);
        let sum = u64::from(!check) + ports + addresses;
        let adjusted = match !checksum::fold(sum) {
            0 if inner.optional => u16::MAX,
            adjusted => adjusted,
        };
        skb.put_pair(inner.at, adjusted)?;
        all += u64::from(!check) + u64::from(adjusted);
    }
    skb.put_word(quoted.place.tcp, new)?;
    skb.sum_ports(check(&message.place), 0, checksum::fold(all).into())
}
