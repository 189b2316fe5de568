//! The packet: bounds-checked reading and writing, checksums, and the answer to a refused one.
//! All pointer work on packets is in this file.
//!
//! The kernel's helpers that may move the packet make every pointer into it worthless to the
//! verifier, so a pointer lives within one function here and is asked for again.

#[cfg(target_arch = "bpf")]
use core::mem::offset_of;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, TC_ACT_REDIRECT},
    helpers::generated as helpers,
    programs::TcContext,
};
use balancer_ebpf::{
    abi::TCP,
    checksum,
    flow::{Family, V4, V6},
    packet::{self, ETHERNET_LEN, IPV4_LEN, IPV6_LEN, Next, TCP_LEN},
    reset,
};

use crate::maps;

/// Offset of the checksum in a TCP header.
const TCP_CHECK: u32 = 16;
/// Offset of the checksum in an IPv4 header.
const IPV4_CHECK: u32 = 10;
/// No offset that is asked for is beyond this. The mask tells the verifier so where it has
/// lost track of a value's range.
const OFFSET_MASK: u32 = 0xff;

/// A packet in a TC program.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

/// The kernel refused to change the packet.
pub(crate) struct Refused;

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

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }

    /// For functions that the verifier judges by themselves: the context.
    #[inline(always)]
    pub(crate) fn into_raw(self) -> *mut __sk_buff {
        self.0
    }

    /// The reverse of [`Self::into_raw`].
    #[inline(always)]
    pub(crate) fn from_raw(ctx: *mut __sk_buff) -> Self {
        Self(ctx)
    }

    /// Length of the packet, Ethernet header included.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: the context is live while the program runs; the verifier checks the field.
        unsafe { (*self.0).len }
    }

    /// The interface that the program is attached to.
    #[inline(always)]
    pub(crate) fn ifindex(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).ifindex }
    }

    /// Packets on the wire that this one stands for.
    #[inline(always)]
    pub(crate) fn segments(self) -> u32 {
        // SAFETY: as in `len`.
        let segments = unsafe { (*self.0).gso_segs };
        if segments == 0 { 1 } else { segments }
    }

    /// Where the linear part begins and ends.
    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        #[cfg(target_arch = "bpf")]
        {
            // The fields are 32 bits wide and the verifier puts pointers there: for LLVM the
            // upper half would be unknown, and it would clear it, which makes a pointer a number.
            let (start, end);
            // SAFETY: loads two fields of the live context.
            unsafe {
                core::arch::asm!(
                    "{v} = *(u32 *)({ctx} + {at})",
                    v = out(reg) start, ctx = in(reg) self.0, at = const offset_of!(__sk_buff, data),
                    options(nostack, preserves_flags, readonly),
                );
                core::arch::asm!(
                    "{v} = *(u32 *)({ctx} + {at})",
                    v = out(reg) end, ctx = in(reg) self.0,
                    at = const offset_of!(__sk_buff, data_end),
                    options(nostack, preserves_flags, readonly),
                );
            }
            (start, end)
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: as in `len`.
        unsafe {
            ((*self.0).data as usize, (*self.0).data_end as usize)
        }
    }

    /// A pointer to `len` bytes from offset `at` on, if they lie in the linear part.
    #[inline(always)]
    fn bytes(self, at: u32, len: u32) -> Option<usize> {
        let (start, end) = self.bounds();
        let start = opaque(start + (at & OFFSET_MASK) as usize);
        if start + len as usize > end { None } else { Some(start) }
    }

    /// The words from offset `at` on, as they lie in memory, if they are in the linear part.
    #[inline(always)]
    pub(crate) fn words<const N: usize>(self, at: u32) -> Option<[u32; N]> {
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

    /// Two bytes from offset `at` on, if they are in the linear part.
    #[inline(always)]
    pub(crate) fn pair(self, at: u32) -> Option<[u8; 2]> {
        let start = self.bytes(at, 2)? as *const u16;
        // SAFETY: inside the bytes just checked.
        Some(unsafe { start.read_volatile() }.to_ne_bytes())
    }

    /// One port of a packet as nearly all are: linear, TCP in an IP header without options or
    /// extension headers, whole, no VLAN tag. `None`: another packet, which must be read in full.
    #[inline(always)]
    pub(crate) fn plain_port(self, side: Side) -> Option<[u8; 2]> {
        const FIRST: usize = ETHERNET_LEN as usize;
        let v4 = self.bytes(0, ETHERNET_LEN + IPV4_LEN + 4)?;
        // SAFETY: inside the bytes just checked, as are all offsets below 38 that follow.
        let pair = |at: usize| unsafe { ((v4 + at) as *const u16).read_volatile() }.to_ne_bytes();
        let port = if side == Side::Source { 0 } else { 2 };
        match packet::next(pair(FIRST - 2)) {
            Next::Ipv4 => {
                let [more, later] = pair(FIRST + 6);
                // Version 4, five words; neither "more fragments" nor an offset.
                let plain = pair(FIRST)[0] == 0x45
                    && pair(FIRST + 8)[1] == TCP
                    && more & 0x3f == 0
                    && later == 0;
                plain.then(|| pair(FIRST + IPV4_LEN as usize + port))
            }
            Next::Ipv6 => {
                if pair(FIRST)[0] >> 4 != 6 || pair(FIRST + 6)[0] != TCP {
                    return None;
                }
                self.pair(ETHERNET_LEN + IPV6_LEN + port as u32)
            }
            Next::Vlan | Next::Other => None,
        }
    }

    /// Makes the first `len` bytes, or all if there are fewer, linear.
    #[inline(always)]
    pub(crate) fn pull(self, len: u32) -> Result<(), Refused> {
        let all = self.len();
        // SAFETY: the context is live while the program runs.
        done(unsafe { helpers::bpf_skb_pull_data(self.0, if len < all { len } else { all }) })
    }

    /// Replaces one end of the connection in the headers, and the other end's port; `ports` are
    /// the words of both ports before and after.
    #[inline(always)]
    pub(crate) fn translate<F: Translate>(
        self,
        place: &Place,
        side: Side,
        from: &F::Addr,
        to: &F::Addr,
        ports: [u32; 2],
    ) -> Result<(), Refused> {
        let check = place.tcp + TCP_CHECK;
        F::sum_address(self, check, from, to)?;
        if ports[0] != ports[1] {
            // Not part of the pseudo-header: a partial checksum does not hold the ports.
            self.sum(check, ports[0].into(), ports[1].into(), 4)?;
        }
        F::write_address(self, place.ip, side, from, to)?;
        let port_words = self.bytes(place.tcp, 4).ok_or(Refused)? as *mut u32;
        // SAFETY: inside the bytes just checked.
        unsafe { port_words.write_volatile(ports[1]) };
        Ok(())
    }

    /// Adjusts the TCP checksum. Only the kernel can: whether it is a complete or a partial one
    /// is not shown to programs.
    #[inline(always)]
    fn sum(self, at: u32, from: u64, to: u64, flags: u64) -> Result<(), Refused> {
        // SAFETY: the context is live while the program runs; the helper checks the offset.
        done(unsafe { helpers::bpf_l4_csum_replace(self.0, at & OFFSET_MASK, from, to, flags) })
    }

    #[inline(always)]
    fn store<T>(self, at: u32, value: &T, flags: u32) -> Result<(), Refused> {
        let value: *const T = value;
        // SAFETY: the context is live, and `value` is as long as said.
        done(unsafe {
            helpers::bpf_skb_store_bytes(
                self.0,
                at & OFFSET_MASK,
                value.cast(),
                size_of::<T>() as u32,
                flags.into(),
            )
        })
    }

    /// Whether the device is to complete the TCP checksum. A change of the ports leaves a
    /// partial checksum as it is and alters any other.
    #[inline(always)]
    fn checksum_is_partial(self, at: u32) -> Result<bool, Refused> {
        let before = self.pair(at).ok_or(Refused)?;
        self.sum(at, 0, 1, 2)?;
        let after = self.pair(at).ok_or(Refused)?;
        self.sum(at, 1, 0, 2)?;
        Ok(before == after)
    }

    /// Turns the packet into the TCP reset that answers it. `end`: where its payload ends.
    #[inline(always)]
    pub(crate) fn answer_with_reset<F: Translate>(
        self,
        place: &Place,
        end: u32,
    ) -> Result<(), Refused> {
        let check = place.tcp + TCP_CHECK;
        let partial = self.checksum_is_partial(check)?;
        let segment: [u32; 5] = self.words(place.tcp).ok_or(Refused)?;
        let header_len = u32::from(segment[3].to_ne_bytes()[0] >> 4) * 4;
        let payload_len = end.wrapping_sub(place.tcp + header_len);
        let answer = reset::tcp(&segment, payload_len);
        // SAFETY: the context is live while the program runs.
        done(unsafe { helpers::bpf_skb_change_tail(self.0, place.tcp + TCP_LEN, 0) })?;
        // The Ethernet addresses are not part of any sum that a device may have made.
        let [a, b, c]: [u32; 3] = self.words(0).ok_or(Refused)?;
        let [a, b, c] = [a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes()];
        let swapped = [
            u32::from_ne_bytes([b[2], b[3], c[0], c[1]]),
            u32::from_ne_bytes([c[2], c[3], a[0], a[1]]),
            u32::from_ne_bytes([a[2], a[3], b[0], b[1]]),
        ];
        self.store(0, &swapped, 0)?;
        let addresses = F::write_answer(self, place)?;
        let answer = reset::with_checksum(answer, addresses, partial);
        self.store(place.tcp, &answer, BPF_F_RECOMPUTE_CSUM)
    }

    /// Sends the packet out of the interface it came in by.
    #[inline(always)]
    pub(crate) fn send_back(self) -> Result<i32, Refused> {
        // SAFETY: the helper takes two numbers.
        let verdict = unsafe { helpers::bpf_redirect(self.ifindex(), 0) };
        if verdict == i64::from(TC_ACT_REDIRECT) { Ok(TC_ACT_REDIRECT) } else { Err(Refused) }
    }
}

