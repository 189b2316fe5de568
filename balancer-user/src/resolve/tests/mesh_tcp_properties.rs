//! What holds for MeshTCPRoutes in any world.

use std::{collections::BTreeSet, time::Duration};

use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

use super::world::{documents, settings};
use crate::{
    policy::PolicySet,
    resolve::{Resolver, inventory::Family, resolve},
};

const SERVICES: [&str; 4] = ["a", "b", "c", "a_shop_svc_80"];

fn service() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&SERVICES[..])
}

prop_compose! {
    fn any_dataplane(index: usize)(
        octet in 1..12u8,
        service in service(),
        version in 0..3u8,
        gateway in prop::bool::weighted(0.2),
        namespace in prop::option::of(prop::sample::select(&["shop", "team"][..])),
        app in 0..3u8,
    ) -> String {
        let namespace = namespace.map_or(String::new(), |n| format!(", k8s.kuma.io/namespace: {n}"));
        let tags = format!("tags: {{kuma.io/service: {service}, version: v{version}}}");
        let offers = if gateway {
            format!("gateway: {{{tags}}}")
        } else {
            format!("inbound: [{{port: 80, {tags}}}]")
        };
        format!(
            "type: Dataplane\nmesh: default\nname: dp-{index}\nlabels: {{app: app-{app}{namespace}}}\n\
             networking: {{address: 10.0.0.{octet}, {offers}}}\n---\n"
        )
    }
}

fn any_target() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("kind: Mesh".to_owned()),
        Just("kind: Mesh, proxyTypes: [Sidecar]".to_owned()),
        Just("kind: Mesh, proxyTypes: [Gateway]".to_owned()),
        Just("kind: Dataplane".to_owned()),
        (0..3u8).prop_map(|app| format!("kind: Dataplane, labels: {{app: app-{app}}}")),
        (0..8u8).prop_map(|index| format!("kind: Dataplane, name: dp-{index}")),
        (0..3u8).prop_map(|version| format!("kind: MeshSubset, tags: {{version: v{version}}}")),
        Just("kind: MeshSubset, tags: {kuma.io/service: unknown}".to_owned()),
        service().prop_map(|service| format!("kind: MeshService, name: {service}")),
        (service(), 0..3u8).prop_map(|(service, version)| {
            format!("kind: MeshServiceSubset, name: {service}, tags: {{version: v{version}}}")
        }),
    ]
}

fn any_rules() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => Just("[]".to_owned()),
        1 => Just("[{default: {}}]".to_owned()),
        6 => prop::collection::vec((service(), 0..3u32), 1..3).prop_map(|backends| {
            let backend = |(name, weight): &(&str, u32)| {
                format!("{{kind: MeshService, name: {name}, weight: {weight}}}")
            };
            let backends: Vec<_> = backends.iter().map(backend).collect();
            format!("[{{default: {{backendRefs: [{}]}}}}]", backends.join(", "))
        }),
    ]
}

prop_compose! {
    fn any_policy(index: usize)(
        target in any_target(),
        to in prop::collection::vec((service(), any_rules()), 1..3),
        role in prop::option::of(prop::sample::select(&["system", "producer", "consumer"][..])),
        origin in prop::option::of(prop::sample::select(&["global", "zone"][..])),
    ) -> String {
        let mut labels = vec!["k8s.kuma.io/namespace: shop".to_owned()];
        labels.extend(role.map(|role| format!("kuma.io/policy-role: {role}")));
        labels.extend(origin.map(|origin| format!("kuma.io/origin: {origin}")));
        let to: Vec<String> = to.iter().map(|(name, rules)| {
            format!("{{targetRef: {{kind: MeshService, name: {name}}}, rules: {rules}}}")
        }).collect();
        format!(
            "type: MeshTCPRoute\nmesh: default\nname: p-{index}\nlabels: {{{}}}\nspec: {{targetRef: \
             {{{target}}}, to: [{}]}}\n---\n",
            labels.join(", "), to.join(", ")
        )
    }
}

prop_compose! {
    fn any_traffic_route(index: usize)(
        source in prop::sample::select(&["a", "b", "*", "unknown"][..]),
        destination in prop::sample::select(&["a", "b", "c", "*"][..]),
        to in service(),
    ) -> String {
        format!(
            "type: TrafficRoute\nmesh: default\nname: t-{index}\nsources: [{{match: \
             {{kuma.io/service: '{source}'}}}}]\ndestinations: [{{match: {{kuma.io/service: \
             '{destination}'}}}}]\nconf: {{destination: {{kuma.io/service: {to}}}}}\n---\n"
        )
    }
}

