//! The packet of a TC program: a socket buffer, which may be in pieces, stand for several packets
//! on the wire, and have a checksum that is still to be completed.

#[cfg(target_arch = "bpf")]
use core::mem::offset_of;

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM,
        TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC,
    },
    helpers::generated as helpers,
    programs::TcContext,
};
use balancer_ebpf::{abi::forwarding, flow::Family, reason::Reason};

use super::{Check, Context, OFFSET_MASK, Place, Refused, Translate, done, straight};
use crate::{
    fib::Way,
    maps::{self, Maps},
    parse::Packet,
    proxy,
};

/// `__sk_buff::pkt_type` of a frame to this machine (`linux/if_packet.h`).
const PACKET_HOST: u32 = 0;
/// What `tc_index` says of a packet of the node's own that is translated. (Not the mark, which is
/// the administrator's; `tc_index` is read by classifiers that Linux no longer has.)
const TRANSLATED: u32 = 0xba1a;

/// A packet in a TC program.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

impl Skb {
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        Self(ctx.skb.skb)
    }

    /// Whether the frame is addressed to this machine, and to it alone: an interface that listens
    /// to all frames hands over those of others too, and a VIP is nobody's broadcast.
    #[inline(always)]
    pub(crate) fn is_addressed(self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (*self.0).pkt_type == PACKET_HOST }
    }

    /// Whether a packet that is about to leave was made by the node itself and is still as it was
    /// made: see [`Self::note_translated`].
    #[inline(always)]
    pub(crate) fn is_from_host(self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (*self.0).ingress_ifindex == 0 && (*self.0).tc_index != TRANSLATED }
    }

    /// The packet's mark.
    #[inline(always)]
    pub(crate) fn mark(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).mark }
    }

    /// Adds bits to the packet's mark.
    #[inline(always)]
    pub(crate) fn add_mark(self, bits: u32) {
        // SAFETY: as in `len`; programs of this kind may write the field.
        unsafe { (*self.0).mark |= bits }
    }

    /// Notes that the packet is translated, for programs on the interfaces that it has yet to
    /// leave by: one below another, or the one that it is sent to.
    #[inline(always)]
    pub(crate) fn note_translated(self) {
        // SAFETY: as in `len`; programs of this kind may write the field.
        unsafe { (*self.0).tc_index = TRANSLATED }
    }

    /// Whether the packet has a VLAN tag that the kernel keeps beside it.
    #[inline(always)]
    pub(super) fn is_tagged(self) -> bool {
        // SAFETY: as in `len`.
        unsafe { (*self.0).vlan_present != 0 }
    }

    /// Bytes of payload in each packet on the wire; 0: this is one such packet.
    #[inline(always)]
    pub(super) fn segment_len(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).gso_size }
    }

    /// Adjusts a checksum of TCP or UDP. Only the kernel can: whether it is a complete or a partial
    /// one is not shown to programs.
    #[inline(always)]
    fn sum(self, check: Check, from: u64, to: u64, flags: u64) -> Result<(), Refused> {
        let flags = if check.optional { flags | u64::from(BPF_F_MARK_MANGLED_0) } else { flags };
        let at = check.at & OFFSET_MASK;
        // SAFETY: the context is live while the program runs; the helper checks the offset.
        done(unsafe { helpers::bpf_l4_csum_replace(self.0, at, from, to, flags) })
    }
}

impl Context for Skb {
    type Raw = __sk_buff;
    /// The stack's.
    type Way = ();
    /// Not OK: that would keep the packet from other programs on the hook.
    const PASS: i32 = TC_ACT_UNSPEC;
    const DROP: i32 = TC_ACT_SHOT;
    const PLAIN: bool = false;

    #[inline(always)]
    fn into_raw(self) -> *mut __sk_buff {
        self.0
    }

    #[inline(always)]
    fn from_raw(raw: *mut __sk_buff) -> Self {
        Self(raw)
    }

    #[inline(always)]
    fn len(self) -> u32 {
        // SAFETY: the context is live while the program runs; the verifier checks the field.
        unsafe { (*self.0).len }
    }

    #[inline(always)]
    fn ifindex(self) -> u32 {
        // SAFETY: as in `len`.
        unsafe { (*self.0).ifindex }
    }

    #[inline(always)]
    fn segments(self) -> u32 {
        // SAFETY: as in `len`.
        let segments = unsafe { (*self.0).gso_segs };
        if segments == 0 { 1 } else { segments }
    }

    /// The linear part.
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

    #[inline(always)]
    fn pull(self, len: u32) -> Result<(), Refused> {
        let all = self.len();
        // SAFETY: the context is live while the program runs.
        done(unsafe { helpers::bpf_skb_pull_data(self.0, if len < all { len } else { all }) })
    }