#[inline(always)]
fn done(result: i64) -> Result<(), Refused> {
    if result == 0 { Ok(()) } else { Err(Refused) }
}

/// Where a packet's headers lie.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Place {
    /// Offset of the IP header.
    pub(crate) ip: u32,
    /// Offset of the TCP header.
    pub(crate) tcp: u32,
}

/// Which address of an IP header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// What differs between the families when a packet is changed.
pub(crate) trait Translate: Family {
    /// Adjusts the TCP checksum for a changed address.
    fn sum_address(skb: Skb, check: u32, from: &Self::Addr, to: &Self::Addr)
    -> Result<(), Refused>;
    /// Writes an address, and what the IP header has of a checksum.
    fn write_address(
        skb: Skb,
        ip: u32,
        side: Side,
        from: &Self::Addr,
        to: &Self::Addr,
    ) -> Result<(), Refused>;
    /// Writes the IP header that goes back to the sender, options zeroed; returns the sum of
    /// both addresses.
    fn write_answer(skb: Skb, place: &Place) -> Result<u64, Refused>;
}

impl Translate for V4 {
    #[inline(always)]
    fn sum_address(skb: Skb, check: u32, from: &[u8; 4], to: &[u8; 4]) -> Result<(), Refused> {
        let (from, to) = (u32::from_ne_bytes(*from), u32::from_ne_bytes(*to));
        skb.sum(check, from.into(), to.into(), u64::from(BPF_F_PSEUDO_HDR) | 4)
    }

