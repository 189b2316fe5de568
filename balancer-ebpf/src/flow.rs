//! Flow keys and values of both address families under one name, so that the walk of a packet
//! is written once.

use crate::{
    abi::{
        Flow4, Flow6, FlowKey4, FlowKey6, FlowState, UDP, VipKey4, VipKey6, direction, flow_state,
        forwarding,
    },
    hash, tcp_state,
};

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End<A> {
    /// Address, network order.
    pub addr: A,
    /// Port, network order.
    pub port: [u8; 2],
}

/// An address family.
pub trait Family: Sized {
    /// As in [`Real::family`](crate::abi::Real::family).
    const NUMBER: u8;
    /// An address, network order.
    type Addr: Copy;
    /// All zeros: no address of a host.
    const NO_ADDRESS: Self::Addr;
    /// Key of the flow maps.
    type Key: Copy;
    /// Value of the flow maps.
    type Flow: Copy;
    /// Key of the VIP dictionary.
    type VipKey;

    /// A key from what a packet, or its answer, has in its headers. `proto`: IP protocol number.
    fn key(proto: u8, src: End<Self::Addr>, dst: End<Self::Addr>, direction: u8) -> Self::Key;
    /// The key's IP protocol number.
    fn proto(key: &Self::Key) -> u8;
    /// The key's source.
    fn src(key: &Self::Key) -> End<Self::Addr>;
    /// The key's destination.
    fn dst(key: &Self::Key) -> End<Self::Addr>;
    /// The key's direction.
    fn direction(key: &Self::Key) -> u8;
    /// The key under which the packets of `real` come, of the connection with the key `forward`.
    /// `client` and `client_port`: the client's, as the real sees it.
    fn reply_key(
        real: End<Self::Addr>,
        forward: &Self::Key,
        client: &Self::Addr,
        client_port: [u8; 2],
    ) -> Self::Key;
    /// The key's addresses, source first, where they lie.
    fn addresses(key: &Self::Key) -> (&Self::Addr, &Self::Addr);
    /// Turns the key into one of the other direction, ends unchanged.
    fn set_direction(key: &mut Self::Key, direction: u8);
    /// Makes a value of zeros that of the connection with the key `forward`.
    fn fill(flow: &mut Self::Flow, state: FlowState, forward: &Self::Key);
    /// What does not depend on the family.
    fn state(flow: &Self::Flow) -> FlowState;
    /// Changes what the flow remembers of its next hop, see [`hop_of`](crate::abi::hop_of).
    fn set_hop(flow: &mut Self::Flow, hop: u32);
    /// What is translated to or from the client's address in flows with
    /// [`forwarding::SNAT`](crate::abi::forwarding::SNAT), where it lies.
    fn client(flow: &Self::Flow) -> &Self::Addr;
    /// Writes that address.
    fn set_client(flow: &mut Self::Flow, addr: &Self::Addr);
    /// Writes [`FlowState::client_port`].
    fn set_client_port(flow: &mut Self::Flow, port: [u8; 2]);
    /// The VIP that the client dialled.
    fn vip(flow: &Self::Flow) -> End<Self::Addr>;
    /// What the VIP dictionary is asked.
    fn vip_key(proto: u8, vip: End<Self::Addr>) -> Self::VipKey;
    /// The address in [`Real::addr`](crate::abi::Real::addr).
    fn real_addr(addr: &[u8; 16]) -> Self::Addr;
    /// The reverse of [`Self::real_addr`].
    fn wide(addr: &Self::Addr) -> [u8; 16];
    /// Whether no host can have sent a packet with this source address (RFC 1122, 3.2.1.3;
    /// RFC 4291, 2.5 and 2.7): unspecified, loopback, multicast, broadcast, or IPv4 inside IPv6.
    fn is_martian(addr: &Self::Addr) -> bool;
    /// The words of an address as they lie in memory.
    fn words(addr: &Self::Addr) -> &[[u8; 4]];
    /// Writes an address, from its words as they lie in memory.
    fn set_words(addr: &mut Self::Addr, words: &[u32; 4]);
    /// The flow hash.
    fn hash(key: &Self::Key, source_only: bool) -> u32;

