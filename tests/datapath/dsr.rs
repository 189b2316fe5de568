//! Direct server return: packets go on as they are, to reals that answer clients by themselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use balancer_ebpf::{
    abi::{flow_state, forwarding, pick, real_flags},
    reason::Reason,
};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6Header};
use harness::{
    Datagram, Segment, Uplink,
    packet::{
        assert_same,
        flags::{ACK, FIN, PSH, RST, SYN},
    },
    wire,
};

use crate::world::{
    FORWARD, Flows, HZ, Hook, TC_ACT_REDIRECT, World, edge::uplink, fresh_port, pin_to_one_cpu,
};

mod size;

const HOOKS: [Hook; 2] = [Hook::Link, Hook::Tunnel];
/// Client, VIP, and a real that is the neighbour behind the uplink.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.255.0.2:80"],
    ["[fd00::1]:40000", "[fd62::1]:80", "[fdff::2]:80"],
];
/// Where tunnels begin.
const NODE4: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const NODE6: Ipv6Addr = Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 1);

/// A VIP of each family with one real, and a way there.
fn world() -> Option<(World, Uplink)> {
    let mut world = World::new()?;
    for (id, [_, vip, real]) in [2, 3].into_iter().zip(FAMILIES) {
        world.real(id, real, 1);
        world.service(vip, &[id]);
    }
    world.tunnels_from(NODE4, NODE6);
    let uplink = uplink(&mut world, true);
    Some((world, uplink))
}

/// The header of a tunnel around a packet, as RFC 2003 and RFC 2473 have it.
fn around(packet: &[u8], to: IpAddr) -> Vec<u8> {
    let mut out = match to {
        IpAddr::V4(to) => {
            let len = packet.len().try_into().expect("a short packet");
            let (from, to) = (NODE4.octets(), to.octets());
            let mut header = Ipv4Header::new(len, 64, IpNumber::IPV4, from, to).expect("short");
            header.identification = 0;
            header.dont_fragment = true;
            header.more_fragments = false;
            header.fragment_offset = IpFragOffset::ZERO;
            (header.dscp, header.ecn) = (
                (packet[1] >> 2).try_into().expect("six bits"),
                (packet[1] & 3).try_into().expect("two bits"),
            );
            header.header_checksum = header.calc_header_checksum();
            header.to_bytes().to_vec()
        }
        IpAddr::V6(to) => {
            let inner = Ipv6Header::from_slice(packet).expect("IPv6").0;
            Ipv6Header {
                payload_length: packet.len().try_into().expect("a short packet"),
                next_header: IpNumber::IPV6,
                hop_limit: 64,
                source: NODE6.octets(),
                destination: to.octets(),
                ..inner
            }
            .to_bytes()
            .to_vec()
        }
    };
    out.extend(packet);
    out
}

fn ip(end: &str) -> IpAddr {
    end.parse::<std::net::SocketAddr>().expect("an end").ip()
}

/// What leaves by the uplink: `packet` is what came in, one hop further.
fn sent_on(hook: Hook, packet: &[u8], real: &str) -> Vec<u8> {
    let macs = [Uplink::OWN, Uplink::NEXT];
    match hook {
        Hook::Tunnel => wire::ethernet(macs, &around(packet, ip(real))),
        _ => wire::ethernet(macs, packet),
    }
}

/// What the program made of a segment that it must send on.
#[track_caller]
fn finished(world: &mut World, hook: Hook, sent: &Segment, reason: Reason, real: &str) {
    let outcome = world.run_frame(hook, &sent.bytes());
    assert_eq!(outcome.reason, reason, "{hook:?} {sent:?}");
    let on = Segment { hops: sent.hops - 1, ..sent.clone() }.bytes();
    assert_same(reason.name(), &sent_on(hook, &on[wire::IP_AT..], real), &outcome.packet);
}

/// What must come out as it went in.
#[track_caller]
fn untouched(world: &mut World, hook: Hook, frame: &[u8], reason: Reason) {
    let outcome = world.run_frame(hook, frame);
    assert_eq!(outcome.reason, reason, "{hook:?}");
    assert_same(reason.name(), frame, &outcome.packet);
}

