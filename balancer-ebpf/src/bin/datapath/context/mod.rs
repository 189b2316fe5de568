//! The packet: bounds-checked reading and writing, checksums, and the answer to a refused one.
//! All pointer work on packets is here.
//!
//! The kernel's helpers that may move the packet make every pointer into it worthless to the
//! verifier, so a pointer lives within one function here and is asked for again.

mod skb;
pub(crate) mod straight;
mod xdp;

use balancer_ebpf::{
    abi::{TCP, UDP},
    checksum,
    flow::{Family, V4, V6},
    packet::{
        self, ETHERNET_LEN, EXTENSIONS_LEN_MAX, HEADERS_MAX, IPV4_LEN, IPV6_LEN, Next, TCP_LEN,
    },
    reason::Reason,
    reset,
};

pub(crate) use skb::Skb;
pub(crate) use xdp::Xdp;

use crate::{apart, fib::Way, maps::Maps, parse::Packet};

/// Offset of the checksum in a TCP header.
const TCP_CHECK: u32 = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECK: u32 = 6;
/// Offset of the checksum in an IPv4 header.
const IPV4_CHECK: u32 = 10;
/// No offset that is asked for is beyond this. The mask tells the verifier so where it has
/// lost track of a value's range.
const OFFSET_MASK: u32 = 0x1ff;

/// The kernel refused to change the packet.
pub(crate) struct Refused;

#[inline(always)]
fn done(result: i64) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}

/// Hides from the compiler where a pointer comes from. Without it, LLVM may compute the address
/// a second time for the access, and the verifier, which has seen the bounds check on the first
/// one, would refuse the second.
#[inline(always)]
fn opaque(mut pointer: usize) -> usize {
    #[cfg(target_arch = "bpf")]
    // SAFETY: copies a register onto itself.
    unsafe {
        core::arch::asm!("{p} = {p}", p = inout(reg) pointer, options(nomem, preserves_flags));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        pointer = core::hint::black_box(pointer);
    }
    pointer
}

/// The context of a function that the verifier judges by itself. What a function does not look at
/// LLVM leaves unset when it calls it, and the verifier refuses the call.
#[inline(always)]
pub(crate) fn used<T>(raw: *mut T) -> *mut T {
    opaque(raw as usize) as *mut T
}

/// A packet as one kind of program has it.
pub(crate) trait Context: Copy {
    /// What the kernel hands to the program.
    type Raw;
    /// How a packet goes on after it was translated.
    type Way;
    /// The verdict of a packet that goes on its way.
    const PASS: i32;
    /// The verdict of a packet that ends here.
    const DROP: i32;
    /// Whether only flows without a bit of `forwarding` are carried; others are TC's.
    const PLAIN: bool;

