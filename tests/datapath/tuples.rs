//! One client address and port, one real, several VIPs.

use balancer_ebpf::{abi::flow_state, reason::Reason};
use harness::{
    Segment,
    packet::flags::{ACK, RST, SYN},
};

use crate::world::{FORWARD, Flows, HZ, Hook, REPLY, World, destination};

const CLIENT: &str = "10.0.0.1:40000";
const FIRST: &str = "240.0.0.1:80";
const SECOND: &str = "240.0.0.2:80";
const REAL: &str = "10.0.1.2:8080";
const OTHER: &str = "10.0.1.3:8080";

/// Both VIPs have the one real.
fn world() -> Option<World> {
    let mut world = World::new()?;
    world.real(2, REAL, 1);
    world.real(3, OTHER, 1);
    world.service(FIRST, &[2]);
    world.service(SECOND, &[2]);
    Some(world)
}

fn syn(vip: &str) -> Segment {
    Segment::new(CLIENT, vip).flags(SYN)
}

#[test]
fn a_clash_takes_another_real() {
    for (address, first, second, real, other) in [
        ("10.0.0.1", FIRST, SECOND, REAL, OTHER),
        (
            "[fd00::1]",
            "[fd62:616c::1]:80",
            "[fd62:616c::2]:80",
            "[fd00:1::2]:8080",
            "[fd00:1::3]:8080",
        ),
    ] {
        for half_open in [false, true] {
            let Some(mut world) = World::new() else { return };
            world.real(2, real, 1);
            world.real(3, other, 1);
            world.service(first, &[2]);
            world.service(second, &[2, 3]);
            // Such that the hash would choose the real that is taken.
            let hashed = (40_000..40_100)
                .map(|port| format!("{address}:{port}"))
                .find(|client| {
                    let syn = Segment::new(client, second).flags(SYN);
                    let asked = world.run_frame(Hook::Ask, &syn.bytes());
                    destination(&asked.packet, &syn).to_string() == real
                })
                .expect("half of them");
            if half_open {
                world.forwarded(&Segment::new(&hashed, first).flags(SYN), Reason::NewFlow);
            } else {
                world.connect(&hashed, first);
            }
            let syn = Segment::new(&hashed, second).flags(SYN);
            assert_eq!(world.forwarded(&syn, Reason::TupleClash).to_string(), other);
            // Each reply finds its own VIP.
            for (real, vip) in [(real, first), (other, second)] {
                let reply = Segment::new(real, &hashed).flags(SYN | ACK);
                world.expect(Hook::Egress, &reply, Reason::Reply, &reply.clone().from(vip));
            }
        }
    }
}

#[test]
fn a_clash_without_another_real_takes_another_source_port() {
    for (client, first, second, real) in [
        (CLIENT, FIRST, SECOND, REAL),
        ("[fd00::1]:40000", "[fd62:616c::1]:80", "[fd62:616c::2]:80", "[fd00:1::2]:8080"),
    ] {
        let Some(mut world) = World::new() else { return };
        world.real(2, real, 1);
        world.service(first, &[2]);
        world.service(second, &[2]);
        world.connect(client, first);
        let sent = Segment::new(client, second).flags(SYN);
        let out = world.run_frame(Hook::Ingress, &sent.bytes());
        assert_eq!(out.reason, Reason::TupleClash);
        let at = sent.tcp_at();
        let port = u16::from_be_bytes([out.packet[at], out.packet[at + 1]]);
        assert!(port >= 1024 && port != 40_000, "{port}");
        let mut seen_by_real = sent.clone().to(real);
        seen_by_real.src.set_port(port);
        assert_eq!(out.packet, seen_by_real.bytes());
        // All packets of the connection, both ways, are translated alike.
        let mut reply = Segment::new(real, client).flags(SYN | ACK);
        reply.dst.set_port(port);
        let seen_by_client = Segment::new(second, client).flags(SYN | ACK);
        world.expect(Hook::Egress, &reply, Reason::Reply, &seen_by_client);
        let ack = Segment::new(client, second).flags(ACK).payload(b"data");
        let mut translated = ack.clone().to(real);
        translated.src.set_port(port);
        world.expect(Hook::Ingress, &ack, Reason::Established, &translated);
        // The first connection lives on.
        let reply = Segment::new(real, client).flags(ACK);
        world.expect(Hook::Egress, &reply, Reason::Reply, &reply.clone().from(first));
        assert_eq!(world.flows(), 4);
    }
}