#[test]
fn a_connection_goes_on_as_it_is_and_one_entry_knows_it() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for (id, [client, vip, real]) in [2, 3].into_iter().zip(FAMILIES) {
            let there = Segment::new(client, vip);
            let bit = if hook == Hook::Link { forwarding::DSR_L2 } else { forwarding::DSR_IPIP };
            finished(&mut world, hook, &there.clone().flags(SYN), Reason::NewFlow, real);
            let flow = world.flow(Flows::HalfOpen, client, vip, FORWARD).expect("recorded");
            assert_eq!((flow.state.forwarding, flow.state.real), (bit, id));
            // The SYN-ACK is never seen.
            assert_eq!(world.active(id), 0);
            finished(&mut world, hook, &there.clone().flags(ACK), Reason::Established, real);
            assert_eq!(world.active(id), 1);
            let data = there.clone().flags(ACK | PSH).payload(b"odd");
            finished(&mut world, hook, &data, Reason::Established, real);
            finished(&mut world, hook, &there.clone().flags(ACK | FIN), Reason::Established, real);
            assert_eq!(world.active(id), 0, "the client has closed, and nobody sees the real");
            finished(&mut world, hook, &there.clone().flags(ACK), Reason::Established, real);
            let flow = world.flow(Flows::Open, client, vip, FORWARD).expect("recorded");
            assert_eq!(flow.state.state & flow_state::ESTABLISHED, flow_state::ESTABLISHED);
            let counter = world.counter(flow.state.counter);
            assert_eq!((counter.connections, counter.packets_in), (1, 5));
        }
        assert_eq!(world.flows(), 2, "one entry each");
    }
}

#[test]
fn options_and_extension_headers_go_on_too() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        let [client, vip, real] = FAMILIES[0];
        let syn = Segment::new(client, vip).flags(SYN);
        let options = Segment { ip_options: vec![1; 8], ..syn };
        finished(&mut world, hook, &options, Reason::NewFlow, real);
        let [client, vip, real] = FAMILIES[1];
        let syn = Segment::new(client, vip).flags(SYN);
        let extended = |hops| {
            let packet = Segment { hops, ..syn.clone() }.bytes();
            let extension = [(wire::protocol::DESTINATION, wire::padding(16))];
            wire::with_extensions(&packet[wire::IP_AT..], &extension)
        };
        let outcome = world.run_frame(hook, &wire::ethernet(syn.macs, &extended(61)));
        assert_eq!(outcome.reason, Reason::NewFlow);
        assert_same("extended", &sent_on(hook, &extended(60), real), &outcome.packet);
    }
}

#[test]
fn tunnel_has_the_class_and_the_flow_label_of_the_packet() {
    let Some((mut world, _uplink)) = world() else { return };
    for [client, vip, real] in FAMILIES {
        let mark = |hops| {
            let mut packet =
                Segment { hops, ..Segment::new(client, vip).flags(SYN) }.bytes().split_off(14);
            if packet[0] >> 4 == 4 {
                packet[1] = 0xbb;
                wire::sum_ipv4(&mut packet);
            } else {
                packet[..4].copy_from_slice(&[0x6b, 0xb1, 0x23, 0x45]);
            }
            packet
        };
        let frame = wire::ethernet(wire::MACS, &mark(61));
        let outcome = world.run_frame(Hook::Tunnel, &frame);
        assert_same("marked", &sent_on(Hook::Tunnel, &mark(60), real), &outcome.packet);
    }
}

#[test]
fn connection_stays_with_its_real_across_a_change_of_weights() {
    for hook in HOOKS {
        let Some((mut world, uplink)) = world() else { return };
        for (id, ([client, vip, real], other)) in
            [2, 3].into_iter().zip(FAMILIES.into_iter().zip(["10.255.0.3:80", "[fdff::3]:80"]))
        {
            uplink.know(&ip(other).to_string());
            let syn = Segment::new(client, vip).flags(SYN);
            finished(&mut world, hook, &syn, Reason::NewFlow, real);
            world.real(id + 10, other, 1);
            let table = world.equal_table(&[id + 10], 16);
            let route = id - 1;
            world.change_route(route, |route| route.table = table);
            finished(&mut world, hook, &syn, Reason::HalfOpen, real);
            let ack = Segment::new(client, vip).flags(ACK);
            finished(&mut world, hook, &ack, Reason::Established, real);
            finished(&mut world, hook, &syn, Reason::Established, real);
            let fin = Segment::new(client, vip).flags(ACK | FIN);
            finished(&mut world, hook, &fin, Reason::Established, real);
            // That one is over: the same ports begin another.
            finished(&mut world, hook, &syn, Reason::NewFlow, other);
        }
    }
}