    /// For functions that the verifier judges by themselves: the context.
    fn into_raw(self) -> *mut Self::Raw;
    /// The reverse of [`Self::into_raw`].
    fn from_raw(raw: *mut Self::Raw) -> Self;
    /// Length of the packet, Ethernet header included.
    fn len(self) -> u32;
    /// The interface that the program is attached to.
    fn ifindex(self) -> u32;
    /// Packets on the wire that this one stands for.
    fn segments(self) -> u32;
    /// Where the part that can be read and written begins and ends.
    fn bounds(self) -> (usize, usize);
    /// Makes the first `len` bytes, or all if there are fewer, readable.
    fn pull(self, len: u32) -> Result<(), Refused>;
    /// Adjusts the checksum of TCP or UDP for a changed address.
    fn sum_address<F: Family>(
        self,
        check: Check,
        from: &F::Addr,
        to: &F::Addr,
    ) -> Result<(), Refused>;
    /// Adjusts the checksum of TCP or UDP for changed ports, which are no part of the
    /// pseudo-header.
    fn sum_ports(self, check: Check, from: u32, to: u32) -> Result<(), Refused>;
    /// Whether the device is to complete the TCP checksum at `check`.
    fn checksum_is_partial(self, check: u32) -> Result<bool, Refused>;
    /// Writes a value. `summed`: a device may have summed up what was there.
    fn store<T>(self, at: u32, value: &T, summed: bool) -> Result<(), Refused>;
    /// Makes room for `len` bytes before the packet.
    fn grow(self, len: u32) -> Result<(), Refused>;
    /// Cuts off what is beyond `len` bytes.
    fn cut(self, len: u32) -> Result<(), Refused>;
    /// Sends the packet back to where it came from; the verdict. `leaving`: it was about to leave
    /// by this interface.
    fn send_back(self, leaving: bool) -> Result<i32, Refused>;
    /// How the packet would go on if it were for `to`. Asked before anything of it is changed.
    /// `forwarding`: the flow's, as far as it is known; `memory`: where the way may be remembered for
    /// the next packet to the same address.
    ///
    /// # Errors
    /// It cannot, for this reason: it is to be left as it came, or answered.
    fn way<F: Translate>(
        self,
        packet: &Packet<F>,
        to: &F::Addr,
        forwarding: u8,
        memory: *mut u32,
    ) -> Result<Self::Way, Reason>;
    /// Sends the translated packet on.
    fn leave<F: Translate>(self, packet: &Packet<F>, way: &Self::Way) -> Result<(), Refused>;
    /// Whether packets between these addresses may go past the stack, as routes and interfaces
    /// are now.
    fn may_go_straight<F: Family>(self, from: &F::Addr, to: &F::Addr) -> bool;
    /// Sends the packet past the stack to the interface by which it leaves, as it will be when
    /// the program ends, its hop counted. False: nothing was done, the stack must route it.
    fn goes_straight<F: Translate>(self, place: &Place) -> bool;

