//! Flows of UDP.

use balancer_ebpf::{
    abi::{real_flags, route_kind},
    reason::Reason,
};
use harness::{
    Datagram, Segment,
    packet::{assert_same, flags::SYN},
    wire,
};

use crate::world::{FORWARD, Flows, HZ, Hook, REPLY, TestRuns, World};

/// Client, VIP and two reals of each family.
const FAMILIES: [[&str; 4]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:53", "10.0.1.1:1053", "10.0.1.2:1053"],
    ["[fd00::1]:40000", "[fd62:616c::1]:53", "[fd00:1::1]:1053", "[fd00:1::2]:1053"],
];

/// A VIP of UDP, and the text of its flows.
fn world(vip: &str, real: &str) -> Option<World> {
    let mut world = World::new()?;
    world.real(2, real, 1);
    world.service(&udp(vip), &[2]);
    Some(world)
}

fn udp(end: &str) -> String {
    format!("{end}/udp")
}

#[track_caller]
fn expect(world: &mut World, hook: Hook, sent: &Datagram, reason: Reason, expected: &Datagram) {
    let outcome = world.run_frame(hook, &sent.bytes());
    assert_eq!(outcome.reason, reason, "{sent:?}");
    assert_same(reason.name(), &expected.bytes(), &outcome.packet);
}

/// Sends a datagram that must come out as it is.
#[track_caller]
fn untouched(world: &mut World, hook: Hook, frame: &[u8], reason: Reason) {
    let outcome = world.run_frame(hook, frame);
    assert_eq!(outcome.reason, reason);
    assert_same(reason.name(), frame, &outcome.packet);
}

/// The first datagram, an answer, and the second.
#[track_caller]
fn converse(world: &mut World, [client, vip, real]: [&str; 3]) {
    let (there, back) = (Datagram::new(client, vip), Datagram::new(real, client));
    expect(world, Hook::Ingress, &there, Reason::NewFlow, &there.clone().to(real));
    expect(world, Hook::Egress, &back, Reason::Reply, &back.clone().from(vip));
    expect(world, Hook::Ingress, &there, Reason::Established, &there.clone().to(real));
}

/// Makes both entries of a flow look older.
fn age(world: &mut World, flows: Flows, ends: [(&str, &str, u8); 2], seconds: [u32; 2]) {
    for ((src, dst, way), seconds) in ends.into_iter().zip(seconds) {
        world.change_flow(flows, (src, &udp(dst), way), |flow| {
            flow.last_seen = flow.last_seen.wrapping_sub(seconds * HZ);
        });
    }
}

#[test]
fn datagrams_go_to_one_real_and_its_answers_come_from_the_vip() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        for (number, payload) in [&b""[..], b"odd", &[0xa5; 1400]].into_iter().enumerate() {
            let client = client.replace("40000", &(40_000 + number).to_string());
            let there = Datagram::new(&client, vip).payload(payload);
            let back = Datagram::new(real, &client).payload(payload);
            for reason in [Reason::NewFlow, Reason::HalfOpen, Reason::HalfOpen] {
                expect(&mut world, Hook::Ingress, &there, reason, &there.clone().to(real));
            }
            for _answer in 0..3 {
                expect(&mut world, Hook::Egress, &back, Reason::Reply, &back.clone().from(vip));
            }
            let open = |world: &mut World| world.flow(Flows::Open, &client, &udp(vip), FORWARD);
            assert_eq!(open(&mut world), None, "a question and an answer are all there may be");
            for _more in 0..2 {
                let out = there.clone().to(real);
                expect(&mut world, Hook::Ingress, &there, Reason::Established, &out);
                expect(&mut world, Hook::Egress, &back, Reason::Reply, &back.clone().from(vip));
            }
            assert!(open(&mut world).is_some(), "both ends mean it");
            assert_eq!(world.active(2), number as u64 + 1);
        }
        let counted = world.counter(1);
        assert_eq!((counted.connections, counted.packets_in, counted.packets_out), (3, 15, 15));
    }
}

