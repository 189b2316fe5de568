//! Packets that few send, between real stacks: path MTU discovery, hops that run out, echo, fragments.
//!
//! ```text
//!   far ──[small]── web ── node ── bulk ──[small]── far
//! ```

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use balancer_ebpf::reason::Reason;
use harness::{
    Connection, Instance, NetNs, Root, Topology, bulk, patience, ping::ping, root_or_skip, scaled,
};

use crate::bed::LIMITS;

/// Smaller than any packet of a bulk transfer, and no smaller than IPv6 allows.
pub(crate) const SMALL: &str = "1300";
pub(crate) const FAR: [&str; 2] = ["10.71.3.77", "fd71:3::77"];
/// The node's own, of no interface that packets leave by.
const NODE: [&str; 2] = ["10.71.9.1", "fd71:9::1"];
pub(crate) const VIPS: [&str; 2] = ["10.99.0.9", "fd99::9"];
pub(crate) const REALS: [&str; 2] = ["10.71.2.10", "fd71:2::10"];
pub(crate) const WEB: [&str; 2] = ["10.71.1.10", "fd71:1::10"];

/// Of reals whose addresses are translated.
const PORT: u16 = 5001;

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

    /// Loads a service of both protocols with these reals.
    fn load(&self, reals: [&str; 2]) -> Instance<'_> {
        self.load_at("tc", reals, PORT)
    }

    /// A balancer with this hook at both interfaces, whose reals have this port.
    pub(crate) fn load_at(&self, hook: &str, reals: [&str; 2], port: u16) -> Instance<'_> {
        let mut world = String::from("type: Mesh\nname: default\n");
        for (number, ((vip, real), web)) in VIPS.iter().zip(reals).zip(WEB).enumerate() {
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
        let config = self.folder.path().join("config.yaml");
        let protocols = "vips: {protocols: [{service: bulk, protocol: tcp}, \
                         {service: bulk, protocol: udp}]}\n";
        std::fs::write(&config, format!("{LIMITS}{protocols}")).expect("write the configuration");
        let (path, config) = (path.display().to_string(), config.display().to_string());
        let instance = Instance::new(self.root, &self.topology.node).expect("an instance");
        let mut args = vec!["load", "-f", &path, "--config", &config];
        let attach = ["web", "bulk"].map(|host| format!("v-{host}={hook}"));
        args.extend(attach.iter().flat_map(|at| ["--attach", at]));
        instance.balancer(&args).expect("load");
        instance
    }

    /// A namespace behind a host, beyond a link that takes small packets only. It asks for long ones, and
    /// the node believes that they arrive.
    pub(crate) fn far_behind(&self, host: &str) -> NetNs {
        let (behind, node) = (self.topology.host(host), &self.topology.node);
        let far = NetNs::new(self.root, "far").expect("a namespace");
        far.without_dad().expect("sysctl");
        behind.ns.sysctl("net/ipv4/ip_forward", "1").expect("sysctl");
        behind.ns.sysctl("net/ipv6/conf/all/forwarding", "1").expect("sysctl");
        behind
            .ns
            .ip(&[
                format!(
                    "link add beyond mtu {SMALL} type veth peer name eth0 netns {}",
                    far.name()
                ),
                "link set beyond up".to_owned(),
                "addr add 169.254.7.1/30 dev beyond".to_owned(),
                "addr add fe80::7/64 dev beyond nodad".to_owned(),
                format!("route add {}/32 dev beyond", FAR[0]),
                format!("route add {}/128 dev beyond", FAR[1]),
            ])
            .expect("a link");
        far.ip(&[
            "link set eth0 up".to_owned(),
            format!("addr add {}/32 dev eth0", FAR[0]),
            format!("addr add {}/128 dev eth0 nodad", FAR[1]),
            format!("route add default via 169.254.7.1 dev eth0 onlink mtu {SMALL} advmss 1460"),
            format!("route add default via fe80::7 dev eth0 mtu {SMALL} advmss 1440"),
        ])
        .expect("addresses");
        let interface = &behind.interface;
        let routes = FAR.iter().zip(&behind.addresses).map(|(far, via)| {
            let length = if via.is_ipv4() { 32 } else { 128 };
            format!("route add {far}/{length} via {via} dev {interface} onlink")
        });
        node.ip(&routes.collect::<Vec<_>>()).expect("routes");
        far
    }
}

pub(crate) fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

/// Much data both ways, from `client` to the VIP of a family, and back from `server`.
fn exchange(family: usize, client: (&NetNs, &str), (server, address): (&NetNs, &str)) {
    exchange_with(family, client, (server, end(address, PORT)));
}

/// The same, where the server listens there.
pub(crate) fn exchange_with(
    family: usize,
    client: (&NetNs, &str),
    (server, listens): (&NetNs, SocketAddr),
) {
    let served = bulk::serve_once(server, listens).expect("a server");
    let bytes = scaled(4 << 20, 1 << 18);
    client
        .0
        .run(|| bulk::exchange(end(client.1, 0), end(VIPS[family], 5000), bytes))
        .expect("all of it arrives, both ways");
    served.join().expect("the server ends").expect("the real got what was sent");
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
    let instance = bed.load(REALS);
    let node = &bed.topology.node;
    // A small route, for veth drops what is longer than its other end's MTU without a word.
    let route = |real: &str| format!("route replace {real} dev v-bulk mtu {SMALL}");
    node.ip(&REALS.map(route)).expect("small routes");
    let (web, bulk) = (&bed.topology.host("web").ns, &bed.topology.host("bulk").ns);
    for family in 0..2 {
        let before = met(&instance, Reason::IcmpError);
        exchange(family, (web, WEB[family]), (bulk, REALS[family]));
        let errors = met(&instance, Reason::IcmpError) - before;
        assert!(errors > 0, "an error was translated for {}", WEB[family]);
    }
}

