//! What the programs are told of interfaces, and what the XDP program needs of the world around it.

use std::net::{Ipv4Addr, Ipv6Addr};

use balancer_ebpf::abi::{
    Device, HopKey, Hops, Interface, NextHop, SnatPorts, map_names, reply_port_bit,
};
use harness::{Root, Uplink};

use super::{LOOPBACK, World, array};

/// A namespace in which every packet has somewhere to go, by an uplink whose driver takes frames
/// of XDP programs or does not.
pub(crate) fn uplink(world: &mut World, takes_frames: bool) -> Uplink {
    let root = Root::check().expect("whoever has a world has asked");
    let uplink = Uplink::new(root).expect("a namespace");
    if takes_frames {
        world.takes_frames(uplink.index());
    }
    uplink
}

impl World {
    /// Tells the XDP program that an interface takes frames of XDP programs.
    pub(crate) fn takes_frames(&mut self, index: u32) {
        self.device(index, &Device { takes_frames: 1, ..Device::default() });
    }

    /// Tells it that an interface loses frames of XDP programs.
    pub(crate) fn loses_frames(&mut self, index: u32) {
        self.device(index, &Device::default());
    }

    /// Gives the node addresses at the interface of XDP test runs, for tunnels to begin at.
    pub(crate) fn tunnels_from(&mut self, four: Ipv4Addr, six: Ipv6Addr) {
        let addresses =
            Device { source4: four.octets(), source6: six.octets(), ..Device::default() };
        self.device(LOOPBACK, &addresses);
    }

    /// Has flows that come in by the interface of test runs seen by reals as the node's, from one of
    /// `count` ports from `first` on.
    pub(crate) fn snat(&mut self, first: u32, count: u32) {
        self.device(LOOPBACK, &Device { snat: 1, ..Device::default() });
        let ports = SnatPorts { first, count };
        self.array::<8>(map_names::SNAT).set(0, array(&ports), 0).expect("SNAT");
    }

    /// Says which addresses the node has at an interface that takes frames.
    pub(crate) fn addresses(&mut self, index: u32, four: Ipv4Addr, six: Ipv6Addr) {
        let device =
            Device { takes_frames: 1, source4: four.octets(), source6: six.octets(), snat: 0 };
        self.device(index, &device);
    }

    fn device(&mut self, index: u32, device: &Device) {
        self.hash::<u32, [u8; size_of::<Device>()]>(map_names::DEVICES)
            .insert(index, array(device), 0)
            .expect("a device");
    }

    /// Has replies from this port looked at where they come in, as after a flow that needs it.
    pub(crate) fn answer_inward(&mut self, port: u16) {
        let (word, bit) = reply_port_bit(port);
        let mut ports = self.array::<8>(map_names::REPLY_PORTS);
        let old = u64::from_ne_bytes(ports.get(&word, 0).expect("REPLY_PORTS"));
        ports.set(word, (old | bit).to_ne_bytes(), 0).expect("REPLY_PORTS");
    }

    /// Says what may be done with packets of an interface.
    pub(crate) fn allow(&mut self, interface: u32, flags: u32) {
        self.allow_until(interface, flags, Interface::FOR_GOOD);
    }

    /// The same until the kernel's jiffies are so many.
    pub(crate) fn allow_until(&mut self, interface: u32, flags: u32, until: u64) {
        let value: [u8; 16] = zerocopy::transmute!(Interface { until, flags, unused: 0 });
        self.hash::<u32, [u8; 16]>(map_names::INTERFACES)
            .insert(interface, value, 0)
            .expect("room");
    }

    /// Says until which jiffies flows may remember next hops, and of which generation.
    pub(crate) fn hops(&mut self, until: u64, generation: u64) {
        let value: [u8; 16] = zerocopy::transmute!(Hops { until, generation });
        self.array::<16>(map_names::HOPS).set(0, value, 0).expect("HOPS");
    }

    /// Says that the uplink's next hop may be remembered.
    pub(crate) fn next_hop(&mut self, id: u32, uplink: u32, mtu: u32) {
        let key = HopKey { to: Uplink::NEXT, from: Uplink::OWN, interface: uplink };
        let value: [u8; 24] = zerocopy::transmute!(NextHop { key, mtu, unused: 0 });
        self.array::<24>(map_names::NEXT_HOPS).set(id, value, 0).expect("NEXT_HOPS");
        let key: [u8; 16] = zerocopy::transmute!(key);
        self.hash::<[u8; 16], u32>(map_names::HOP_IDS).insert(key, id, 0).expect("HOP_IDS");
    }
}
