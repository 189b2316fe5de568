//! VIP, source, class, route, slot.

use std::collections::BTreeMap;

use balancer_ebpf::{
    abi::{RouteEntry, RunWord, TargetWord, direction, pick, route_flags, route_kind, vip_flags},
    hash,
    reason::Reason,
};
use harness::{Segment, packet::flags::SYN};

use crate::world::{HALF, Hook, LOOPBACK, World, fresh_port, key4, key6, pin_to_one_cpu};

const VIP: &str = "240.0.0.1:80";

/// Reals 2, 3 … at 10.0.1.2:8080, 10.0.1.3:8080 …
fn world(reals: u32) -> Option<World> {
    let mut world = World::new()?;
    for id in 2..2 + reals {
        world.real(id, &format!("10.0.1.{id}:8080"), 1);
    }
    Some(world)
}

/// The id of the real that a new connection of this client goes to.
#[track_caller]
fn open_from(world: &mut World, address: &str) -> u32 {
    let syn = Segment::new(&format!("{address}:{}", fresh_port()), VIP).flags(SYN);
    real_id(&world.forwarded(&syn, Reason::NewFlow).to_string())
}

fn real_id(end: &str) -> u32 {
    let address = end.strip_prefix("10.0.1.").expect("a real of this world");
    address.split(':').next().expect("an address").parse().expect("an id")
}

#[test]
fn hash_picks_the_slot_that_user_space_computes() {
    let Some(mut world) = world(7) else { return };
    let reals: Vec<_> = (2..9).collect();
    let id = world.service(VIP, &reals);
    for source_only in [false, true] {
        let flags = if source_only { route_flags::HASH_SOURCE_ONLY } else { 0 };
        world.change_route(id, |route| route.flags = flags);
        let mut seen = BTreeMap::new();
        for _ in 0..100 {
            let client = format!("10.0.0.{}:{}", 1 + fresh_port() % 50, fresh_port());
            let key = key4(
                client.parse().expect("an end"),
                VIP.parse().expect("an end"),
                direction::FORWARD,
            );
            let slot = hash::slot(hash::flow4(&key, source_only), 16);
            let syn = Segment::new(&client, VIP).flags(SYN);
            let real = real_id(&world.forwarded(&syn, Reason::NewFlow).to_string());
            assert_eq!(real, reals[slot as usize % 7], "{client}");
            *seen.entry(real).or_insert(0) += 1;
        }
        assert!(seen.len() > 4, "{seen:?}");
    }
}

#[test]
fn ipv6_hash_picks_the_slot_that_user_space_computes() {
    let Some(mut world) = World::new() else { return };
    let vip = "[fd62:616c::1]:80";
    for id in 2..9 {
        world.real(id, &format!("[fd00:1::{id}]:8080"), 1);
    }
    world.service(vip, &(2..9).collect::<Vec<_>>());
    for _ in 0..100 {
        let client = format!("[fd00::{:x}]:{}", fresh_port() % 50, fresh_port());
        let key =
            key6(client.parse().expect("an end"), vip.parse().expect("an end"), direction::FORWARD);
        let slot = hash::slot(hash::flow6(&key, false), 16);
        let syn = Segment::new(&client, vip).flags(SYN);
        let real = world.forwarded(&syn, Reason::NewFlow);
        assert_eq!(real.to_string(), format!("[fd00:1::{}]:8080", 2 + slot % 7), "{client}");
    }
}

#[test]
fn round_robin_takes_turns() {
    let Some(mut world) = world(3) else { return };
    // A thread stays on its CPU, so that one CPU's turns are seen.
    pin_to_one_cpu();
    let id = world.service(VIP, &[2, 3, 4]);
    world.change_route(id, |route| route.pick = pick::ROUND_ROBIN);
    // 16 slots of 3 reals: the order is that of the table, over and over.
    let seen: Vec<_> = (0..32).map(|_| open_from(&mut world, "10.0.0.1")).collect();
    let expected: Vec<_> = (0..32).map(|turn| 2 + turn % 16 % 3).collect();
    assert_eq!(seen, expected);
}

#[test]
fn random_reaches_every_real() {
    let Some(mut world) = world(4) else { return };
    let id = world.service(VIP, &[2, 3, 4, 5]);
    world.change_route(id, |route| route.pick = pick::RANDOM);
    let mut seen = BTreeMap::new();
    for _ in 0..400 {
        *seen.entry(open_from(&mut world, "10.0.0.1")).or_insert(0) += 1;
    }
    // A share of 1/4 falls below 50 of 400 once in more than 10¹⁰ runs.
    assert!(seen.len() == 4 && seen.values().all(|count| *count > 50), "{seen:?}");
}

#[test]
fn least_request_picks_the_less_busy_real_of_the_backend() {
    let Some(mut world) = world(4) else { return };
    let id = world.vip(VIP);
    // Two backends of 8 slots each: reals 2 and 3, reals 4 and 5.
    let targets =
        [(2, 0), (3, 0), (4, 1), (5, 1)].map(|(real, backend)| TargetWord { real, backend });
    let runs = [RunWord { first: 0, slots: 8 }, RunWord { first: 8, slots: 8 }];
    let slots: Vec<u16> = (0..16).map(|slot| slot / 8 * 2 + slot % 2).collect();
    let table = world.table(&runs, &targets, &slots);
    let entry = RouteEntry {
        kind: route_kind::TABLE,
        pick: pick::LEAST_REQUEST,
        choices: 16,
        counters: 1,
        table,
        ..Default::default()
    };
    for half in 0..2 {
        world.route(half, id, &entry);
        world.vip_entry(half, id, id, 0);
    }
    for (real, active) in [(2, 10), (3, 5), (4, 1), (5, 2)] {
        world.set_active(real, active);
    }
    let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
    for _ in 0..200 {
        *seen.entry(open_from(&mut world, "10.0.0.1")).or_insert(0) += 1;
    }
    // Of 16 samples all are the busier one once in 65,536 connections.
    let busier = seen.get(&2).copied().unwrap_or(0) + seen.get(&5).copied().unwrap_or(0);
    assert!(busier <= 2, "{seen:?}");
    // The random slot fixes the backend, however busy it is: shares hold.
    assert!(seen[&3] > 50 && seen[&4] > 50, "{seen:?}");
    assert_eq!(world.counter(1).connections + world.counter(2).connections, 200);
    assert_eq!(world.counter(1).connections, seen[&3] + seen.get(&2).unwrap_or(&0));
}

