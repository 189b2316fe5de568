//! What holds for any world.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::{dataplane, route, set, settings};
use crate::{
    policy::{Dataplane, List, PolicySet, Tags, TrafficRoute},
    resolve::{Resolver, VipKey, inventory::Family, resolve, resolver::service_alone},
};

const SERVICES: [&str; 4] = ["a", "b", "c", "d"];

prop_compose! {
    pub(super) fn any_tags()(
        service in prop::sample::select(&SERVICES[..]),
        version in prop::option::of(0..3u8),
        region in prop::option::of(0..2u8),
    ) -> String {
        let mut text = format!("service={service}");
        if let Some(version) = version { text += &format!(",version=v{version}"); }
        if let Some(region) = region { text += &format!(",region=r{region}"); }
        text
    }
}

prop_compose! {
    fn any_selector()(
        service in prop::option::of(prop::sample::select(&["a", "b", "c", "d", "*", "unknown"][..])),
        version in prop::option::of(prop::sample::select(&["v0", "v1", "*"][..])),
    ) -> String {
        let mut parts = Vec::new();
        if let Some(service) = service { parts.push(format!("service={service}")); }
        if let Some(version) = version { parts.push(format!("version={version}")); }
        parts.join(",")
    }
}

prop_compose! {
    pub(super) fn any_dataplane(index: usize)(
        octet in 1..20u8,
        six in any::<bool>(),
        mesh in 0..2u8,
        inbounds in prop::collection::vec((any_tags(), 80..83u16, any::<bool>()), 1..3),
        outbounds in prop::collection::vec((any_tags(), 0..4u8, any::<bool>()), 0..3),
    ) -> Dataplane {
        let address = if six { format!("fd00::{octet}") } else { format!("10.0.0.{octet}") };
        let mut built = dataplane(&format!("dp-{index}"), &address).mesh(&format!("m{mesh}"));
        for (of, port, ready) in inbounds {
            built = built.inbound(port, &of);
            if !ready { built = built.not_ready(); }
        }
        for (of, host, loopback) in outbounds {
            let addr = if loopback { format!("127.0.0.1:{}", 1000 + u16::from(host)) } else { format!("10.9.{mesh}.{host}:80") };
            built = built.outbound(&addr, &of);
        }
        built
    }
}

prop_compose! {
    pub(super) fn any_route(index: usize)(
        mesh in 0..2u8,
        sources in prop::collection::vec(any_selector(), 1..3),
        destinations in prop::collection::vec(prop::sample::select(&["a", "b", "c", "e", "*"][..]), 1..3),
        created in prop::option::of(0..2u8),
        split in prop::collection::vec((any_tags(), 0..3u32, any::<bool>()), 1..4),
    ) -> TrafficRoute {
        let mut built = route(&format!("tr-{index}")).in_mesh(&format!("m{mesh}"));
        for selector in sources { built = built.from(&selector); }
        for destination in destinations { built = built.to(destination); }
        for (of, weight, wild) in split {
            built = built.split(weight, if wild { "service=*" } else { &of });
        }
        if let Some(created) = created { built = built.created(f64::from(created)); }
        built
    }
}

fn any_world() -> impl Strategy<Value = PolicySet> {
    let dataplanes: Vec<_> = (0..8).map(any_dataplane).collect();
    let routes: Vec<_> = (0..7).map(any_route).collect();
    (dataplanes, routes, 0..8usize).prop_map(|(dataplanes, mut routes, keep)| {
        routes.truncate(keep);
        set(dataplanes, routes)
    })
}

fn owned<T: Clone>(list: &List<T>) -> Vec<T> {
    list.iter().map(|one| T::clone(one)).collect()
}

