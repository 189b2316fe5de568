//! Packets that few send, between real stacks: path MTU discovery, echo, fragments.
//!
//! ```text
//!   far ──[small]── web ── node ── bulk
//! ```

use std::{net::SocketAddr, time::Duration};

use balancer_ebpf::reason::Reason;
use harness::{Instance, NetNs, Root, Topology, bulk, patience, ping::ping, root_or_skip, scaled};

use crate::bed::small_maps;

/// Smaller than any packet of a bulk transfer, and no smaller than IPv6 allows.
pub(crate) const SMALL: &str = "1300";
pub(crate) const FAR: [&str; 2] = ["10.71.1.77", "fd71:1::77"];
pub(crate) const VIPS: [&str; 2] = ["10.99.0.9", "fd99::9"];
pub(crate) const REALS: [&str; 2] = ["10.71.2.10", "fd71:2::10"];
pub(crate) const WEB: [&str; 2] = ["10.71.1.10", "fd71:1::10"];

/// One real behind a VIP of each family.
pub(crate) struct Bed {
    pub(crate) topology: Topology,
    folder: tempfile::TempDir,
    root: Root,
}

impl Bed {
    pub(crate) fn new(root: Root) -> Self {
        let topology = Topology::builder()
            .host("web", &WEB)
            .host("bulk", &REALS)
            .build(root)
            .expect("build the topology");
        Self { topology, folder: tempfile::tempdir().expect("a directory"), root }
    }

    fn load(&self) -> Instance<'_> {
        self.load_at("tc", 5001)
    }

    /// A balancer with this hook at both interfaces, whose reals have this port.
    pub(crate) fn load_at(&self, hook: &str, port: u16) -> Instance<'_> {
        let mut world = String::from("type: Mesh\nname: default\n");
        for (number, ((vip, real), web)) in VIPS.iter().zip(REALS).zip(WEB).enumerate() {
            world += &format!(
                "---\ntype: Dataplane\nmesh: default\nname: web{number}\nnetworking:\n  \
                 address: '{web}'\n  inbound: [{{port: 80, tags: {{kuma.io/service: web}}}}]\n  \
                 outbound:\n  - {{address: '{vip}', port: 5000, tags: {{kuma.io/service: bulk}}}}\n\
                 ---\ntype: Dataplane\nmesh: default\nname: bulk{number}\nnetworking:\n  \
                 address: '{real}'\n  inbound: [{{port: {port}, tags: {{kuma.io/service: bulk}}}}]\n"
            );
        }
        let path = self.folder.path().join("world.yaml");
        std::fs::write(&path, world).expect("write policies");
        let (path, config) = (path.display().to_string(), small_maps(self.folder.path()));
        let config = config.display().to_string();
        let instance = Instance::new(self.root, &self.topology.node).expect("an instance");
        let mut args = vec!["load", "-f", &path, "--config", &config];
        let attach = ["web", "bulk"].map(|host| format!("v-{host}={hook}"));
        args.extend(attach.iter().flat_map(|at| ["--attach", at]));
        instance.balancer(&args).expect("load");
        instance
    }

    fn exchange(&self, ns: &NetNs, address: &str, family: usize) {
        self.exchange_with(end(REALS[family], 5001), ns, address, family);
    }

    /// Much data both ways, from `ns` with this address to the VIP of its family; the real listens
    /// at `real`.
    pub(crate) fn exchange_with(&self, real: SocketAddr, ns: &NetNs, address: &str, family: usize) {
        let server = bulk::serve_once(&self.topology.host("bulk").ns, real).expect("a server");
        let bytes = scaled(4 << 20, 1 << 18);
        ns.run(|| bulk::exchange(end(address, 0), end(VIPS[family], 5000), bytes))
            .expect("all of it arrives, both ways");
        server.join().expect("the server ends").expect("the real got what was sent");
    }

    /// A client behind `web`, beyond a small link that nobody else knows of.
    pub(crate) fn far(&self) -> NetNs {
        let (web, node) = (&self.topology.host("web").ns, &self.topology.node);
        let far = NetNs::new(self.root, "far").expect("a namespace");
        far.without_dad().expect("sysctl");
        web.sysctl("net/ipv4/ip_forward", "1").expect("sysctl");
        web.sysctl("net/ipv6/conf/all/forwarding", "1").expect("sysctl");
        web.ip(&[
            format!("link add beyond mtu {SMALL} type veth peer name eth0 netns {}", far.name()),
            "link set beyond up".to_owned(),
            "addr add 169.254.7.1/30 dev beyond".to_owned(),
            "addr add fe80::7/64 dev beyond nodad".to_owned(),
            format!("route add {}/32 dev beyond", FAR[0]),
            format!("route add {}/128 dev beyond", FAR[1]),
        ])
        .expect("a link");
        // The far end asks for long packets, and the real believes that they arrive.
        far.ip(&[
            "link set eth0 up".to_owned(),
            format!("addr add {}/32 dev eth0", FAR[0]),
            format!("addr add {}/128 dev eth0 nodad", FAR[1]),
            format!("route add default via 169.254.7.1 dev eth0 onlink mtu {SMALL} advmss 1460"),
            format!("route add default via fe80::7 dev eth0 mtu {SMALL} advmss 1440"),
        ])
        .expect("addresses");
        node.ip(&[
            format!("route add {}/32 via {} dev v-web onlink", FAR[0], WEB[0]),
            format!("route add {}/128 via {} dev v-web onlink", FAR[1], WEB[1]),
        ])
        .expect("routes");
        far
    }
}

