//! The driver of `cargo xtask bench packet`: an object of its own, never part of a release.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on one packet and does not restore it in between, so a
//! program that translates would see its own output from the second round on. Each program here
//! restores what the datapath changes, steps to the next flow, and goes on (a tail call) with
//! what is to be measured. The same with a program that does nothing is what must be subtracted.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod step;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    btf_maps::{Array, ProgramArray},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use step::Step;

#[btf_map]
static STEP: Array<Step, 1> = Array::new();
#[btf_map]
static TARGETS: ProgramArray<4> = ProgramArray::new();
/// The same for XDP: an array takes programs of one kind.
#[btf_map]
static XDP_TARGETS: ProgramArray<4> = ProgramArray::new();

/// Offset of the IP header.
const IP: usize = 14;
/// No program returns this: the packet did not get to the target.
const LOST: i32 = 0x7fff;

/// What is measured when nothing is.
#[classifier]
fn nothing(_ctx: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// The same, XDP. With frames in several buffers, or it could not go on with a program that takes
/// them.
#[xdp(frags)]
fn nothing_xdp(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[classifier]
fn from_clients4(ctx: TcContext) -> i32 {
    next::<1, true>(&ctx)
}

#[classifier]
fn from_clients6(ctx: TcContext) -> i32 {
    next::<4, true>(&ctx)
}

#[classifier]
fn to_clients4(ctx: TcContext) -> i32 {
    next::<1, false>(&ctx)
}

#[classifier]
fn to_clients6(ctx: TcContext) -> i32 {
    next::<4, false>(&ctx)
}

#[xdp(frags)]
fn from_clients4_xdp(ctx: XdpContext) -> u32 {
    next_frame::<1, true>(&ctx)
}

#[xdp(frags)]
fn from_clients6_xdp(ctx: XdpContext) -> u32 {
    next_frame::<4, true>(&ctx)
}

#[xdp(frags)]
fn to_clients4_xdp(ctx: XdpContext) -> u32 {
    next_frame::<1, false>(&ctx)
}

#[xdp(frags)]
fn to_clients6_xdp(ctx: XdpContext) -> u32 {
    next_frame::<4, false>(&ctx)
}

#[inline(always)]
fn next<const WORDS: usize, const FROM: bool>(ctx: &TcContext) -> i32 {
    if let Some(target) = restored::<WORDS, FROM, false>(ctx.data(), ctx.data_end()) {
        // SAFETY: nothing here needs to be dropped.
        unsafe { TARGETS.tail_call(ctx, target) };
    }
    LOST
}

#[inline(always)]
fn next_frame<const WORDS: usize, const FROM: bool>(ctx: &XdpContext) -> u32 {
    if let Some(target) = restored::<WORDS, FROM, true>(ctx.data(), ctx.data_end()) {
        // SAFETY: as above.
        unsafe { XDP_TARGETS.tail_call(ctx, target) };
    }
    LOST as u32
}

/// Restores what the datapath changes, for the next flow; what to go on with. `WORDS`: words of
/// an address. `FROM`: the packet comes from the client. `ROUTED`: it was routed, too.
#[inline(always)]
fn restored<const WORDS: usize, const FROM: bool, const ROUTED: bool>(
    start: usize,
    end: usize,
) -> Option<u32> {
    let step = STEP.get_ptr_mut(0)?;
    // SAFETY: a live array element, which nobody else touches while the bench runs.
    let step = unsafe { &mut *step };
    let flow = step.next;
    step.next = flow.wrapping_mul(step.multiplier).wrapping_add(step.increment) & step.mask;

    let (addresses, header) = if WORDS == 1 { (IP + 12, 20) } else { (IP + 8, 40) };
    let tcp = IP + header;
    if start + tcp + 20 > end {
        return None;
    }
    let (client, fixed) = if FROM { (0, WORDS * 4) } else { (WORDS * 4, 0) };
    let (client, fixed) = (start + addresses + client, start + addresses + fixed);
    let mut word = 0;
    while word < WORDS {
        let last = word == WORDS - 1;
        let host = u32::from_be(step.client_addr[word]);
        let host = if last { host.wrapping_add(step::address_offset(flow)) } else { host };
        // SAFETY: inside the bytes just checked. BPF allows unaligned stores wherever the
        // verifier does.
        unsafe {
            ((client + word * 4) as *mut u32).write_volatile(host.to_be());
            ((fixed + word * 4) as *mut u32).write_volatile(step.fixed_addr[word]);
        }
        word += 1;
    }
    let (client_port, fixed_port) = (step::port(flow).to_be(), (step.fixed_port as u16).to_be());
    let ports = if FROM { [client_port, fixed_port] } else { [fixed_port, client_port] };
    // SAFETY: as above.
    unsafe {
        ((start + tcp) as *mut u16).write_volatile(ports[0]);
        ((start + tcp + 2) as *mut u16).write_volatile(ports[1]);
        ((start + tcp + 16) as *mut u16).write_volatile(step.tcp_check as u16);
        if WORDS == 1 {
            ((start + IP + 10) as *mut u16).write_volatile(step.ip_check as u16);
        }
    }
    if ROUTED {
        // Time to live, or hop limit.
        let at = if WORDS == 1 { IP + 8 } else { IP + 7 };
        // SAFETY: as above.
        unsafe { ((start + at) as *mut u8).write_volatile(64) };
    }
    Some(step.target)
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// As the object it measures.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