#[test]
fn two_sources_get_different_routes_for_one_vip() {
    let Some(mut world) = world(3) else { return };
    let vip = world.service(VIP, &[2]);
    for (route, real) in [(10, 3), (11, 4)] {
        let table = world.equal_table(&[real], 16);
        let entry = RouteEntry { kind: route_kind::TABLE, choices: 2, table, ..Default::default() };
        for half in 0..2 {
            world.route(half, route, &entry);
        }
    }
    for half in 0..2 {
        world.source(half, "10.0.0.5", 5, 1, 0);
        world.source(half, "10.0.0.6", 6, 2, 0);
        world.source(half, "10.0.0.7", 7, 3, 0);
    }
    world.class_route(1, vip, 10);
    world.class_route(2, vip, 11);
    assert_eq!(open_from(&mut world, "10.0.0.5"), 3);
    assert_eq!(open_from(&mut world, "10.0.0.6"), 4);
    assert_eq!(open_from(&mut world, "10.0.0.7"), 2, "a class without a route of its own");
    assert_eq!(open_from(&mut world, "10.0.0.8"), 2, "no source");
    // INHERIT, and what is not in the epoch, mean the VIP's default.
    for kind in [route_kind::INHERIT, route_kind::NONE] {
        world.change_route(10, |route| route.kind = kind);
        assert_eq!(open_from(&mut world, "10.0.0.5"), 2);
    }
    world.change_route(10, |route| route.kind = route_kind::DENY);
    let syn = Segment::new("10.0.0.5:40000", VIP).flags(SYN);
    world.expect(Hook::Ingress, &syn, Reason::Denied, &syn.answering_reset());
    for half in 0..2 {
        world.vip_entry(half, vip, vip, vip_flags::CLASSES_AGREE);
    }
    assert_eq!(open_from(&mut world, "10.0.0.6"), 2, "with that flag nobody asks for the class");
}

#[test]
fn a_source_behind_another_interface_is_dropped() {
    let Some(mut world) = world(1) else { return };
    world.service(VIP, &[2]);
    for half in 0..2 {
        world.source(half, "10.0.0.5", 5, 0, LOOPBACK);
        world.source(half, "10.0.0.6", 6, 0, LOOPBACK + 1);
    }
    assert_eq!(open_from(&mut world, "10.0.0.5"), 2);
    for flags in [SYN, harness::packet::flags::ACK] {
        let spoofed = Segment::new("10.0.0.6:40000", VIP).flags(flags);
        assert_eq!(world.reason(Hook::Ingress, &spoofed), Reason::SpoofedSource);
    }
    assert_eq!(world.flows(), 2, "the honest connection's alone");
}

#[test]
fn a_packet_reads_the_current_half_and_no_other() {
    let Some(mut world) = world(4) else { return };
    let id = world.vip(VIP);
    for half in 0..2 {
        let table = world.equal_table(&[2 + half], 16);
        let entry = RouteEntry { kind: route_kind::TABLE, choices: 2, table, ..Default::default() };
        world.route(half, id, &entry);
        world.route(half, 20, &RouteEntry { kind: route_kind::DENY, ..entry });
        world.vip_entry(half, id, id, 0);
    }
    world.class_route(9, id, 20);
    world.source(0, "10.0.0.5", 5, 9, 0);
    world.source(1, "10.0.0.5", 5, 0, 0);
    for (epoch, real) in [(0, 2), (1, 3), (2, 2), (7, 3), (u64::MAX - 1, 2), (u64::MAX, 3)] {
        world.epoch(epoch);
        assert_eq!(open_from(&mut world, "10.0.0.1"), real, "epoch {epoch}");
        let syn = Segment::new(&format!("10.0.0.5:{}", fresh_port()), VIP).flags(SYN);
        let expected = if epoch % 2 == 0 { Reason::Denied } else { Reason::NewFlow };
        assert_eq!(world.reason(Hook::Ingress, &syn), expected, "epoch {epoch}");
    }
    // A VIP that only the other half has is no VIP.
    world.vip_entry(1, id, 0, 0);
    let syn = Segment::new("10.0.0.1:50000", VIP).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &syn), Reason::UnknownDestination);
    world.epoch(2);
    assert_eq!(world.reason(Hook::Ingress, &syn), Reason::NewFlow);
}

#[test]
fn an_id_beyond_the_half_does_not_reach_into_the_other() {
    let Some(mut world) = world(1) else { return };
    let id = world.service(VIP, &[2]);
    // In epoch 0, id + HALF would be the element of the other half.
    world.vip_entry(0, id, id + HALF, 0);
    let syn = Segment::new("10.0.0.1:40000", VIP).flags(SYN);
    assert_eq!(world.reason(Hook::Ingress, &syn), Reason::UnknownDestination);
}
