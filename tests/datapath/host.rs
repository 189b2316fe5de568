//! Connections that the node itself opens: to the real where they leave, to the VIP where they
//! come in.

use std::net::{IpAddr, SocketAddr};

use balancer_ebpf::{abi::forwarding, reason::Reason};
use harness::{
    NetNs, Segment,
    packet::{
        assert_same,
        flags::{ACK, FIN, RST, SYN},
    },
    wire,
};

use crate::world::{FORWARD, Flows, Hook, LOOPBACK, REPLY, TC_ACT_REDIRECT, TC_ACT_UNSPEC, World};

/// The node's address, a VIP and its real, in both families.
const ENDS: [(&str, &str, &str); 2] = [
    ("10.0.0.1:40000", "240.0.0.1:80", "10.0.1.2:8080"),
    ("[fd00::1]:40000", "[fd62:616c::1]:80", "[fd00:1::2]:8080"),
];

/// Runs a test for each family, in a namespace of its own: there are no routes, so that the
/// packets go where the stack sent them.
fn each(test: impl Fn(&mut World, (&str, &str, &str)) + Sync) {
    let Some(root) = harness::root_or_skip("datapath") else { return };
    let netns = NetNs::new(root, "host").expect("a namespace");
    for ends in ENDS {
        netns.run(|| {
            let Some(mut world) = World::new() else { return };
            world.real(2, ends.2, 1);
            world.service(ends.1, &[2]);
            test(&mut world, ends);
        });
    }
}

/// A handshake; returns what is sent and what is answered.
fn connect(world: &mut World, (node, vip, real): (&str, &str, &str)) -> (Segment, Segment) {
    let (there, back) = (Segment::new(node, vip), Segment::new(real, node));
    let syn = there.clone().flags(SYN);
    world.expect(Hook::Host, &syn, Reason::NewFlow, &syn.clone().to(real));
    let answer = back.clone().flags(SYN | ACK);
    world.expect(Hook::Ingress, &answer, Reason::Reply, &answer.clone().from(vip));
    let ack = there.clone().flags(ACK);
    world.expect(Hook::Host, &ack, Reason::Established, &ack.clone().to(real));
    (there, back)
}

#[test]
fn the_nodes_own_connection_is_translated_where_it_leaves_and_where_it_comes_in() {
    each(|world, ends| {
        let (node, vip, real) = ends;
        let (there, back) = connect(world, ends);
        assert_eq!((world.flows(), world.active(2)), (2, 1));
        for way in [(node, vip, FORWARD), (real, node, REPLY)] {
            let flow = world.flow(Flows::Open, way.0, way.1, way.2).expect("established");
            assert_eq!(flow.state.forwarding, forwarding::HOST);
        }
        let data = there.clone().flags(ACK).payload(b"GET");
        world.expect(Hook::Host, &data, Reason::Established, &data.clone().to(real));
        let answer = back.clone().flags(ACK).payload(b"200 OK");
        world.expect(Hook::Ingress, &answer, Reason::Reply, &answer.clone().from(vip));
        let counter = world.counter(1);
        assert_eq!((counter.connections, counter.packets_in, counter.packets_out), (1, 3, 2));
        world.reason(Hook::Host, &there.flags(FIN | ACK));
        world.reason(Hook::Ingress, &back.flags(FIN | ACK));
        assert_eq!(world.active(2), 0, "both have said that they are done");
    });
}

