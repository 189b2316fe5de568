//! Direct server return: reals that have the VIP's address answer clients by themselves.

use std::{thread, time::Duration};

use balancer_ebpf::reason::Reason;
use harness::{EchoServer, NetNs, Shell, Topology, TunnelEnd, root_or_skip};

mod size;

use crate::{
    bed::{Bed, MAGLEV, OTHER_VIP4, VIP4, VIP6, inventory, split, version_of, vip},
    odd::met,
};

const REALS: [&str; 4] = ["a", "b", "c", "d"];

/// Both of what follows.
pub(crate) fn prepare(bed: &Bed) -> Vec<EchoServer> {
    for_native(&bed.topology);
    with_vips(bed)
}

/// What native XDP asks of veth pairs: complete checksums, and somebody who takes frames at the
/// other end.
fn for_native(topology: &Topology) {
    for (_, host) in topology.hosts() {
        let node = format!("ethtool -K {} tx off", host.interface);
        topology.node.run(|| Shell::silent().run(&node)).expect("ethtool");
        host.ns.run(|| Shell::silent().run("ethtool -K eth0 tx off gro on")).expect("ethtool");
    }
}

/// Reals that have the VIPs' addresses. The answers cross the node as they would cross any router.
fn with_vips(bed: &Bed) -> Vec<EchoServer> {
    let mut servers = Vec::new();
    for real in REALS {
        let ns = &bed.topology.host(real).ns;
        for to in [VIP4, VIP6].map(vip) {
            let length = if to.is_ipv4() { "32" } else { "128 nodad" };
            ns.ip(&["link set lo up".into(), format!("addr add {}/{length} dev lo", to.ip())])
                .expect("the VIP's address");
            servers.push(EchoServer::start(ns, to, real).expect("start a real"));
        }
    }
    servers
}

/// `load` with this hook at each interface of the node.
fn load_args(bed: &Bed, routes: &str, hook: &str) -> Vec<String> {
    let args = bed.load_args(&bed.policies(routes));
    args.into_iter().map(|arg| arg.replace("=tc", &format!("={hook}"))).collect()
}

/// Connections of both families end where policies say, and go on there when these change.
fn connections(bed: &Bed, hook: &str) {
    let instance = bed.instance();
    let load = |weights: &[(&str, u32)]| {
        let args = load_args(bed, &split("redis", "*", "redis", weights, MAGLEV), hook);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        instance.balancer(&args).expect("load")
    };
    let said = load(&[("1.0", 1)]);
    let attached = match hook.strip_prefix("xdp:").expect("a mode").split_once(':') {
        Some((mode, "generic")) => format!("xdp-generic, {mode}"),
        _ => hook.replace(':', ", "),
    };
    assert!(said.contains(&format!("({attached})")), "{said}");
    let mut kept = Vec::new();
    for to in [VIP4, VIP6] {
        for client in ["web-1", "guest"] {
            // Nobody has asked for the reals' Ethernet addresses before.
            for (_, greeting) in bed.dial(client, to, 20_000..20_020) {
                assert_eq!(version_of(&greeting.name), "1.0");
            }
            kept.push(bed.open(client, to).expect("a connection"));
        }
    }
    load(&[("2.0", 1)]);
    for connection in &mut kept {
        let name = connection.greeting.name.clone();
        // More than fits into one packet, in a tunnel less than that too.
        let word = "x".repeat(9_000);
        assert_eq!(connection.talk(&word).expect("an answer"), name, "it stays with its real");
        assert_eq!(version_of(&name), "1.0");
    }
    for to in [VIP4, VIP6] {
        for (_, greeting) in bed.dial("web-2", to, 21_000..21_020) {
            assert_eq!(version_of(&greeting.name), "2.0");
        }
    }
    for connection in kept {
        connection.close().expect("the end");
    }
    // No answer was translated: none was one of a flow.
    assert_eq!(met(&instance, Reason::Reply), 0);
    assert!(met(&instance, Reason::Established) > 100);
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains(&attached), "{status}");
}

#[test]
fn reals_on_the_link_answer_clients_by_themselves() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let _servers = prepare(&bed);
    connections(&bed, "xdp:dsr-l2");
}

#[test]
fn reals_behind_tunnels_answer_clients_by_themselves() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let _servers = prepare(&bed);
    tunnels_begin(&bed.topology);
    let ends = REALS.map(|real| tunnel_end(&bed.topology.host(real).ns));
    for hook in ["xdp:dsr-ipip", "xdp:dsr-ipip:generic"] {
        let before: u64 = ends.iter().map(TunnelEnd::taken).sum();
        connections(&bed, hook);
        let taken = ends.iter().map(TunnelEnd::taken).sum::<u64>() - before;
        assert!(taken > 300, "{taken} packets came through tunnels");
    }
}

/// With offloads, which generic XDP is met after: packets are several at once.
#[test]
fn generic_xdp_sends_on_what_the_kernel_has_put_together() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let _servers = with_vips(&bed);
    connections(&bed, "xdp:dsr-l2:generic");
}

