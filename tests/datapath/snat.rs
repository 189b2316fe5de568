//! Source translation: reals see the node as their client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use balancer_ebpf::{
    abi::{flow_state, forwarding},
    reason::Reason,
};
use harness::{
    Datagram, Segment, Uplink,
    packet::{
        assert_same,
        flags::{ACK, FIN, PSH, SYN},
        verify_checksums,
    },
    wire,
};

use crate::world::{FORWARD, FlowFound, Flows, Hook, REPLY, TC_ACT_REDIRECT, World, edge::uplink};

const HOOKS: [Hook; 2] = [Hook::Ingress, Hook::Edge];
/// Client, VIP and real.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.2:8080"],
    ["[fd00::1]:40000", "[fd62::1]:80", "[fd00:1::2]:8080"],
];
/// The node's addresses at the uplink.
const NODE4: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const NODE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 1);
/// The lowest source port, and how many there are.
const PORTS: (u32, u32) = (61_000, 50);

/// A VIP of each family with one real, TCP and UDP, and an uplink that leads everywhere.
fn world() -> Option<(World, Uplink)> {
    let mut world = World::new()?;
    for (id, [_, vip, real]) in [2, 3].into_iter().zip(FAMILIES) {
        world.real(id, real, 1);
        world.service(vip, &[id]);
        world.service(&format!("{vip}/udp"), &[id]);
    }
    world.snat(PORTS.0, PORTS.1);
    let uplink = uplink(&mut world, true);
    world.addresses(uplink.index(), NODE4, NODE6);
    Some((world, uplink))
}

fn ip(end: &str) -> IpAddr {
    end.parse::<SocketAddr>().expect("an end").ip()
}

fn node(end: &str) -> IpAddr {
    if ip(end).is_ipv4() { NODE4.into() } else { NODE6.into() }
}

/// What the client's flow is recorded as.
#[track_caller]
fn entry(world: &mut World, flows: Flows, client: &str, vip: &str) -> FlowFound {
    world.flow(flows, client, vip, FORWARD).expect("an entry")
}

/// The end that the real sees as its client.
#[track_caller]
fn seen(world: &mut World, flows: Flows, [client, vip, _]: [&str; 3]) -> String {
    let entry = entry(world, flows, client, vip);
    let port = u16::from_be_bytes(entry.state.client_port);
    assert_eq!(entry.client, node(client));
    assert!((PORTS.0..PORTS.0 + PORTS.1).contains(&u32::from(port)), "{port}");
    SocketAddr::new(entry.client, port).to_string()
}

/// The frame that leaves: one hop further; XDP knows the next one.
fn sent_on(hook: Hook, segment: Segment) -> Vec<u8> {
    let macs = if hook == Hook::Edge { [Uplink::OWN, Uplink::NEXT] } else { segment.macs };
    Segment { macs, hops: segment.hops - 1, ..segment }.bytes()
}

/// The same of a datagram.
fn datagram_on(hook: Hook, datagram: &Datagram) -> Vec<u8> {
    let mut packet = datagram.packet();
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        wire::sum_ipv4(&mut packet);
    } else {
        packet[7] -= 1;
    }
    let macs = if hook == Hook::Edge { [Uplink::OWN, Uplink::NEXT] } else { wire::MACS };
    wire::ethernet(macs, &packet)
}

/// What the program made of a segment that it must send on.
#[track_caller]
fn finished(world: &mut World, hook: Hook, sent: &Segment, reason: Reason, expected: Segment) {
    let outcome = world.run_frame(hook, &sent.bytes());
    assert_eq!(outcome.reason, reason, "{hook:?} {sent:?}");
    assert_same(reason.name(), &sent_on(hook, expected), &outcome.packet);
    verify_checksums(&outcome.packet).expect("recomputed");
    if hook == Hook::Ingress {
        assert_eq!(outcome.verdict, TC_ACT_REDIRECT, "past the stack");
    }
}

