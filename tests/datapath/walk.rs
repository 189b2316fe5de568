//! The walk of ordinary packets, both ways and in both families.

use balancer_ebpf::{abi::Counter, reason::Reason};
use harness::{
    Segment,
    packet::flags::{ACK, FIN, PSH, RST, SYN},
};

use crate::world::{FORWARD, Flows, HZ, Hook, REPLY, World, fresh_port};

/// Client, VIP and real of each family.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.1:8080"],
    ["[fd00::1]:40000", "[fd62:616c::1]:80", "[fd00:1::1]:8080"],
];

fn world(vip: &str, real: &str) -> Option<World> {
    let mut world = World::new()?;
    world.real(2, real, 1);
    world.service(vip, &[2]);
    Some(world)
}

/// Handshakes and some data through packets of `count` shapes.
fn carry(count: usize, shape: impl Fn(usize, Segment) -> Segment) {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        for number in 0..count {
            let client = client.replace("40000", &fresh_port().to_string());
            let there = |flags| shape(number, Segment::new(&client, vip).flags(flags));
            let back = |flags| shape(number, Segment::new(real, &client).flags(flags));
            for reason in [Reason::NewFlow, Reason::HalfOpen] {
                world.expect(Hook::Ingress, &there(SYN), reason, &there(SYN).to(real));
            }
            let syn_ack = back(SYN | ACK);
            world.expect(Hook::Egress, &syn_ack, Reason::Reply, &syn_ack.clone().from(vip));
            for payload in [&b""[..], b"GET / HTTP/1.0\r\n\r\n", b"odd"] {
                let data = there(ACK | PSH).payload(payload);
                world.expect(Hook::Ingress, &data, Reason::Established, &data.clone().to(real));
                let answer = back(ACK | PSH).payload(payload);
                world.expect(Hook::Egress, &answer, Reason::Reply, &answer.clone().from(vip));
            }
        }
    }
}

#[test]
fn handshake_goes_to_one_real_and_its_replies_come_from_the_vip() {
    carry(3, |_, segment| segment);
}

#[test]
fn one_or_two_vlan_tags_are_looked_through() {
    let tags = [vec![42], vec![7, 4095]];
    carry(tags.len(), |number, segment| Segment { vlans: tags[number].clone(), ..segment });
}

#[test]
fn ipv4_header_longer_than_20_bytes_is_carried() {
    carry(10, |number, mut segment| {
        if segment.src.is_ipv4() {
            segment.ip_options = vec![1; (number + 1) * 4];
        }
        segment
    });
}

#[test]
fn longest_headers_of_all_are_carried() {
    carry(1, |_, mut segment| {
        segment.vlans = vec![1, 2];
        segment.tcp_options = vec![1; 40];
        if segment.src.is_ipv4() {
            segment.ip_options = vec![1; 40];
        }
        segment
    });
}

#[test]
fn padding_behind_a_short_packet_stays_and_does_not_count() {
    let [client, vip, real] = FAMILIES[0];
    let Some(mut world) = world(vip, real) else { return };
    let segment = Segment::new(client, vip).flags(SYN);
    let mut frame = segment.bytes();
    frame.resize(60, 0xaa);
    let outcome = world.run_frame(Hook::Ingress, &frame);
    assert_eq!(outcome.reason, Reason::NewFlow);
    let mut expected = segment.to(real).bytes();
    expected.resize(60, 0xaa);
    assert_eq!(outcome.packet, expected);
}

/// Blixt writes a new port at the checksum's offset.
#[test]
fn port_is_written_where_the_port_lives() {
    let [client, vip, _] = FAMILIES[0];
    // Same address, other port: nothing but port and checksum may change.
    let Some(mut world) = world(vip, "240.0.0.1:8080") else { return };
    let syn = Segment::new(client, vip).flags(SYN);
    let frame = syn.bytes();
    let found = world.run_frame(Hook::Ingress, &frame).packet;
    let changed: Vec<_> = (0..frame.len()).filter(|i| frame[*i] != found[*i]).collect();
    assert_eq!(&found[36..38], &8080u16.to_be_bytes());
    assert!(changed.iter().all(|i| [36, 37, 50, 51].contains(i)), "{changed:?}");
}

