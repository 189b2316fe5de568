//! What a hostile workload sends, and what `docs/security.md` says of it.

use balancer_ebpf::{
    abi::{PortUse, route_kind},
    reason::{Fate, Reason},
};
use harness::{
    Datagram, NetNs, Segment,
    packet::{
        assert_same,
        flags::{ACK, FIN, PSH, RST, SYN},
    },
};

use crate::world::{Hook, LOOPBACK, Outcome, World, edge::uplink};

/// Client, VIP and two reals of each family.
const FAMILIES: [[&str; 4]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.1:8080", "10.0.1.2:8080"],
    ["[fd00::1]:40000", "[fd62:616c::1]:80", "[fd00:1::1]:8080", "[fd00:1::2]:8080"],
];

/// A VIP of TCP and UDP with one real, and a second real that has nothing to do with it.
fn world([_, vip, real, other]: [&str; 4]) -> Option<World> {
    let mut world = World::new()?;
    world.real(2, real, 1);
    world.real(3, other, 1);
    world.service(vip, &[2]);
    world.service(&format!("{vip}/udp"), &[2]);
    Some(world)
}

/// A segment with these flags, and a datagram, between two ends.
fn both(src: &str, dst: &str, flags: u8) -> [Vec<u8>; 2] {
    [Segment::new(src, dst).flags(flags).bytes(), Datagram::new(src, dst).payload(b"?").bytes()]
}

#[track_caller]
fn dropped_or_left(met: &Outcome, reason: Reason, frame: &[u8], what: &str) {
    assert_eq!(met.reason, reason, "{what}");
    assert!(matches!(reason.fate(), Fate::Drop | Fate::Pass), "{what}");
    assert_same(what, frame, &met.packet);
}

#[test]
fn xdp_refuses_whom_tc_refuses() {
    for family @ [client, vip, ..] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let _uplink = uplink(&mut world, true);
        let address = |end: &str| end.rsplit_once(':').expect("an end").0.to_owned();
        let (elsewhere, loopback, multicast) = match vip.starts_with('[') {
            true => ("fd00::66", "[::1]", "[ff02::1]"),
            false => ("10.0.0.66", "127.0.0.1", "224.0.0.1"),
        };
        for half in 0..2 {
            world.source(half, elsewhere, 5, 0, LOOPBACK + 1);
        }
        let bound = if vip.starts_with('[') { format!("[{elsewhere}]") } else { elsewhere.into() };
        for (source, reason) in [
            (bound, Reason::SpoofedSource),
            (loopback.to_owned(), Reason::MartianSource),
            (multicast.to_owned(), Reason::MartianSource),
            (address(vip), Reason::MartianSource),
        ] {
            for flags in [SYN, ACK] {
                for frame in both(&format!("{source}:40000"), vip, flags) {
                    for hook in [Hook::Ingress, Hook::Edge] {
                        let met = world.run_frame(hook, &frame);
                        dropped_or_left(&met, reason, &frame, &format!("{hook:?} from {source}"));
                    }
                }
            }
        }
        world.change_route(1, |route| route.kind = route_kind::DENY);
        world.change_route(2, |route| route.kind = route_kind::DENY);
        for (frame, is_udp) in both(client, vip, SYN).iter().zip([false, true]) {
            let met = [Hook::Ingress, Hook::Edge].map(|hook| world.run_frame(hook, frame));
            assert_eq!(met[0].reason, Reason::Denied);
            assert_eq!(met[1].reason, Reason::Denied);
            assert_same("the answer", &met[0].packet, &met[1].packet);
            assert_eq!(met[0].packet == *frame, is_udp, "a datagram is not answered");
        }
        let stray = Segment::new(client, vip).flags(RST).bytes();
        for hook in [Hook::Ingress, Hook::Edge] {
            dropped_or_left(&world.run_frame(hook, &stray), Reason::StrayReset, &stray, "a RST");
        }
        assert_eq!(world.flows(), 0, "nothing is recorded for any of them");
    }
}

