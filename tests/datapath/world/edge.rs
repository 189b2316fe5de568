//! A namespace for the XDP program: one interface to the world, another to nowhere, neighbours
//! that need no asking.

use balancer_ebpf::abi::map_names;
use harness::{Entered, NetNs, Root};

use super::World;

/// Where all routes lead.
pub(crate) const UPLINK: &str = "up0";
/// The Ethernet addresses of the uplink, and of the next hop behind it.
pub(crate) const OWN: [u8; 6] = [2, 0, 0, 0, 9, 1];
pub(crate) const NEXT: [u8; 6] = [2, 0, 0, 0, 9, 2];

/// The namespace, in which the calling thread is until this is dropped.
pub(crate) struct Edge {
    // Dropped in this order.
    _entered: Entered,
    pub(crate) namespace: NetNs,
}

impl Edge {
    /// Makes it, and tells the program of `world` that the uplink takes frames.
    pub(crate) fn new(world: &mut World) -> Self {
        let edge = Self::without_uplink();
        let index = nix::net::if_::if_nametoindex(UPLINK).expect("just made");
        world.takes_frames(index);
        edge
    }

    /// Makes it; the uplink takes no frames of XDP programs.
    pub(crate) fn without_uplink() -> Self {
        let root = Root::check().expect("whoever has a world has asked");
        let namespace = NetNs::new(root, "edge").expect("a namespace");
        namespace.without_dad().expect("sysctl");
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            namespace.sysctl(key, "1").expect("sysctl");
        }
        let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
        let lines = [
            format!("link add {UPLINK} address {} type veth peer name up1", mac(OWN)),
            format!("link set {UPLINK} up"),
            "link set up1 up".to_owned(),
            format!("addr add 10.255.0.1/24 dev {UPLINK}"),
            format!("addr add fdff::1/64 dev {UPLINK}"),
            format!("neigh add 10.255.0.2 lladdr {} dev {UPLINK} nud permanent", mac(NEXT)),
            format!("neigh add fdff::2 lladdr {} dev {UPLINK} nud permanent", mac(NEXT)),
            "route add default via 10.255.0.2".to_owned(),
            "route add default via fdff::2".to_owned(),
        ];
        namespace.ip(&lines).expect("links and routes");
        let entered = namespace.enter().expect("the namespace");
        Self { _entered: entered, namespace }
    }

    /// Runs `ip` with a line.
    pub(crate) fn ip(&self, line: &str) {
        self.namespace.ip(&[line.to_owned()]).unwrap_or_else(|e| panic!("{e:#}"));
    }
}

impl World {
    /// Tells the XDP program that an interface takes frames of XDP programs.
    pub(crate) fn takes_frames(&mut self, index: u32) {
        self.hash::<u32, u32>(map_names::XDP_DEVICES).insert(index, index, 0).expect("a device");
    }
}
