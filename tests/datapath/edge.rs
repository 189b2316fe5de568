//! The XDP program: it decides as TC does, finishes what it can, and leaves the rest untouched.

use std::collections::BTreeSet;

use balancer_ebpf::{
    abi::{PortUse, Real, real_flags},
    reason::Reason,
};
use harness::{
    Datagram, Segment, Uplink,
    packet::{
        assert_same,
        flags::{ACK, FIN, PSH, RST, SYN},
        verify_checksums,
    },
    scaled, wire,
};

mod hops;

use crate::world::{Hook, TestRuns, World, destination, edge::uplink};

const CLIENT: &str = "10.0.0.1:40000";
const VIP: &str = "240.0.0.1:80";
const REAL: &str = "10.0.1.2:8080";
const CLIENT6: &str = "[fd00::1]:40000";
const VIP6: &str = "[fd62::1]:80";
const REAL6: &str = "[fd00:1::2]:8080";

const FAMILIES: [[&str; 3]; 2] = [[CLIENT, VIP, REAL], [CLIENT6, VIP6, REAL6]];

/// A VIP of each family with one real.
fn world() -> Option<World> {
    let mut world = World::new()?;
    world.real(2, REAL, 1);
    world.real(3, REAL6, 1);
    world.service(VIP, &[2]);
    world.service(VIP6, &[3]);
    Some(world)
}

/// The frame that leaves by the uplink: one hop further, its addresses those of the next one.
fn sent_on(segment: Segment) -> Vec<u8> {
    Segment { macs: [Uplink::OWN, Uplink::NEXT], hops: segment.hops - 1, ..segment }.bytes()
}

/// What the program made of a segment that it must finish.
#[track_caller]
fn finished(world: &mut World, sent: &Segment, reason: Reason, expected: Segment) {
    let outcome = world.run_frame(Hook::Edge, &sent.bytes());
    assert_eq!(outcome.reason, reason, "{sent:?}");
    assert_same(reason.name(), &sent_on(expected), &outcome.packet);
    verify_checksums(&outcome.packet).expect("recomputed");
}

/// What must come out as it went in.
#[track_caller]
fn untouched(world: &mut World, frame: &[u8], reason: Reason) {
    let outcome = world.run_frame(Hook::Edge, frame);
    assert_eq!(outcome.reason, reason);
    assert_same(reason.name(), frame, &outcome.packet);
}

#[test]
fn a_connection_is_translated_both_ways_and_sent_to_the_next_hop() {
    let Some(mut world) = world() else { return };
    let _uplink = uplink(&mut world, true);
    for [client, vip, real] in FAMILIES {
        let (there, back) = (Segment::new(client, vip), Segment::new(real, client));
        let packets = [
            (there.clone().flags(SYN), Reason::NewFlow, there.clone().flags(SYN).to(real)),
            (back.clone().flags(SYN | ACK), Reason::Reply, back.clone().flags(SYN | ACK).from(vip)),
            (there.clone().flags(ACK), Reason::Established, there.clone().flags(ACK).to(real)),
            (
                there.clone().flags(ACK | PSH).payload(b"ask"),
                Reason::Established,
                there.clone().flags(ACK | PSH).payload(b"ask").to(real),
            ),
            (
                back.clone().flags(ACK | PSH).payload(b"answer."),
                Reason::Reply,
                back.clone().flags(ACK | PSH).payload(b"answer.").from(vip),
            ),
            (
                there.clone().flags(ACK | FIN),
                Reason::Established,
                there.clone().flags(ACK | FIN).to(real),
            ),
        ];
        for (sent, reason, expected) in packets {
            finished(&mut world, &sent, reason, expected);
        }
    }
    for real in [2, 3] {
        assert_eq!(world.active(real), 1, "the client has closed, the real has not");
    }
}

#[test]
fn tc_and_xdp_share_their_connections() {
    let Some(mut world) = world() else { return };
    let _uplink = uplink(&mut world, true);
    for [client, vip, real] in FAMILIES {
        let (there, back) = (Segment::new(client, vip), Segment::new(real, client));
        let syn = there.clone().flags(SYN);
        finished(&mut world, &syn, Reason::NewFlow, syn.clone().to(real));
        let answer = back.flags(SYN | ACK);
        world.expect(Hook::Egress, &answer, Reason::Reply, &answer.clone().from(vip));
        let ack = there.flags(ACK);
        world.expect(Hook::Ingress, &ack, Reason::Established, &ack.clone().to(real));
        finished(&mut world, &ack, Reason::Established, ack.clone().to(real));
        finished(&mut world, &answer, Reason::Reply, answer.clone().from(vip));
    }
}