/// A router between the node and the real cannot send on what the client sends.
#[test]
fn path_mtu_is_discovered_across_a_small_link_before_the_real() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    bed.topology.offloads(false).expect("ethtool");
    let far = bed.far_behind("bulk");
    let instance = bed.load(FAR);
    for family in 0..2 {
        let before = met(&instance, Reason::IcmpError);
        exchange(family, (&bed.topology.host("web").ns, WEB[family]), (&far, FAR[family]));
        let errors = met(&instance, Reason::IcmpError) - before;
        assert!(errors > 0, "an error was translated for {}", WEB[family]);
    }
}

/// A router beyond the client's link cannot send on what the VIP sends: its errors must reach the
/// real.
#[test]
fn path_mtu_is_discovered_across_a_small_link_beyond_the_client() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    bed.topology.offloads(false).expect("ethtool");
    let far = bed.far_behind("web");
    let instance = bed.load(REALS);
    for family in 0..2 {
        let before = met(&instance, Reason::IcmpError);
        exchange(family, (&far, FAR[family]), (&bed.topology.host("bulk").ns, REALS[family]));
        let errors = met(&instance, Reason::IcmpError) - before;
        assert!(errors > 0, "an error was translated for {}", FAR[family]);
    }
}

/// The node dials the VIP itself: the errors about its packets come in, and are for its own stack.
#[test]
fn path_mtu_is_discovered_by_the_nodes_own_connections() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    bed.topology.offloads(false).expect("ethtool");
    let far = bed.far_behind("bulk");
    let node = &bed.topology.node;
    node.ip(&[
        format!("addr add {}/32 dev lo", NODE[0]),
        format!("addr add {}/128 dev lo nodad", NODE[1]),
        format!("route add {}/32 via {} dev v-web onlink src {}", VIPS[0], WEB[0], NODE[0]),
        format!("route add {}/128 via {} dev v-web onlink src {}", VIPS[1], WEB[1], NODE[1]),
    ])
    .expect("routes to the VIPs");
    let instance = bed.load(FAR);
    for family in 0..2 {
        let before = met(&instance, Reason::IcmpError);
        exchange(family, (node, NODE[family]), (&far, FAR[family]));
        let errors = met(&instance, Reason::IcmpError) - before;
        assert!(errors > 0, "an error was translated for {}", NODE[family]);
    }
}

#[test]
fn client_whose_packets_run_out_of_hops_at_the_node_is_told_so() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.load(REALS);
    let web = &bed.topology.host("web").ns;
    web.sysctl("net/ipv4/ip_default_ttl", "1").expect("sysctl");
    web.sysctl("net/ipv6/conf/eth0/hop_limit", "1").expect("sysctl");
    for family in 0..2 {
        let before = met(&instance, Reason::IcmpError);
        let dialled = web.run(|| Connection::open(end(WEB[family], 0), end(VIPS[family], 5000)));
        let error = dialled.expect_err("no hop is left");
        let errno = error.downcast_ref::<nix::errno::Errno>().copied();
        assert_eq!(errno, Some(nix::errno::Errno::EHOSTUNREACH), "{error:#}");
        assert!(met(&instance, Reason::IcmpError) > before, "the error was about the VIP");
    }
}

#[test]
fn datagrams_in_pieces_arrive_whole_both_ways() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.load(REALS);
    let (web, bulk) = (&bed.topology.host("web").ns, &bed.topology.host("bulk").ns);
    let wait = Some(patience(Duration::from_secs(5)));
    // Three pieces each.
    let long: Vec<u8> = (0..4000u32).map(|n| (n * 7) as u8).collect();
    for family in 0..2 {
        let real = bulk.run(|| UdpSocket::bind(end(REALS[family], 5001))).expect("a real");
        real.set_read_timeout(wait).expect("a timeout");
        let answers = thread::spawn(move || {
            let mut buffer = [0; 8000];
            let (len, client) = real.recv_from(&mut buffer)?;
            buffer[..len].reverse();
            real.send_to(&buffer[..len], client)
        });
        let client = web.run(|| UdpSocket::bind(end(WEB[family], 0))).expect("a client");
        client.connect(end(VIPS[family], 5000)).expect("a VIP");
        client.set_read_timeout(wait).expect("a timeout");
        client.send(&long).expect("sent");
        let mut buffer = [0; 8000];
        let len = client.recv(&mut buffer).expect("an answer");
        buffer[..len].reverse();
        assert!(buffer[..len] == long, "{len} bytes came back");
        assert_eq!(answers.join().expect("no panic").expect("answered"), long.len());
    }
    assert_eq!(met(&instance, Reason::FragmentFollowed), 2 * 2 * 2, "two later pieces each");
}

#[test]
fn vips_answer_echo_and_other_addresses_do_not() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let web = &bed.topology.host("web").ns;
    web.sysctl("net/ipv4/ping_group_range", "0 0").expect("sysctl");
    let instance = bed.load(REALS);
    for vip in VIPS {
        let vip = vip.parse().expect("an address");
        web.run(|| ping(vip, patience(Duration::from_secs(2)))).expect("an answer");
    }
    let nobody = "10.99.0.8".parse().expect("an address");
    let silence = web.run(|| ping(nobody, Duration::from_millis(200)));
    assert!(silence.is_err(), "no VIP, no answer");
    assert_eq!(met(&instance, Reason::Echo), 2);
}
