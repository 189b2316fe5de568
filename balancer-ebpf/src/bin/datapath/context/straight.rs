//! Past the stack: from the interface that a packet came in by to the one that it leaves by.
//!
//! The kernel's routes are asked for every packet, so that a change of them is followed at once,
//! and `INTERFACES` says whether this may be done at all. What is not quite ordinary is left to
//! the stack, which knows how to answer: a packet that does not fit, whose hops are used up, or
//! whose destination has no route.

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_REDIRECT, bpf_adj_room_mode,
        bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1,
    },
    helpers::generated as helpers,
};
use balancer_ebpf::{
    abi::{TCP, interface_flags},
    checksum,
    flow::Family,
    packet::{self, ETHERNET_LEN, IPV4_LEN, IPV6_LEN, UDP_LEN},
};

use super::{Context as _, Place, Refused, Skb, skb};
use crate::{dsr::Outer, maps, parse::Packet};

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h), its unions as they are used here.
#[repr(C)]
struct Fib {
    family: u8,
    protocol: u8,
    ports: [u16; 2],
    total_len: u16,
    /// Asked with the interface that the packet came in by; answered with that to leave by.
    ifindex: u32,
    /// IPv4: the type of service in the first byte; IPv6: the flow information.
    class: u32,
    src: [u32; 4],
    /// Asked with the destination; answered with the next hop.
    dst: [u32; 4],
    vlan: u32,
    smac: [u8; 6],
    dmac: [u8; 6],
}

const _: () = assert!(size_of::<Fib>() == 64);

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the kernel's routes say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// No way that a program could take.
    None,
    /// The next hop's Ethernet address is not known yet: sending to it asks for that.
    Unresolved,
    /// All of it.
    Known,
}

impl Fib {
    #[inline(always)]
    fn new<F: Family>(ifindex: u32) -> Self {
        Self {
            family: if F::NUMBER == 4 { AF_INET } else { AF_INET6 },
            protocol: 0,
            ports: [0; 2],
            total_len: 0,
            ifindex,
            class: 0,
            src: [0; 4],
            dst: [0; 4],
            vlan: 0,
            smac: [0; 6],
            dmac: [0; 6],
        }
    }

    /// What is asked about packets between these addresses.
    #[inline(always)]
    fn between<F: Family>(&mut self, from: &F::Addr, to: &F::Addr) {
        let (from, to) = (F::words(from), F::words(to));
        let mut i = 0;
        while i < from.len() {
            self.src[i] = u32::from_ne_bytes(from[i]);
            self.dst[i] = u32::from_ne_bytes(to[i]);
            i += 1;
        }
    }

    /// Asks the kernel.
    #[inline(always)]
    fn ask(&mut self, skb: Skb) -> Way {
        let fib: *mut Self = self;
        // SAFETY: the context is live, and `fib` is laid out as the helper expects and as long.
        let answer = unsafe {
            helpers::bpf_fib_lookup(skb.into_raw().cast(), fib.cast(), size_of::<Self>() as i32, 0)
        };
        if answer == i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
            Way::Known
        } else if answer == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
            Way::Unresolved
        } else {
            Way::None
        }
    }

    /// Writes the Ethernet addresses of the next hop and of the interface to leave by.
    #[inline(always)]
    fn address(&self, skb: Skb) -> bool {
        let Some(start) = skb.bytes(0, ETHERNET_LEN) else { return false };
        let to = start as *mut u16;
        let mut i = 0;
        while i < 3 {
            let pair = |mac: &[u8; 6]| u16::from_ne_bytes([mac[2 * i], mac[2 * i + 1]]);
            // SAFETY: inside the bytes just checked. No sum that a device may have made holds
            // Ethernet addresses.
            unsafe {
                to.add(i).write_volatile(pair(&self.dmac));
                to.add(3 + i).write_volatile(pair(&self.smac));
            }
            i += 1;
        }
        true
    }

    /// Sends the packet to the next hop.
    #[inline(always)]
    fn send(&self) -> bool {
        let mut hop = bpf_redir_neigh {
            nh_family: self.family.into(),
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 { ipv6_nh: self.dst },
        };
        // SAFETY: the helper copies the next hop.
        let verdict = unsafe {
            helpers::bpf_redirect_neigh(
                self.ifindex,
                &raw mut hop,
                size_of::<bpf_redir_neigh>() as i32,
                0,
            )
        };
        skb::redirected(verdict).is_ok()
    }
}

