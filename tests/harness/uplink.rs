//! A namespace for XDP programs that are test-run: one interface to which all routes lead, and a
//! neighbour behind it that nobody has to ask for.

use anyhow::{Context, Result};

use crate::{
    netns::{Entered, NetNs},
    privileges::Root,
};

/// The namespace, in which the calling thread is until this is dropped.
pub struct Uplink {
    // Left before the namespace goes.
    _entered: Entered,
    namespace: NetNs,
}

impl Uplink {
    /// Name of the interface.
    pub const NAME: &'static str = "up0";
    /// Its Ethernet address.
    pub const OWN: [u8; 6] = [2, 0, 0, 0, 9, 1];
    /// The Ethernet address of the next hop behind it.
    pub const NEXT: [u8; 6] = [2, 0, 0, 0, 9, 2];
    /// The next hop's address in each family.
    pub const GATEWAYS: [&'static str; 2] = ["10.255.0.2", "fdff::2"];

    /// Makes it, and enters the namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(root: Root) -> Result<Self> {
        let namespace = NetNs::new(root, "uplink")?;
        namespace.without_dad()?;
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            namespace.sysctl(key, "1")?;
        }
        let name = Self::NAME;
        let [four, six] = Self::GATEWAYS;
        namespace.ip(&[
            format!("link add {name} address {} type veth peer name up1", mac(Self::OWN)),
            format!("link set {name} up"),
            "link set up1 up".to_owned(),
            format!("addr add 10.255.0.1/24 dev {name}"),
            // Without the flag a worker of the kernel makes it usable, some time later.
            format!("addr add fdff::1/64 dev {name} nodad"),
            format!("route add default via {four}"),
            format!("route add default via {six}"),
        ])?;
        let entered = namespace.enter().context("entering a namespace")?;
        let uplink = Self { _entered: entered, namespace };
        for gateway in Self::GATEWAYS {
            uplink.know(gateway);
        }
        Ok(uplink)
    }

    /// The interface's index.
    ///
    /// # Panics
    /// If it is gone.
    pub fn index(&self) -> u32 {
        nix::net::if_::if_nametoindex(Self::NAME).expect("made with the namespace")
    }

    /// Gives the next hop an Ethernet address.
    pub fn know(&self, gateway: &str) {
        let (name, mac) = (Self::NAME, mac(Self::NEXT));
        self.ip(&format!("neigh replace {gateway} lladdr {mac} dev {name} nud permanent"));
    }

    /// Runs `ip` with a line.
    ///
    /// # Panics
    /// If it fails.
    pub fn ip(&self, line: &str) {
        self.namespace.ip(&[line.to_owned()]).unwrap_or_else(|e| panic!("{e:#}"));
    }
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
