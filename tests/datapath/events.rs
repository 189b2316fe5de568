//! What a tracer is told: new flows and refused packets, as often as it asked.

use std::time::Duration;

use balancer_ebpf::{
    abi::{Event, Trace, Traced, pick, route_kind},
    reason::Reason,
};
use harness::{
    Segment,
    packet::flags::{ACK, RST, SYN},
};
use nix::time::{ClockId, clock_gettime};

use crate::{
    reasons,
    world::{FORWARD, Flows, Hook, LOOPBACK, REPLY, World},
};

/// Client, VIP and real of each family.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.1:8080"],
    ["[fd00::1]:40000", "[fd62:616c::1]:80", "[fd00:1::1]:8080"],
];
/// Of the VIP of [`world`], of its route and of its counter.
const SERVICE: u32 = 1;

/// Everything, without end and limit.
const ALL: Trace = Trace {
    until_ns: u64::MAX,
    reasons: u64::MAX,
    sample: 0,
    interval_ns: 0,
    ahead_ns: 0,
    zero: 0,
};

fn world([_, vip, real]: [&str; 3]) -> Option<World> {
    let mut world = World::new()?;
    world.real(2, real, 7);
    assert_eq!(world.service(vip, &[2]), SERVICE);
    Some(world)
}

fn address(event: &Event, addr: [u8; 16], port: [u8; 2]) -> String {
    let [a, b, c, d, rest @ ..] = addr;
    let port = u16::from_be_bytes(port);
    if event.family == 4 {
        assert_eq!(rest, [0; 12], "what no IPv4 address uses is zero");
        std::net::SocketAddr::from(([a, b, c, d], port)).to_string()
    } else {
        std::net::SocketAddr::from((addr, port)).to_string()
    }
}

/// Source and destination, as text.
fn ends(event: &Event) -> [String; 2] {
    [address(event, event.src, event.sport), address(event, event.dst, event.dport)]
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock");
    Duration::from(now).as_nanos() as u64
}

#[test]
fn new_flow_is_told_with_its_ends_ids_and_time() {
    for (family, [client, vip, real]) in [4, 6].into_iter().zip(FAMILIES) {
        let Some(mut world) = world([client, vip, real]) else { return };
        world.epoch(6);
        world.trace(&ALL);
        let before = now_ns();
        world.connect(client, vip);
        let events = world.events();
        let [event] = events[..] else { panic!("one event for one flow: {events:?}") };
        assert_eq!(event.reason, Reason::NewFlow as u32);
        assert_eq!(ends(&event), [client, vip]);
        assert_eq!((event.family, event.direction), (family, FORWARD));
        assert_eq!((event.epoch, event.sample), (6, 1));
        assert_eq!((event.vip, event.class, event.route), (SERVICE, 0, SERVICE));
        assert_eq!((event.real, event.generation, event.counter), (2, 7, SERVICE));
        assert_eq!(u16::from_be_bytes(event.client_port), 40000);
        assert_eq!(event.ifindex, LOOPBACK);
        // The coarse clock is up to a tick behind.
        let tick = 20_000_000;
        assert!((before - tick..=now_ns()).contains(&event.time_ns), "{}", event.time_ns);
        assert_eq!(world.traced(), Traced { told: 1, ..Default::default() });
    }
}

#[test]
fn refused_packet_is_told_with_class_and_route_of_its_source() {
    for [client, vip, real] in FAMILIES {
        let Some(mut world) = world([client, vip, real]) else { return };
        let address = client.parse::<std::net::SocketAddr>().expect("an end").ip().to_string();
        for half in 0..2 {
            world.source(half, &address, 5, 3, 0);
        }
        world.class_route(3, SERVICE, 9);
        world.change_route(9, |route| route.kind = route_kind::DENY);
        world.trace(&ALL);
        let syn = Segment::new(client, vip).flags(SYN);
        assert_eq!(world.reason(Hook::Ingress, &syn), Reason::Denied);
        let events = world.events();
        let [event] = events[..] else { panic!("one event for one packet: {events:?}") };
        assert_eq!(event.reason, Reason::Denied as u32);
        assert_eq!(ends(&event), [client, vip]);
        assert_eq!((event.vip, event.class, event.route), (SERVICE, 3, 9));
        assert_eq!((event.real, event.counter, event.client_port), (0, 0, [0; 2]));
    }
}

#[test]
fn every_reason_that_begins_a_flow_or_refuses_is_told_and_no_other() {
    for reason in Reason::ALL {
        let made = match reason {
            Reason::TuplesExhausted => World::with_flows(1 << 18),
            Reason::FlowTableFull => World::with_room_for_one_flow(),
            _ => World::new(),
        };
        let Some(mut world) = made else { return };
        let [_, vip, real] = FAMILIES[0];
        world.real(2, real, 1);
        world.service(vip, &[2]);
        world.trace(&Trace { reasons: reason.bit(), ..ALL });
        reasons::case(&mut world, *reason);
        let told: Vec<_> = world.events().iter().map(|event| event.reason).collect();
        // A refusal of the kernel's cannot be brought about, and a fragment has no ports to tell.
        let silent = [Reason::RewriteFailed, Reason::Fragment].contains(reason);
        let tells = reason.begins_flow() || reason.refuses() && !silent;
        let name = reason.name();
        assert_eq!(!told.is_empty(), tells, "{name}: {told:?}");
        assert!(told.iter().all(|number| *number == *reason as u32), "{name}: {told:?}");
    }
}