#[test]
fn what_xdp_does_not_finish_is_left_as_it_came() {
    let Some(mut world) = world() else { return };
    let _uplink = uplink(&mut world, true);
    for [client, vip, _] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN);
        for hops in [0, 1] {
            untouched(&mut world, &Segment { hops, ..syn.clone() }.bytes(), Reason::LeftToTc);
        }
        untouched(&mut world, &Segment { vlans: vec![7], ..syn.clone() }.bytes(), Reason::LeftToTc);
    }
    let syn = Segment::new(CLIENT, VIP).flags(SYN);
    let options = Segment { ip_options: vec![1; 4], ..syn.clone() };
    untouched(&mut world, &options.bytes(), Reason::LeftToTc);
    let first = Segment { more_fragments: true, payload: vec![7; 8], ..syn.clone() };
    untouched(&mut world, &first.bytes(), Reason::LeftToTc);
    let later = Segment { fragment_offset: 1, payload: vec![7; 8], ..syn.clone() };
    untouched(&mut world, &later.bytes(), Reason::FragmentTail);
    assert_eq!(world.flows(), 0, "nothing was recorded for what TC will decide");
    // And TC carries those that it can.
    assert_eq!(world.reason(Hook::Ingress, &options), Reason::NewFlow);
}

#[test]
fn a_packet_whose_next_hop_is_not_known_is_left_to_the_stack() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    for ([client, vip, real], next) in FAMILIES.into_iter().zip(Uplink::GATEWAYS) {
        let syn = Segment::new(client, vip).flags(SYN);
        uplink.ip(&format!("neigh del {next} dev {}", Uplink::NAME));
        untouched(&mut world, &syn.bytes(), Reason::LeftToTc);
        uplink.know(next);
        finished(&mut world, &syn, Reason::NewFlow, syn.clone().to(real));
    }
}

#[test]
fn a_packet_beyond_the_mtu_of_the_next_hop_is_left_to_the_stack() {
    let Some(mut world) = world() else { return };
    let uplink = uplink(&mut world, true);
    for [client, vip, real] in FAMILIES {
        let segment = Segment::new(client, vip).flags(ACK);
        let headers = if segment.src.is_ipv4() { 40 } else { 60 };
        uplink.ip(&format!("link set {} mtu 1400", Uplink::NAME));
        let longest = segment.clone().payload(&vec![7; 1400 - headers]);
        let longer = segment.clone().payload(&vec![7; 1401 - headers]);
        untouched(&mut world, &longer.bytes(), Reason::LeftToTc);
        finished(&mut world, &longest, Reason::FlowAdopted, longest.clone().to(real));
        untouched(&mut world, &longer.bytes(), Reason::LeftToTc);
    }
}

#[test]
fn an_interface_that_takes_no_frames_gets_none() {
    let Some(mut world) = world() else { return };
    let _uplink = uplink(&mut world, false);
    for [client, vip, _] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN).bytes();
        untouched(&mut world, &syn, Reason::LeftToTc);
    }
}

#[test]
fn what_is_not_ours_passes() {
    let Some(mut world) = world() else { return };
    let _uplink = uplink(&mut world, true);
    world.port(40_000, PortUse::Vip);
    for [client, vip, real] in FAMILIES {
        let other: String = vip.replace("::1]", "::9]").replace("0.1:", "0.9:");
        let passes = [
            (Segment::new(client, &vip.replace(":80", ":81")), Reason::NonVip),
            (Segment::new(client, &other), Reason::UnknownDestination),
            (Segment::new(real, client), Reason::UnknownReply),
        ];
        for (segment, reason) in passes {
            untouched(&mut world, &segment.flags(ACK).bytes(), reason);
        }
    }
}

#[test]
fn a_reply_to_a_port_that_some_vip_has_is_a_reply() {
    let Some(mut world) = world() else { return };
    let _uplink = uplink(&mut world, true);
    world.port(40_000, PortUse::Vip);
    for [client, vip, real] in FAMILIES {
        let syn = Segment::new(client, vip).flags(SYN);
        finished(&mut world, &syn, Reason::NewFlow, syn.clone().to(real));
        let answer = Segment::new(real, client).flags(SYN | ACK);
        finished(&mut world, &answer, Reason::Reply, answer.clone().from(vip));
    }
}

