//! Past the stack: between interfaces of which `INTERFACES` says that this may be done.

use balancer_ebpf::{
    abi::{Interface, forwarding, interface_flags},
    reason::Reason,
};
use harness::{
    Datagram, NetNs, Segment,
    packet::{
        assert_same,
        flags::{ACK, FIN, PSH, SYN},
    },
    wire,
};

use crate::world::{FORWARD, Flows, Hook, REPLY, TC_ACT_REDIRECT, TC_ACT_UNSPEC, World};

/// Client, VIP and real of each family. (IPv6 hosts are written as `ip` prints them.)
const FAMILIES: [[&str; 3]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.2:8080"],
    ["[fd00::1]:40000", "[fd62:616c::1]:80", "[fd00:1::2]:8080"],
];

/// Ethernet addresses of the node's interfaces, and of who is behind them.
const IN: [u8; 6] = [2, 0, 0, 0, 1, 1];
const CLIENT: [u8; 6] = [2, 0, 0, 0, 1, 2];
const OUT: [u8; 6] = [2, 0, 0, 0, 2, 1];
const REAL: [u8; 6] = [2, 0, 0, 0, 2, 2];

/// A node between a client, behind `in0`, and a real, behind `out0`.
struct Node<'a> {
    world: World,
    netns: &'a NetNs,
    ends: [&'static str; 3],
    /// Numbers of `in0`, `out0` and `side0`, behind which nobody is.
    interfaces: [u32; 3],
}

