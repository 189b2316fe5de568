//! The room as a whole: small worlds in, tables and ids out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use balancer_ebpf::abi::{REAL_BLACKHOLE, REAL_FIRST, pick};
use proptest::prelude::*;

use super::{Assignment, Compiler, Limits, Tables, compile};
use crate::{
    policy::{HashFunction, LoadBalancer, Tags},
    resolve::{
        Backend, BackendState, Class, Decision, Destination, Hashing, Resolved, Route, Source, Vip,
        VipKey, VipOrigin,
    },
};

pub(super) fn real(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 8080))
}

pub(super) fn vip(n: u8) -> VipKey {
    VipKey::tcp(SocketAddr::from(([240, 0, 0, n], 80)))
}

pub(super) fn source(n: u8) -> IpAddr {
    IpAddr::from([10, 9, 0, n])
}

pub(super) fn backend(service: &str, weight: u32, reals: &[u8]) -> Backend {
    let state = match (weight, reals) {
        (0, _) => BackendState::Drained,
        (_, []) => BackendState::Empty,
        _ => BackendState::Ok,
    };
    let reals: BTreeSet<SocketAddr> = reals.iter().map(|&n| real(n)).collect();
    let destination = Destination::tags("default", service);
    Backend { destination, tags: Tags::new(), weight, state, reals: reals.into_iter().collect() }
}

pub(super) fn route(load_balancer: LoadBalancer, backends: Vec<Backend>) -> Route {
    Route {
        policy: None,
        decision: Decision::Forward,
        load_balancer,
        hashing: Hashing::default(),
        backends,
        http: None,
    }
}

/// VIPs by number: the route of everybody, and of single classes (from 1); the sources of each
/// class (from 1).
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) vips: BTreeMap<u8, (Route, BTreeMap<usize, Route>)>,
    pub(super) classes: Vec<Vec<u8>>,
}

impl World {
    pub(super) fn with(vips: impl IntoIterator<Item = (u8, Route)>) -> Self {
        let vips = vips.into_iter().map(|(n, route)| (n, (route, BTreeMap::new()))).collect();
        Self { vips, classes: Vec::new() }
    }

    pub(super) fn resolved(&self) -> Resolved {
        let mut resolved = Resolved { classes: vec![Class::default()], ..Resolved::default() };
        for (index, sources) in self.classes.iter().enumerate() {
            let mut class = Class { sources: sources.iter().map(|&n| source(n)).collect() };
            class.sources.sort();
            resolved.sources.extend(class.sources.iter().map(|&address| Source {
                address,
                dataplanes: vec![("default".into(), address.to_string())],
                class: index + 1,
            }));
            resolved.classes.push(class);
        }
        resolved.sources.sort_by_key(|source| source.address);
        for (&n, (everybody, own)) in &self.vips {
            let mut add = |route: &Route| {
                resolved.routes.push(route.clone());
                resolved.routes.len() - 1
            };
            let route = add(everybody);
            let class_routes = own.iter().map(|(&class, route)| (class, add(route))).collect();
            resolved.vips.push(Vip {
                key: vip(n),
                destination: Destination::tags("default", &format!("service-{n}")),
                also: None,
                origin: VipOrigin::Allocated,
                route,
                class_routes,
            });
        }
        let reals = resolved.routes.iter().flat_map(|r| &r.backends).flat_map(|b| &b.reals);
        resolved.inventory = reals.copied().collect::<BTreeSet<_>>().into_iter().collect();
        resolved
    }
}

pub(super) fn compiled(world: &World, assignment: &Assignment) -> Tables {
    compile(&world.resolved(), assignment, &Limits::default()).unwrap()
}

/// Slots as (backend's index in the route, address of the real): without ids.
fn without_ids(tables: &Tables, route: u32) -> Vec<(usize, Option<SocketAddr>)> {
    let table = tables.routes[&route].table.as_ref().unwrap();
    let named = |slot: &u16| {
        let target = table.targets[usize::from(*slot)];
        let addr = tables.reals.get(&target.real).map(|real| real.addr);
        assert_eq!(addr.is_none(), target.real == REAL_BLACKHOLE);
        (table.backends[target.backend as usize], addr)
    };
    table.slots.iter().map(named).collect()
}

fn load_balancers() -> impl Strategy<Value = LoadBalancer> {
    prop_oneof![
        Just(LoadBalancer::RoundRobin),
        Just(LoadBalancer::Random),
        Just(LoadBalancer::Maglev),
        (2u32..5).prop_map(|choice_count| LoadBalancer::LeastRequest { choice_count }),
        any::<bool>().prop_map(|murmur| LoadBalancer::RingHash {
            function: if murmur { HashFunction::MurmurHash2 } else { HashFunction::XxHash },
            min_ring_size: 64,
            max_ring_size: 1024,
        }),
    ]
}