    /// Whether two ends are one (word by word: an array comparison would be a call).
    #[inline(always)]
    fn same(a: &End<Self::Addr>, b: &End<Self::Addr>) -> bool {
        let (x, y) = (Self::words(&a.addr), Self::words(&b.addr));
        let mut differ = u32::from(u16::from_ne_bytes(a.port) ^ u16::from_ne_bytes(b.port));
        let mut i = 0;
        while i < x.len() {
            differ |= u32::from_ne_bytes(x[i]) ^ u32::from_ne_bytes(y[i]);
            i += 1;
        }
        differ == 0
    }
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;
/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

macro_rules! family {
    ($family:ident, $number:literal, $len:literal, $key:ident, $flow:ident, $vip_key:ident,
     $hash:path, $martian:path) => {
        impl Family for $family {
            const NUMBER: u8 = $number;
            type Addr = [u8; $len];
            const NO_ADDRESS: [u8; $len] = [0; $len];
            type Key = $key;
            type Flow = $flow;
            type VipKey = $vip_key;

            #[inline(always)]
            fn key(proto: u8, src: End<Self::Addr>, dst: End<Self::Addr>, direction: u8) -> $key {
                $key {
                    src: src.addr,
                    dst: dst.addr,
                    sport: src.port,
                    dport: dst.port,
                    proto,
                    direction,
                    zero: [0; 2],
                }
            }
            #[inline(always)]
            fn proto(key: &$key) -> u8 {
                key.proto
            }
            #[inline(always)]
            fn src(key: &$key) -> End<Self::Addr> {
                End { addr: key.src, port: key.sport }
            }
            #[inline(always)]
            fn dst(key: &$key) -> End<Self::Addr> {
                End { addr: key.dst, port: key.dport }
            }
            #[inline(always)]
            fn direction(key: &$key) -> u8 {
                key.direction
            }
            #[inline(always)]
            fn addresses(key: &$key) -> (&Self::Addr, &Self::Addr) {
                (&key.src, &key.dst)
            }
            #[inline(always)]
            fn reply_key(
                real: End<Self::Addr>,
                forward: &$key,
                client: &Self::Addr,
                client_port: [u8; 2],
            ) -> $key {
                // The address is copied once, from where it lies: the programs' stack is short.
                $key {
                    src: real.addr,
                    dst: *client,
                    sport: real.port,
                    dport: client_port,
                    proto: forward.proto,
                    direction: direction::REPLY,
                    zero: [0; 2],
                }
            }
            #[inline(always)]
            fn set_direction(key: &mut $key, direction: u8) {
                key.direction = direction;
            }
            #[inline(always)]
            fn fill(flow: &mut $flow, state: FlowState, forward: &$key) {
                flow.flow = state;
                copy(&mut flow.vip, &forward.dst);
                flow.vip_port = forward.dport;
            }
            #[inline(always)]
            fn state(flow: &$flow) -> FlowState {
                flow.flow
            }
            #[inline(always)]
            fn set_hop(flow: &mut $flow, hop: u32) {
                flow.hop = hop;
            }
            #[inline(always)]
            fn client(flow: &$flow) -> &Self::Addr {
                &flow.client
            }
            #[inline(always)]
            fn set_words(addr: &mut Self::Addr, words: &[u32; 4]) {
                let mut i = 0;
                while i < $len / 4 {
                    addr.as_chunks_mut::<4>().0[i] = words[i].to_ne_bytes();
                    i += 1;
                }
            }
            #[inline(always)]
            fn set_client(flow: &mut $flow, addr: &Self::Addr) {
                copy(&mut flow.client, addr);
            }
            #[inline(always)]
            fn set_client_port(flow: &mut $flow, port: [u8; 2]) {
                flow.flow.client_port = port;
            }
            #[inline(always)]
            fn vip(flow: &$flow) -> End<Self::Addr> {
                End { addr: flow.vip, port: flow.vip_port }
            }
            #[inline(always)]
            fn vip_key(proto: u8, vip: End<Self::Addr>) -> $vip_key {
                $vip_key { addr: vip.addr, port: vip.port, proto, zero: 0 }
            }
            #[inline(always)]
            fn real_addr(addr: &[u8; 16]) -> Self::Addr {
                let mut own = [0; $len];
                own.copy_from_slice(&addr[..$len]);
                own
            }
            #[inline(always)]
            fn wide(addr: &Self::Addr) -> [u8; 16] {
                let mut wide = [0; 16];
                wide[..$len].copy_from_slice(addr);
                wide
            }
            #[inline(always)]
            fn is_martian(addr: &Self::Addr) -> bool {
                $martian(addr)
            }
            #[inline(always)]
            fn words(addr: &Self::Addr) -> &[[u8; 4]] {
                addr.as_chunks::<4>().0
            }
            #[inline(always)]
            fn hash(key: &$key, source_only: bool) -> u32 {
                $hash(key, source_only)
            }
        }
    };
}

family!(V4, 4, 4, FlowKey4, Flow4, VipKey4, hash::flow4, martian4);
family!(V6, 6, 16, FlowKey6, Flow6, VipKey6, hash::flow6, martian6);

/// Copies an address word by word: as a whole it would be a call, which goes byte by byte.
#[inline(always)]
fn copy<const N: usize>(to: &mut [u8; N], from: &[u8; N]) {
    let (to, from) = (to.as_chunks_mut::<4>().0, from.as_chunks::<4>().0);
    let mut i = 0;
    while i < from.len() {
        to[i] = u32::from_ne_bytes(from[i]).to_ne_bytes();
        i += 1;
    }
}

#[inline(always)]
fn martian4(addr: &[u8; 4]) -> bool {
    let first = addr[0];
    first == 0 || first == 127 || first & 0xf0 == 224 || u32::from_ne_bytes(*addr) == u32::MAX
}

#[inline(always)]
fn martian6(addr: &[u8; 16]) -> bool {
    let words = addr.as_chunks::<4>().0;
    let [a, b, c, d] = [
        u32::from_be_bytes(words[0]),
        u32::from_be_bytes(words[1]),
        u32::from_be_bytes(words[2]),
        u32::from_be_bytes(words[3]),
    ];
    addr[0] == 0xff || (a | b == 0 && (c == 0xffff || (c == 0 && d <= 1)))
}

/// Seconds for which a closed connection, a handshake that got no further, or a silent flow of UDP
/// still owns its tuple at the real.
pub const TUPLE_HELD_S: u32 = 60;

/// To whom a reply entry that is already there belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// To the very connection that asks.
    Same,
    /// To another connection, which still needs it.
    Other,
    /// To another connection, over for [`TUPLE_HELD_S`].
    Nobody,
}