fn host(end: &str) -> String {
    end.parse::<std::net::SocketAddr>().expect("an end").ip().to_string()
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs a test for each family, in a namespace that forwards.
fn each(flags: u32, test: impl Fn(&mut Node<'_>) + Sync) {
    let Some(root) = harness::root_or_skip("datapath") else { return };
    for ends in FAMILIES {
        let netns = NetNs::new(root, "straight").expect("a namespace");
        netns.without_dad().expect("sysctls");
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            netns.sysctl(key, "1").expect("a sysctl");
        }
        let [client, _, real] = ends.map(host);
        let mut lines = Vec::new();
        for (name, own) in [("in", IN), ("out", OUT), ("side", [2, 0, 0, 0, 3, 1])] {
            lines
                .push(format!("link add {name}0 address {} type veth peer name {name}1", mac(own)));
            lines.push(format!("link set {name}0 up"));
            lines.push(format!("link set {name}1 up"));
        }
        for (address, name, behind) in [(&client, "in0", CLIENT), (&real, "out0", REAL)] {
            lines.push(format!("route add {address} dev {name}"));
            lines.push(format!("neigh add {address} lladdr {} dev {name}", mac(behind)));
        }
        netns.ip(&lines).expect("interfaces");
        netns.run(|| {
            let Some(mut world) = World::new() else { return };
            world.real(2, ends[2], 1);
            world.service(ends[1], &[2]);
            world.service(&format!("{}/udp", ends[1]), &[2]);
            let index = |name| nix::net::if_::if_nametoindex(name).expect("an interface");
            let interfaces = ["in0", "out0", "side0"].map(index);
            if flags != 0 {
                interfaces.iter().for_each(|interface| world.allow(*interface, flags));
            }
            test(&mut Node { world, netns: &netns, ends, interfaces });
        });
    }
}

impl Node<'_> {
    /// From the client to the VIP, as it comes in.
    fn there(&self, flags: u8) -> Segment {
        let [client, vip, _] = self.ends;
        Segment { macs: [CLIENT, IN], ..Segment::new(client, vip).flags(flags) }
    }

    /// From the real to the client, as it comes in.
    fn back(&self, flags: u8) -> Segment {
        let [client, _, real] = self.ends;
        Segment { macs: [REAL, OUT], ..Segment::new(real, client).flags(flags) }
    }

    /// What the client sends comes out translated, one hop further where it goes past the stack.
    #[track_caller]
    fn request(&mut self, sent: &Segment, reason: Reason, verdict: i32) {
        self.world.interface = self.interfaces[0];
        let hops = sent.hops - u8::from(verdict == TC_ACT_REDIRECT);
        let expected = Segment { hops, ..sent.clone().to(self.ends[2]) };
        self.met(sent, (reason, verdict), &expected);
    }

    /// What the real answers goes past the stack.
    #[track_caller]
    fn answer(&mut self, sent: &Segment) {
        self.world.interface = self.interfaces[1];
        let expected = Segment { hops: sent.hops - 1, ..sent.clone().from(self.ends[1]) };
        self.met(sent, (Reason::Reply, TC_ACT_REDIRECT), &expected);
    }

    #[track_caller]
    fn met(&mut self, sent: &Segment, told: (Reason, i32), expected: &Segment) {
        let outcome = self.world.run_frame(Hook::Ingress, &sent.bytes());
        assert_eq!((outcome.reason, outcome.verdict), told, "{sent:?}");
        assert_same(told.0.name(), &expected.bytes(), &outcome.packet);
    }

    /// What the real answers is left to where it leaves, and translated there.
    #[track_caller]
    fn answer_by_the_stack(&mut self, sent: &Segment) {
        self.world.interface = self.interfaces[1];
        assert_eq!(self.world.reason(Hook::Ingress, sent), Reason::StackReply);
        self.world.interface = self.interfaces[0];
        let outcome = self.world.run_frame(Hook::Egress, &sent.bytes());
        assert_eq!((outcome.reason, outcome.verdict), (Reason::Reply, TC_ACT_UNSPEC), "{sent:?}");
        let expected = sent.clone().from(self.ends[1]);
        assert_same("reply", &expected.bytes(), &outcome.packet);
    }

    /// A handshake past the stack.
    #[track_caller]
    fn connect(&mut self) {
        self.request(&self.there(SYN), Reason::NewFlow, TC_ACT_REDIRECT);
        self.answer(&self.back(SYN | ACK));
        self.request(&self.there(ACK), Reason::Established, TC_ACT_REDIRECT);
    }

    /// How the flow's entry of the way there says that it goes.
    fn how(&mut self, flows: Flows) -> u8 {
        let [client, vip, _] = self.ends;
        self.world.flow(flows, client, vip, FORWARD).expect("a flow").state.forwarding
    }

    fn ip(&self, line: &str) {
        self.netns.ip(&[line.to_owned()]).unwrap_or_else(|e| panic!("{e:#}"));
    }
}

#[test]
fn a_connection_goes_past_the_stack_both_ways_from_its_beginning_to_its_end() {
    each(interface_flags::DIRECT, |node| {
        node.connect();
        let [client, vip, real] = node.ends;
        for way in [(client, vip, FORWARD), (real, client, REPLY)] {
            let flow = node.world.flow(Flows::Open, way.0, way.1, way.2).expect("established");
            assert_eq!(flow.state.forwarding, forwarding::DIRECT);
        }
        assert_eq!((node.world.flows(), node.world.active(2)), (2, 1));
        let get = node.there(ACK | PSH).payload(b"GET");
        node.request(&get, Reason::Established, TC_ACT_REDIRECT);
        node.answer(&node.back(ACK | PSH).payload(b"200 OK"));
        let counter = node.world.counter(1);
        assert_eq!((counter.connections, counter.packets_in, counter.packets_out), (1, 3, 2));
        node.request(&node.there(FIN | ACK), Reason::Established, TC_ACT_REDIRECT);
        node.answer(&node.back(FIN | ACK));
        assert_eq!(node.world.active(2), 0, "both have said that they are done");
    });
}

