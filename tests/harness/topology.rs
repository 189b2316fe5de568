//! A node that forwards between hosts: one namespace each, one veth pair per host.
//!
//! ```text
//!   web-1 [eth0]────[v-web-1]  node  [v-redis-1]────[eth0] redis-1
//! ```
//!
//! Hosts have host addresses (/32, /128) and reach the node at a link-local gateway; the node
//! has one host route per address. So a workload's address has exactly one interface.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result, ensure};

use crate::{netns::NetNs, netns::unique_name, privileges::Root, shell::Shell};

const GATEWAY4: &str = "169.254.1.1";
const GATEWAY6: &str = "fe80::1";
/// `IFNAMSIZ` less the final zero.
const INTERFACE_NAME_MAX: usize = 15;

/// Segmentation, checksum and receive offloads of a veth pair, as `ethtool -K` names them.
const OFFLOADS: [&str; 4] = ["tx", "tso", "gso", "gro"];

/// A workload: a namespace with its addresses.
#[derive(Debug)]
pub struct Host {
    /// The namespace.
    pub ns: NetNs,
    /// Its addresses, in the order given.
    pub addresses: Vec<IpAddr>,
    /// The node's end of its veth pair.
    pub interface: String,
}

impl Host {
    /// Its first address of the family of `other`.
    pub fn address_like(&self, other: IpAddr) -> IpAddr {
        let found = self.addresses.iter().find(|a| a.is_ipv4() == other.is_ipv4());
        *found.unwrap_or_else(|| panic!("{} has no address of {other}'s family", self.interface))
    }
}

/// The node and its hosts. Fields are dropped in order: hosts first.
#[derive(Debug)]
pub struct Topology {
    hosts: BTreeMap<String, Host>,
    /// The namespace in the middle, which forwards.
    pub node: NetNs,
    shell: Shell,
}

/// What to build.
#[derive(Debug)]
pub struct Builder {
    shell: Shell,
    fixed_neighbours: bool,
    hosts: Vec<(String, Vec<IpAddr>)>,
}

impl Topology {
    /// Starts a description.
    pub fn builder() -> Builder {
        Builder { shell: Shell::silent(), fixed_neighbours: false, hosts: Vec::new() }
    }

    /// The host called `name`.
    ///
    /// # Panics
    /// If there is none: the test has a typo.
    pub fn host(&self, name: &str) -> &Host {
        self.hosts.get(name).unwrap_or_else(|| panic!("the topology has no host {name}"))
    }

    /// All hosts by name.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &Host)> {
        self.hosts.iter().map(|(name, host)| (name.as_str(), host))
    }

    /// Switches checksum, segmentation and receive offloads of every veth end.
    pub fn offloads(&self, on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let features: Vec<_> = OFFLOADS.iter().map(|f| format!("{f} {state}")).collect();
        let features = features.join(" ");
        for host in self.hosts.values() {
            for (ns, interface) in [(&self.node, host.interface.as_str()), (&host.ns, "eth0")] {
                let line = format!("ethtool -K {interface} {features}");
                self.shell.say(&format!("nsenter --net={} {line}", ns.path().display()));
                ns.run(|| Shell::silent().run(&line))?;
            }
        }
        Ok(())
    }
}

impl Builder {
    /// Says each command through `shell`.
    pub fn shell(mut self, shell: Shell) -> Self {
        self.shell = shell;
        self
    }

    /// Permanent neighbour entries, so that no packet waits for ARP or ND.
    pub fn fixed_neighbours(mut self) -> Self {
        self.fixed_neighbours = true;
        self
    }

    /// Adds a host.
    ///
    /// # Panics
    /// If an address is none: the test has a typo.
    pub fn host(mut self, name: &str, addresses: &[&str]) -> Self {
        let parse = |a: &&str| a.parse().unwrap_or_else(|e| panic!("{a}: {e}"));
        self.hosts.push((name.into(), addresses.iter().map(parse).collect()));
        self
    }

    /// Builds it.
    pub fn build(self, root: Root) -> Result<Topology> {
        let node = NetNs::with_shell(root, unique_name("node"), self.shell)?;
        node.sysctl("net/ipv4/ip_forward", "1")?;
        if self.hosts.iter().any(|(_, addresses)| addresses.iter().any(IpAddr::is_ipv6)) {
            node.sysctl("net/ipv6/conf/all/forwarding", "1")?;
            node.without_dad()?;
        }
        let mut hosts = BTreeMap::new();
        for (number, (name, addresses)) in self.hosts.iter().enumerate() {
            let ns = NetNs::with_shell(root, unique_name(name), self.shell)?;
            if addresses.iter().any(IpAddr::is_ipv6) {
                ns.without_dad()?;
            }
            let host = connect(&node, ns, number, name, addresses, self.fixed_neighbours)
                .with_context(|| format!("cannot connect host {name}"))?;
            let twin = hosts.insert(name.clone(), host);
            ensure!(twin.is_none(), "two hosts are called {name}");
        }
        Ok(Topology { hosts, node, shell: self.shell })
    }
}

fn connect(
    node: &NetNs,
    ns: NetNs,
    number: usize,
    name: &str,
    addresses: &[IpAddr],
    fixed_neighbours: bool,
) -> Result<Host> {
    let interface = format!("v-{name}");
    ensure!(
        interface.len() <= INTERFACE_NAME_MAX,
        "interface name {interface} is longer than {INTERFACE_NAME_MAX} bytes"
    );
    // Locally administered, unicast.
    let mac = |end: u8| format!("02:62:6c:{:02x}:{:02x}:{end:02x}", number >> 8, number & 0xff);
    let (node_mac, host_mac) = (mac(1), mac(2));

    let mut on_node = vec![
        format!(
            "link add {interface} address {node_mac} type veth \
             peer name eth0 address {host_mac} netns {}",
            ns.name()
        ),
        format!("link set {interface} up"),
    ];
    let mut on_host = vec!["link set eth0 up".to_string()];
    for address in addresses {
        let (length, nodad) = if address.is_ipv4() { (32, "") } else { (128, " nodad") };
        on_host.push(format!("addr add {address}/{length} dev eth0{nodad}"));
        on_node.push(format!("route add {address}/{length} dev {interface}"));
        if fixed_neighbours {
            on_node.push(format!("neigh add {address} lladdr {host_mac} dev {interface}"));
        }
    }
    let gateways = [
        (
            addresses.iter().any(IpAddr::is_ipv4),
            GATEWAY4,
            format!("addr add {GATEWAY4}/32 dev {interface}"),
            " onlink",
        ),
        (
            addresses.iter().any(IpAddr::is_ipv6),
            GATEWAY6,
            format!("addr add {GATEWAY6}/64 dev {interface} nodad"),
            "",
        ),
    ];
    for (_, gateway, on_interface, onlink) in gateways.into_iter().filter(|(used, ..)| *used) {
        on_node.push(on_interface);
        on_host.push(format!("route add default via {gateway} dev eth0{onlink}"));
        if fixed_neighbours {
            on_host.push(format!("neigh add {gateway} lladdr {node_mac} dev eth0"));
        }
    }
    node.ip(&on_node)?;
    ns.ip(&on_host)?;
    Ok(Host { ns, addresses: addresses.to_vec(), interface })
}
