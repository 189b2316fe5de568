//! Whether a world that is used again is as good as a new one.

use std::{collections::BTreeSet, sync::Mutex};

use balancer_ebpf::{
    abi::{RouteEntry, Trace, interface_flags, map_names, pick, route_kind, vip_flags},
    reason::Reason,
};
use harness::{
    Segment,
    packet::flags::{ACK, RST, SYN},
};

use super::{Hook, Loaded, Parameters, World, pool::Pool};

const PARAMETERS: Parameters = Parameters { flows: 1024, one_half_open: false };

/// Client, VIP, real of each family.
const FAMILIES: [[&str; 3]; 2] = [
    ["10.0.0.1:40000", "240.0.0.1:80", "10.0.1.1:8080"],
    ["[fd00::1]:40000", "[fd62:616c::1]:80", "[fd00:1::1]:8080"],
];

/// Has something written to every map that tests or programs write to.
fn use_up(world: &mut World) {
    world.settings(7);
    world.limit_new_flows(u32::MAX);
    world.trace(&Trace { until_ns: u64::MAX, reasons: u64::MAX, ..Default::default() });
    world.epoch(3);
    for (id, [client, vip, real]) in (2..).zip(FAMILIES) {
        world.real(id, real, 1);
        let service = world.service(vip, &[id]);
        let address = client.parse::<std::net::SocketAddr>().expect("an end").ip().to_string();
        for half in 0..2 {
            world.source(half, &address, id, 1, 0);
        }
        world.connect(client, vip);
        let mut piece = Segment::new(client, vip).flags(ACK);
        if piece.src.is_ipv4() {
            (piece.more_fragments, piece.dont_fragment) = (true, false);
            world.run_frame(Hook::Ingress, &piece.bytes());
        }
        // A handshake that is not completed, and a turn taken.
        world.change_route(service, |route| route.pick = pick::ROUND_ROBIN);
        let next = client.replace("40000", "40001");
        assert_eq!(
            world.reason(Hook::Ingress, &Segment::new(&next, vip).flags(SYN)),
            Reason::NewFlow
        );
    }
    world.set_active(9, 1);
    world.takes_frames(1);
    world.snat(61_000, 9);
    world.hops(1, 1);
    world.next_hop(1, 1, 1500);
    world.answer_inward(8080);
    world.allow(7, interface_flags::DIRECT);
    let table = world.equal_table(&[2], 16);
    let entry = RouteEntry { kind: route_kind::TABLE, choices: 2, table, ..Default::default() };
    world.route(0, 40, &entry);
    world.vip_entry(1, 40, 40, vip_flags::CLASSES_AGREE);
    world.class_route(1, 1, 40);
    let stray = Segment::new("10.0.0.9:1", "240.0.0.1:80");
    assert_eq!(world.reason(Hook::Ingress, &stray.clone().flags(RST)), Reason::StrayReset);
    world.run_frame(Hook::Ask, &stray.flags(ACK).bytes());
}

#[test]
fn a_world_that_was_reset_is_what_it_was_when_it_was_loaded() {
    if harness::root_or_skip("datapath").is_none() {
        return;
    }
    let loaded = Loaded::load(PARAMETERS);
    let fresh = loaded.content();
    for name in map_names::ALL {
        assert!(fresh.contains_key(*name), "{name} is not looked at");
    }
    let mut world = World::of(loaded);
    use_up(&mut world);
    let used = world.loaded().content();
    let untouched: BTreeSet<_> =
        fresh.keys().filter(|name| used[*name] == fresh[*name]).map(String::as_str).collect();
    // The globals, the list of chunks, and what cannot be looked at.
    let unseen = [map_names::ARENA, map_names::PROXY_LISTENERS];
    let constant: BTreeSet<_> = fresh
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with('.') || unseen.contains(name))
        .collect();
    assert_eq!(untouched, constant, "the test means to change every other map");
    world.loaded_mut().reset();
    for (name, content) in world.loaded().content() {
        assert!(content == fresh[&name], "{name} still holds {content:?}");
    }
}

#[test]
fn a_full_world_that_was_reset_takes_as_many_flows_as_a_new_one() {
    let Some(mut world) = World::new() else { return };
    let [_, vip, real] = FAMILIES[0];
    let mut taken = Vec::new();
    for _ in 0..2 {
        world.real(2, real, 1);
        world.service(vip, &[2]);
        for port in 1024..4096 {
            let syn = Segment::new(&format!("10.0.0.1:{port}"), vip).flags(SYN);
            world.forwarded(&syn, Reason::NewFlow);
        }
        taken.push(world.flows());
        world.loaded_mut().reset();
        assert_eq!(world.flows(), 0);
        world = World::of(world.loaded.take().expect("there until the drop"));
    }
    // How many of the map's places an LRU list has in use differs by the free places that it
    // hands to each CPU, 128 at a time.
    assert!(taken[0].abs_diff(taken[1]) <= 256, "{taken:?}");
}

#[test]
fn what_a_test_that_panics_has_used_is_not_used_again() {
    /// No other test takes from it.
    static OWN: Pool = Pool(Mutex::new(Vec::new()));
    let Some(mut first) = World::new() else { return };
    first.loaded_mut().home = &OWN;
    let id = first.loaded().chunk_id();
    drop(first);
    let second = World::of(OWN.take(PARAMETERS).expect("given back by a test that did not panic"));
    assert_eq!(second.loaded().chunk_id(), id);
    let panicked = std::thread::spawn(move || {
        let _used = second;
        panic!("as planned");
    })
    .join();
    assert!(panicked.is_err());
    assert!(OWN.take(PARAMETERS).is_none(), "given back although the test panicked");
}
