//! The flow maps as a test sees and changes them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use balancer_ebpf::abi::{
    Flow4, Flow6, FlowKey4, FlowKey6, FlowState, TCP, UDP, direction, map_names,
};
use balancer_user::resolve::VipKey;

use super::{HZ, World, array, value};

/// Which flow map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flows {
    Open,
    HalfOpen,
}

/// A flow entry: what does not depend on the family, and the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FlowFound {
    pub(crate) state: FlowState,
    pub(crate) vip: SocketAddr,
    pub(crate) client: IpAddr,
    pub(crate) hop: u32,
}

impl World {
    /// An entry of a flow map.
    pub(crate) fn flow(
        &mut self,
        flows: Flows,
        src: &str,
        dst: &str,
        way: u8,
    ) -> Option<FlowFound> {
        let (src, dst, proto) = ends(src, dst);
        match (src.ip(), dst.ip()) {
            (IpAddr::V4(_), _) => {
                let map = self.hash::<[u8; 16], [u8; size_of::<Flow4>()]>(name(flows, false));
                let flow: Flow4 =
                    value(&map.get(&array(&FlowKey4 { proto, ..key4(src, dst, way) }), 0).ok()?);
                let vip = SocketAddr::new(flow.vip.into(), u16::from_be_bytes(flow.vip_port));
                let client = flow.client.into();
                Some(FlowFound { state: flow.flow, vip, client, hop: flow.hop })
            }
            (IpAddr::V6(_), _) => {
                let map = self.hash::<[u8; 40], [u8; size_of::<Flow6>()]>(name(flows, true));
                let flow: Flow6 =
                    value(&map.get(&array(&FlowKey6 { proto, ..key6(src, dst, way) }), 0).ok()?);
                let vip = SocketAddr::new(flow.vip.into(), u16::from_be_bytes(flow.vip_port));
                let client = flow.client.into();
                Some(FlowFound { state: flow.flow, vip, client, hop: flow.hop })
            }
        }
    }

    /// Writes an entry of a flow map.
    pub(crate) fn put_flow(
        &mut self,
        flows: Flows,
        src: &str,
        dst: &str,
        way: u8,
        found: &FlowFound,
    ) {
        let (src, dst, proto) = ends(src, dst);
        let (flow, vip_port) = (found.state, found.vip.port().to_be_bytes());
        let hop = found.hop;
        match (found.vip.ip(), found.client) {
            (IpAddr::V4(vip), IpAddr::V4(client)) => {
                let (vip, client) = (vip.octets(), client.octets());
                let flow = Flow4 { flow, vip, vip_port, zero: [0; 2], client, hop };
                self.hash::<[u8; 16], [u8; size_of::<Flow4>()]>(name(flows, false)).insert(
                    array(&FlowKey4 { proto, ..key4(src, dst, way) }),
                    array(&flow),
                    0,
                )
            }
            (IpAddr::V6(vip), IpAddr::V6(client)) => {
                let (vip, client) = (vip.octets(), client.octets());
                let flow = Flow6 { flow, vip, vip_port, zero: [0; 2], client, hop };
                self.hash::<[u8; 40], [u8; size_of::<Flow6>()]>(name(flows, true)).insert(
                    array(&FlowKey6 { proto, ..key6(src, dst, way) }),
                    array(&flow),
                    0,
                )
            }
            (vip, client) => panic!("{vip} and {client} are of two families"),
        }
        .expect("a flow");
    }

    /// Changes an entry that is there.
    #[track_caller]
    pub(crate) fn change_flow(
        &mut self,
        flows: Flows,
        ends: (&str, &str, u8),
        change: impl FnOnce(&mut FlowState),
    ) {
        let (src, dst, way) = ends;
        let mut found = self.flow(flows, src, dst, way).expect("the flow is there");
        change(&mut found.state);
        self.put_flow(flows, src, dst, way, &found);
    }

    /// How many flows there are in all four maps.
    pub(crate) fn flows(&mut self) -> usize {
        let mut flows = 0;
        for name in [map_names::FLOWS4, map_names::HALF_OPEN4] {
            flows += self.hash::<[u8; 16], [u8; size_of::<Flow4>()]>(name).keys().count();
        }
        for name in [map_names::FLOWS6, map_names::HALF_OPEN6] {
            flows += self.hash::<[u8; 40], [u8; size_of::<Flow6>()]>(name).keys().count();
        }
        flows
    }
}