#[test]
fn a_closed_connection_holds_its_tuple_for_a_minute() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, FIRST);
    world.forwarded(&Segment::new(CLIENT, FIRST).flags(RST), Reason::Established);
    let out = world.run_frame(Hook::Ask, &syn(SECOND).bytes());
    assert_eq!(out.reason, Reason::TupleClash, "closed a moment ago");
    let age = |world: &mut World, seconds: u32| {
        world.change_flow(Flows::Open, (REAL, CLIENT, REPLY), |flow| {
            flow.last_seen = flow.last_seen.wrapping_sub(seconds * HZ);
        });
    };
    age(&mut world, 50);
    assert_eq!(world.run_frame(Hook::Ask, &syn(SECOND).bytes()).reason, Reason::TupleClash);
    age(&mut world, 15);
    assert_eq!(world.forwarded(&syn(SECOND), Reason::NewFlow).to_string(), REAL);
    assert!(world.flow(Flows::Open, CLIENT, FIRST, FORWARD).is_none(), "its entries are gone");
    assert_eq!(world.flows(), 2);
}

/// The way back of a connection can outlive it, where its real's id went to another real.
#[test]
fn taking_over_a_tuple_leaves_the_next_connection_of_its_owner_alone() {
    let Some(mut world) = world() else { return };
    world.service("240.0.0.3:80", &[4]);
    let ack = |vip| Segment::new(CLIENT, vip).flags(ACK);
    world.connect(CLIENT, FIRST);
    world.forwarded(&Segment::new(CLIENT, FIRST).flags(RST), Reason::Established);
    world.real(2, "10.0.1.9:8080", 2);
    world.forwarded(&syn(FIRST), Reason::NewFlow);
    let answer = Segment::new("10.0.1.9:8080", CLIENT).flags(SYN | ACK);
    assert_eq!(world.reason(Hook::Egress, &answer), Reason::Reply);
    world.forwarded(&ack(FIRST), Reason::Established);
    // A minute later the real is back, by another id, and the same client talks to it.
    world.change_flow(Flows::Open, (REAL, CLIENT, REPLY), |flow| {
        flow.last_seen = flow.last_seen.wrapping_sub(61 * HZ);
    });
    world.real(4, REAL, 1);
    assert_eq!(world.forwarded(&ack("240.0.0.3:80"), Reason::FlowAdopted).to_string(), REAL);
    assert_eq!(world.forwarded(&ack(FIRST), Reason::Established).to_string(), "10.0.1.9:8080");
}

#[test]
fn an_idle_live_connection_holds_its_tuple_for_ever() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, FIRST);
    world.change_flow(Flows::Open, (REAL, CLIENT, REPLY), |flow| {
        flow.last_seen = flow.last_seen.wrapping_sub(86_400 * HZ);
    });
    assert_eq!(world.run_frame(Hook::Ask, &syn(SECOND).bytes()).reason, Reason::TupleClash);
}

#[test]
fn leftover_of_the_same_tuple_is_no_clash() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, FIRST);
    // The forward entry was evicted, the reply entry was not.
    world.remove_flow(Flows::Open, CLIENT, FIRST, FORWARD);
    assert_eq!(world.forwarded(&syn(FIRST), Reason::NewFlow).to_string(), REAL);
    assert_eq!(world.flows(), 2);
    let reply = world.flow(Flows::HalfOpen, REAL, CLIENT, REPLY).expect("recorded anew");
    assert_eq!(reply.state.state & flow_state::ESTABLISHED, 0);
}

#[test]
fn adoption_does_not_take_over_another_connections_tuple() {
    let Some(mut world) = world() else { return };
    world.connect(CLIENT, FIRST);
    let sent = Segment::new(CLIENT, SECOND).flags(ACK);
    world.expect(Hook::Ingress, &sent, Reason::FlowLost, &sent.answering_reset());
    let reply = Segment::new(REAL, CLIENT).flags(ACK);
    world.expect(Hook::Egress, &reply, Reason::Reply, &reply.clone().from(FIRST));
}

/// The handshake's replies would come from the wrong VIP.
#[test]
fn adoption_does_not_take_over_a_handshakes_tuple() {
    let Some(mut world) = world() else { return };
    world.forwarded(&syn(FIRST), Reason::NewFlow);
    let sent = Segment::new(CLIENT, SECOND).flags(ACK);
    world.expect(Hook::Ingress, &sent, Reason::FlowLost, &sent.answering_reset());
    let reply = Segment::new(REAL, CLIENT).flags(SYN | ACK);
    world.expect(Hook::Egress, &reply, Reason::Reply, &reply.clone().from(FIRST));
}

#[test]
fn many_vips_share_one_real_until_a_port_is_found_for_each() {
    let Some(mut world) = World::new() else { return };
    world.real(2, REAL, 1);
    let vips: Vec<_> = (1..=40).map(|i| format!("240.0.0.{i}:80")).collect();
    let mut reasons = Vec::new();
    for vip in &vips {
        world.service(vip, &[2]);
        reasons.push(world.reason(Hook::Ingress, &syn(vip)));
    }
    assert_eq!(reasons[0], Reason::NewFlow);
    assert!(reasons[1..].iter().all(|reason| *reason == Reason::TupleClash), "{reasons:?}");
    assert_eq!(world.flows(), 80);
}