proptest! {
    #[test]
    fn input_order_does_not_matter(
        (world, shuffled) in any_world().prop_flat_map(|world| {
            let dataplanes = Just(owned(&world.dataplanes)).prop_shuffle();
            let routes = Just(owned(&world.traffic_routes)).prop_shuffle();
            (Just(world), (dataplanes, routes))
        })
    ) {
        let (dataplanes, routes) = shuffled;
        let other = set(dataplanes, routes);
        prop_assert_eq!(resolve(&world, &settings()), resolve(&other, &settings()));
    }

    /// The index of `precedence` gives what ranking every policy for every pair gives.
    #[test]
    fn every_source_has_the_route_that_ranking_gives(world in any_world()) {
        let settings = settings();
        let resolved = resolve(&world, &settings);
        let resolver = Resolver::new(&world, &settings);
        let mut addresses: BTreeSet<_> = resolved.sources.iter().map(|s| s.address).collect();
        addresses.insert("192.0.2.77".parse().unwrap());
        for vip in &resolved.vips {
            let mesh = vip.destination.mesh();
            let service = vip.destination.tag_service().unwrap();
            for address in &addresses {
                let sets = resolver.tag_sets(mesh, *address);
                let sets: Vec<&Tags> = sets.iter().collect();
                let proxies = resolver.proxies(mesh, *address);
                let deciding = resolver.deciding(&proxies, &sets, &vip.destination);
                let outbound = resolver.outbound_tags(mesh, service, vip.key, *address);
                let family = Family::of(vip.key.addr.ip());
                let expected = resolver.route(&deciding, &vip.destination, family, &outbound);
                prop_assert_eq!(resolved.route_at(&address.to_string(), vip), &expected);
            }
        }
    }

    #[test]
    fn outcome_is_whole_and_in_order(world in any_world()) {
        let resolved = resolve(&world, &settings());
        prop_assert!(resolved.vips.is_sorted_by_key(|vip| vip.key));
        prop_assert!(resolved.sources.is_sorted_by_key(|source| source.address));
        prop_assert!(resolved.classes[0].sources.is_empty());
        prop_assert!(resolved.classes[1..].is_sorted_by_key(|class| class.sources[0]));
        let mut named = BTreeSet::new();
        for vip in &resolved.vips {
            named.insert(vip.route);
            for (class, route) in &vip.class_routes {
                prop_assert!(*class > 0 && *class < resolved.classes.len());
                prop_assert!(*route != vip.route, "only what differs is listed");
                named.insert(*route);
            }
        }
        prop_assert_eq!(named, (0..resolved.routes.len()).collect::<BTreeSet<_>>());
        let mut earlier = (0..).zip(&resolved.routes).map(|(at, route)| (&resolved.routes[..at], route));
        prop_assert!(earlier.all(|(before, route)| !before.contains(route)));
        for (index, class) in resolved.classes.iter().enumerate() {
            let different = resolved.vips.iter().any(|vip| vip.class_routes.contains_key(&index));
            prop_assert_eq!(different, index > 0, "a class that differs nowhere is class 0");
            prop_assert_eq!(class.sources.is_empty(), index == 0);
        }
    }

    #[test]
    fn resolving_again_with_its_own_assignments_changes_nothing(world in any_world()) {
        let first = resolve(&world, &settings());
        let mut settings = settings();
        settings.assigned = first.assigned.clone();
        prop_assert_eq!(resolve(&world, &settings), first);
    }

    #[test]
    fn no_real_is_of_another_family_than_its_vip(world in any_world()) {
        let resolved = resolve(&world, &settings());
        for vip in &resolved.vips {
            for route in std::iter::once(&vip.route).chain(vip.class_routes.values()) {
                for real in resolved.routes[*route].backends.iter().flat_map(|b| &b.reals) {
                    prop_assert_eq!(real.is_ipv4(), vip.key.addr.is_ipv4());
                    prop_assert!(resolved.inventory.contains(real));
                }
            }
        }
    }
}

#[test]
fn the_service_alone_is_what_an_undeclared_outbound_says() {
    let world = set(vec![dataplane("a", "10.0.0.1").inbound(80, "service=a")], Vec::new());
    let settings = settings();
    let resolver = Resolver::new(&world, &settings);
    let key = VipKey::tcp("10.9.9.9:80".parse().unwrap());
    let tags = resolver.outbound_tags("default", "a", key, "10.0.0.1".parse().unwrap());
    assert_eq!(tags, service_alone("a"));
}