/// The ends of a flow and its protocol: of UDP with `/udp` after the destination.
fn ends(src: &str, dst: &str) -> (SocketAddr, SocketAddr, u8) {
    let dst: VipKey = dst.parse().expect("an address and a port");
    (src.parse().expect("an address and a port"), dst.addr, dst.protocol.number())
}

fn name(flows: Flows, v6: bool) -> &'static str {
    match (flows, v6) {
        (Flows::Open, false) => map_names::FLOWS4,
        (Flows::Open, true) => map_names::FLOWS6,
        (Flows::HalfOpen, false) => map_names::HALF_OPEN4,
        (Flows::HalfOpen, true) => map_names::HALF_OPEN6,
    }
}

pub(crate) fn key4(src: SocketAddr, dst: SocketAddr, way: u8) -> FlowKey4 {
    let octets = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(ip) => panic!("{ip} is not IPv4"),
    };
    FlowKey4 {
        src: octets(src),
        dst: octets(dst),
        sport: src.port().to_be_bytes(),
        dport: dst.port().to_be_bytes(),
        proto: TCP,
        direction: way,
        zero: [0; 2],
    }
}

pub(crate) fn key6(src: SocketAddr, dst: SocketAddr, way: u8) -> FlowKey6 {
    let octets = |end: SocketAddr| match end.ip() {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) => panic!("{ip} is not IPv6"),
    };
    FlowKey6 {
        src: octets(src),
        dst: octets(dst),
        sport: src.port().to_be_bytes(),
        dport: dst.port().to_be_bytes(),
        proto: TCP,
        direction: way,
        zero: [0; 2],
    }
}

/// A client port that no other call has given.
pub(crate) fn fresh_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(20_000);
    (20_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 40_000) as u16
}

pub(crate) const FORWARD: u8 = direction::FORWARD;
pub(crate) const REPLY: u8 = direction::REPLY;

impl World {
    /// Takes an entry out of a flow map, as an eviction would.
    pub(crate) fn remove_flow(&mut self, flows: Flows, src: &str, dst: &str, way: u8) {
        let (src, dst, proto) = ends(src, dst);
        if src.is_ipv4() {
            let key = FlowKey4 { proto, ..key4(src, dst, way) };
            self.hash::<[u8; 16], [u8; size_of::<Flow4>()]>(name(flows, false)).remove(&array(&key))
        } else {
            let key = FlowKey6 { proto, ..key6(src, dst, way) };
            self.hash::<[u8; 40], [u8; size_of::<Flow6>()]>(name(flows, true)).remove(&array(&key))
        }
        .expect("the flow was there");
    }
}

impl World {
    /// Makes all flows of UDP look older.
    pub(crate) fn age_datagrams(&mut self, seconds: u32) {
        let older = |state: &mut FlowState| {
            state.last_seen = state.last_seen.wrapping_sub(seconds * HZ);
            state.refreshed = state.refreshed.wrapping_sub(seconds * HZ);
        };
        for name in [map_names::FLOWS4, map_names::HALF_OPEN4] {
            let mut map = self.hash::<[u8; 16], [u8; size_of::<Flow4>()]>(name);
            let flows: Vec<_> = map.iter().collect::<Result<_, _>>().expect("flows");
            for (key, bytes) in flows {
                let mut flow: Flow4 = value(&bytes);
                if value::<FlowKey4>(&key).proto == UDP {
                    older(&mut flow.flow);
                    map.insert(key, array(&flow), 0).expect("it is there");
                }
            }
        }
        for name in [map_names::FLOWS6, map_names::HALF_OPEN6] {
            let mut map = self.hash::<[u8; 40], [u8; size_of::<Flow6>()]>(name);
            let flows: Vec<_> = map.iter().collect::<Result<_, _>>().expect("flows");
            for (key, bytes) in flows {
                let mut flow: Flow6 = value(&bytes);
                if value::<FlowKey6>(&key).proto == UDP {
                    older(&mut flow.flow);
                    map.insert(key, array(&flow), 0).expect("it is there");
                }
            }
        }
    }
}