/// The first packet finds nobody who knows the real's Ethernet address, and none is found for some
/// seconds.
#[test]
fn connection_to_a_hop_that_does_not_resolve_goes_on_when_it_does() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let _servers = prepare(&bed);
    let answers = |ignore: &str| {
        for real in REALS {
            let ns = &bed.topology.host(real).ns;
            ns.sysctl("net/ipv4/conf/all/arp_ignore", ignore).expect("sysctl");
        }
    };
    answers("8");
    let instance = bed.instance();
    let args = load_args(&bed, &split("redis", "*", "redis", &[("1.0", 1)], MAGLEV), "xdp:dsr-l2");
    instance.balancer(&args.iter().map(String::as_str).collect::<Vec<_>>()).expect("load");
    let left = || met(&instance, Reason::LeftToTc);
    thread::scope(|scope| {
        let waits = scope.spawn(|| bed.open("web-1", VIP4));
        // The SYN, and the first that is sent again, a second later.
        while left() < 2 && !waits.is_finished() {
            thread::sleep(Duration::from_millis(50));
        }
        assert!(!waits.is_finished(), "nobody has answered");
        // In nobody else's way.
        bed.dial("web-1", VIP6, 23_000..23_010);
        answers("0");
        let connection = waits.join().expect("no panic").expect("a connection");
        assert_eq!(version_of(&connection.greeting.name), "1.0");
        connection.close().expect("the end");
    });
    assert!(met(&instance, Reason::HalfOpen) >= 2, "TC went by the entry that XDP has recorded");
}

/// The end of the tunnels to a real. Its interface leaves packets as they come: put together they
/// would have no checksum that another stack could look at.
fn tunnel_end(real: &NetNs) -> TunnelEnd {
    real.ip(&["link set eth0 gro_max_size 1".to_owned()]).expect("ip");
    TunnelEnd::start(real).expect("the end of a tunnel")
}

/// Addresses of the node at each interface.
fn tunnels_begin(topology: &Topology) {
    for (number, (_, host)) in topology.hosts().enumerate() {
        let interface = &host.interface;
        topology
            .node
            .ip(&[
                format!("addr add 10.71.0.{}/32 dev {interface}", number + 1),
                format!("addr add fd71::{:x}/128 dev {interface} nodad", number + 1),
            ])
            .expect("an address for tunnels to begin at");
    }
}

#[test]
fn set_with_a_real_of_another_port_is_refused_and_names_the_vip() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let other = format!("{}:9001", vip(OTHER_VIP4).ip());
    let routes = split("redis", "*", "redis", &[("1.0", 1)], MAGLEV);
    let path = bed.policies(&routes);
    std::fs::write(&path, other_port(&routes)).expect("policies");
    let nat = bed.load_args(&path);
    let dsr: Vec<_> = nat.iter().map(|arg| arg.replace("=tc", "=xdp:dsr-l2")).collect();
    let run =
        |args: &[String]| instance.balancer(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let refused = format!("{:#}", run(&dsr).expect_err("another port"));
    for part in ["cannot change ports", &other, ":9000", "mode nat"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains("nothing is loaded"), "{status}");
    // With addresses translated there is nothing wrong with it, and what runs stays.
    run(&nat).expect("load");
    run(&dsr).expect_err("another port");
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains("epoch 1") && !status.contains("dsr-l2"), "{status}");
    // Whoever asks before is told as well.
    let good = bed.policies(&routes);
    let good: Vec<_> =
        bed.load_args(&good).iter().map(|arg| arg.replace("=tc", "=xdp:dsr-l2")).collect();
    run(&good).expect("load");
    std::fs::write(&path, other_port(&routes)).expect("policies");
    let path = path.display().to_string();
    let refused = format!("{:#}", instance.balancer(&["plan", "-f", &path]).expect_err("refused"));
    assert!(refused.contains("cannot change ports"), "{refused}");
}

/// The world with a real of another port than its VIP.
fn other_port(routes: &str) -> String {
    let good = format!("{}---\n{routes}", inventory());
    let text = good.replace(
        "port: 9000\n    tags: {kuma.io/service: other}",
        "port: 9001\n    tags: {kuma.io/service: other}",
    );
    assert_ne!(text, good);
    text
}

/// Nothing carries a packet of one family to a real of the other, in any mode: the client is told at
/// once, and `explain` says why.
#[test]
fn vip_whose_reals_are_of_the_other_family_refuses_at_once() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let _servers = with_vips(&bed);
    let instance = bed.instance();
    let path = bed.policies(&split("redis", "*", "redis", &[("1.0", 1)], MAGLEV));
    let text = std::fs::read_to_string(&path).expect("policies");
    let of_ipv4 = |part: &&str| !REALS.iter().any(|r| part.contains(&format!("name: {r}-v4\n")));
    let kept: Vec<_> = text.split("---\n").filter(of_ipv4).collect();
    std::fs::write(&path, kept.join("---\n")).expect("policies");
    // Of native XDP a veth without a program at its other end delivers no reset alone.
    for hook in ["=xdp:dsr-l2:generic", "=xdp:dsr-ipip:generic"] {
        let args = bed.load_args(&path);
        let args: Vec<_> = args.iter().map(|arg| arg.replace("=tc", hook)).collect();
        instance.balancer(&args.iter().map(String::as_str).collect::<Vec<_>>()).expect("load");
        let refused = bed.open("web-1", VIP4).expect_err("nobody is there");
        let os = refused.downcast_ref::<nix::errno::Errno>().copied();
        assert_eq!(os, Some(nix::errno::Errno::ECONNREFUSED), "{refused:#}");
    }
    let said = instance.balancer(&["explain", "--from", "web-1-v4", "--to", "redis"]);
    let said = said.expect("an explanation");
    assert!(said.contains("of IPv6 left out: a VIP carries its own family"), "{said}");
}