#[test]
fn nothing_is_told_and_nothing_counted_while_nobody_listens() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [client, vip, _] = FAMILIES[0];
    world.trace(&Trace { until_ns: 0, ..ALL });
    world.connect(client, vip);
    let stray = Segment::new("10.0.0.9:1", vip).flags(RST);
    assert_eq!(world.reason(Hook::Ingress, &stray), Reason::StrayReset);
    assert_eq!(world.events(), []);
    assert_eq!(world.traced(), Traced::default());
}

#[test]
fn first_packet_after_a_tracer_was_killed_ends_its_lease() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [client, vip, _] = FAMILIES[0];
    let past = Trace { until_ns: now_ns() - 1_000_000_000, ..ALL };
    world.trace(&past);
    world.connect(client, vip);
    assert_eq!(world.events(), []);
    assert_eq!(world.asked(), Trace { until_ns: 0, ..past });
    assert_eq!(world.traced(), Traced::default());
}

#[test]
fn asking_tells_nothing() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [client, vip, _] = FAMILIES[0];
    world.trace(&ALL);
    let there = Segment::new(client, vip);
    assert_eq!(world.reason(Hook::Ask, &there.clone().flags(SYN)), Reason::NewFlow);
    assert_eq!(world.reason(Hook::Ask, &there.flags(RST)), Reason::StrayReset);
    assert_eq!(world.events(), []);
}

#[test]
fn source_port_that_a_clash_took_is_told() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [client, vip, real] = FAMILIES[0];
    world.service("240.0.0.3:80", &[2]);
    world.connect(client, "240.0.0.3:80");
    world.trace(&ALL);
    let syn = Segment::new(client, vip).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &syn), Reason::TupleClash);
    let events = world.events();
    let [event] = events[..] else { panic!("one event for one flow: {events:?}") };
    assert_eq!(event.reason, Reason::TupleClash as u32);
    let port = u16::from_be_bytes(event.client_port);
    assert_ne!(port, 40000);
    let seen = format!("10.0.0.1:{port}");
    assert!(world.flow(Flows::HalfOpen, real, &seen, REPLY).is_some(), "replies come to {seen}");
}

#[test]
fn of_new_flows_about_one_in_so_many_is_told_and_of_refusals_each() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [_, vip, _] = FAMILIES[0];
    world.change_route(SERVICE, |route| route.pick = pick::RANDOM);
    world.trace(&Trace { sample: 4, ..ALL });
    let flows = 400;
    for port in 1..=flows {
        let syn = Segment::new(&format!("10.0.0.1:{port}"), vip).flags(SYN);
        assert_eq!(world.reason(Hook::Ingress, &syn), Reason::NewFlow);
    }
    let events = world.events();
    // 100 expected, standard deviation 8.7: off by six of them once in a billion runs.
    assert!((48..=152).contains(&events.len()), "{}", events.len());
    assert!(events.iter().all(|event| event.sample == 4));
    let told = events.len() as u64;
    let expected = Traced { told, left_out: flows - told, ..Default::default() };
    assert_eq!(world.traced(), expected);
    for port in 1..=20 {
        let lost = Segment::new(&format!("10.0.0.2:{port}"), vip).flags(ACK);
        assert_eq!(world.reason(Hook::Ingress, &lost), Reason::FlowLost);
    }
    let refused: Vec<_> = world.events().iter().map(|event| event.sample).collect();
    assert_eq!(refused, [1; 20]);
}

#[test]
fn events_beyond_the_limit_of_a_cpu_are_counted_as_lost() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [_, vip, _] = FAMILIES[0];
    let hour = 3_600_000_000_000;
    world.trace(&Trace { interval_ns: hour, ahead_ns: 2 * hour, ..ALL });
    let stray = Segment::new("10.0.0.9:1", vip).flags(RST);
    // One CPU for all of them.
    world.repeat(Hook::Ingress, &stray, 100);
    assert_eq!(world.events().len(), 3, "a burst, then one an hour");
    let expected = Traced { told: 3, limited: 97, ..Default::default() };
    assert_eq!(world.traced(), expected);
}

#[test]
fn events_that_find_no_room_are_counted_as_lost() {
    let Some(mut world) = world(FAMILIES[0]) else { return };
    let [_, vip, _] = FAMILIES[0];
    world.trace(&ALL);
    let stray = Segment::new("10.0.0.9:1", vip).flags(RST);
    let times = 4000;
    world.repeat(Hook::Ingress, &stray, times);
    let traced = world.traced();
    assert_eq!(traced.told + traced.full, u64::from(times));
    assert!(traced.full > 0 && traced.told > 2000, "{traced:?}");
    assert_eq!(world.events().len() as u64, traced.told, "what was told can be read");
    world.repeat(Hook::Ingress, &stray, 1);
    assert_eq!(world.events().len(), 1, "there is room again");
}
