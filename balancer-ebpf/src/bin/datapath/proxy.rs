//! Connections of the proxy: their packets go to its sockets, untranslated. Nothing is recorded of
//! them, for the kernel's table of sockets knows them.
//!
//! A socket that was looked up is released on every way out of here, which the verifier checks; so
//! none leaves a function.

use core::ffi::c_void;

use aya_ebpf::{bindings::BPF_F_CURRENT_NETNS, helpers::generated as helpers};
use balancer_ebpf::{abi, hash};

use crate::{
    context::{Context as _, Skb},
    maps::{self, Maps},
    parse::Packet,
};

/// `TCP_LISTEN` (net/tcp_states.h), as `bpf_sock::state` says it.
const TCP_LISTEN: u32 = 10;

/// Whether a socket has the packet's connection; with `ASSIGN`, it gets the packet: by the mark, as
/// the stack finds the socket again and with it the route that it remembers, which a packet that
/// has its socket already is looked up for each time (`ip_rcv_finish_core`, net/ipv4/ip_input.c).
///
/// What listens has no connection, and may be anybody's. A socket in TIME_WAIT gets a SYN too: with
/// its answer the client ends it and tries again, while a listener could not put a connection of
/// the same addresses and ports beside it.
#[inline(never)]
pub(crate) fn held<F: Maps, const ASSIGN: bool>(skb: Skb, packet: &Packet<F>) -> bool {
    let tuple = (&raw const packet.key).cast_mut().cast();
    let len = 2 * size_of::<F::Addr>() as u32 + 4;
    let netns = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: the context is live; a key begins with the tuple, in the order of `bpf_sock_tuple`.
    let socket =
        unsafe { helpers::bpf_skc_lookup_tcp(skb.into_raw().cast(), tuple, len, netns, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: a socket that is not released yet.
    let held = unsafe { (*socket).state } != TCP_LISTEN;
    if held && ASSIGN {
        skb.add_mark(maps::mark_handed());
    }
    release(socket.cast());
    held
}

/// Whether the proxy listens for the packet; with `ASSIGN`, it gets the packet. All packets of a
/// handshake find the same listener: it may have answered with a SYN cookie.
#[inline(never)]
pub(crate) fn listens<F: Maps, const ASSIGN: bool>(skb: Skb, packet: &Packet<F>) -> bool {
    let client = F::src(&packet.key);
    let words = F::words(&client.addr);
    let shard = hash::slot(hash::client(words[words.len() - 1], client.port), maps::shards());
    let socket = maps::listener(abi::listener(shard, F::NUMBER == 6));
    if socket.is_null() {
        return false;
    }
    let mut taken = true;
    if ASSIGN {
        // Refused: the socket was closed a moment ago, or is in another network namespace.
        // SAFETY: the context is live, the socket not released yet.
        taken = unsafe { helpers::bpf_sk_assign(skb.into_raw().cast(), socket, 0) } == 0;
        if taken {
            skb.add_mark(maps::mark_handed());
        }
    }
    release(socket);
    taken
}

/// Releases a socket that was looked up and is not used any more.
#[inline(always)]
fn release(socket: *mut c_void) {
    // SAFETY: it was looked up, and each caller releases it once.
    let _nothing = unsafe { helpers::bpf_sk_release(socket) };
}