#[test]
fn refused_connections_are_reset_by_xdp_itself() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for (id, [client, vip, real]) in [2, 3].into_iter().zip(FAMILIES) {
            let there = Segment::new(client, vip);
            let data = there.clone().flags(ACK | PSH).payload(b"ask");
            finished(&mut world, hook, &data, Reason::FlowAdopted, real);
            assert_eq!(world.active(id), 1, "adopted");
            world.settings(0);
            world.change_real(id, |real| real.flags = real_flags::GONE);
            let outcome = world.run_frame(hook, &data.bytes());
            assert_eq!(outcome.reason, Reason::RealGone);
            assert_same("the reset", &data.answering_reset().bytes(), &outcome.packet);
            assert_eq!(world.active(id), 0, "forgotten");
            world.change_real(id, |real| real.flags = 0);
            untouched(&mut world, hook, &there.clone().flags(RST).bytes(), Reason::StrayReset);
            world.change_route(id - 1, |route| route.pick = pick::RANDOM);
            let outcome = world.run_frame(hook, &data.bytes());
            assert_eq!(outcome.reason, Reason::FlowLost);
            assert_same("the reset", &data.answering_reset().bytes(), &outcome.packet);
        }
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn what_cannot_go_on_as_it_is_is_left_and_not_recorded() {
    let Some((mut world, uplink)) = world() else { return };
    let cases = [
        (["10.0.0.1:40000", "240.0.0.2:80", "10.255.0.2:8080"], &HOOKS[..]),
        (["[fd00::1]:40000", "[fd62::2]:80", "[fdff::2]:8080"], &HOOKS[..]),
        // Behind a router: no frame can be addressed to it.
        (["10.0.0.1:40000", "240.0.0.3:80", "10.0.1.2:80"], &HOOKS[..1]),
        (["[fd00::1]:40000", "[fd62::3]:80", "[fd00:1::2]:80"], &HOOKS[..1]),
    ];
    for (id, ([client, vip, real], hooks)) in (20..).zip(cases) {
        world.real(id, real, 1);
        world.service(vip, &[id]);
        for hook in hooks {
            let syn = Segment::new(client, vip).flags(SYN).bytes();
            untouched(&mut world, *hook, &syn, Reason::LeftToTc);
        }
    }
    for [client, vip, _] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN);
        for hook in HOOKS {
            for hops in [0, 1] {
                let last = Segment { hops, ..syn.clone() }.bytes();
                untouched(&mut world, hook, &last, Reason::LeftToTc);
            }
            let tagged = Segment { vlans: vec![7], ..syn.clone() }.bytes();
            untouched(&mut world, hook, &tagged, Reason::LeftToTc);
        }
    }
    let [client, vip, _] = FAMILIES[0];
    let first = Segment { more_fragments: true, payload: vec![7; 8], ..Segment::new(client, vip) };
    for hook in HOOKS {
        untouched(&mut world, hook, &first.clone().flags(SYN).bytes(), Reason::LeftToTc);
    }
    world.tunnels_from(Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    for [client, vip, _] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN).bytes();
        untouched(&mut world, Hook::Tunnel, &syn, Reason::LeftToTc);
    }
    // Takes the routes along.
    uplink.ip(&format!("link set {} down", Uplink::NAME));
    for [client, vip, _] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN).bytes();
        untouched(&mut world, Hook::Link, &syn, Reason::LeftToTc);
    }
    assert_eq!(world.flows(), 0);
}

#[test]
fn real_of_the_other_family_is_none() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for (id, [client, vip, _]) in [3, 2].into_iter().zip(FAMILIES) {
            let table = world.equal_table(&[id], 16);
            world.change_route(4 - id, |route| route.table = table);
            let syn = Segment::new(client, vip).flags(SYN);
            let outcome = world.run_frame(hook, &syn.bytes());
            assert_eq!(outcome.reason, Reason::RealGone);
            assert_same("the reset", &syn.answering_reset().bytes(), &outcome.packet);
        }
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn packet_whose_next_hop_is_not_known_is_sent_by_tc_which_finds_it() {
    for hook in HOOKS {
        let Some((mut world, uplink)) = world() else { return };
        for ([client, vip, real], next) in FAMILIES.into_iter().zip(Uplink::GATEWAYS) {
            uplink.ip(&format!("neigh del {next} dev {}", Uplink::NAME));
            let syn = Segment::new(client, vip).flags(SYN);
            untouched(&mut world, hook, &syn.bytes(), Reason::LeftToTc);
            let outcome = world.run_frame(Hook::Ingress, &syn.bytes());
            assert_eq!((outcome.reason, outcome.verdict), (Reason::HalfOpen, TC_ACT_REDIRECT));
            let on = Segment { hops: syn.hops - 1, ..syn.clone() }.bytes();
            let expected = match hook {
                Hook::Tunnel => wire::ethernet(syn.macs, &around(&on[wire::IP_AT..], ip(real))),
                _ => on,
            };
            assert_same("by TC", &expected, &outcome.packet);
            uplink.know(next);
            finished(&mut world, hook, &syn, Reason::HalfOpen, real);
        }
    }
}

#[test]
fn interface_that_takes_no_frames_gets_them_from_tc() {
    for hook in HOOKS {
        let Some((mut world, uplink)) = world() else { return };
        world.loses_frames(uplink.index());
        for [client, vip, _] in FAMILIES {
            for (flags, reason) in [(SYN, Reason::HalfOpen), (ACK, Reason::Established)] {
                let sent = Segment::new(client, vip).flags(flags).bytes();
                untouched(&mut world, hook, &sent, Reason::LeftToTc);
                let outcome = world.run_frame(Hook::Ingress, &sent);
                assert_eq!((outcome.reason, outcome.verdict), (reason, TC_ACT_REDIRECT));
            }
        }
    }
}