/// Frames of a real to a client's ports that it does not talk to, or of another real to those that it
/// does, are not translated: where they leave, where they come in, and by XDP.
#[test]
fn only_the_real_of_a_flow_speaks_for_the_vip() {
    let Some(root) = harness::root_or_skip("datapath") else { return };
    let netns = NetNs::new(root, "hostile").expect("a namespace");
    for family @ [client, vip, real, other] in FAMILIES {
        for (begins, answers) in
            [(Hook::Ingress, Hook::Egress), (Hook::Host, Hook::Ingress), (Hook::Edge, Hook::Edge)]
        {
            let check = || {
                let Some(mut world) = world(family) else { return };
                let way = (begins == Hook::Edge).then(|| uplink(&mut world, true));
                for frame in both(client, vip, SYN) {
                    assert_eq!(world.run_frame(begins, &frame).reason, Reason::NewFlow);
                }
                let next = client.replace("40000", "40001");
                let elsewhere = real.replace("8080", "8081");
                world.port(8081, PortUse::Real);
                world.answer_inward(8081);
                for (from, to) in [(other, client), (real, &*next), (&*elsewhere, client)] {
                    for flags in [SYN | ACK, ACK | PSH, FIN | ACK, RST] {
                        for frame in both(from, to, flags) {
                            let met = world.run_frame(answers, &frame);
                            let strange = [Reason::UnknownReply, Reason::NonVip];
                            assert!(strange.contains(&met.reason), "{from} {to}: {:?}", met.reason);
                            assert_same("a stranger's", &frame, &met.packet);
                        }
                    }
                }
                // Of one protocol, and answered in that one.
                for frame in both(real, client, SYN | ACK) {
                    assert_eq!(world.run_frame(answers, &frame).reason, Reason::Reply);
                }
                drop(way);
            };
            netns.run(check);
        }
    }
}

#[test]
fn a_datagram_becomes_one_of_its_length_or_none() {
    for family @ [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        for len in [0usize, 1, 100, 1400] {
            let payload = vec![7; len];
            let there = Datagram::new(client, vip).payload(&payload);
            let back = Datagram::new(real, client).payload(&payload);
            for (hook, sent) in
                [(Hook::Ingress, &there), (Hook::Egress, &back), (Hook::Ingress, &there)]
            {
                let frame = sent.bytes();
                let met = world.run_frame(hook, &frame);
                assert_eq!(met.reason.fate(), Fate::Forward);
                assert_eq!(met.packet.len(), frame.len());
            }
        }
        let blackhole = world.equal_table(&[1], 16);
        world.change_route(2, |route| route.table = blackhole);
        let asked = Datagram::new(&client.replace("40000", "40001"), vip).bytes();
        let met = world.run_frame(Hook::Ingress, &asked);
        assert_eq!((met.reason, met.verdict), (Reason::Blackhole, crate::world::TC_ACT_SHOT));
    }
}

/// The receiver must be able to see that it is damaged.
#[test]
fn a_datagram_whose_checksum_is_wrong_keeps_it_wrong() {
    for family @ [client, vip, real, _] in FAMILIES {
        let Some(mut world) = world(family) else { return };
        let at = if client.starts_with('[') { 14 + 40 + 6 } else { 14 + 20 + 6 };
        let there = Datagram::new(client, vip).payload(b"damaged");
        let right = u16::from_be_bytes(
            there.clone().to(real).bytes()[at..at + 2].try_into().expect("two bytes"),
        );
        for wrong in [1u16, 0x8000, 0x1234] {
            let mut frame = there.bytes();
            let sum = u16::from_be_bytes([frame[at], frame[at + 1]]) ^ wrong;
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
            let met = world.run_frame(Hook::Ingress, &frame);
            assert_eq!(met.reason.fate(), Fate::Forward);
            let found = u16::from_be_bytes([met.packet[at], met.packet[at + 1]]);
            assert!(found != right && found != 0, "{wrong:#06x}: {found:#06x}");
        }
    }
}