pub(crate) fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Packets that met this reason.
pub(crate) fn met(instance: &Instance<'_>, reason: Reason) -> u64 {
    let out = instance.balancer(&["show", "reasons", "-o", "json"]).expect("show");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&out).expect("JSON");
    let row = rows.iter().find(|row| row["reason"] == reason.name());
    row.map_or(0, |row| row["packets"].as_u64().expect("a number"))
}

/// The node cannot send on what the client sends: its errors must reach the client as errors
/// about packets to the VIP.
#[test]
fn path_mtu_is_discovered_across_a_small_link_behind_the_node() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    // Segments longer than the link that are cut by the sending stack are what is looked for.
    bed.topology.offloads(false).expect("ethtool");
    let instance = bed.load();
    let node = &bed.topology.node;
    // A small route, for veth drops what is longer than its other end's MTU without a word.
    let route = |real: &str| format!("route replace {real} dev v-bulk mtu {SMALL}");
    node.ip(&REALS.map(route)).expect("small routes");
    for (family, web) in WEB.iter().enumerate() {
        let before = met(&instance, Reason::IcmpError);
        bed.exchange(&bed.topology.host("web").ns, web, family);
        assert!(met(&instance, Reason::IcmpError) > before, "an error was translated for {web}");
    }
}

/// A router beyond the client's link cannot send on what the VIP sends: its errors must reach the
/// real.
#[test]
fn path_mtu_is_discovered_across_a_small_link_beyond_the_client() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    bed.topology.offloads(false).expect("ethtool");
    let far = bed.far();
    let instance = bed.load();
    for (family, address) in FAR.iter().enumerate() {
        let before = met(&instance, Reason::IcmpError);
        bed.exchange(&far, address, family);
        assert!(met(&instance, Reason::IcmpError) > before, "an error was translated, {address}");
    }
}

#[test]
fn vips_answer_echo_and_other_addresses_do_not() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let web = &bed.topology.host("web").ns;
    web.sysctl("net/ipv4/ping_group_range", "0 0").expect("sysctl");
    let instance = bed.load();
    for vip in VIPS {
        let vip = vip.parse().expect("an address");
        web.run(|| ping(vip, patience(Duration::from_secs(2)))).expect("an answer");
    }
    let nobody = "10.99.0.8".parse().expect("an address");
    let silence = web.run(|| ping(nobody, Duration::from_millis(200)));
    assert!(silence.is_err(), "no VIP, no answer");
    assert_eq!(met(&instance, Reason::Echo), 2);
}
