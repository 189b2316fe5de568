//! The packet of an XDP program: a frame as the driver got it. What it says is all there is: its
//! checksums are complete, it stands for itself alone, and only its first buffer can be read.

#[cfg(target_arch = "bpf")]
use core::mem::offset_of;

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated as helpers,
    programs::XdpContext,
};
use balancer_ebpf::{abi::forwarding, checksum, flow::Family, reason::Reason};

use super::{Check, Context, Place, Refused, Translate, done};
use crate::{
    hop::{self, Hop},
    parse::Packet,
};

/// A packet in an XDP program.
#[derive(Clone, Copy)]
pub(crate) struct Xdp(*mut xdp_md);

impl Xdp {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self(ctx.ctx)
    }

    /// Whether the first `len` bytes can be read.
    #[inline(always)]
    pub(crate) fn holds(self, len: u32) -> bool {
        let (start, end) = self.bounds();
        start + len as usize <= end
    }

    /// Replaces a checksum of TCP or UDP, which is always complete here.
    #[inline(always)]
    fn sum(self, check: Check, change: impl Fn(u16) -> u16) -> Result<(), Refused> {
        let at = self.bytes(check.at, 2).ok_or(Refused)? as *mut u16;
        // SAFETY: inside the bytes just checked.
        let before = unsafe { at.read_volatile() };
        if check.optional && before == 0 {
            return Ok(());
        }
        let after = change(before);
        // SAFETY: as above.
        unsafe { at.write_volatile(if check.optional && after == 0 { 0xffff } else { after }) };
        Ok(())
    }
}

impl Context for Xdp {
    type Raw = xdp_md;
    type Way = Hop;
    const PASS: i32 = xdp_action::XDP_PASS as i32;
    const DROP: i32 = xdp_action::XDP_DROP as i32;
    const PLAIN: bool = true;

    #[inline(always)]
    fn into_raw(self) -> *mut xdp_md {
        self.0
    }

    #[inline(always)]
    fn from_raw(raw: *mut xdp_md) -> Self {
        Self(raw)
    }

    /// Of all buffers.
    #[inline(always)]
    fn len(self) -> u32 {
        // SAFETY: the context is live while the program runs.
        unsafe { helpers::bpf_xdp_get_buff_len(self.0) as u32 }
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: the context is live while the program runs; the verifier checks the field.
        unsafe { (*self.0).ingress_ifindex }
    }

    #[inline(always)]
    fn segments(self) -> u32 {
        1
    }

    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        #[cfg(target_arch = "bpf")]
        {
            // By hand for the reason that is told at `Skb::bounds`.
            let (start, end);
            // SAFETY: loads two fields of the live context.
            unsafe {
                core::arch::asm!(
                    "{v} = *(u32 *)({ctx} + {at})",
                    v = out(reg) start, ctx = in(reg) self.0, at = const offset_of!(xdp_md, data),
                    options(nostack, preserves_flags, readonly),
                );
                core::arch::asm!(
                    "{v} = *(u32 *)({ctx} + {at})",
                    v = out(reg) end, ctx = in(reg) self.0,
                    at = const offset_of!(xdp_md, data_end),
                    options(nostack, preserves_flags, readonly),
                );
            }
            (start, end)
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: as in `ifindex`.
        unsafe {
            ((*self.0).data as usize, (*self.0).data_end as usize)
        }
    }

    #[inline(always)]
    fn pull(self, _len: u32) -> Result<(), Refused> {
        // Headers beyond the first buffer are for TC to look at.
        Err(Refused)
    }

    #[inline(always)]
    fn sum_address<F: Family>(
        self,
        check: Check,
        from: &F::Addr,
        to: &F::Addr,
    ) -> Result<(), Refused> {
        self.sum(check, |before| checksum::replace_all(before, F::words(from), F::words(to)))
    }

    #[inline(always)]
    fn sum_ports(self, check: Check, from: u32, to: u32) -> Result<(), Refused> {
        self.sum(check, |before| checksum::replace(before, from, to))
    }

    #[inline(always)]
    fn checksum_is_partial(self, _check: u32) -> Result<bool, Refused> {
        Ok(false)
    }

    /// `T` is made of words.
    #[inline(always)]
    fn store<T>(self, at: u32, value: &T, _summed: bool) -> Result<(), Refused> {
        const { assert!(size_of::<T>().is_multiple_of(4) && align_of::<T>() == 4) };
        let to = self.bytes(at, size_of::<T>() as u32).ok_or(Refused)? as *mut u32;
        let value: *const T = value;
        let mut i = 0;
        while i < size_of::<T>() / 4 {
            // SAFETY: a word of the value, into the bytes just checked.
            unsafe { to.add(i).write_volatile(value.cast::<u32>().add(i).read()) };
            i += 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn grow(self, len: u32) -> Result<(), Refused> {
        // SAFETY: the context is live while the program runs.
        done(unsafe { helpers::bpf_xdp_adjust_head(self.0, -(len as i32)) })
    }

    #[inline(always)]
    fn cut(self, len: u32) -> Result<(), Refused> {
        let by = len.wrapping_sub(self.len()) as i32;
        // SAFETY: the context is live while the program runs.
        done(unsafe { helpers::bpf_xdp_adjust_tail(self.0, by) })
    }

    #[inline(always)]
    fn send_back(self, _leaving: bool) -> Result<i32, Refused> {
        Ok(xdp_action::XDP_TX as i32)
    }

    /// What goes past the stack is what this program finishes.
    #[inline(always)]
    fn may_go_straight<F: Family>(self, _from: &F::Addr, _to: &F::Addr) -> bool {
        false
    }

    #[inline(always)]
    fn goes_straight<F: Translate>(self, _place: &Place) -> bool {
        false
    }

    #[inline(always)]
    fn way<F: Translate>(
        self,
        packet: &Packet<F>,
        to: &F::Addr,
        _forwarding: u8,
        memory: *mut u32,
    ) -> Result<Hop, Reason> {
        hop::find(self, packet, to, memory)
    }

    #[inline(always)]
    fn leave<F: Translate>(self, packet: &Packet<F>, hop: &Hop) -> Result<(), Refused> {
        F::decrement_hops(self, packet.place.ip)?;
        self.store(0, &hop.addresses, false)?;
        packet.onward.set(packet.onward.get() & forwarding::SNAT | hop.verdict as u8);
        Ok(())
    }
}
