//! XDP on the node's interfaces: packets are sent on before the stack has seen them.

use std::{fs, net::TcpStream, time::Duration};

use balancer_ebpf::reason::Reason;
use harness::{Shell, root_or_skip};

use crate::{
    bed::{Bed, MAGLEV, VIP4, VIP6, split, vip},
    dsr,
    odd::met,
};

/// What native XDP asks of veth pairs: complete checksums, and somebody who takes frames at the
/// other end.
pub(crate) fn prepare(bed: &Bed) {
    for (_, host) in bed.topology.hosts() {
        let node = format!("ethtool -K {} tx off", host.interface);
        bed.topology.node.run(|| Shell::silent().run(&node)).expect("ethtool");
        host.ns.run(|| Shell::silent().run("ethtool -K eth0 tx off gro on")).expect("ethtool");
    }
}

/// `load` with `hook` at each interface of the node.
fn load_args(bed: &Bed, routes: &str, hook: &str) -> Vec<String> {
    let args = bed.load_args(&bed.policies(routes));
    args.into_iter().map(|arg| arg.replace("=tc", &format!("={hook}"))).collect()
}

/// Packets that the node's stack has forwarded, IPv4 and IPv6.
fn forwarded(bed: &Bed) -> u64 {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let (four, six) = bed
        .topology
        .node
        .run(|| (read("/proc/thread-self/net/snmp"), read("/proc/thread-self/net/snmp6")));
    let mut ip = four.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (ip.next().expect("names"), ip.next().expect("values"));
    let at = names.split(' ').position(|name| name == "ForwDatagrams").expect("a column");
    let four = values.split(' ').nth(at).expect("a value").parse::<u64>().expect("a number");
    let six = six.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams"));
    four + six.expect("a line").trim().parse::<u64>().expect("a number")
}

#[test]
fn connections_through_xdp_never_meet_the_stack() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    prepare(&bed);
    let instance = bed.instance();
    let routes = split("redis", "*", "redis", &[("1.0", 1), ("2.0", 1)], MAGLEV);
    let args = load_args(&bed, &routes, "xdp");
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let said = instance.balancer(&args).expect("load");
    assert!(said.contains("(xdp, nat)"), "{said}");
    // The stack finds the neighbours, with whom XDP can go on.
    for to in [VIP4, VIP6] {
        for client in ["web-1", "guest"] {
            bed.dial(client, to, 20_000..20_040);
        }
    }
    let before = forwarded(&bed);
    for to in [VIP4, VIP6] {
        for client in ["web-1", "guest"] {
            // `dial` asserts what both ends see.
            assert_eq!(bed.dial(client, to, 21_000..21_040).len(), 40);
        }
    }
    let stack = forwarded(&bed) - before;
    // More than a thousand packets; a neighbour may have been asked for anew.
    assert!(stack < 20, "the stack forwarded {stack} packets");
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains("xdp, nat"), "{status}");
    assert!(status.contains("native XDP on the veth v-web-1"), "{status}");
}

#[test]
fn generic_xdp_goes_on_where_asked_for() {
    let Some(root) = root_or_skip("e2e") else { return };
    let bed = Bed::new(root);
    let instance = bed.instance();
    let routes = split("redis", "*", "redis", &[("1.0", 1)], MAGLEV);
    let args = load_args(&bed, &routes, "xdp:generic");
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    instance.balancer(&args).expect("load");
    for to in [VIP4, VIP6] {
        assert_eq!(bed.dial("web-1", to, 22_000..22_020).len(), 20);
    }
    let status = instance.balancer(&["status"]).expect("status");
    assert!(status.contains("xdp-generic, nat"), "{status}");
}

/// Nobody ever knows the Ethernet address of the only real of one family: its clients wait in vain,
/// and nobody else does.
#[test]
fn a_hop_that_never_resolves_is_counted_and_in_nobody_elses_way() {
    let Some(root) = root_or_skip("e2e") else { return };
    for hook in ["xdp", "xdp:dsr-l2"] {
        let bed = Bed::new(root);
        let _servers = dsr::prepare(&bed);
        let reals = ["a", "b"].map(|real| &bed.topology.host(real).ns);
        let ignore = |value: &str| {
            for real in reals {
                real.sysctl("net/ipv4/conf/all/arp_ignore", value).expect("sysctl");
            }
        };
        ignore("8");
        let instance = bed.instance();
        let routes = split("redis", "*", "redis", &[("1.0", 1)], MAGLEV);
        let args = load_args(&bed, &routes, hook);
        instance.balancer(&args.iter().map(String::as_str).collect::<Vec<_>>()).expect("load");
        bed.topology.host("web-1").ns.run(|| {
            let waited = TcpStream::connect_timeout(&vip(VIP4), Duration::from_secs(4));
            waited.expect_err("nobody can be sent to");
        });
        // It came, and came again twice: TC had each of them.
        assert!(met(&instance, Reason::LeftToTc) >= 3, "{hook}");
        if hook == "xdp" {
            assert!(met(&instance, Reason::Unanswered) >= 1, "told that no answer came");
        }
        assert_eq!(bed.dial("web-1", VIP6, 24_000..24_020).len(), 20, "{hook}");
        ignore("0");
        assert_eq!(bed.dial("web-1", VIP4, 24_100..24_110).len(), 10, "{hook}: once it resolves");
    }
}
