//! Direct server return: reals that have the VIP's address answer clients by themselves.

use harness::{EchoServer, Shell, TunnelEnd, root_or_skip};

use crate::bed::{Bed, MAGLEV, OTHER_VIP4, VIP4, VIP6, split, version_of, vip};

const REALS: [&str; 4] = ["a", "b", "c", "d"];

/// Reals with the VIPs' addresses, and what native XDP asks of veth pairs. The answers cross the node
/// as they would cross any router.
fn prepare(bed: &Bed) -> Vec<EchoServer> {
    for (_, host) in bed.topology.hosts() {
        let interface = &host.interface;
        let node = format!("ethtool -K {interface} tx off");
        bed.topology.node.run(|| Shell::silent().run(&node)).expect("ethtool");
        host.ns.run(|| Shell::silent().run("ethtool -K eth0 tx off gro on")).expect("ethtool");
    }
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
    let mode = hook.strip_prefix("xdp:").expect("a mode");
    assert!(said.contains(&format!("(xdp, {mode})")), "{said}");
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
    let reasons = instance.balancer(&["show", "reasons"]).expect("reasons");
    let count = |name: &str| {
        let line = reasons.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).unwrap_or(0)
    };
    assert_eq!(count("reply"), 0, "{reasons}");
    assert!(count("established") > 100, "{reasons}");
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains(&format!("xdp, {mode}")), "{status}");
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
    for (number, (_, host)) in bed.topology.hosts().enumerate() {
        let interface = &host.interface;
        bed.topology
            .node
            .ip(&[
                format!("addr add 10.71.0.{}/32 dev {interface}", number + 1),
                format!("addr add fd71::{:x}/128 dev {interface} nodad", number + 1),
            ])
            .expect("an address for tunnels to begin at");
    }
    let start = |real| TunnelEnd::start(&bed.topology.host(real).ns).expect("the end of a tunnel");
    let ends = REALS.map(start);
    connections(&bed, "xdp:dsr-ipip");
    let taken: u64 = ends.iter().map(TunnelEnd::taken).sum();
    assert!(taken > 300, "{taken} packets came through tunnels");
}

#[test]
fn set_with_a_real_of_another_port_is_refused_and_names_the_vip() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let other = format!("{}:9001", vip(OTHER_VIP4).ip());
    let routes = split("redis", "*", "redis", &[("1.0", 1)], MAGLEV);
    let path = bed.policies(&routes);
    let text = std::fs::read_to_string(&path).expect("policies");
    std::fs::write(
        &path,
        text.replace(
            "port: 9000\n    tags: {kuma.io/service: other}",
            "port: 9001\n    tags: {kuma.io/service: other}",
        ),
    )
    .expect("policies");
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
}
