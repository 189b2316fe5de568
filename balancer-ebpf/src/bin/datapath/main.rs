//! The eBPF object. On the host this is an empty program, so that lints and tests see the code.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", allow(unstable_features, reason = "inline assembly for BPF"))]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod maps;

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use balancer_ebpf::abi::PortUse;

#[classifier]
fn balancer_in(ctx: TcContext) -> i32 {
    let _ = maps::port_used([0, ctx.len() as u8], PortUse::Vip);
    TC_ACT_UNSPEC
}
#[classifier]
fn balancer_out(ctx: TcContext) -> i32 {
    let _ = maps::port_used([0, ctx.len() as u8], PortUse::Real);
    TC_ACT_UNSPEC
}
#[classifier]
fn balancer_ask(ctx: TcContext) -> i32 {
    let _ = maps::port_used([0, ctx.len() as u8], PortUse::Vip);
    TC_ACT_UNSPEC
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers (redirect among them) are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