#[test]
fn an_error_about_the_nodes_own_packet_is_about_one_to_the_vip() {
    each(|world, ends| {
        let (node, vip, real) = ends;
        let (there, _) = connect(world, ends);
        let (kind, rest) = match there.src {
            SocketAddr::V4(_) => ((3, 4), [0, 0, 5, 0]),
            SocketAddr::V6(_) => ((2, 0), [0, 0, 5, 0]),
        };
        let error = |from: IpAddr, to: &str| {
            let about = Segment::new(node, to).flags(ACK).payload(b"too long for somebody");
            let about = &about.bytes()[wire::IP_AT..];
            let [node, _] = wire::addresses(about);
            wire::ethernet(wire::MACS, &wire::icmp(from, node, kind, rest, about))
        };
        let ip = |end: &str| end.parse::<SocketAddr>().expect("an end").ip();
        let router = if there.src.is_ipv4() { "10.0.9.9" } else { "fd00:9::9" };
        let router: IpAddr = router.parse().expect("an address");
        // A router keeps its name, the real has the VIP's.
        for (from, seen) in [(router, router), (ip(real), ip(vip))] {
            let outcome = world.run_frame(Hook::Ingress, &error(from, real));
            assert_eq!((outcome.reason, outcome.verdict), (Reason::IcmpError, TC_ACT_UNSPEC));
            assert_same("an error", &error(seen, vip), &outcome.packet);
        }
        // About a workload's packet it is translated where it leaves.
        let client = node.replace("40000", "40001");
        world.forwarded(&Segment::new(&client, vip).flags(SYN), Reason::NewFlow);
        let about = Segment::new(&client, real).flags(SYN).bytes();
        let error = wire::icmp(router, ip(node), kind, rest, &about[wire::IP_AT..]);
        let error = wire::ethernet(wire::MACS, &error);
        let outcome = world.run_frame(Hook::Ingress, &error);
        assert_eq!((outcome.reason, &outcome.packet), (Reason::NotTcp, &error));
    });
}

#[test]
fn a_packet_that_came_in_is_not_taken_for_the_nodes_own() {
    each(|world, (node, vip, _)| {
        let syn = Segment::new(node, vip).flags(SYN);
        assert_eq!(world.reason(Hook::Egress, &syn), Reason::NonVip);
        assert_eq!(world.flows(), 0);
    });
}

#[test]
fn a_packet_that_came_in_is_never_one_of_the_nodes_own_connection() {
    each(|world, ends| {
        let (there, _) = connect(world, ends);
        let mut runs = crate::world::TestRuns::new(world);
        for flags in [SYN, ACK, FIN | ACK, RST] {
            let forged = there.clone().flags(flags);
            let outcome = runs.run(world, Hook::Ingress, &forged.bytes());
            assert_eq!(outcome.reason, Reason::SpoofedSource, "{forged:?}");
        }
        let first = Segment {
            more_fragments: true,
            dont_fragment: false,
            ..there.clone().flags(ACK).payload(&[7; 64])
        };
        if first.src.is_ipv4() {
            let outcome = runs.run(world, Hook::Ingress, &first.bytes());
            assert_eq!(outcome.reason, Reason::Fragment, "and none may follow it");
        }
        // The node's own go on.
        let data = there.flags(ACK).payload(b"still there");
        world.expect(Hook::Host, &data, Reason::Established, &data.clone().to(ends.2));
    });
}

#[test]
fn a_forwarded_packet_is_not_translated_again_where_it_leaves() {
    each(|world, (client, vip, real)| {
        // What the first VIP sends to is a VIP itself, and another real has the client's port.
        let other = real.replace("2]", "3]").replace("1.2:", "1.3:");
        world.real(3, &other, 1);
        world.real(4, &other.replace(":8080", ":40000"), 1);
        world.service(real, &[3]);
        let syn = Segment::new(client, vip).flags(SYN);
        world.expect(Hook::Ingress, &syn, Reason::NewFlow, &syn.clone().to(real));
        assert_eq!(world.reason(Hook::Egress, &syn.to(real)), Reason::UnknownReply);
    });
}

#[test]
fn a_workloads_reply_is_left_to_where_it_leaves_and_counted_once() {
    each(|world, ends| {
        let (node, vip, real) = ends;
        connect(world, ends);
        let client = node.replace(":1]", ":9]").replace("0.1:", "0.9:").replace("40000", "50000");
        world.forwarded(&Segment::new(&client, vip).flags(SYN), Reason::NewFlow);
        let before = world.counter(1).packets_out;
        let answer = Segment::new(real, &client).flags(SYN | ACK);
        assert_eq!(world.reason(Hook::Ingress, &answer), Reason::StackReply);
        world.expect(Hook::Egress, &answer, Reason::Reply, &answer.clone().from(vip));
        assert_eq!(world.counter(1).packets_out, before + 1);
    });
}

