//! What a table cannot give, what policies ask of its size, and what there is room for.

use std::net::SocketAddr;

use balancer_ebpf::abi::{pick, route_flags};

use super::{
    Assignment, CapacityError, LARGEST, Limits, compile,
    tests::{World, backend, compiled, real, route},
};
use crate::{
    policy::LoadBalancer,
    resolve::{Backend, Hashing, Route, strategy::SLOTS_MAX},
};

#[test]
fn a_policy_chooses_the_size_of_a_table_and_what_is_hashed() {
    let balanced = |load_balancer, hashing| {
        let backends = vec![backend("a", 1, &[1, 2])];
        let route = Route { hashing, ..route(load_balancer, backends) };
        let tables = compiled(&World::with([(1, route)]), &Assignment::default());
        let spec = &tables.routes[&1];
        (spec.table.as_ref().map(|table| table.slots.len()), spec.pick, spec.flags)
    };
    let asked = Hashing { by_source: true, slots: Some(1_021) };
    let by_source = route_flags::HASH_SOURCE_ONLY;
    assert_eq!(balanced(LoadBalancer::Maglev, asked), (Some(1_021), pick::HASH, by_source));
    let usual = balanced(LoadBalancer::Maglev, Hashing::default());
    assert_eq!(usual, (Some(251), pick::HASH, 0));
    assert_eq!(balanced(LoadBalancer::Random, asked), (Some(1_021), pick::RANDOM, 0));
    assert_eq!(SLOTS_MAX, LARGEST.slots());
}

#[test]
fn a_share_that_no_table_can_give_is_warned_of() {
    let steep =
        route(LoadBalancer::Random, vec![backend("a", 99_999_999, &[1]), backend("b", 1, &[2])]);
    let tables = compiled(&World::with([(1, steep)]), &Assignment::default());
    assert_eq!(
        tables.warnings,
        [
            "route of VIP 240.0.0.1:80 (service `service-1` of mesh default): backend b has weight 1 of \
          100000000 but gets 1 of 1048583 slots, which is more than 1 % off; a table of \
          10000000000 slots would do, but 1048583 is the largest: use weights that are closer to \
          one another"
        ]
    );
}

#[test]
fn samples_beyond_what_a_route_can_say_are_warned_of() {
    let many = LoadBalancer::LeastRequest { choice_count: 1000 };
    let tables = compiled(
        &World::with([(1, route(many, vec![backend("a", 1, &[1])]))]),
        &Assignment::default(),
    );
    assert_eq!(tables.routes[&1].choices, 255);
    assert!(tables.warnings[0].contains("255 samples, not the 1000"), "{:?}", tables.warnings);
}

#[test]
fn each_limit_is_named_when_it_is_too_low() {
    let plain = |n: u8| (n, route(LoadBalancer::Random, vec![backend("a", 1, &[n, n + 10])]));
    let mut world = World::with([plain(1), plain(2), plain(3)]);
    world.classes = vec![vec![1, 2, 3]];
    let refused = |limits: Limits, assignment: &Assignment| -> String {
        compile(&world.resolved(), assignment, &limits).unwrap_err().to_string()
    };
    let (usual, nothing) = (Limits::default(), Assignment::default());
    for (limits, text) in [
        (Limits { services: 2, ..usual }, "3 VIPs, but limits.services is 2: raise it to 3"),
        (
            Limits { sources: 1, ..usual },
            "3 workload addresses, but limits.sources is 1: raise it to 3",
        ),
        (Limits { routes: 2, ..usual }, "3 routes, but limits.routes is 2: raise it to 3"),
        (Limits { reals: 5, ..usual }, "6 reals, but limits.reals is 5: raise it to 6"),
        (
            Limits { counters: 2, ..usual },
            "3 counters (one for each backend of each route), but limits.counters is 2: raise it \
             to 3",
        ),
        (
            Limits { arena_slots: 700, ..usual },
            "792 slots of tables (each real that a table names counts as four), but \
             limits.arena_slots is 700: raise it to 792",
        ),
    ] {
        assert_eq!(refused(limits, &nothing), text);
    }
    let draining = Assignment {
        reals: [(real(100), (2, 1)), (real(101), (3, 1))].into(),
        ..Assignment::default()
    };
    assert_eq!(
        refused(Limits { reals: 7, ..usual }, &draining),
        "6 reals and 2 more that are still being let go, but limits.reals is 7: raise it to 8"
    );
    assert!(compile(&world.resolved(), &draining, &Limits { reals: 8, ..usual }).is_ok());
}

#[test]
fn more_reals_than_a_table_can_name_are_refused() {
    let reals = (0..70_000u32).map(|n| SocketAddr::from((std::net::Ipv4Addr::from(n + 1), 80)));
    let many = Backend { reals: reals.collect(), ..backend("a", 1, &[1]) };
    let world = World::with([(1, route(LoadBalancer::Random, vec![many]))]);
    let limits = Limits { reals: 100_000, ..Limits::default() };
    let error = compile(&world.resolved(), &Assignment::default(), &limits).unwrap_err();
    assert!(matches!(error, CapacityError::Targets { targets: 70_000, .. }));
    assert_eq!(
        error.to_string(),
        "the route of VIP 240.0.0.1:80 (service service-1) spreads over 70000 reals, but one \
         table has 1048583 slots at most and names 65536 reals at most: name fewer backends, or \
         backends with fewer endpoints"
    );
}