    /// Whether a socket of the proxy has the packet's connection; with `ASSIGN`, it gets the packet.
    ///
    /// # Errors
    /// Packets of this kind cannot be handed over: TC decides.
    #[inline(always)]
    fn held<F: Maps, const ASSIGN: bool>(self, _packet: &Packet<F>) -> Result<bool, Reason> {
        Err(Reason::LeftToTc)
    }
    /// The same of a listener of the proxy.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn listens<F: Maps, const ASSIGN: bool>(self, _packet: &Packet<F>) -> Result<bool, Reason> {
        Err(Reason::LeftToTc)
    }

    /// A pointer to `len` bytes from offset `at` on, if they can be read.
    #[inline(always)]
    fn bytes(self, at: u32, len: u32) -> Option<usize> {
        let (start, end) = self.bounds();
        let start = opaque(start + (at & OFFSET_MASK) as usize);
        if start + len as usize > end { None } else { Some(start) }
    }

    /// The words from offset `at` on, as they lie in memory, if they can be read.
    #[inline(always)]
    fn words<const N: usize>(self, at: u32) -> Option<[u32; N]> {
        let start = self.bytes(at, 4 * N as u32)? as *const u32;
        let mut words = [0; N];
        let mut i = 0;
        while i < N {
            // SAFETY: inside the bytes just checked. BPF allows unaligned loads wherever the
            // verifier does, which is on all machines that this object is built for.
            words[i] = unsafe { start.add(i).read_volatile() };
            i += 1;
        }
        Some(words)
    }

    /// Two bytes from offset `at` on, if they can be read.
    #[inline(always)]
    fn pair(self, at: u32) -> Option<[u8; 2]> {
        let start = self.bytes(at, 2)? as *const u16;
        // SAFETY: inside the bytes just checked.
        Some(unsafe { start.read_volatile() }.to_ne_bytes())
    }

    /// Writes a word as it is to lie in memory.
    #[inline(always)]
    fn put_word(self, at: u32, word: u32) -> Result<(), Refused> {
        let place = self.bytes(at, 4).ok_or(Refused)? as *mut u32;
        // SAFETY: inside the bytes just checked.
        unsafe { place.write_volatile(word) };
        Ok(())
    }

    /// Writes two bytes as they are to lie in memory.
    #[inline(always)]
    fn put_pair(self, at: u32, pair: u16) -> Result<(), Refused> {
        let place = self.bytes(at, 2).ok_or(Refused)? as *mut u16;
        // SAFETY: inside the bytes just checked.
        unsafe { place.write_volatile(pair) };
        Ok(())
    }

    /// Both ports, source first, of a packet as nearly all are: linear, TCP or UDP in an IP header
    /// without options or extension headers, whole, no VLAN tag. `None`: another packet, which must be
    /// read in full.
    #[inline(always)]
    fn plain_ports(self) -> Option<[[u8; 2]; 2]> {
        const FIRST: usize = ETHERNET_LEN as usize;
        let v4 = self.bytes(0, ETHERNET_LEN + IPV4_LEN + 4)?;
        // SAFETY: inside the bytes just checked, as are all offsets below 38 that follow.
        let pair = |at: usize| unsafe { ((v4 + at) as *const u16).read_volatile() }.to_ne_bytes();
        match packet::next(pair(FIRST - 2)) {
            Next::Ipv4 => {
                let [more, later] = pair(FIRST + 6);
                // Version 4, five words; neither "more fragments" nor an offset.
                let plain = pair(FIRST)[0] == 0x45
                    && matches!(pair(FIRST + 8)[1], TCP | UDP)
                    && more & 0x3f == 0
                    && later == 0;
                let ports = FIRST + IPV4_LEN as usize;
                plain.then(|| [pair(ports), pair(ports + 2)])
            }
            Next::Ipv6 => {
                if pair(FIRST)[0] >> 4 != 6 || !matches!(pair(FIRST + 6)[0], TCP | UDP) {
                    return None;
                }
                let ports = self.bytes(ETHERNET_LEN + IPV6_LEN, 4)? as *const u16;
                // SAFETY: inside the bytes just checked.
                let port = |at: usize| unsafe { ports.add(at).read_volatile() }.to_ne_bytes();
                Some([port(0), port(1)])
            }
            Next::Vlan | Next::Other => None,
        }
    }

    /// Replaces one end of the connection in the headers, and the other end's port; `ports` are
    /// the words of both ports before and after, `proto` is the IP protocol number.
    #[inline(always)]
    fn translate<F: Translate>(
        self,
        (place, proto): (&Place, u8),
        side: Side,
        from: &F::Addr,
        to: &F::Addr,
        ports: [u32; 2],
    ) -> Result<(), Refused> {
        let check = Check::of(place, proto);
        self.sum_address::<F>(check, from, to)?;
        if ports[0] != ports[1] {
            self.sum_ports(check, ports[0], ports[1])?;
        }
        F::write_address(self, place.ip, side, from, to)?;
        self.put_word(place.tcp, ports[1])
    }

    /// Makes the sender the receiver, and the other way round.
    #[inline(always)]
    fn swap_ethernet(self) -> Result<(), Refused> {
        // The Ethernet addresses are not part of any sum that a device may have made.
        let [a, b, c]: [u32; 3] = self.words(0).ok_or(Refused)?;
        let [a, b, c] = [a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes()];
        let swapped = [
            u32::from_ne_bytes([b[2], b[3], c[0], c[1]]),
            u32::from_ne_bytes([c[2], c[3], a[0], a[1]]),
            u32::from_ne_bytes([a[2], a[3], b[0], b[1]]),
        ];
        self.store(0, &swapped, false)
    }

    /// Turns the packet into the TCP reset that answers it. `end`: where its payload ends.
    #[inline(always)]
    fn answer_with_reset<F: Translate>(self, place: &Place, end: u32) -> Result<(), Refused> {
        let partial = self.checksum_is_partial(place.tcp + TCP_CHECK)?;
        let segment: [u32; 5] = self.words(place.tcp).ok_or(Refused)?;
        let header_len = u32::from(segment[3].to_ne_bytes()[0] >> 4) * 4;
        let payload_len = end.wrapping_sub(place.tcp + header_len);
        let answer = reset::tcp(&segment, payload_len);
        self.cut(place.tcp + TCP_LEN)?;
        self.swap_ethernet()?;
        let addresses = F::write_answer(self, place)?;
        let answer = reset::with_checksum(answer, addresses, partial);
        self.store(place.tcp, &answer, true)
    }
}