#[test]
fn datagrams_go_past_the_stack_too() {
    each(interface_flags::DIRECT, |node| {
        let [client, vip, real] = node.ends;
        let (there, back) = (Datagram::new(client, vip), Datagram::new(real, client));
        for (interface, macs, sent, reason, expected) in [
            (0, [CLIENT, IN], &there, Reason::NewFlow, there.clone().to(real)),
            (1, [REAL, OUT], &back, Reason::Reply, back.clone().from(vip)),
            (0, [CLIENT, IN], &there, Reason::Established, there.clone().to(real)),
        ] {
            node.world.interface = node.interfaces[interface];
            let frame = wire::ethernet(macs, &sent.packet());
            let outcome = node.world.run_frame(Hook::Ingress, &frame);
            assert_eq!((outcome.reason, outcome.verdict), (reason, TC_ACT_REDIRECT));
            let mut packet = expected.packet();
            if sent.src.is_ipv4() {
                packet[8] -= 1;
                wire::sum_ipv4(&mut packet);
            } else {
                packet[7] -= 1;
            }
            assert_same(reason.name(), &wire::ethernet(macs, &packet), &outcome.packet);
        }
    });
}

#[test]
fn what_is_put_at_the_other_end_is_addressed_to_whom_it_is_for() {
    each(interface_flags::DIRECT | interface_flags::PEER, |node| {
        let there = node.there(SYN);
        node.world.interface = node.interfaces[0];
        let expected = Segment { hops: 60, macs: [OUT, REAL], ..there.clone().to(node.ends[2]) };
        node.met(&there, (Reason::NewFlow, TC_ACT_REDIRECT), &expected);
        let back = node.back(SYN | ACK);
        node.world.interface = node.interfaces[1];
        let expected = Segment { hops: 60, macs: [IN, CLIENT], ..back.clone().from(node.ends[1]) };
        node.met(&back, (Reason::Reply, TC_ACT_REDIRECT), &expected);
    });
}

#[test]
fn whose_ethernet_address_is_not_known_is_asked_for_it() {
    each(interface_flags::DIRECT | interface_flags::PEER, |node| {
        node.ip(&format!("neigh del {} dev out0", host(node.ends[2])));
        // Sending to the neighbour writes the addresses, and that is after the program.
        node.request(&node.there(SYN), Reason::NewFlow, TC_ACT_REDIRECT);
    });
}

#[test]
fn a_packet_that_routers_have_to_look_at_goes_through_the_stack() {
    each(interface_flags::DIRECT, |node| {
        node.connect();
        let (there, back) = (node.there(ACK), node.back(ACK));
        let mut odd: Vec<fn(Segment) -> Segment> = vec![
            |sent| Segment { hops: 1, ..sent },
            // Longer than the interface's 1,500.
            |sent| sent.payload(&[7; 1500]),
            |sent| Segment { vlans: vec![7], ..sent },
        ];
        if there.src.is_ipv4() {
            // A router alert (RFC 2113).
            odd.push(|sent| Segment { ip_options: vec![148, 4, 0, 0], ..sent });
            odd.push(|sent| Segment { more_fragments: true, dont_fragment: false, ..sent });
        }
        for odd in odd {
            node.request(&odd(there.clone()), Reason::Established, TC_ACT_UNSPEC);
            node.answer_by_the_stack(&odd(back.clone()));
        }
        node.request(&there, Reason::Established, TC_ACT_REDIRECT);
        node.answer(&back);
    });
}

#[test]
fn what_has_to_fit_of_many_packets_in_one_is_each() {
    each(interface_flags::DIRECT, |node| {
        node.connect();
        let headers = (node.there(ACK).tcp_at() - 14 + 20) as u32;
        for (segment, verdict) in
            [(1500 - headers, TC_ACT_REDIRECT), (1501 - headers, TC_ACT_UNSPEC)]
        {
            node.world.segment = segment;
            let sent = node.there(ACK).payload(&[7; 2800]);
            node.request(&sent, Reason::Established, verdict);
        }
    });
}