#[test]
fn a_checksum_that_is_not_there_stays_away() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let there = Datagram::new(client, vip).payload(b"tunnel").unsummed();
        let back = Datagram::new(real, client).payload(b"tunnel").unsummed();
        for reason in [Reason::NewFlow, Reason::HalfOpen] {
            expect(&mut world, Hook::Ingress, &there, reason, &there.clone().to(real));
        }
        expect(&mut world, Hook::Egress, &back, Reason::Reply, &back.clone().from(vip));
    }
}

#[test]
fn a_checksum_of_zero_is_written_as_its_complement() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let at = if client.starts_with('[') { 14 + 40 + 6 } else { 14 + 20 + 6 };
        let sums_to_zero = |payload: u16| {
            let there = Datagram::new(client, vip).payload(&payload.to_be_bytes());
            (there.clone().to(real).bytes()[at..at + 2] == [0xff, 0xff]).then_some(there)
        };
        let there = (0..=u16::MAX).find_map(sums_to_zero).expect("one of all payloads");
        expect(&mut world, Hook::Ingress, &there, Reason::NewFlow, &there.clone().to(real));
    }
}

#[test]
fn after_thirty_seconds_of_silence_the_current_table_decides_anew() {
    for [client, vip, first, second] in FAMILIES {
        for meant in [false, true] {
            let Some(mut world) = world(vip, first) else { return };
            world.real(3, second, 1);
            let there = Datagram::new(client, vip);
            let flows = if meant { Flows::Open } else { Flows::HalfOpen };
            let known = if meant { Reason::Established } else { Reason::HalfOpen };
            if meant {
                converse(&mut world, [client, vip, first]);
            } else {
                expect(
                    &mut world,
                    Hook::Ingress,
                    &there,
                    Reason::NewFlow,
                    &there.clone().to(first),
                );
            }
            let table = world.equal_table(&[3], 16);
            world.change_route(1, |route| route.table = table);
            let ends = [(client, vip, FORWARD), (first, client, REPLY)];
            age(&mut world, flows, ends, [30, 30]);
            expect(&mut world, Hook::Ingress, &there, known, &there.clone().to(first));
            // The real goes on sending: the client is only listening.
            age(&mut world, flows, ends, [40, 0]);
            expect(&mut world, Hook::Ingress, &there, known, &there.clone().to(first));
            age(&mut world, flows, ends, [32, 80]);
            let asked = world.run_frame(Hook::Ask, &there.bytes());
            assert_eq!(asked.reason, Reason::NewFlow);
            assert_same("asked", &there.clone().to(second).bytes(), &asked.packet);
            expect(&mut world, Hook::Ingress, &there, Reason::NewFlow, &there.clone().to(second));
            assert_eq!(world.active(2), 0);
            assert_eq!(world.flows(), 2, "the entries of the flow before are gone");
        }
    }
}

#[test]
fn an_answer_after_thirty_seconds_of_silence_is_no_reply() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let back = Datagram::new(real, client);
        converse(&mut world, [client, vip, real]);
        let ends = [(client, vip, FORWARD), (real, client, REPLY)];
        age(&mut world, Flows::Open, ends, [40, 0]);
        expect(&mut world, Hook::Egress, &back, Reason::Reply, &back.clone().from(vip));
        // The client went on sending, and the entry of the way back was not looked after yet.
        world.change_flow(Flows::Open, (client, &udp(vip), FORWARD), |flow| {
            flow.last_seen = flow.last_seen.wrapping_add(40 * HZ);
        });
        age(&mut world, Flows::Open, ends, [0, 40]);
        expect(&mut world, Hook::Egress, &back, Reason::Reply, &back.clone().from(vip));
        age(&mut world, Flows::Open, ends, [40, 40]);
        untouched(&mut world, Hook::Egress, &back.bytes(), Reason::UnknownReply);
    }
}