#[test]
fn a_reply_to_a_port_that_some_vip_has_is_a_reply() {
    each(|world, (node, vip, real)| {
        let busy = node.replace("40000", "9000");
        // A VIP of that port: at another address, and at the node's own.
        world.service(&vip.replace(":80", ":9000"), &[2]);
        world.service(&busy, &[2]);
        let syn = Segment::new(&busy, vip).flags(SYN);
        world.expect(Hook::Host, &syn, Reason::NewFlow, &syn.clone().to(real));
        for flags in [SYN | ACK, ACK, RST] {
            let answer = Segment::new(real, &busy).flags(flags);
            world.expect(Hook::Ingress, &answer, Reason::Reply, &answer.clone().from(vip));
        }
    });
}

#[test]
fn a_connection_from_a_port_that_some_real_has_is_the_nodes_own() {
    each(|world, (node, vip, real)| {
        let busy = node.replace("40000", "8080");
        let syn = Segment::new(&busy, vip).flags(SYN);
        world.expect(Hook::Host, &syn, Reason::NewFlow, &syn.clone().to(real));
    });
}

#[test]
fn a_refused_connection_of_the_node_is_answered_inward() {
    each(|world, (node, vip, _)| {
        let table = world.equal_table(&[1], 16);
        world.change_route(1, |route| route.table = table);
        let syn = Segment::new(node, vip).flags(SYN);
        let outcome = world.run_frame(Hook::Host, &syn.bytes());
        assert_eq!((outcome.reason, outcome.verdict), (Reason::Blackhole, TC_ACT_REDIRECT));
        assert_eq!(outcome.packet, syn.answering_reset().bytes());
    });
}

#[test]
fn the_interface_says_nothing_about_the_source_of_the_nodes_own_connection() {
    each(|world, (node, vip, real)| {
        let address = node.parse::<SocketAddr>().expect("an end").ip().to_string();
        for half in 0..2 {
            world.source(half, &address, 5, 0, LOOPBACK + 1);
        }
        let syn = Segment::new(node, vip).flags(SYN);
        assert_eq!(world.reason(Hook::Ingress, &syn), Reason::SpoofedSource);
        world.expect(Hook::Host, &syn, Reason::NewFlow, &syn.clone().to(real));
    });
}

#[test]
fn the_nodes_packet_goes_by_the_way_to_the_real_where_routes_tell_one() {
    let Some(root) = harness::root_or_skip("datapath") else { return };
    let netns = NetNs::new(root, "host").expect("a namespace");
    let lines = [
        "link add out type veth peer name in",
        "link set out up",
        "link set in up",
        "addr add 10.0.0.1/32 dev out",
        "route add 10.0.1.2/32 dev out",
    ];
    netns.ip(&lines.map(str::to_owned)).expect("an interface");
    for (forwards, verdict) in [("0", TC_ACT_UNSPEC), ("1", TC_ACT_REDIRECT)] {
        netns.sysctl("net/ipv4/ip_forward", forwards).expect("a sysctl");
        netns.run(|| {
            let Some(mut world) = World::new() else { return };
            let (node, vip, real) = ENDS[0];
            world.real(2, real, 1);
            world.service(vip, &[2]);
            let syn = Segment::new(node, vip).flags(SYN);
            let outcome = world.run_frame(Hook::Host, &syn.bytes());
            // Without forwarding the kernel tells programs of no route.
            assert_eq!((outcome.reason, outcome.verdict), (Reason::NewFlow, verdict));
            assert_eq!(outcome.packet, syn.to(real).bytes());
        });
    }
}
