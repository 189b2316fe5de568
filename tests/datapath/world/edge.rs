//! What the XDP program needs of the world around it.

use balancer_ebpf::abi::map_names;
use harness::{Root, Uplink};

use super::World;

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
        self.hash::<u32, u32>(map_names::XDP_DEVICES).insert(index, index, 0).expect("a device");
    }
}