#[test]
fn ports_of_one_number_are_two_vips() {
    for [client, vip, real, other] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let syn = Segment::new(client, vip).flags(SYN);
        assert_eq!(world.reason(Hook::Ingress, &syn), Reason::UnknownDestination);
        world.real(3, other, 1);
        world.service(vip, &[3]);
        let there = Datagram::new(client, vip);
        expect(&mut world, Hook::Ingress, &there, Reason::NewFlow, &there.clone().to(real));
        world.expect(Hook::Ingress, &syn, Reason::NewFlow, &syn.clone().to(other));
        expect(&mut world, Hook::Ingress, &there, Reason::HalfOpen, &there.clone().to(real));
        // The answers of one protocol are none of the other.
        let back = Datagram::new(other, client);
        untouched(&mut world, Hook::Egress, &back.bytes(), Reason::UnknownReply);
    }
}

#[test]
fn datagrams_that_are_refused_drop_and_are_not_answered() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let there = Datagram::new(client, vip).bytes();
        let table = world.equal_table(&[balancer_ebpf::abi::REAL_BLACKHOLE], 16);
        world.change_route(1, |route| route.table = table);
        untouched(&mut world, Hook::Ingress, &there, Reason::Blackhole);
        world.change_route(1, |route| route.kind = route_kind::DENY);
        untouched(&mut world, Hook::Ingress, &there, Reason::Denied);
        assert_eq!(world.flows(), 0);
    }
}

#[test]
fn where_the_real_is_gone_another_one_is_found() {
    for [client, vip, first, second] in FAMILIES {
        let Some(mut world) = world(vip, first) else { return };
        world.real(3, second, 1);
        converse(&mut world, [client, vip, first]);
        let table = world.equal_table(&[3], 16);
        world.change_route(1, |route| route.table = table);
        world.change_real(2, |real| real.flags = real_flags::GONE);
        let there = Datagram::new(client, vip);
        // For as long as gone reals keep what they have: for ever, unless told otherwise.
        expect(&mut world, Hook::Ingress, &there, Reason::Established, &there.clone().to(first));
        world.settings(0);
        expect(&mut world, Hook::Ingress, &there, Reason::NewFlow, &there.clone().to(second));
        assert_eq!(world.active(2), 0);
    }
}

#[test]
fn two_vips_over_one_real_are_told_apart_by_the_source_port() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let other = vip.replace(":53", ":54");
        world.service(&udp(&other), &[2]);
        converse(&mut world, [client, vip, real]);
        let there = Datagram::new(client, &other);
        let outcome = world.run_frame(Hook::Ingress, &there.bytes());
        assert_eq!(outcome.reason, Reason::TupleClash);
        let at = if client.starts_with('[') { 54 } else { 34 };
        let port = u16::from_be_bytes([outcome.packet[at], outcome.packet[at + 1]]);
        let seen = client.replace("40000", &port.to_string());
        let expected = Datagram::new(&seen, real);
        assert_same("translated", &expected.bytes(), &outcome.packet);
        let back = Datagram::new(real, &seen);
        let answer = Datagram::new(&other, client);
        expect(&mut world, Hook::Egress, &back, Reason::Reply, &answer);
    }
}

#[test]
fn source_port_zero_is_carried_and_nobody_dials_port_zero() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let client = client.replace("40000", "0");
        let there = Datagram::new(&client, vip);
        expect(&mut world, Hook::Ingress, &there, Reason::NewFlow, &there.clone().to(real));
        let nowhere = there.to(&vip.replace(":53", ":0"));
        untouched(&mut world, Hook::Ingress, &nowhere.bytes(), Reason::NonVip);
    }
}