/// A connection that is established.
#[track_caller]
fn connect(world: &mut World, hook: Hook, ends: [&str; 3]) -> String {
    let [client, vip, real] = ends;
    let there = Segment::new(client, vip);
    assert_eq!(world.reason(hook, &there.clone().flags(SYN)), Reason::NewFlow);
    let seen = seen(world, Flows::HalfOpen, ends);
    let answer = Segment::new(real, &seen).flags(SYN | ACK);
    finished(world, hook, &answer, Reason::Reply, answer.clone().from(vip).to(client));
    let ack = there.flags(ACK);
    finished(world, hook, &ack, Reason::Established, ack.clone().from(&seen).to(real));
    seen
}

#[test]
fn the_real_sees_the_node_and_the_client_the_vip() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for (id, ends) in [2, 3].into_iter().zip(FAMILIES) {
            let [client, vip, real] = ends;
            let seen = connect(&mut world, hook, ends);
            let (there, back) = (Segment::new(client, vip), Segment::new(real, &seen));
            let ask = there.clone().flags(ACK | PSH).payload(b"ask");
            finished(&mut world, hook, &ask, Reason::Established, ask.clone().from(&seen).to(real));
            let told = back.clone().flags(ACK | PSH).payload(b"answer.");
            finished(&mut world, hook, &told, Reason::Reply, told.clone().from(vip).to(client));
            assert_eq!(world.active(id), 1);
            let found = entry(&mut world, Flows::Open, client, vip);
            assert_eq!(found.state.forwarding, forwarding::SNAT);
            let reply = world.flow(Flows::Open, real, &seen, REPLY).expect("the way back");
            assert_eq!((reply.client, reply.vip), (ip(client), vip.parse().expect("a VIP")));
            for (fin, on) in [
                (there.flags(FIN | ACK), [seen.as_str(), real]),
                (back.flags(FIN | ACK), [vip, client]),
            ] {
                let out = world.run_frame(hook, &fin.bytes());
                assert_same("FIN", &sent_on(hook, fin.clone().from(on[0]).to(on[1])), &out.packet);
            }
            assert_eq!(world.active(id), 0, "closed");
        }
    }
}

#[test]
fn datagrams_go_the_same_way() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for [client, vip, real] in FAMILIES {
            let ask = Datagram::new(client, vip).payload(b"ask");
            let out = world.run_frame(hook, &ask.bytes());
            assert_eq!(out.reason, Reason::NewFlow);
            let seen = seen(&mut world, Flows::HalfOpen, [client, &format!("{vip}/udp"), real]);
            assert_same("there", &datagram_on(hook, &ask.from(&seen).to(real)), &out.packet);
            let answer = Datagram::new(real, &seen).payload(b"answer");
            let out = world.run_frame(hook, &answer.bytes());
            assert_eq!(out.reason, Reason::Reply);
            assert_same("back", &datagram_on(hook, &answer.from(vip).to(client)), &out.packet);
        }
    }
}

#[test]
fn tc_and_xdp_share_their_connections() {
    for [first, then] in [[Hook::Ingress, Hook::Edge], [Hook::Edge, Hook::Ingress]] {
        let Some((mut world, _uplink)) = world() else { return };
        for ends in FAMILIES {
            let [client, vip, real] = ends;
            let seen = connect(&mut world, first, ends);
            let ask = Segment::new(client, vip).flags(ACK | PSH).payload(b"ask");
            finished(&mut world, then, &ask, Reason::Established, ask.clone().from(&seen).to(real));
            let told = Segment::new(real, &seen).flags(ACK | PSH).payload(b"told");
            finished(&mut world, then, &told, Reason::Reply, told.clone().from(vip).to(client));
        }
    }
}