    #[inline(always)]
    fn write_address(
        skb: Skb,
        ip: u32,
        side: Side,
        from: &[u8; 4],
        to: &[u8; 4],
    ) -> Result<(), Refused> {
        let (from, to) = (u32::from_ne_bytes(*from), u32::from_ne_bytes(*to));
        let header = skb.bytes(ip, IPV4_LEN).ok_or(Refused)?;
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
    fn write_answer(skb: Skb, place: &Place) -> Result<u64, Refused> {
        let packet: [u32; 5] = skb.words(place.ip).ok_or(Refused)?;
        let header_len = place.tcp.wrapping_sub(place.ip);
        skb.store(place.ip, &reset::ipv4(&packet, header_len), BPF_F_RECOMPUTE_CSUM)?;
        // Options have no meaning on the way back.
        let mut at = place.ip + IPV4_LEN;
        let mut words = 0;
        while words < 10 && at < place.tcp {
            skb.store(at, &0u32, BPF_F_RECOMPUTE_CSUM)?;
            at += 4;
            words += 1;
        }
        Ok(checksum::sum(&packet[3..]))
    }
}

impl Translate for V6 {
    #[inline(always)]
    fn sum_address(skb: Skb, check: u32, from: &[u8; 16], to: &[u8; 16]) -> Result<(), Refused> {
        // SAFETY: both are 16 bytes long; the helper only reads them.
        let difference = unsafe {
            helpers::bpf_csum_diff(
                from.as_ptr().cast_mut().cast(),
                16,
                to.as_ptr().cast_mut().cast(),
                16,
                0,
            )
        };
        if difference < 0 {
            return Err(Refused);
        }
        let ipv6_flag = maps::ipv6_csum_flag();
        skb.sum(check, 0, difference as u64, u64::from(BPF_F_PSEUDO_HDR) | ipv6_flag)?;
        if ipv6_flag == 0 {
            // Where the device has summed up the whole packet, that helper also takes the
            // difference out of its sum: right for IPv4, whose header checksum changes too,
            // wrong for IPv6, where address and TCP checksum cancel out. Putting it back is
            // refused, without effect, for packets that have no such sum.
            // SAFETY: the context is live while the program runs.
            let _no_such_sum = unsafe { helpers::bpf_csum_update(skb.0, difference as u32) };
        }
        Ok(())
    }

    #[inline(always)]
    fn write_address(
        skb: Skb,
        ip: u32,
        side: Side,
        _from: &[u8; 16],
        to: &[u8; 16],
    ) -> Result<(), Refused> {
        let at = ip + if side == Side::Source { 8 } else { 24 };
        let address = skb.bytes(at, 16).ok_or(Refused)? as *mut u32;
        for (i, word) in Self::words(to).iter().enumerate() {
            // SAFETY: inside the bytes just checked.
            unsafe { address.add(i).write_volatile(u32::from_ne_bytes(*word)) };
        }
        Ok(())
    }

    #[inline(always)]
    fn write_answer(skb: Skb, place: &Place) -> Result<u64, Refused> {
        let packet: [u32; 10] = skb.words(place.ip).ok_or(Refused)?;
        skb.store(place.ip, &reset::ipv6(&packet), BPF_F_RECOMPUTE_CSUM)?;
        Ok(checksum::sum(&packet[2..]))
    }
}

const _: () = assert!(ETHERNET_LEN == 14, "the addresses are the first 12 bytes");