#[test]
fn lengths_that_contradict_each_other_pass() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let frame = Datagram::new(client, vip).payload(&[1; 20]).bytes();
        let at = if client.starts_with('[') { 54 } else { 34 } + 4;
        for len in [0u16, 1, 7, 29, 1000, u16::MAX] {
            let mut lies = frame.clone();
            lies[at..at + 2].copy_from_slice(&len.to_be_bytes());
            untouched(&mut world, Hook::Ingress, &lies, Reason::Malformed);
        }
        for cut in at - 4..frame.len() {
            let outcome = world.run_frame(Hook::Ingress, &frame[..cut]);
            assert!(
                matches!(outcome.reason, Reason::Malformed | Reason::NonVip),
                "{cut} bytes: {:?}",
                outcome.reason
            );
        }
        assert_eq!(world.flows(), 0);
        // What follows the datagram inside the packet is no part of it.
        let mut shorter = frame.clone();
        shorter[at..at + 2].copy_from_slice(&20u16.to_be_bytes());
        assert_eq!(world.run_frame(Hook::Ingress, &shorter).reason, Reason::NewFlow);
    }
}

#[test]
fn fragments_of_datagrams_meet_what_fragments_of_segments_do() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let pieces = |datagram: Datagram| -> Vec<Vec<u8>> {
            let packet = datagram.payload(&[3; 100]).packet();
            let pieces = wire::fragments(&packet, 7, 48);
            pieces.iter().map(|piece| wire::ethernet(wire::MACS, piece)).collect()
        };
        let there = Datagram::new(client, vip);
        let (sent, expected) = (pieces(there.clone()), pieces(there.to(real)));
        // One that comes too early is lost, and only that one.
        untouched(&mut world, Hook::Ingress, &sent[1], Reason::Fragment);
        for (number, reason) in
            [(0, Reason::NewFlow), (2, Reason::FragmentFollowed), (1, Reason::FragmentFollowed)]
        {
            let outcome = world.run_frame(Hook::Ingress, &sent[number]);
            assert_eq!(outcome.reason, reason);
            assert_same(reason.name(), &expected[number], &outcome.packet);
        }
        let back = Datagram::new(real, client);
        let (sent, expected) = (pieces(back.clone()), pieces(back.from(vip)));
        for (number, reason) in [(0, Reason::Reply), (1, Reason::FragmentFollowed)] {
            let outcome = world.run_frame(Hook::Egress, &sent[number]);
            assert_eq!(outcome.reason, reason);
            assert_same(reason.name(), &expected[number], &outcome.packet);
        }
    }
}

#[test]
fn icmp_errors_about_datagrams_are_translated_both_ways() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        converse(&mut world, [client, vip, real]);
        let kind = if client.starts_with('[') { (1, 4) } else { (3, 3) };
        // From whoever received the datagram, to whoever sent it.
        let error = |about: Datagram| {
            let about = about.payload(b"is anybody there?").packet();
            let [sender, receiver] = wire::addresses(&about);
            wire::ethernet(wire::MACS, &wire::icmp(receiver, sender, kind, [0; 4], &about))
        };
        for (hook, sent, expected) in [
            (Hook::Ingress, Datagram::new(vip, client), Datagram::new(real, client)),
            (Hook::Egress, Datagram::new(client, real), Datagram::new(client, vip)),
        ] {
            let outcome = world.run_frame(hook, &error(sent));
            assert_eq!(outcome.reason, Reason::IcmpError, "{hook:?}");
            assert_same("an error", &error(expected), &outcome.packet);
        }
    }
}

#[test]
fn packets_that_are_none_of_ours_are_counted_once_and_left_alone() {
    for [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let mut runs = TestRuns::new(&world);
        for (to, reason) in [
            (vip.replace(":53", ":5353"), Reason::NonVip),
            (vip.replace("::1]", "::9]").replace(".0.1:", ".0.9:"), Reason::UnknownDestination),
        ] {
            let frame = Datagram::new(client, &to).bytes();
            let outcome = runs.run(&mut world, Hook::Ingress, &frame);
            assert_eq!((outcome.reason, &outcome.packet), (reason, &frame));
        }
        let frame = Datagram::new(real, client).bytes();
        let outcome = runs.run(&mut world, Hook::Egress, &frame);
        assert_eq!((outcome.reason, &outcome.packet), (Reason::UnknownReply, &frame));
    }
}