    #[inline(always)]
    fn sum_address<F: Family>(
        self,
        check: Check,
        from: &F::Addr,
        to: &F::Addr,
    ) -> Result<(), Refused> {
        let (from, to) = (F::words(from), F::words(to));
        if F::NUMBER == 4 {
            let (from, to) = (u32::from_ne_bytes(from[0]), u32::from_ne_bytes(to[0]));
            return self.sum(check, from.into(), to.into(), u64::from(BPF_F_PSEUDO_HDR) | 4);
        }
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
        self.sum(check, 0, difference as u64, u64::from(BPF_F_PSEUDO_HDR) | ipv6_flag)?;
        if ipv6_flag == 0 {
            // Where the device has summed up the whole packet, that helper also takes the
            // difference out of its sum: right for IPv4, whose header checksum changes too,
            // wrong for IPv6, where address and checksum cancel out. Putting it back is
            // refused, without effect, for packets that have no such sum.
            // SAFETY: the context is live while the program runs.
            let _no_such_sum = unsafe { helpers::bpf_csum_update(self.0, difference as u32) };
        }
        Ok(())
    }

    #[inline(always)]
    fn sum_ports(self, check: Check, from: u32, to: u32) -> Result<(), Refused> {
        // Not part of the pseudo-header: a partial checksum does not hold the ports.
        self.sum(check, from.into(), to.into(), 4)
    }

    /// A change of the ports leaves a partial checksum as it is and alters any other.
    #[inline(always)]
    fn checksum_is_partial(self, check: u32) -> Result<bool, Refused> {
        let check = Check { at: check, optional: false };
        let before = self.pair(check.at).ok_or(Refused)?;
        self.sum(check, 0, 1, 2)?;
        let after = self.pair(check.at).ok_or(Refused)?;
        self.sum(check, 1, 0, 2)?;
        Ok(before == after)
    }

    #[inline(always)]
    fn store<T>(self, at: u32, value: &T, summed: bool) -> Result<(), Refused> {
        let value: *const T = value;
        let flags = if summed { BPF_F_RECOMPUTE_CSUM } else { 0 };
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

    #[inline(always)]
    fn grow(self, len: u32) -> Result<(), Refused> {
        // SAFETY: the context is live while the program runs.
        done(unsafe { helpers::bpf_skb_change_head(self.0, len, 0) })
    }

    #[inline(always)]
    fn cut(self, len: u32) -> Result<(), Refused> {
        // SAFETY: the context is live while the program runs.
        done(unsafe { helpers::bpf_skb_change_tail(self.0, len, 0) })
    }

    #[inline(always)]
    fn send_back(self, leaving: bool) -> Result<i32, Refused> {
        let flags = if leaving { u64::from(BPF_F_INGRESS) } else { 0 };
        // SAFETY: the helper takes two numbers.
        redirected(unsafe { helpers::bpf_redirect(self.ifindex(), flags) })
    }

    #[inline(always)]
    fn may_go_straight<F: Family>(self, from: &F::Addr, to: &F::Addr) -> bool {
        straight::may_go::<F>(self, from, to) != 0
    }

    #[inline(always)]
    fn goes_straight<F: Translate>(self, place: &Place) -> bool {
        straight::goes::<F>(self, place) != 0
    }

    #[inline(always)]
    fn way<F: Translate>(
        self,
        packet: &Packet<F>,
        to: &F::Addr,
        forwarding: u8,
        _memory: *mut u32,
    ) -> Result<(), Reason> {
        if forwarding & forwarding::SNAT == 0 {
            return Ok(());
        }
        // The stack can do nothing for it any more once it is translated.
        match F::reach(self, packet, to) {
            Way::Known | Way::Unresolved => Ok(()),
            Way::TooBig => {
                packet.onward.set(forwarding::SNAT);
                Err(Reason::TooBig)
            }
            Way::None => Err(Reason::SnatFailed),
        }
    }

    #[inline(always)]
    fn held<F: Maps, const ASSIGN: bool>(self, packet: &Packet<F>) -> Result<bool, Reason> {
        Ok(proxy::held::<F, ASSIGN>(self, packet))
    }

    #[inline(always)]
    fn listens<F: Maps, const ASSIGN: bool>(self, packet: &Packet<F>) -> Result<bool, Reason> {
        Ok(proxy::listens::<F, ASSIGN>(self, packet))
    }

    #[inline(always)]
    fn leave<F: Translate>(self, _packet: &Packet<F>, (): &()) -> Result<(), Refused> {
        Ok(())
    }
}

/// The verdict of a packet that the kernel was told where to send.
#[inline(always)]
pub(super) fn redirected(verdict: i64) -> Result<i32, Refused> {
    if verdict == i64::from(TC_ACT_REDIRECT) { Ok(TC_ACT_REDIRECT) } else { Err(Refused) }
}
