//! The kernel's routes and neighbours, as programs ask them (`bpf_fib_lookup`).

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS},
    helpers::generated as helpers,
};
use balancer_ebpf::flow::Family;

use crate::cleared::cleared;

/// `struct bpf_fib_lookup` (include/uapi/linux/bpf.h), its unions as they are used here.
#[repr(C)]
pub(crate) struct Fib {
    /// Linux's number of it (linux/socket.h). Answered with that of the next hop.
    pub(crate) family: u8,
    pub(crate) protocol: u8,
    pub(crate) ports: [u16; 2],
    /// Asked with the length of the IP packet, or 0; answered with the route's MTU, if there was one.
    pub(crate) total_len: u16,
    /// Asked with the interface that the packet came in by; answered with that to leave by.
    pub(crate) interface: u32,
    /// IPv4: the type of service in the first byte; IPv6: the flow information.
    pub(crate) class: u32,
    pub(crate) src: [u32; 4],
    /// Asked with the destination; answered with the next hop.
    pub(crate) dst: [u32; 4],
    vlan: u32,
    /// Answered with the Ethernet address of the interface, then that of the next hop.
    addresses: [u16; 6],
}

const _: () = assert!(size_of::<Fib>() == 64);

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What the kernel's routes say.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Way {
    /// No way that a program could take.
    None,
    /// There is one, and the packet is longer than what fits.
    TooBig,
    /// The next hop's Ethernet address is not known yet: sending to it asks for that.
    Unresolved,
    /// All of it.
    Known,
}

impl Way {
    /// Whether a packet can go there, sooner or later.
    #[inline(always)]
    pub(crate) fn leads_on(self) -> bool {
        matches!(self, Self::Unresolved | Self::Known)
    }
}

impl Fib {
    /// A question about packets that came in by `interface`.
    #[inline(always)]
    pub(crate) fn of<F: Family>(room: &mut MaybeUninit<Self>, interface: u32) -> &mut Self {
        // SAFETY: all fields are numbers, for which 0 is a value.
        let fib = unsafe { cleared(room) };
        fib.family = family::<F>();
        fib.interface = interface;
        fib
    }

    /// Where the packets are from.
    #[inline(always)]
    pub(crate) fn from<F: Family>(&mut self, addr: &F::Addr) {
        write::<F>(&mut self.src, addr);
    }

    /// Where they are to go.
    #[inline(always)]
    pub(crate) fn to<F: Family>(&mut self, addr: &F::Addr) {
        write::<F>(&mut self.dst, addr);
    }

    /// Asks the kernel. `ctx`: what it handed to the program.
    #[inline(always)]
    pub(crate) fn ask<T>(&mut self, ctx: *mut T) -> Way {
        let fib: *mut Self = self;
        // SAFETY: the context is live, and `fib` is laid out as the helper expects and as long.
        let answer = unsafe {
            helpers::bpf_fib_lookup(ctx.cast::<c_void>(), fib.cast(), size_of::<Self>() as i32, 0)
        };
        match answer as u32 {
            BPF_FIB_LKUP_RET_SUCCESS => Way::Known,
            BPF_FIB_LKUP_RET_NO_NEIGH => Way::Unresolved,
            BPF_FIB_LKUP_RET_FRAG_NEEDED => Way::TooBig,
            _ => Way::None,
        }
    }

    /// Whether the next hop is this address.
    #[inline(always)]
    pub(crate) fn next_is<F: Family>(&self, addr: &F::Addr) -> bool {
        let words = F::words(addr);
        let (mut differ, mut i) = (u32::from(self.family ^ family::<F>()), 0);
        while i < words.len() && i < 4 {
            differ |= self.dst[i] ^ u32::from_ne_bytes(words[i]);
            i += 1;
        }
        differ == 0
    }

    /// The Ethernet addresses of the next hop and of the interface, as they lie in a frame.
    #[inline(always)]
    pub(crate) fn frame(&self) -> [u32; 3] {
        let [a, b, c, d, e, f] = self.addresses;
        let pair = |a: u16, b: u16| u32::from(a) | u32::from(b) << 16;
        [pair(d, e), pair(f, a), pair(b, c)]
    }
}

#[inline(always)]
fn family<F: Family>() -> u8 {
    if F::NUMBER == 4 { AF_INET } else { AF_INET6 }
}

/// Writes an address; what is left of `to` stays.
#[inline(always)]
fn write<F: Family>(to: &mut [u32; 4], addr: &F::Addr) {
    let from = F::words(addr);
    let mut i = 0;
    while i < from.len() && i < 4 {
        to[i] = u32::from_ne_bytes(from[i]);
        i += 1;
    }
}