#[test]
fn refused_connections_are_answered_by_xdp_itself() {
    let Some(mut world) = world() else { return };
    let _uplink = uplink(&mut world, true);
    for (id, [client, vip, real]) in [2, 3].into_iter().zip(FAMILIES) {
        let there = Segment::new(client, vip);
        let syn = there.clone().flags(SYN);
        finished(&mut world, &syn, Reason::NewFlow, syn.clone().to(real));
        world.settings(0);
        world.change_real(id, |entry: &mut Real| entry.flags = real_flags::GONE);
        let data = there.clone().flags(ACK | PSH).payload(b"ask");
        let by_xdp = world.run_frame(Hook::Edge, &data.bytes());
        assert_eq!(by_xdp.reason, Reason::RealGone);
        verify_checksums(&by_xdp.packet).expect("recomputed");
        // The entries are gone now, and with them that answer: TC's to the same packet.
        world.change_real(id, |entry: &mut Real| entry.flags = 0);
        finished(&mut world, &syn, Reason::NewFlow, syn.clone().to(real));
        world.change_real(id, |entry: &mut Real| entry.flags = real_flags::GONE);
        let by_tc = world.run_frame(Hook::Ingress, &data.bytes());
        assert_same("the reset", &by_tc.packet, &by_xdp.packet);
        let stray = there.flags(RST).bytes();
        untouched(&mut world, &stray, Reason::StrayReset);
        world.change_real(id, |entry: &mut Real| entry.flags = 0);
    }
}

/// The frame that XDP makes of what TC makes of a frame without options.
fn one_hop_further(frame: &[u8]) -> Vec<u8> {
    let mut packet = frame[wire::IP_AT..].to_vec();
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        wire::sum_ipv4(&mut packet);
    } else {
        packet[7] -= 1;
    }
    wire::ethernet([Uplink::OWN, Uplink::NEXT], &packet)
}

/// Both programs ask the same tables: another hook is no reason for another real.
#[test]
fn xdp_answers_as_tc_does_for_a_hundred_thousand_random_tuples() {
    // A quarter of them for each family and protocol.
    let tuples = scaled(25_000, 500);
    let Some(mut by_tc) = World::new() else { return };
    let Some(mut by_xdp) = World::new() else { return };
    let _uplink = uplink(&mut by_xdp, true);
    for world in [&mut by_tc, &mut by_xdp] {
        let reals4: Vec<u32> = (2..12).collect();
        let reals6: Vec<u32> = (12..22).collect();
        for id in &reals4 {
            world.real(*id, &format!("10.0.1.{id}:8080"), 1);
        }
        for id in &reals6 {
            world.real(*id, &format!("[fd00:1::{id}]:8080"), 1);
        }
        for (vip, reals) in [(VIP, &reals4), (VIP6, &reals6)] {
            world.service(vip, reals);
            world.service(&format!("{vip}/udp"), reals);
        }
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = || {
        // xorshift64 (Marsaglia, 2003).
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (mut tc, mut xdp) = (TestRuns::new(&by_tc), TestRuns::new(&by_xdp));
    let (mut new, mut seen, mut met) = (0, BTreeSet::new(), BTreeSet::new());
    while seen.len() < tuples as usize {
        let (host, port) = (random() as u32, random() as u16);
        let four = std::net::Ipv4Addr::from(0x0a80_0000 | host & 0x007f_ffff);
        let six = std::net::Ipv6Addr::from(0xfd00_0002 << 96 | u128::from(random()));
        // Whether the first flow of a tuple that comes twice is still known, each map decides for
        // itself: they have room for a thousandth of them.
        if !seen.insert((four, port)) {
            continue;
        }
        for (client, vip) in [(format!("{four}:{port}"), VIP), (format!("[{six}]:{port}"), VIP6)] {
            let syn = Segment::new(&client, vip).flags(SYN);
            let asked = Datagram::new(&client, vip).payload(b"asked");
            for frame in [syn.bytes(), asked.bytes()] {
                let expected = tc.run(&mut by_tc, Hook::Ingress, &frame);
                let found = xdp.run(&mut by_xdp, Hook::Edge, &frame);
                assert_eq!(expected.reason, found.reason, "{client} {vip}");
                assert_eq!(one_hop_further(&expected.packet), found.packet, "{client} {vip}");
                new += u32::from(found.reason == Reason::NewFlow);
                met.insert(destination(&found.packet, &syn));
            }
        }
    }
    assert_eq!(new, 4 * tuples, "each is new to both");
    assert_eq!(met.len(), 20, "every real is met: {met:?}");
}