/// Documents of a world, to be put into any order.
fn any_world() -> impl Strategy<Value = Vec<String>> {
    let dataplanes: Vec<_> = (0..8).map(any_dataplane).collect();
    let policies: Vec<_> = (0..6).map(any_policy).collect();
    let traffic: Vec<_> = (0..3).map(any_traffic_route).collect();
    (dataplanes, policies, traffic, 0..7usize, 0..4usize).prop_map(
        |(mut all, mut policies, mut traffic, keep, keep_traffic)| {
            policies.truncate(keep);
            traffic.truncate(keep_traffic);
            all.extend(policies);
            all.extend(traffic);
            all
        },
    )
}

fn set(documents_of: &[String]) -> PolicySet {
    documents(&documents_of.concat())
}

proptest! {
    /// The index gives what looking at every policy for every pair gives.
    #[test]
    fn every_source_has_the_route_that_ranking_gives(world in any_world()) {
        let (world, settings) = (set(&world), settings());
        let resolved = resolve(&world, &settings);
        let resolver = Resolver::new(&world, &settings);
        let mut addresses: BTreeSet<_> = resolved.sources.iter().map(|s| s.address).collect();
        addresses.insert("192.0.2.77".parse().unwrap());
        for vip in &resolved.vips {
            let (mesh, family) = (vip.destination.mesh(), Family::of(vip.key.addr.ip()));
            let service = vip.destination.tag_service().unwrap();
            for address in &addresses {
                let proxies = resolver.proxies(mesh, *address);
                let sets = resolver.tag_sets(mesh, *address);
                let sets: Vec<_> = sets.iter().collect();
                let deciding = resolver.deciding(&proxies, &sets, &vip.destination);
                let tags = resolver.outbound_tags(mesh, service, vip.key, *address);
                let expected = resolver.route(&deciding, &vip.destination, family, &tags);
                prop_assert_eq!(resolved.route_at(&address.to_string(), vip), &expected);
            }
        }
    }

    #[test]
    fn input_order_does_not_matter(
        (world, shuffled) in any_world().prop_flat_map(|world| {
            (Just(world.clone()), Just(world).prop_shuffle())
        })
    ) {
        let (one, other) = (resolve(&set(&world), &settings()), resolve(&set(&shuffled), &settings()));
        prop_assert_eq!(one.vips, other.vips);
        prop_assert_eq!(one.routes, other.routes);
        prop_assert_eq!(one.classes, other.classes);
        let said = |resolved: Vec<(crate::policy::Meta, crate::policy::Diagnostic)>| {
            let said = resolved.into_iter().map(|(meta, found)| (meta.name, found.field, found.message));
            said.collect::<BTreeSet<_>>()
        };
        prop_assert_eq!(said(one.diagnostics), said(other.diagnostics));
    }
}

/// `number` services, each with one Dataplane and a policy of its own: for the clients of one
/// other service, or for those with a label of their own beside one that all have.
fn large_world(number: usize) -> PolicySet {
    let mut all = String::new();
    for n in 0..number {
        let (high, low, next) = (n / 250, n % 250 + 1, (n + 1) % number);
        all += &format!(
            "type: Dataplane\nmesh: default\nname: dp-{n}\nlabels: {{env: prod, app: app-{n}}}\nnetworking: \
             {{address: 10.{}.{}.{low}, inbound: [{{port: 80, tags: {{kuma.io/service: s{n}}}}}]}}\n---\n",
            high / 250,
            high % 250
        );
        let target = match n % 2 {
            0 => format!("kind: MeshSubset, tags: {{kuma.io/service: s{n}}}"),
            _ => format!("kind: Dataplane, labels: {{env: prod, app: app-{n}}}"),
        };
        all += &format!(
            "type: MeshTCPRoute\nmesh: default\nname: p-{n}\nspec: {{targetRef: {{{target}}}, to: [{{targetRef: \
             {{kind: MeshService, name: s{next}}}, rules: [{{default: {{backendRefs: [{{kind: MeshService, name: \
             s{n}}}]}}}}]}}]}}\n---\n"
        );
    }
    all += "type: TrafficRoute\nmesh: default\nname: all\nsources: [{match: {kuma.io/service: '*'}}]\n\
            destinations: [{match: {kuma.io/service: '*'}}]\nconf: {destination: {kuma.io/service: '*'}}\n";
    documents(&all)
}

/// Processor time of this thread: other work on the machine does not count.
fn time_to_resolve(number: usize) -> Duration {
    let cpu_time = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let (world, settings) = (large_world(number), settings());
    let start = cpu_time();
    let resolved = resolve(&world, &settings);
    let taken = cpu_time() - start;
    assert_eq!(resolved.vips.len(), number);
    assert_eq!(resolved.classes.len(), number + 1, "every workload has a policy of its own");
    taken
}

/// Sixteen times as many policies and services take nowhere near 256 times as long.
#[test]
fn cost_grows_with_the_sum_of_policies_and_services() {
    let small = (0..3).map(|_| time_to_resolve(200)).min().unwrap();
    let large = time_to_resolve(3_200);
    assert!(large < small * 80, "200 policies: {small:?}; 3,200: {large:?}");
}