/// Tells to whom the reply entry `found` belongs, asked by the connection with the forward key
/// `forward`. `now` and `hz`: jiffies and jiffies a second.
#[inline(always)]
pub fn owner<F: Family>(found: &F::Flow, forward: &F::Key, now: u32, hz: u32) -> Owner {
    let state = F::state(found);
    let own = F::src(forward);
    let same_port = u16::from_ne_bytes(state.client_port) == u16::from_ne_bytes(own.port);
    // The key says whose the flow is, unless the real sees another address.
    let same_client = state.forwarding & forwarding::SNAT == 0
        || F::same(&End { addr: *F::client(found), ..own }, &own);
    if same_port && same_client && F::same(&F::vip(found), &F::dst(forward)) {
        return Owner::Same;
    }
    let over = tcp_state::closed(state.state)
        || state.state & flow_state::ESTABLISHED == 0
        || F::proto(forward) == UDP;
    if over && now.wrapping_sub(state.last_seen) >= TUPLE_HELD_S * hz {
        Owner::Nobody
    } else {
        Owner::Other
    }
}

/// The forward key of the connection that owns a reply entry. `client`: its client's address, as far
/// as packets say; of a flow with [`forwarding::SNAT`] the entry knows it.
#[inline(always)]
pub fn forward_key<F: Family>(proto: u8, client: F::Addr, reply: &F::Flow) -> F::Key {
    let FlowState { client_port: port, forwarding, .. } = F::state(reply);
    let client = if forwarding & forwarding::SNAT == 0 { client } else { *F::client(reply) };
    F::key(proto, End { addr: client, port }, F::vip(reply), direction::FORWARD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::TCP;

    const CLIENT: End<[u8; 4]> = End { addr: [10, 0, 0, 1], port: [0x9c, 0x40] };
    const VIP: End<[u8; 4]> = End { addr: [240, 0, 0, 1], port: [0, 80] };
    const HZ: u32 = 100;

    fn reply(vip: End<[u8; 4]>, client_port: [u8; 2], state: u8, last_seen: u32) -> Flow4 {
        let flow = FlowState { state, last_seen, client_port, ..Default::default() };
        Flow4 { flow, vip: vip.addr, vip_port: vip.port, ..Default::default() }
    }

    fn ask(found: &Flow4, now: u32) -> Owner {
        owner::<V4>(found, &V4::key(TCP, CLIENT, VIP, direction::FORWARD), now, HZ)
    }

    #[test]
    fn own_entry_is_known_by_vip_and_client_port() {
        assert_eq!(ask(&reply(VIP, CLIENT.port, flow_state::ESTABLISHED, 0), 9), Owner::Same);
        let other_port = End { port: [0, 81], ..VIP };
        assert_eq!(
            ask(&reply(other_port, CLIENT.port, flow_state::ESTABLISHED, 0), 9),
            Owner::Other
        );
        let other_addr = End { addr: [240, 0, 0, 2], ..VIP };
        assert_eq!(
            ask(&reply(other_addr, CLIENT.port, flow_state::ESTABLISHED, 0), 9),
            Owner::Other
        );
        assert_eq!(ask(&reply(VIP, [1, 1], flow_state::ESTABLISHED, 0), 9), Owner::Other);
    }

    #[test]
    fn a_tuple_is_held_for_a_minute_after_the_end_and_for_ever_while_live() {
        let vip = End { port: [0, 81], ..VIP };
        let start = u32::MAX - 50; // jiffies wrap
        let minute = start.wrapping_add(60 * HZ);
        let live = reply(vip, CLIENT.port, flow_state::ESTABLISHED, start);
        assert_eq!(ask(&live, minute.wrapping_add(1 << 30)), Owner::Other);
        for state in [flow_state::ESTABLISHED | flow_state::RESET, 0, flow_state::SYN_ACK] {
            let over = reply(vip, CLIENT.port, state, start);
            assert_eq!(ask(&over, minute.wrapping_sub(1)), Owner::Other);
            assert_eq!(ask(&over, minute), Owner::Nobody);
        }
    }

    #[test]
    fn silent_flow_of_udp_gives_its_tuple_back() {
        let vip = End { port: [0, 81], ..VIP };
        let found = reply(vip, CLIENT.port, flow_state::ESTABLISHED, 0);
        let asked = V4::key(UDP, CLIENT, VIP, direction::FORWARD);
        assert_eq!(owner::<V4>(&found, &asked, 60 * HZ - 1, HZ), Owner::Other);
        assert_eq!(owner::<V4>(&found, &asked, 60 * HZ, HZ), Owner::Nobody);
    }

    #[test]
    fn addresses_that_nobody_sends_from_are_those_of_the_standard_library() {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let v4 = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "224.0.0.1", "239.255.255.255"];
        let v4_fine = ["1.0.0.1", "10.0.0.1", "126.1.1.1", "128.0.0.1", "223.1.1.1", "240.0.0.1"];
        for (list, expected) in [(&v4[..], true), (&["255.255.255.255"], true), (&v4_fine, false)] {
            for text in list {
                let addr: Ipv4Addr = text.parse().expect("an address");
                let known = addr.is_loopback() || addr.is_multicast() || addr.is_broadcast();
                assert_eq!(known || addr.octets()[0] == 0, expected, "{addr}");
                assert_eq!(V4::is_martian(&addr.octets()), expected, "{addr}");
            }
        }
        let v6 = ["::", "::1", "ff02::1", "::ffff:10.0.0.1"];
        let v6_fine = ["::2", "fd00::1", "fe80::1", "2001:db8::1", "64:ff9b::1"];
        for (list, expected) in [(&v6[..], true), (&v6_fine, false)] {
            for text in list {
                let addr: Ipv6Addr = text.parse().expect("an address");
                let known = addr.is_unspecified() || addr.is_loopback() || addr.is_multicast();
                assert_eq!(known || addr.to_ipv4_mapped().is_some(), expected, "{addr}");
                assert_eq!(V6::is_martian(&addr.octets()), expected, "{addr}");
            }
        }
    }

    #[test]
    fn an_address_keeps_its_bytes_among_sixteen() {
        assert_eq!(V4::real_addr(&V4::wide(&[1, 2, 3, 4])), [1, 2, 3, 4]);
        assert_eq!(V4::wide(&[1, 2, 3, 4])[4..], [0; 12]);
        assert_eq!(V6::wide(&[7; 16]), [7; 16]);
    }

    #[test]
    fn tuple_of_the_nodes_is_that_of_one_client() {
        let mut found = reply(VIP, CLIENT.port, flow_state::ESTABLISHED, 0);
        found.flow.forwarding = forwarding::SNAT;
        found.client = CLIENT.addr;
        assert_eq!(ask(&found, 9), Owner::Same);
        found.client = [10, 0, 0, 2];
        assert_eq!(ask(&found, 9), Owner::Other);
        let node = [192, 0, 2, 1];
        let other = End { addr: [10, 0, 0, 2], ..CLIENT };
        assert_eq!(
            forward_key::<V4>(TCP, node, &found),
            V4::key(TCP, other, VIP, direction::FORWARD)
        );
    }

    #[test]
    fn forward_key_comes_back_from_the_reply_entry() {
        let found = reply(VIP, CLIENT.port, 0, 0);
        assert_eq!(
            forward_key::<V4>(TCP, CLIENT.addr, &found),
            V4::key(TCP, CLIENT, VIP, direction::FORWARD)
        );
    }
}