#[test]
fn clients_with_one_port_get_ports_of_their_own_until_there_is_none() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        world.snat(61_000, 1);
        let [client, vip, real] = FAMILIES[0];
        let seen = connect(&mut world, hook, FAMILIES[0]);
        assert_eq!(seen, "10.255.0.1:61000");
        let other = "10.0.0.2:40000";
        let syn = Segment::new(other, vip).flags(SYN);
        assert_eq!(world.reason(hook, &syn), Reason::TuplesExhausted);
        // The connection that has the port keeps it.
        let ask = Segment::new(client, vip).flags(ACK);
        finished(&mut world, hook, &ask, Reason::Established, ask.clone().from(&seen).to(real));
        world.snat(61_001, 1);
        let expected = syn.clone().from("10.255.0.1:61001").to(real);
        finished(&mut world, hook, &syn, Reason::NewFlow, expected);
    }
}

#[test]
fn port_of_a_connection_that_is_over_is_taken_with_its_entries() {
    let Some((mut world, _uplink)) = world() else { return };
    world.snat(61_000, 1);
    let [client, vip, real] = FAMILIES[0];
    let seen = connect(&mut world, Hook::Ingress, FAMILIES[0]);
    let minutes = 61 * crate::world::HZ;
    world.change_flow(Flows::Open, (real, seen.as_str(), REPLY), |state| {
        state.state |= flow_state::RESET;
        state.last_seen = state.last_seen.wrapping_sub(minutes);
    });
    let syn = Segment::new("10.0.0.2:40000", vip).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &syn), Reason::NewFlow);
    assert_eq!(world.flow(Flows::Open, client, vip, FORWARD), None, "the former owner's is gone");
    let reply = world.flow(Flows::HalfOpen, real, &seen, REPLY).expect("the new one's");
    assert_eq!(reply.client, ip("10.0.0.2:1"));
}

#[test]
fn what_cannot_be_sent_on_is_dropped_with_its_reason() {
    let Some((mut world, uplink)) = world() else { return };
    let [client, vip, _] = FAMILIES[0];
    world.addresses(uplink.index(), Ipv4Addr::UNSPECIFIED, NODE6);
    for hook in HOOKS {
        let syn = Segment::new(client, vip).flags(SYN);
        assert_eq!(world.reason(hook, &syn), Reason::SnatFailed, "no address of that family");
    }
    assert_eq!(world.flows(), 0);
    let [client6, vip6, _] = FAMILIES[1];
    let syn = Segment::new(client6, vip6).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &syn), Reason::NewFlow);
    world.addresses(uplink.index(), NODE4, NODE6);
    connect(&mut world, Hook::Ingress, FAMILIES[0]);
    let last = Segment { hops: 1, ..Segment::new(client, vip).flags(ACK) };
    assert_eq!(world.reason(Hook::Edge, &last), Reason::LeftToTc);
    assert_eq!(world.reason(Hook::Ingress, &last), Reason::SnatFailed);
}

#[test]
fn connection_whose_entry_is_lost_is_reset() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for [client, vip, _] in FAMILIES {
            let stray = Segment::new(client, vip).flags(ACK);
            assert_eq!(world.reason(hook, &stray), Reason::FlowLost);
        }
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn fragments_of_such_a_flow_are_dropped() {
    let Some((mut world, _uplink)) = world() else { return };
    let [client, vip, _] = FAMILIES[0];
    let whole = Segment { dont_fragment: false, ..Segment::new(client, vip).flags(SYN) };
    let first = Segment { more_fragments: true, ..whole.clone() };
    assert_eq!(world.run_frame(Hook::Ingress, &first.bytes()).reason, Reason::Fragment);
    let later = Segment { fragment_offset: 3, ..whole };
    assert_eq!(world.reason(Hook::Ingress, &later), Reason::Fragment);
}