/// Blixt throws the verdict away and lets everything on.
#[test]
fn verdict_of_a_refused_packet_is_not_lost() {
    let [client, vip, real] = FAMILIES[0];
    let Some(mut world) = world(vip, real) else { return };
    // `run_frame` compares the verdict with the reason's fate.
    let rst = Segment::new(client, vip).flags(RST);
    assert_eq!(world.reason(Hook::Ingress, &rst), Reason::StrayReset);
    let fragment = Segment { fragment_offset: 9, ..Segment::new(client, vip).flags(SYN) };
    assert_eq!(world.reason(Hook::Ingress, &fragment), Reason::Fragment);
}

/// Blixt knows a flow by the client alone.
#[test]
fn one_client_port_can_talk_to_two_vips() {
    let [client, vip, real] = FAMILIES[0];
    let Some(mut world) = world(vip, real) else { return };
    world.real(3, "10.0.1.2:9090", 1);
    world.service("240.0.0.2:80", &[3]);
    world.service("240.0.0.1:81", &[3]);
    assert_eq!(world.connect(client, vip).to_string(), real);
    assert_eq!(world.connect(client, "240.0.0.2:80").to_string(), "10.0.1.2:9090");
    let data = Segment::new(client, vip).flags(ACK);
    assert_eq!(world.forwarded(&data, Reason::Established).to_string(), real);
}

/// A checksum that is 0, before or after, is a number like any other.
#[test]
fn zero_checksum_is_carried() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        world.connect(client, vip);
        let to = |dst: &str, seq: u32| {
            let mut segment = Segment::new(client, dst).flags(ACK);
            segment.seq = seq;
            segment
        };
        // Some sequence number makes each of the two sums zero.
        for dst in [vip, real] {
            let zero = |seq: &u32| {
                let segment = to(dst, *seq);
                let at = segment.tcp_at() + 16;
                segment.bytes()[at..at + 2] == [0, 0]
            };
            let seq = (0..=u32::from(u16::MAX)).find(zero).expect("sums take all values");
            let sent = to(vip, seq);
            world.expect(Hook::Ingress, &sent, Reason::Established, &to(real, seq));
        }
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let segment = Segment::new(client, vip).flags(SYN);
        let mut frame = segment.bytes();
        let at = segment.tcp_at() + 16;
        frame[at] ^= 0x10;
        let outcome = world.run_frame(Hook::Ingress, &frame);
        assert_eq!(outcome.reason, Reason::NewFlow);
        let repaired = harness::packet::verify_checksums(&outcome.packet);
        assert!(repaired.is_err(), "the real must be able to see that the packet is damaged");
    }
}

#[test]
fn counters_hold_connections_packets_and_bytes_both_ways() {
    let [client, vip, real] = FAMILIES[0];
    let Some(mut world) = world(vip, real) else { return };
    world.connect(client, vip);
    let data = Segment::new(client, vip).flags(ACK).payload(&[7; 100]);
    world.forwarded(&data, Reason::Established);
    let expected = Counter {
        connections: 1,
        packets_in: 3,
        bytes_in: 54 + 54 + 154,
        packets_out: 1,
        bytes_out: 54,
    };
    assert_eq!(world.counter(1), expected);
}

#[test]
fn counter_id_zero_is_not_counted() {
    let [client, vip, real] = FAMILIES[0];
    let Some(mut world) = world(vip, real) else { return };
    world.change_route(1, |route| route.counters = 0);
    world.connect(client, vip);
    assert_eq!(world.counter(0), Counter::default());
    assert_eq!(world.counter(1), Counter::default());
}

#[test]
fn live_connections_are_counted_from_the_handshake_to_the_end() {
    for [client, vip, real] in FAMILIES {
        let ends: [&[(Hook, u8)]; 3] = [
            &[(Hook::Ingress, FIN | ACK), (Hook::Egress, FIN | ACK), (Hook::Ingress, RST)],
            &[(Hook::Egress, FIN | ACK), (Hook::Ingress, FIN | ACK), (Hook::Ingress, FIN | ACK)],
            &[(Hook::Egress, RST), (Hook::Ingress, RST)],
        ];
        for end in ends {
            let Some(mut world) = world(vip, real) else { return };
            world.forwarded(&Segment::new(client, vip).flags(SYN), Reason::NewFlow);
            assert_eq!(world.active(2), 0, "half open");
            let syn_ack = Segment::new(real, client).flags(SYN | ACK);
            assert_eq!(world.reason(Hook::Egress, &syn_ack), Reason::Reply);
            world.forwarded(&Segment::new(client, vip).flags(ACK), Reason::Established);
            assert_eq!(world.active(2), 1);
            for (hook, flags) in end {
                let segment = match hook {
                    Hook::Egress => Segment::new(real, client),
                    _ => Segment::new(client, vip),
                };
                world.reason(*hook, &segment.flags(*flags));
            }
            assert_eq!(world.active(2), 0, "{end:?}");
        }
    }
}