fn routes() -> impl Strategy<Value = Route> {
    let backends = (0usize..4, 0u32..8, prop::collection::btree_set(1u8..12, 0..4)).prop_map(
        |(service, weight, reals)| {
            let reals: Vec<u8> = reals.into_iter().collect();
            backend(["redis", "offers", "backend", "web"][service], weight, &reals)
        },
    );
    let decision = prop_oneof![9 => Just(Decision::Forward), 1 => Just(Decision::Reject)];
    (load_balancers(), prop::collection::vec(backends, 1..4), decision).prop_map(
        |(load_balancer, backends, decision)| Route { decision, ..route(load_balancer, backends) },
    )
}

pub(super) fn worlds() -> impl Strategy<Value = World> {
    let own = prop::collection::btree_map(1usize..4, routes(), 0..3);
    let vips = prop::collection::btree_map(1u8..9, (routes(), own), 0..5);
    let classes = Just((1u8..13).collect::<Vec<u8>>()).prop_shuffle();
    (vips, classes).prop_map(|(vips, sources)| World {
        vips,
        classes: sources.chunks(4).map(<[u8]>::to_vec).collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// With the ids read back after publishing, the same input gives the same tables and ids.
    #[test]
    fn compiling_again_changes_nothing(world in worlds(), other in worlds()) {
        let before = Assignment::default().after(&compiled(&other, &Assignment::default()));
        let first = compiled(&world, &before);
        prop_assert_eq!(&first, &compiled(&world, &before));
        prop_assert_eq!(&first, &compiled(&world, &before.after(&first)));
    }

    #[test]
    fn a_compiler_that_remembers_gives_the_same(
        worlds in prop::collection::vec(worlds(), 1..6),
    ) {
        let mut compiler = Compiler::new();
        let mut assignment = Assignment::default();
        for world in &worlds {
            let plain = compiled(world, &assignment);
            let remembered =
                compiler.compile(&world.resolved(), &assignment, &Limits::default()).unwrap();
            prop_assert_eq!(&remembered, &plain);
            assignment = assignment.after(&plain);
        }
    }

    /// The order of routes and classes in the resolved set carries no meaning.
    #[test]
    fn the_order_of_routes_and_classes_does_not_matter(world in worlds(), turn in 0usize..20) {
        let resolved = world.resolved();
        let mut turned = resolved.clone();
        let (routes, classes) = (resolved.routes.len(), resolved.classes.len() - 1);
        let new_route = |old: usize| (old + turn) % routes;
        let new_class = |old: usize| if old == 0 { 0 } else { (old - 1 + turn) % classes + 1 };
        for (old, route) in resolved.routes.iter().enumerate() {
            turned.routes[new_route(old)] = route.clone();
        }
        for (old, class) in resolved.classes.iter().enumerate() {
            turned.classes[new_class(old)] = class.clone();
        }
        for source in &mut turned.sources {
            source.class = new_class(source.class);
        }
        for vip in &mut turned.vips {
            vip.route = new_route(vip.route);
            let own = vip.class_routes.iter();
            vip.class_routes = own.map(|(&c, &r)| (new_class(c), new_route(r))).collect();
        }
        let limits = Limits::default();
        let mut expected = compile(&resolved, &Assignment::default(), &limits).unwrap();
        for route in expected.routes.values_mut() {
            route.resolved = new_route(route.resolved);
        }
        let mut found = compile(&turned, &Assignment::default(), &limits).unwrap();
        found.warnings.sort();
        expected.warnings.sort();
        prop_assert_eq!(found, expected);
    }

    /// Whatever ids a node has given before, its slots name the same reals.
    #[test]
    fn nodes_with_other_ids_have_the_same_tables(world in worlds(), other in worlds()) {
        let before = Assignment::default().after(&compiled(&other, &Assignment::default()));
        let here = compiled(&world, &Assignment::default());
        let there = compiled(&world, &before);
        for (key, vip) in &here.vips {
            let (a, b) = (&here.routes[&vip.route], &there.routes[&there.vips[key].route]);
            prop_assert_eq!(a.deny, b.deny);
            if !a.deny {
                prop_assert_eq!(
                    without_ids(&here, vip.route),
                    without_ids(&there, there.vips[key].route)
                );
            }
        }
    }

    #[test]
    fn tables_hold_what_their_routes_say(world in worlds()) {
        let resolved = world.resolved();
        let tables = compiled(&world, &Assignment::default());
        for (id, spec) in &tables.routes {
            let route = &resolved.routes[spec.resolved];
            let weights: u64 = route.backends.iter().map(|b| u64::from(b.weight)).sum();
            prop_assert_eq!(spec.deny, route.decision == Decision::Reject || weights == 0);
            let Some(table) = &spec.table else { continue };
            prop_assert_eq!(spec.counters.count as usize, table.backends.len());
            let slots = without_ids(&tables, *id);
            for (index, backend) in route.backends.iter().enumerate() {
                let own: Vec<_> = slots.iter().filter(|slot| slot.0 == index).collect();
                // Never with weight 0; else the share is exact, and every real has some of it.
                let quota = slots.len() as f64 * f64::from(backend.weight) / weights as f64;
                prop_assert!((own.len() as f64 - quota).abs() < 1.0, "{} of {}", own.len(), quota);
                if backend.weight > 0 && !backend.reals.is_empty() {
                    let reals: BTreeSet<_> = own.iter().filter_map(|slot| slot.1).collect();
                    prop_assert_eq!(reals, backend.reals.iter().copied().collect());
                } else {
                    prop_assert!(own.iter().all(|slot| slot.1.is_none()));
                }
            }
            for (backend, &(first, n)) in table.runs.iter().enumerate() {
                let run = &table.slots[first as usize..(first + n) as usize];
                let belongs = |slot: &&u16| {
                    table.targets[usize::from(**slot)].backend as usize == backend
                };
                prop_assert_eq!(n > 0, spec.pick == pick::LEAST_REQUEST);
                prop_assert_eq!(run.iter().filter(belongs).count(), n as usize);
            }
        }
    }

    /// Ids do not collide, stay with their keys, and are not given to others while the
    /// assignment names them.
    #[test]
    fn ids_stay_with_their_keys(worlds in prop::collection::vec(worlds(), 2..5)) {
        let mut assignment = Assignment::default();
        for world in &worlds {
            let tables = compiled(world, &assignment);
            for (key, vip) in &tables.vips {
                let holder = assignment.vips.iter().find(|(_, id)| **id == vip.id);
                prop_assert!(holder.is_none_or(|(old, _)| old == key));
            }
            for (id, route) in &tables.routes {
                let holder = assignment.routes.iter().find(|(_, old)| *old == id);
                prop_assert!(holder.is_none_or(|(owner, _)| *owner == route.owner));
            }
            for (id, real) in &tables.reals {
                let holder = assignment.reals.iter().find(|(_, old)| old.0 == *id);
                let same = |addr: &SocketAddr, old: &(u32, u32)| {
                    (*addr, old.1) == (real.addr, real.generation)
                };
                prop_assert!(holder.is_none_or(|(addr, old)| same(addr, old)));
            }
            let mut counters = BTreeSet::new();
            for route in tables.routes.values() {
                for id in route.counters.first..route.counters.first + route.counters.count {
                    prop_assert!(id > 0 && counters.insert(id), "counter {id} twice");
                }
            }
            assignment = assignment.after(&tables);
        }
    }
}

#[test]
fn equal_content_shares_one_table() {
    let same = route(LoadBalancer::Maglev, vec![backend("redis", 1, &[1, 2])]);
    let tables = compiled(&World::with([(1, same.clone()), (2, same)]), &Assignment::default());
    let [a, b] = [1, 2].map(|id| tables.routes[&id].table.clone().unwrap());
    assert!(Arc::ptr_eq(&a, &b));
}

#[test]
fn a_route_that_did_not_change_keeps_its_table() {
    let one = route(LoadBalancer::Random, vec![backend("redis", 1, &[1, 2])]);
    let two = route(LoadBalancer::Random, vec![backend("offers", 1, &[3])]);
    let mut world = World::with([(1, one), (2, two)]);
    let mut compiler = Compiler::new();
    let mut turn = |world: &World, assignment: &Assignment| {
        compiler.compile(&world.resolved(), assignment, &Limits::default()).unwrap()
    };
    let before = turn(&world, &Assignment::default());
    world.vips.get_mut(&2).unwrap().0.backends[0].reals.push(real(4));
    let after = turn(&world, &Assignment::default().after(&before));
    let kept = |id: u32| {
        let [a, b] = [&before, &after].map(|tables| tables.routes[&id].table.clone().unwrap());
        Arc::ptr_eq(&a, &b)
    };
    assert!(kept(1) && !kept(2));
}

#[test]
fn new_ids_are_the_smallest_free_ones_in_key_order() {
    let plain = || route(LoadBalancer::Random, vec![backend("redis", 1, &[7, 5])]);
    let tables = compiled(&World::with([(3, plain()), (1, plain())]), &Assignment::default());
    assert_eq!((tables.vips[&vip(1)].id, tables.vips[&vip(3)].id), (1, 2));
    assert_eq!(tables.reals[&REAL_FIRST].addr, real(5));
    assert_eq!(tables.reals[&(REAL_FIRST + 1)].addr, real(7));

    let assignment = Assignment {
        vips: [(vip(9), 1), (vip(3), 4)].into(),
        reals: [(real(9), (3, 1))].into(),
        free_real_generations: [(2, 6), (5, u32::MAX)].into(),
        quarantine: super::Quarantine { reals: [4].into(), ..Default::default() },
        ..Assignment::default()
    };
    let tables = compiled(&World::with([(3, plain()), (1, plain())]), &assignment);
    // 1 belongs to a VIP that has just gone.
    assert_eq!((tables.vips[&vip(1)].id, tables.vips[&vip(3)].id), (2, 4));
    // 3 drains, 4 is quarantined; reused ids get newer generations, never 0.
    let reals: Vec<_> = tables.reals.iter().map(|(id, r)| (*id, r.addr, r.generation)).collect();
    assert_eq!(reals, [(2, real(5), 7), (5, real(7), 1)]);
}

#[test]
fn a_class_keeps_the_id_that_most_of_its_sources_had() {
    let plain = route(LoadBalancer::Random, vec![backend("redis", 1, &[1])]);
    let other = route(LoadBalancer::Random, vec![backend("offers", 1, &[2])]);
    let mut world = World::with([(1, plain)]);
    world.vips.get_mut(&1).unwrap().1 = [(1, other.clone()), (2, other)].into();
    world.classes = vec![vec![1, 2, 3], vec![4, 5]];
    let first = compiled(&world, &Assignment::default());
    let class = |tables: &Tables, n: u8| tables.sources[&source(n)].class;
    assert_eq!([1, 4].map(|n| class(&first, n)), [1, 2]);
    let assignment = Assignment::default().after(&first);

    // 1 leaves for the second class: both keep their ids.
    world.classes = vec![vec![2, 3], vec![1, 4, 5]];
    assert_eq!([1, 2, 4].map(|n| class(&compiled(&world, &assignment), n)), [2, 1, 2]);
    // The first class splits: the larger part keeps the id, the other gets a new one.
    world.classes = vec![vec![1], vec![2, 3]];
    assert_eq!([1, 2].map(|n| class(&compiled(&world, &assignment), n)), [3, 1]);
    // They merge, two sources each: the smaller id stays.
    world.vips.get_mut(&1).unwrap().1.remove(&2);
    world.classes = vec![vec![2, 3, 4, 5]];
    assert_eq!(class(&compiled(&world, &assignment), 4), 1);
}

#[test]
fn counters_stay_while_the_list_of_backends_does() {
    let split = |services: &[(&str, u32)]| {
        let backends = services.iter().map(|(service, weight)| backend(service, *weight, &[1]));
        World::with([
            (1, route(LoadBalancer::Random, backends.collect())),
            (2, route(LoadBalancer::Random, vec![backend("web", 1, &[2])])),
        ])
    };
    let first = compiled(&split(&[("v1", 90), ("v2", 10)]), &Assignment::default());
    assert_eq!([1, 2].map(|id| first.routes[&id].counters.first), [1, 3]);
    let assignment = Assignment::default().after(&first);
    let counters = |world: &World| {
        let run = compiled(world, &assignment).routes[&1].counters;
        (run.first, run.count)
    };
    assert_eq!(counters(&split(&[("v1", 50), ("v2", 50)])), (1, 2), "other weights");
    assert_eq!(counters(&split(&[("v1", 90), ("v3", 10)])), (4, 2), "another backend");
    assert_eq!(counters(&split(&[("v2", 90), ("v1", 10)])), (4, 2), "another order");
    assert_eq!(counters(&split(&[("v1", 1)])), (4, 1), "one less");

    let mut held = assignment.clone();
    held.quarantine.counters = [4, 6].into();
    let tables = compiled(&split(&[("v1", 90), ("v3", 10)]), &held);
    assert_eq!(tables.routes[&1].counters.first, 7, "two in a row that are not held");
}

#[test]
fn refused_and_empty_routes_have_no_table() {
    let reject = Route {
        decision: Decision::Reject,
        ..route(LoadBalancer::Random, vec![backend("redis", 1, &[1])])
    };
    let drained = route(LoadBalancer::Random, vec![backend("redis", 0, &[1])]);
    let tables = compiled(&World::with([(1, reject), (2, drained)]), &Assignment::default());
    assert!(tables.routes.values().all(|route| route.deny && route.table.is_none()));
    assert!(tables.reals.is_empty());
    assert_eq!(tables.inventory, [real(1)]);
}

#[test]
fn a_backend_without_reals_keeps_its_share_as_a_blackhole() {
    let half = route(LoadBalancer::Maglev, vec![backend("a", 1, &[1]), backend("b", 1, &[])]);
    let tables = compiled(&World::with([(1, half)]), &Assignment::default());
    let slots = without_ids(&tables, 1);
    assert_eq!(slots.iter().filter(|slot| slot.1.is_none()).count(), 125);
    assert_eq!(slots.len(), 251);
}