#[test]
fn without_a_way_or_an_interface_to_go_by_the_stack_decides() {
    each(interface_flags::DIRECT, |node| {
        node.connect();
        let [client, out, _] = node.interfaces;
        let (there, back) = (node.there(ACK), node.back(ACK));
        for interface in [client, out] {
            node.world.allow(interface, 0);
            node.request(&there, Reason::Established, TC_ACT_UNSPEC);
            node.answer_by_the_stack(&back);
            node.world.allow(interface, interface_flags::DIRECT);
            node.request(&there, Reason::Established, TC_ACT_REDIRECT);
            node.answer(&back);
        }
        let [client, _, real] = node.ends.map(host);
        node.ip(&format!("route del {real} dev out0"));
        node.request(&there, Reason::Established, TC_ACT_UNSPEC);
        node.answer(&back);
        node.ip(&format!("route replace unreachable {client}"));
        node.answer_by_the_stack(&back);
    });
}

#[test]
fn what_was_allowed_ends_with_its_lease() {
    each(interface_flags::DIRECT, |node| {
        node.connect();
        let [client, out, _] = node.interfaces;
        let (there, back) = (node.there(ACK), node.back(ACK));
        for interface in [client, out] {
            // Jiffies begin above this one.
            node.world.allow_until(interface, interface_flags::DIRECT, 1);
            node.request(&there, Reason::Established, TC_ACT_UNSPEC);
            node.answer_by_the_stack(&back);
            node.world.allow_until(interface, interface_flags::DIRECT, Interface::FOR_GOOD - 1);
            node.request(&there, Reason::Established, TC_ACT_REDIRECT);
            node.answer(&back);
        }
    });
}

#[test]
fn a_flow_that_began_on_the_stack_stays_there() {
    each(0, |node| {
        node.request(&node.there(SYN), Reason::NewFlow, TC_ACT_UNSPEC);
        assert_eq!(node.how(Flows::HalfOpen), 0);
        for interface in node.interfaces {
            node.world.allow(interface, interface_flags::DIRECT);
        }
        let answer = node.back(SYN | ACK);
        node.world.interface = node.interfaces[1];
        // No flow has said that replies are to be looked at where they come in.
        assert_eq!(node.world.reason(Hook::Ingress, &answer), Reason::NonVip);
        node.world.interface = node.interfaces[0];
        let expected = answer.clone().from(node.ends[1]);
        node.world.expect(Hook::Egress, &answer, Reason::Reply, &expected);
        node.request(&node.there(ACK), Reason::Established, TC_ACT_UNSPEC);
        assert_eq!(node.how(Flows::Open), 0);
    });
}

/// A flow may begin at TC because XDP cannot ask for a neighbour.
#[test]
fn xdp_carries_what_tc_has_sent_past_the_stack() {
    each(interface_flags::DIRECT, |node| {
        node.connect();
        let [_, vip, real] = node.ends;
        for interface in node.interfaces {
            node.world.takes_frames(interface);
        }
        let get = node.there(ACK | PSH).payload(b"GET");
        let told = node.back(ACK | PSH).payload(b"200 OK");
        for (sent, reason, on, macs) in [
            (&get, Reason::Established, get.clone().to(real), [OUT, REAL]),
            (&told, Reason::Reply, told.clone().from(vip), [IN, CLIENT]),
        ] {
            let outcome = node.world.run_frame(Hook::Edge, &sent.bytes());
            assert_eq!(outcome.reason, reason);
            let expected = Segment { macs, hops: sent.hops - 1, ..on };
            assert_same(reason.name(), &expected.bytes(), &outcome.packet);
        }
    });
}

#[test]
fn a_flow_whose_replies_would_leave_by_another_interface_is_the_stacks() {
    each(interface_flags::DIRECT, |node| {
        let client = host(node.ends[0]);
        node.ip(&format!("route replace {client} dev side0"));
        node.request(&node.there(SYN), Reason::NewFlow, TC_ACT_UNSPEC);
        assert_eq!(node.how(Flows::HalfOpen), 0);
    });
}