#[test]
fn sender_of_a_packet_beyond_the_mtu_is_told_what_fits() {
    let Some((mut world, uplink)) = world() else { return };
    for ends in FAMILIES {
        let [client, vip, real] = ends;
        let seen = connect(&mut world, Hook::Ingress, ends);
        uplink.ip(&format!("link set {} mtu 1300", Uplink::NAME));
        for (src, dst) in [(client, vip), (real, &*seen)] {
            let long = Segment::new(src, dst).flags(ACK | PSH).payload(&[7; 1300]).bytes();
            assert_eq!(world.run_frame(Hook::Edge, &long).reason, Reason::LeftToTc);
            let outcome = world.run_frame(Hook::Ingress, &long);
            assert_eq!(outcome.reason, Reason::TooBig);
            assert_eq!(outcome.verdict, TC_ACT_REDIRECT);
            let (from, to) = (ip(dst), ip(src));
            let (told, len) = if from.is_ipv4() { ((3, 4), 128) } else { ((2, 0), 512) };
            let quoted = &long[wire::IP_AT..wire::IP_AT + len];
            let [high, low] = 1300u16.to_be_bytes();
            let mut packet = wire::icmp(from, to, told, [0, 0, high, low], quoted);
            if from.is_ipv4() {
                packet[4..9].copy_from_slice(&[0, 0, 0x40, 0, 64]);
                wire::sum_ipv4(&mut packet);
            } else {
                packet[7] = 64;
            }
            let [one, other] = wire::MACS;
            assert_same("the error", &wire::ethernet([other, one], &packet), &outcome.packet);
        }
        uplink.ip(&format!("link set {} mtu 1500", Uplink::NAME));
        Uplink::GATEWAYS.iter().for_each(|gateway| uplink.know(gateway));
    }
}

/// An ICMP error from `from` that quotes a segment.
fn error(from: IpAddr, about: &Segment) -> Vec<u8> {
    let quoted = &about.bytes()[wire::IP_AT..];
    let kind = if from.is_ipv4() { (3, 1) } else { (1, 3) };
    let to = about.src.ip();
    wire::ethernet(wire::MACS, &wire::icmp(from, to, kind, [0; 4], quoted))
}

#[test]
fn errors_reach_whoever_sent_what_they_are_about() {
    let Some((mut world, _uplink)) = world() else { return };
    for (ends, router) in FAMILIES.into_iter().zip(["10.9.9.9", "fd99::9"]) {
        let [client, vip, real] = ends;
        let seen = connect(&mut world, Hook::Ingress, ends);
        let router: IpAddr = router.parse().expect("an address");
        // About what the node sent to the real: the client sent it to the VIP.
        for (from, as_told) in [(router, router), (ip(real), ip(vip))] {
            let about = Segment::new(&seen, real).flags(ACK);
            let out = world.run_frame(Hook::Ingress, &error(from, &about));
            assert_eq!(out.reason, Reason::IcmpError);
            let expected = error(as_told, &Segment::new(client, vip).flags(ACK));
            assert_same("an error about a request", &expected, &out.packet);
        }
        // About what the client was sent: the real sent it to the node.
        let out =
            world.run_frame(Hook::Ingress, &error(router, &Segment::new(vip, client).flags(ACK)));
        assert_eq!(out.reason, Reason::IcmpError);
        let expected = error(router, &Segment::new(real, &seen).flags(ACK));
        assert_same("an error about a reply", &expected, &out.packet);
    }
}

#[test]
fn only_the_interface_that_asks_has_such_flows() {
    let Some((mut world, uplink)) = world() else { return };
    let [client, vip, real] = FAMILIES[0];
    world.interface = uplink.index();
    let syn = Segment { macs: [Uplink::NEXT, Uplink::OWN], ..Segment::new(client, vip) }.flags(SYN);
    world.expect(Hook::Ingress, &syn, Reason::NewFlow, &syn.clone().to(real));
}

#[test]
fn a_client_that_is_its_own_real_sees_the_vip() {
    let Some((mut world, _uplink)) = world() else { return };
    let [_, vip, real] = FAMILIES[0];
    let own = format!("{}:40000", ip(real));
    let syn = Segment::new(&own, vip).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &syn), Reason::NewFlow);
    let entry = entry(&mut world, Flows::HalfOpen, &own, vip);
    assert_eq!(entry.state.forwarding, forwarding::HAIRPIN);
}