/// Where a packet's headers lie.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Place {
    /// Offset of the IP header.
    pub(crate) ip: u32,
    /// Offset of the header of TCP or UDP.
    pub(crate) tcp: u32,
}

/// A checksum of TCP or UDP.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    /// Its offset.
    pub(crate) at: u32,
    /// Zero means that there is none, and stays zero (RFC 768; over IPv6 RFC 6935); a sum of zero
    /// is written as its complement.
    pub(crate) optional: bool,
}

impl Check {
    /// That of a packet of TCP or UDP.
    #[inline(always)]
    pub(crate) fn of(place: &Place, proto: u8) -> Self {
        let optional = proto == UDP;
        Self { at: place.tcp + if optional { UDP_CHECK } else { TCP_CHECK }, optional }
    }
}

/// Which address of an IP header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// What differs between the families when a packet is changed.
pub(crate) trait Translate: Family {
    /// Writes an address, and what the IP header has of a checksum.
    fn write_address<C: Context>(
        ctx: C,
        ip: u32,
        side: Side,
        from: &Self::Addr,
        to: &Self::Addr,
    ) -> Result<(), Refused>;
    /// Whether the packet may be forwarded once more, by its time to live or hop limit; `None`:
    /// the header cannot be read.
    fn hops_left<C: Context>(ctx: C, ip: u32) -> Option<bool>;
    /// Takes one off the time to live or hop limit.
    fn decrement_hops<C: Context>(ctx: C, ip: u32) -> Result<(), Refused>;
    /// See [`straight::reach`].
    fn reach(skb: Skb, packet: &Packet<Self>, to: &Self::Addr) -> Way;
    /// Writes the IP header that goes back to the sender, options zeroed; returns the sum of
    /// both addresses.
    fn write_answer<C: Context>(ctx: C, place: &Place) -> Result<u64, Refused>;
}

impl Translate for V4 {
    #[inline(always)]
    fn write_address<C: Context>(
        ctx: C,
        ip: u32,
        side: Side,
        from: &[u8; 4],
        to: &[u8; 4],
    ) -> Result<(), Refused> {
        let (from, to) = (u32::from_ne_bytes(*from), u32::from_ne_bytes(*to));
        let header = ctx.bytes(ip, IPV4_LEN).ok_or(Refused)?;
        let at = if side == Side::Source { 12 } else { 16 };
        let check = (header + IPV4_CHECK as usize) as *mut u16;
        // SAFETY: inside the bytes just checked; two fields of the same header.
        unsafe {
            ((header + at) as *mut u32).write_volatile(to);
            check.write_volatile(checksum::replace(check.read_volatile(), from, to));
        }
        Ok(())
    }

    #[inline(always)]
    fn hops_left<C: Context>(ctx: C, ip: u32) -> Option<bool> {
        ctx.pair(ip + 8).map(|[ttl, _protocol]| ttl > 1)
    }

    #[inline(always)]
    fn decrement_hops<C: Context>(ctx: C, ip: u32) -> Result<(), Refused> {
        let header = ctx.bytes(ip, IPV4_LEN).ok_or(Refused)?;
        // With the protocol beside it: the checksum is over pairs of bytes. Both change by as much, so
        // a device's sum of the packet stays right.
        let (field, check) = ((header + 8) as *mut u16, (header + IPV4_CHECK as usize) as *mut u16);
        // SAFETY: inside the bytes just checked; two fields of the same header.
        unsafe {
            let before = field.read_volatile();
            let [ttl, protocol] = before.to_ne_bytes();
            let after = u16::from_ne_bytes([ttl.wrapping_sub(1), protocol]);
            field.write_volatile(after);
            let sum = checksum::replace(check.read_volatile(), before.into(), after.into());
            check.write_volatile(sum);
        }
        Ok(())
    }

