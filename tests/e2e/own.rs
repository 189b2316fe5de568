//! Connections that the node itself opens, and workloads that reach themselves.

use std::net::{IpAddr, SocketAddr};

use harness::{Connection, EchoServer, NetNs, Topology, root_or_skip};

use crate::bed::{Bed, MAGLEV, VIP4, VIP6, count, split, version_of, vip};

/// The node's own addresses, of no interface that packets leave by.
const NODE4: &str = "10.71.9.1";
const NODE6: &str = "fd71:9::1";

/// Gives the node addresses, and sends what is for a VIP towards `host`, of which it thinks that
/// it knows the way. Nobody there forwards: the packets must be sent to the reals.
fn route_vips_to(topology: &Topology, host: &str) {
    let host = topology.host(host);
    let (v4, v6) = (host.address_like(vip(VIP4).ip()), host.address_like(vip(VIP6).ip()));
    let interface = &host.interface;
    topology
        .node
        .ip(&[
            format!("addr replace {NODE4}/32 dev lo"),
            format!("addr replace {NODE6}/128 dev lo nodad"),
            format!("route replace 10.99.0.0/24 via {v4} dev {interface} onlink src {NODE4}"),
            format!("route replace fd99::/64 via {v6} dev {interface} onlink src {NODE6}"),
        ])
        .expect("routes to the VIPs");
}

fn from_like(to: SocketAddr) -> SocketAddr {
    let from = if to.is_ipv4() { NODE4 } else { NODE6 };
    SocketAddr::new(from.parse().expect("an address"), 0)
}

/// Connects from `ns`, and has a line answered; who answered, and whom they saw.
fn talk(ns: &NetNs, from: SocketAddr, to: SocketAddr) -> anyhow::Result<(String, SocketAddr)> {
    ns.run(|| {
        let mut connection = Connection::open(from, to)?;
        assert_eq!(connection.remote()?, to, "the client sees the VIP");
        let greeting = connection.greeting.clone();
        assert_eq!(connection.talk("again")?, greeting.name);
        connection.close()?;
        Ok((greeting.name, greeting.peer))
    })
}

#[test]
fn the_node_reaches_reals_wherever_they_are_through_a_vip() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("1.0", 1), ("2.0", 1)], MAGLEV));
    route_vips_to(&bed.topology, "guest");
    for to in [vip(VIP4), vip(VIP6)] {
        let mut served = Vec::new();
        for _ in 0..40 {
            let (name, peer) = talk(&bed.topology.node, from_like(to), to).expect("a connection");
            assert_eq!(peer.ip(), from_like(to).ip(), "the real sees the node");
            served.push(name);
        }
        served.sort_unstable();
        served.dedup();
        assert!(served.len() > 1, "a split: {served:?}");
        assert!(served.iter().all(|name| version_of(name) != "3.0"), "{served:?}");
    }
    // Workloads are not in their way, nor they in the workloads'.
    for to in [VIP4, VIP6] {
        let greetings = bed.dial("web-1", to, 21_000..21_010);
        assert_eq!(count(greetings.iter().map(|(_, greeting)| greeting)).values().sum::<u64>(), 10);
    }
    let flows = instance.balancer(&["maps", "dump", "FLOWS4"]).expect("flows");
    assert!(flows.contains("host"), "{flows}");
}

#[test]
fn the_node_is_refused_at_once_where_a_backend_is_empty() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("9.9", 1)], MAGLEV));
    route_vips_to(&bed.topology, "guest");
    for to in [vip(VIP4), vip(VIP6)] {
        let refused = talk(&bed.topology.node, from_like(to), to).expect_err("nobody is there");
        let os = refused.downcast_ref::<nix::errno::Errno>().copied();
        assert_eq!(os, Some(nix::errno::Errno::ECONNREFUSED), "{refused:#}");
    }
}

#[test]
fn strict_reverse_path_filters_let_replies_in_where_the_vip_is_routed_to() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    // One real, behind the interface by which VIPs are routed.
    bed.load(&instance, &split("redis", "*", "redis", &[("2.0", 1)], MAGLEV));
    route_vips_to(&bed.topology, "c");
    for filter in ["2", "1"] {
        bed.topology.node.sysctl("net/ipv4/conf/all/rp_filter", filter).expect("a sysctl");
        let (name, _) = talk(&bed.topology.node, from_like(vip(VIP4)), vip(VIP4)).expect("a reply");
        assert_eq!(name, "c");
    }
}

#[test]
fn a_workload_reaches_itself_through_a_vip() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("2.0", 1)], MAGLEV));
    let host = bed.topology.host("c");
    for to in [vip(VIP4), vip(VIP6)] {
        for port in 22_000..22_010 {
            let from = SocketAddr::new(host.address_like(to.ip()), port);
            let (name, peer) = talk(&host.ns, from, to).expect("a connection to itself");
            assert_eq!((name.as_str(), peer), ("c", SocketAddr::new(to.ip(), port)));
        }
    }
    let flows = instance.balancer(&["maps", "dump", "FLOWS4"]).expect("flows");
    assert!(flows.contains("hairpin"), "{flows}");
}

#[test]
fn a_process_of_the_node_reaches_another_one_through_a_vip() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let mut own = Vec::new();
    for (family, address, vip) in [(4, NODE4, "10.99.0.5"), (6, NODE6, "fd99::5")] {
        own.push(format!(
            "type: Dataplane\nmesh: default\nname: node-v{family}\nnetworking:\n  address: \
             '{address}'\n  inbound: [{{port: 7001, tags: {{kuma.io/service: own}}}}]\n  \
             outbound: [{{address: '{vip}', port: 7000, tags: {{kuma.io/service: own}}}}]\n"
        ));
    }
    route_vips_to(&bed.topology, "guest");
    bed.load(&instance, &own.join("---\n"));
    let node = &bed.topology.node;
    for (address, to) in [(NODE4, "10.99.0.5:7000"), (NODE6, "[fd99::5]:7000")] {
        let address: IpAddr = address.parse().expect("an address");
        let _server = EchoServer::start(node, SocketAddr::new(address, 7001), "own").expect("it");
        let to = vip(to);
        for _ in 0..5 {
            let (name, peer) = talk(node, from_like(to), to).expect("a connection to itself");
            assert_eq!((name.as_str(), peer.ip()), ("own", to.ip()));
        }
    }
}

#[test]
fn conntrack_of_the_node_takes_its_own_connections_for_what_they_are() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    bed.load(&instance, &split("redis", "*", "redis", &[("1.0", 1), ("2.0", 1)], MAGLEV));
    route_vips_to(&bed.topology, "guest");
    bed.topology
        .node
        .nft(
            "add table inet t
             add chain inet t in { type filter hook input priority 0; policy drop; }
             add rule inet t in ct state established accept
             add rule inet t in meta l4proto ipv6-icmp accept
             add rule inet t in iif lo accept
             add chain inet t out { type filter hook output priority 0; }
             add rule inet t out ct state invalid drop",
        )
        .expect("a firewall");
    for to in [vip(VIP4), vip(VIP6)] {
        for _ in 0..10 {
            talk(&bed.topology.node, from_like(to), to).expect("an answer is an answer");
        }
    }
}
