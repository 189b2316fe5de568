//! Floods of first packets: what they take away from others.

use balancer_ebpf::{abi::pick, reason::Reason};
use harness::{
    Datagram, Segment,
    packet::flags::{ACK, SYN},
    scaled,
};

use crate::world::{FORWARD, Flows, Hook, TestRuns, World};

const VIP: &str = "240.0.0.1:80";
const FLOODED: &str = "240.0.0.2:81";
const REAL: &str = "10.0.1.1:8080";
/// Connections that live while the flood goes on.
const LIVE: u16 = 64;

/// A world of 1,024 flows in which `LIVE` connections to a VIP stand. Its picks are no hash: a flow
/// whose entry is lost is not found again.
fn world() -> Option<World> {
    let mut world = World::with_flows(1024)?;
    world.real(2, REAL, 1);
    world.service(VIP, &[2]);
    world.change_route(1, |route| route.pick = pick::RANDOM);
    world.service(FLOODED, &[2]);
    world.service(&format!("{FLOODED}/udp"), &[2]);
    for port in 0..LIVE {
        world.connect(&client(port), VIP);
    }
    Some(world)
}

fn client(port: u16) -> String {
    format!("10.0.0.1:{}", 1024 + port)
}

/// A source that sends one packet and is never heard of again.
fn stranger(number: u32) -> String {
    let [_, a, b, c] = number.to_be_bytes();
    format!("10.{}.{b}.{c}:{}", 100 + a, 1024 + number % 60_000)
}

#[track_caller]
fn all_live(world: &mut World) {
    for port in 0..LIVE {
        let ack = Segment::new(&client(port), VIP).flags(ACK);
        assert_eq!(world.reason(Hook::Ingress, &ack), Reason::Established, "port {port}");
        let back = Segment::new(REAL, &client(port)).flags(ACK);
        assert_eq!(world.reason(Hook::Egress, &back), Reason::Reply, "port {port}");
    }
    assert_eq!(world.active(2), u64::from(LIVE));
}

#[test]
fn flood_of_syns_evicts_no_established_connection() {
    let Some(mut world) = world() else { return };
    let mut runs = TestRuns::new(&world);
    for number in 0..scaled(20_000, 5_000) {
        let syn = Segment::new(&stranger(number), FLOODED).flags(SYN).bytes();
        let reason = runs.run(&mut world, Hook::Ingress, &syn).reason;
        assert!(matches!(reason, Reason::NewFlow | Reason::FlowTableFull), "{reason:?}");
    }
    all_live(&mut world);
}

#[test]
fn flood_of_datagrams_evicts_no_established_connection() {
    let Some(mut world) = world() else { return };
    let mut runs = TestRuns::new(&world);
    for number in 0..scaled(20_000, 5_000) {
        let asked = Datagram::new(&stranger(number), FLOODED).bytes();
        let reason = runs.run(&mut world, Hook::Ingress, &asked).reason;
        assert!(matches!(reason, Reason::NewFlow | Reason::FlowTableFull), "{reason:?}");
        // Answered, as a resolver would: it changes nothing while the client does not go on.
        let answer = Datagram::new(REAL, &stranger(number)).bytes();
        runs.run(&mut world, Hook::Egress, &answer);
    }
    all_live(&mut world);
}

#[test]
fn guard_keeps_handshakes_of_others_in_a_flood_and_lets_new_ones_in() {
    let Some(mut world) = world() else { return };
    // Half of them for one VIP, for each CPU: what fits into the map of 1,024 even on a slow one.
    world.limit_new_flows(10);
    let early = client(LIVE);
    assert_eq!(world.reason(Hook::Ingress, &Segment::new(&early, VIP).flags(SYN)), Reason::NewFlow);
    let mut runs = TestRuns::new(&world);
    let mut refused = 0;
    for number in 0..scaled(20_000, 2_000) {
        let syn = Segment::new(&stranger(number), FLOODED).flags(SYN).bytes();
        match runs.run(&mut world, Hook::Ingress, &syn).reason {
            Reason::NewFlowLimit => refused += 1,
            Reason::NewFlow => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > scaled(10_000, 1_000), "{refused} are refused");
    assert!(world.flow(Flows::HalfOpen, &early, VIP, FORWARD).is_some(), "nothing is evicted");
    let back = Segment::new(REAL, &early).flags(SYN | ACK);
    assert_eq!(world.reason(Hook::Egress, &back), Reason::Reply);
    let ack = Segment::new(&early, VIP).flags(ACK);
    assert_eq!(world.reason(Hook::Ingress, &ack), Reason::Established);
    world.connect(&client(LIVE + 1), VIP);
}