#[test]
fn connection_that_both_ended_before_its_handshake_was_complete_is_never_counted() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let there = |flags| Segment::new(client, vip).flags(flags);
        world.forwarded(&there(SYN), Reason::NewFlow);
        for flags in [SYN | ACK, FIN | ACK] {
            world.reason(Hook::Egress, &Segment::new(real, client).flags(flags));
        }
        world.forwarded(&there(FIN), Reason::HalfOpen);
        world.forwarded(&there(ACK), Reason::Established);
        assert_eq!(world.active(2), 0);
    }
}

/// The reply entry of an earlier connection can outlive its forward entry.
#[test]
fn packet_of_an_earlier_real_ends_the_connection_of_the_real_that_counts_it() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        world.connect(client, vip);
        world.set_active(2, 0);
        world.remove_flow(Flows::Open, client, vip, FORWARD);
        let other = real.replace("8080", "8081");
        world.real(3, &other, 1);
        let table = world.equal_table(&[3], 16);
        world.change_route(1, |route| route.table = table);
        assert_eq!(world.connect(client, vip).to_string(), other);
        assert_eq!((world.active(2), world.active(3)), (0, 1));
        world.reason(Hook::Egress, &Segment::new(real, client).flags(RST));
        assert_eq!((world.active(2), world.active(3)), (0, 0));
    }
}

#[test]
fn count_of_live_connections_never_goes_below_zero() {
    let [client, vip, real] = FAMILIES[0];
    let Some(mut world) = world(vip, real) else { return };
    world.connect(client, vip);
    // A sweep of user space corrected the count meanwhile.
    world.set_active(2, 0);
    world.reason(Hook::Ingress, &Segment::new(client, vip).flags(RST));
    assert_eq!(world.active(2), 0);
}

#[test]
fn both_entries_move_when_the_handshake_is_complete() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        world.forwarded(&Segment::new(client, vip).flags(SYN), Reason::NewFlow);
        assert!(world.flow(Flows::HalfOpen, client, vip, FORWARD).is_some());
        assert!(world.flow(Flows::HalfOpen, real, client, REPLY).is_some());
        world.forwarded(&Segment::new(client, vip).flags(ACK), Reason::HalfOpen);
        world.reason(Hook::Egress, &Segment::new(real, client).flags(SYN | ACK));
        world.forwarded(&Segment::new(client, vip).flags(ACK), Reason::Established);
        assert!(world.flow(Flows::Open, client, vip, FORWARD).is_some());
        assert!(world.flow(Flows::Open, real, client, REPLY).is_some());
        assert_eq!(world.flows(), 2, "nothing is left behind");
    }
}

#[test]
fn asking_tells_what_would_happen_and_leaves_no_trace() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        let syn = Segment::new(client, vip).flags(SYN);
        world.expect(Hook::Ask, &syn, Reason::NewFlow, &syn.clone().to(real));
        let ack = Segment::new(client, vip).flags(ACK);
        world.expect(Hook::Ask, &ack, Reason::FlowAdopted, &ack.clone().to(real));
        assert_eq!((world.flows(), world.active(2)), (0, 0));
        assert_eq!(world.counter(1), Counter::default());
        world.change_route(1, |route| route.kind = balancer_ebpf::abi::route_kind::DENY);
        world.expect(Hook::Ask, &syn, Reason::Denied, &syn.answering_reset());
    }
}

#[test]
fn reply_entry_is_refreshed_and_restored_by_the_forward_path() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world(vip, real) else { return };
        world.connect(client, vip);
        world.remove_flow(Flows::Open, real, client, REPLY);
        let reply = Segment::new(real, client).flags(ACK);
        assert_eq!(world.reason(Hook::Egress, &reply), Reason::UnknownReply, "evicted");
        let data = Segment::new(client, vip).flags(ACK);
        world.forwarded(&data, Reason::Established);
        assert_eq!(world.reason(Hook::Egress, &reply), Reason::UnknownReply, "not every packet");
        world.change_flow(Flows::Open, (client, vip, FORWARD), |flow| {
            flow.last_seen = flow.last_seen.wrapping_sub(11 * HZ);
            flow.refreshed = flow.last_seen;
        });
        world.forwarded(&data, Reason::Established);
        world.expect(Hook::Egress, &reply, Reason::Reply, &reply.clone().from(vip));
    }
}