    #[inline(always)]
    fn reach(skb: Skb, packet: &Packet<Self>, to: &[u8; 4]) -> Way {
        apart::reach4(skb.into_raw(), packet, to)
    }

    #[inline(always)]
    fn write_answer<C: Context>(ctx: C, place: &Place) -> Result<u64, Refused> {
        let packet: [u32; 5] = ctx.words(place.ip).ok_or(Refused)?;
        let header_len = place.tcp.wrapping_sub(place.ip);
        ctx.store(place.ip, &reset::ipv4(&packet, header_len), true)?;
        // Options have no meaning on the way back.
        let mut at = place.ip + IPV4_LEN;
        let mut words = 0;
        while words < 10 && at < place.tcp {
            ctx.store(at, &0u32, true)?;
            at += 4;
            words += 1;
        }
        Ok(checksum::sum(&packet[3..]))
    }
}

impl Translate for V6 {
    #[inline(always)]
    fn write_address<C: Context>(
        ctx: C,
        ip: u32,
        side: Side,
        _from: &[u8; 16],
        to: &[u8; 16],
    ) -> Result<(), Refused> {
        let at = ip + if side == Side::Source { 8 } else { 24 };
        let address = ctx.bytes(at, 16).ok_or(Refused)? as *mut u32;
        for (i, word) in Self::words(to).iter().enumerate() {
            // SAFETY: inside the bytes just checked.
            unsafe { address.add(i).write_volatile(u32::from_ne_bytes(*word)) };
        }
        Ok(())
    }

    #[inline(always)]
    fn hops_left<C: Context>(ctx: C, ip: u32) -> Option<bool> {
        ctx.pair(ip + 6).map(|[_next, hops]| hops > 1)
    }

    #[inline(always)]
    fn decrement_hops<C: Context>(ctx: C, ip: u32) -> Result<(), Refused> {
        let [word]: [u32; 1] = ctx.words(ip + 4).ok_or(Refused)?;
        let [a, b, next, hops] = word.to_ne_bytes();
        // Nothing in the header makes up for it in a device's sum of the packet.
        ctx.store(ip + 4, &u32::from_ne_bytes([a, b, next, hops.wrapping_sub(1)]), true)
    }

    #[inline(always)]
    fn reach(skb: Skb, packet: &Packet<Self>, to: &[u8; 16]) -> Way {
        apart::reach6(skb.into_raw(), packet, to)
    }

    #[inline(always)]
    fn write_answer<C: Context>(ctx: C, place: &Place) -> Result<u64, Refused> {
        let packet: [u32; 10] = ctx.words(place.ip).ok_or(Refused)?;
        let extensions = place.tcp.wrapping_sub(place.ip + IPV6_LEN);
        ctx.store(place.ip, &reset::ipv6(&packet, extensions), true)?;
        if extensions != 0 {
            pad_extensions(ctx, place, extensions)?;
        }
        Ok(checksum::sum(&packet[2..]))
    }
}

/// Writes one options header that says nothing over extension headers, `len` bytes of them: the
/// TCP header stays where it is. Not inlined: few packets have any.
#[inline(never)]
fn pad_extensions<C: Context>(ctx: C, place: &Place, len: u32) -> Result<(), Refused> {
    let mut at = place.ip + IPV6_LEN;
    ctx.store(at, &reset::padding(len), true)?;
    let mut words = 1;
    while words < EXTENSIONS_LEN_MAX / 8 && at + 8 < place.tcp {
        at += 8;
        ctx.store(at, &[0u32; 2], true)?;
        words += 1;
    }
    Ok(())
}

const _: () = assert!(ETHERNET_LEN == 14, "the addresses are the first 12 bytes");
const _: () = assert!(HEADERS_MAX <= OFFSET_MASK, "every offset that is asked for fits");