/// See [`super::Context::may_go_straight`]; 1: it may. Not inlined, for the stack's sake.
#[inline(never)]
pub(super) fn may_go<F: Family>(skb: Skb, from: &F::Addr, to: &F::Addr) -> u32 {
    let came_by = skb.ifindex();
    if maps::interface(came_by) & interface_flags::DIRECT == 0 || skb.is_tagged() {
        return 0;
    }
    let mut fib = Fib::new::<F>(came_by);
    fib.between::<F>(from, to);
    if fib.ask(skb) == Way::None {
        return 0;
    }
    let leaves_by = fib.ifindex;
    if maps::interface(leaves_by) & interface_flags::DIRECT == 0 {
        return 0;
    }
    // The way back has to be the same one: both directions go past the stack, or none does. It
    // also is what a strict reverse path filter asks, which nobody else will.
    fib = Fib::new::<F>(leaves_by);
    fib.between::<F>(to, from);
    u32::from(fib.ask(skb) != Way::None && fib.ifindex == came_by)
}

/// What the headers of the packet, as they are now, ask the kernel's routes; `None`: they cannot
/// be read.
#[inline(always)]
fn question<F: Family>(skb: Skb, place: &Place) -> Option<Fib> {
    let mut fib = Fib::new::<F>(skb.ifindex());
    let [ports]: [u32; 1] = skb.words(place.tcp)?;
    let [a, b, c, d] = ports.to_ne_bytes();
    fib.ports = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
    let total_len;
    if F::NUMBER == 4 {
        let header: [u32; 5] = skb.words(place.ip)?;
        total_len = packet::ipv4(&header)?.total_len;
        fib.class = u32::from_ne_bytes([header[0].to_ne_bytes()[1], 0, 0, 0]);
        fib.protocol = header[2].to_ne_bytes()[1];
        (fib.src[0], fib.dst[0]) = (header[3], header[4]);
    } else {
        let header: [u32; 10] = skb.words(place.ip)?;
        total_len = packet::ipv6(&header)?.total_len;
        let [_, b, c, d] = header[0].to_ne_bytes();
        fib.class = u32::from_ne_bytes([0, b & 0x0f, c, d]);
        fib.protocol = header[1].to_ne_bytes()[2];
        let mut i = 0;
        while i < 4 {
            (fib.src[i], fib.dst[i]) = (header[2 + i], header[6 + i]);
            i += 1;
        }
    }
    // What has to fit is one packet on the wire.
    let segment = skb.segment_len();
    fib.total_len = if segment == 0 {
        total_len as u16
    } else {
        let header_len = if fib.protocol == TCP {
            let tcp: [u32; 5] = skb.words(place.tcp)?;
            u32::from(tcp[3].to_ne_bytes()[0] >> 4) * 4
        } else {
            UDP_LEN
        };
        (place.tcp - place.ip + header_len + segment) as u16
    };
    Some(fib)
}

/// Sends a packet to a real that answers by itself, in a tunnel or else on the link; the verdict.
/// The packet may be sent by a device that cuts it into segments: those fit as they are, or are made
/// shorter by as much as a tunnel needs.
#[inline(never)]
pub(crate) fn to_real<F: Outer>(skb: Skb, packet: &Packet<F>, to: &F::Addr, tunnel: bool) -> i32 {
    let came_by = skb.ifindex();
    let mut fib = Fib::new::<F>(came_by);
    let words = F::words(to);
    let mut i = 0;
    while i < words.len() && i < 4 {
        fib.dst[i] = u32::from_ne_bytes(words[i]);
        i += 1;
    }
    let mut source = [0; 4];
    if tunnel {
        if !maps::tunnel_source::<F>(came_by, &mut source) {
            return Skb::DROP;
        }
        fib.src = source;
    }
    let family = fib.family;
    if fib.ask(skb) == Way::None {
        return Skb::DROP;
    }
    let (mut differ, mut i) = (u32::from(fib.family ^ family), 0);
    while i < words.len() && i < 4 {
        differ |= fib.dst[i] ^ u32::from_ne_bytes(words[i]);
        i += 1;
    }
    if !tunnel && differ != 0 || !count_hop::<F>(skb, &packet.place) {
        return Skb::DROP;
    }
    if tunnel && around::<F>(skb, packet, &source, to).is_err() {
        return Skb::DROP;
    }
    if fib.send() { TC_ACT_REDIRECT } else { Skb::DROP }
}