#[test]
fn tc_drops_what_has_no_way_to_a_real_that_answers_by_itself() {
    let Some((mut world, uplink)) = world() else { return };
    let [client, vip, real] = FAMILIES[0];
    let syn = Segment::new(client, vip).flags(SYN);
    finished(&mut world, Hook::Link, &syn, Reason::NewFlow, real);
    let first = Segment { more_fragments: true, payload: vec![7; 8], ..syn.clone() };
    untouched(&mut world, Hook::Ingress, &first.bytes(), Reason::Fragment);
    uplink.ip(&format!("route del default dev {}", Uplink::NAME));
    uplink.ip(&format!("route del 10.255.0.0/24 dev {}", Uplink::NAME));
    untouched(&mut world, Hook::Link, &syn.bytes(), Reason::LeftToTc);
    untouched(&mut world, Hook::Ingress, &syn.bytes(), Reason::RewriteFailed);
}

#[test]
fn a_connection_stays_what_it_was_begun_as() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for [client, vip, real] in FAMILIES {
            let syn = Segment::new(client, vip).flags(SYN);
            world.expect(Hook::Ingress, &syn, Reason::NewFlow, &syn.clone().to(real));
            untouched(&mut world, hook, &syn.bytes(), Reason::LeftToTc);
            let other = client.replace("40000", "40001");
            let syn = Segment::new(&other, vip).flags(SYN);
            finished(&mut world, hook, &syn, Reason::NewFlow, real);
            untouched(&mut world, Hook::Edge, &syn.bytes(), Reason::LeftToTc);
            assert_eq!(world.reason(Hook::Ask, &syn), Reason::HalfOpen);
        }
    }
}

#[test]
fn datagrams_go_on_until_the_client_is_silent() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for (id, [client, vip, real]) in [2, 3].into_iter().zip(FAMILIES) {
            world.service(&format!("{vip}/udp"), &[id]);
            let sent = Datagram::new(client, vip);
            let mut on = sent.bytes().split_off(wire::IP_AT);
            if on[0] >> 4 == 4 {
                on[8] -= 1;
                wire::sum_ipv4(&mut on);
            } else {
                on[7] -= 1;
            }
            let expected = sent_on(hook, &on, real);
            for reason in [Reason::NewFlow, Reason::HalfOpen, Reason::HalfOpen] {
                let outcome = world.run_frame(hook, &sent.bytes());
                assert_eq!(outcome.reason, reason);
                assert_same("a datagram", &expected, &outcome.packet);
            }
            world.change_flow(Flows::HalfOpen, (client, &format!("{vip}/udp"), FORWARD), |flow| {
                flow.last_seen = flow.last_seen.wrapping_sub(40 * HZ);
            });
            assert_eq!(world.run_frame(hook, &sent.bytes()).reason, Reason::NewFlow);
        }
    }
}

#[test]
fn guard_lets_no_more_flows_in_than_elsewhere() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        let cpu = pin_to_one_cpu();
        for (id, [client, vip, real]) in [1, 2].into_iter().zip(FAMILIES) {
            world.limit_new_flows(4);
            // No port of those that follow.
            let syn = Segment::new(&client.replace("40000", "1024"), vip).flags(SYN);
            finished(&mut world, hook, &syn, Reason::NewFlow, real);
            assert_eq!(world.new_flows(cpu, id).used, 2 * u64::from(HZ), "twice for its VIP");
            let refused = (0..100).any(|_| {
                let other = client.replace("40000", &fresh_port().to_string());
                let other = Segment::new(&other, vip).flags(SYN);
                world.run_frame(hook, &other.bytes()).reason == Reason::NewFlowLimit
            });
            assert!(refused, "100 were let in at once");
            finished(&mut world, hook, &syn, Reason::HalfOpen, real);
            world.limit_new_flows(0);
            world.age_new_flows(&[0], HZ);
        }
    }
}

#[test]
fn what_is_for_no_vip_passes() {
    for hook in HOOKS {
        let Some((mut world, _uplink)) = world() else { return };
        for [client, vip, real] in FAMILIES {
            let other: String = vip.replace("::1]", "::9]").replace("0.1:", "0.9:");
            let passes = [
                (Segment::new(client, &vip.replace(":80", ":81")), Reason::NonVip),
                (Segment::new(client, &other), Reason::UnknownDestination),
                (Segment::new(real, client), Reason::NonVip),
            ];
            for (segment, reason) in passes {
                untouched(&mut world, hook, &segment.flags(ACK).bytes(), reason);
            }
        }
    }
}