/// Puts the header of a tunnel in front of a packet.
#[inline(always)]
fn around<F: Outer>(
    skb: Skb,
    packet: &Packet<F>,
    source: &[u32; 4],
    to: &F::Addr,
) -> Result<(), Refused> {
    let at = packet.place.ip;
    let [first]: [u32; 1] = skb.words(at).ok_or(Refused)?;
    let len = packet.end.wrapping_sub(at);
    // SAFETY: the context is live while the program runs.
    let made = unsafe {
        helpers::bpf_skb_adjust_room(
            skb.into_raw(),
            F::HEADER_LEN as i32,
            bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
            F::ROOM,
        )
    };
    if made != 0 {
        return Err(Refused);
    }
    F::around(skb, at, (first, len), source, to)
}

/// Sends a packet that is about to leave to its destination's next hop, where that is another one
/// than the packet has already; the verdict.
#[inline(never)]
pub(crate) fn elsewhere<F: Family>(skb: Skb, place: &Place) -> i32 {
    let Some(mut fib) = question::<F>(skb, place) else { return Skb::PASS };
    // The sender has seen to it that the packet fits, as far as it knows the way.
    fib.total_len = 0;
    let Some([first, second]) = skb.words::<2>(0) else { return Skb::PASS };
    let came_by = fib.ifindex;
    if fib.ask(skb) == Way::None {
        return Skb::PASS;
    }
    let [a, b, c, d, e, f] = fib.dmac;
    let same = first == u32::from_ne_bytes([a, b, c, d])
        && second.to_ne_bytes()[0] == e
        && second.to_ne_bytes()[1] == f;
    if (fib.ifindex == came_by && same) || !fib.send() { Skb::PASS } else { TC_ACT_REDIRECT }
}

/// Whether a router has nothing to do with the packet but to send it on: no tag that says of which
/// network it is, no options that routers look at.
#[inline(always)]
fn is_ordinary<F: Family>(skb: Skb, place: &Place) -> bool {
    let header_len = if F::NUMBER == 4 { IPV4_LEN } else { IPV6_LEN };
    place.ip == ETHERNET_LEN && place.tcp == ETHERNET_LEN + header_len && !skb.is_tagged()
}

/// See [`super::Context::goes_straight`]; 1: it goes.
#[inline(never)]
pub(super) fn goes<F: Family>(skb: Skb, place: &Place) -> u32 {
    if maps::interface(skb.ifindex()) & interface_flags::DIRECT == 0
        || !is_ordinary::<F>(skb, place)
    {
        return 0;
    }
    let Some(mut fib) = question::<F>(skb, place) else { return 0 };
    let way = fib.ask(skb);
    if way == Way::None {
        return 0;
    }
    let flags = maps::interface(fib.ifindex);
    if flags & interface_flags::DIRECT == 0 || !count_hop::<F>(skb, place) {
        return 0;
    }
    // Whoever is behind the other end may look at the Ethernet address (a bridge does), and asking
    // for one takes a packet that is sent.
    let gone = if flags & interface_flags::PEER != 0 && way == Way::Known && fib.address(skb) {
        // SAFETY: the helper takes two numbers.
        skb::redirected(unsafe { helpers::bpf_redirect_peer(fib.ifindex, 0) }).is_ok()
    } else {
        fib.send()
    };
    u32::from(gone)
}

/// Takes one from the packet's remaining hops; false: there is none left.
#[inline(always)]
fn count_hop<F: Family>(skb: Skb, place: &Place) -> bool {
    if F::NUMBER == 4 {
        let Some(header) = skb.bytes(place.ip, IPV4_LEN) else { return false };
        // SAFETY: inside the bytes just checked; the word of hops and protocol, and the checksum,
        // which change by as much: a device's sum of both stays right.
        unsafe {
            let (hops, check) = ((header + 8) as *mut u16, (header + 10) as *mut u16);
            let before = hops.read_volatile();
            let [ttl, protocol] = before.to_ne_bytes();
            if ttl <= 1 {
                return false;
            }
            let after = u16::from_ne_bytes([ttl - 1, protocol]);
            hops.write_volatile(after);
            let sum = check.read_volatile();
            check.write_volatile(checksum::replace(sum, before.into(), after.into()));
        }
        return true;
    }
    let Some([word]) = skb.words::<1>(place.ip + 4) else { return false };
    let [a, b, next, hops] = word.to_ne_bytes();
    hops > 1 && skb.store(place.ip + 4, &u32::from_ne_bytes([a, b, next, hops - 1]), true).is_ok()
}
