//! What a split becomes.

use std::{collections::BTreeSet, sync::Arc};

use super::world::{dataplane, locality_aware_mesh, route, set, settings};
use crate::{
    policy::{Dataplane, LoadBalancer},
    resolve::{BackendState, Decision, NoRoute, ResolveSettings, resolve},
};

fn redis() -> Vec<Dataplane> {
    vec![
        dataplane("redis-1", "10.0.0.21").inbound(6379, "service=redis,version=1.0"),
        dataplane("redis-2", "10.0.0.22").inbound(6379, "service=redis,version=2.0"),
        dataplane("redis-3", "10.0.0.23").inbound(6379, "service=redis,version=2.0"),
        dataplane("web-1", "10.0.0.11").inbound(80, "service=web"),
    ]
}

#[test]
fn split_names_the_reals_of_each_subset() {
    let canary = route("canary")
        .from("service=web")
        .to("redis")
        .split(90, "service=redis,version=1.0")
        .split(10, "service=redis,version=2.0");
    let resolved = resolve(&set(redis(), vec![canary]), &settings());
    let route = resolved.route_from("10.0.0.11", "redis");
    assert_eq!(
        route.lines(),
        [
            "90 redis,version=1.0 ok 10.0.0.21:6379",
            "10 redis,version=2.0 ok 10.0.0.22:6379 10.0.0.23:6379"
        ]
    );
    assert_eq!(route.decision, Decision::Forward);
    assert_eq!(route.load_balancer, LoadBalancer::RoundRobin);
    let other = resolved.route_from("10.0.0.99", "redis");
    assert_eq!((other.decision, &other.policy), (Decision::Direct, &None));
}

#[test]
fn zero_weight_is_drained_and_keeps_its_reals() {
    let blue = route("blue")
        .from("service=*")
        .to("redis")
        .split(1, "service=redis,version=1.0")
        .split(3, "service=redis,version=2.0")
        .split(0, "service=redis,version=1.0");
    let resolved = resolve(&set(redis(), vec![blue]), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.11", "redis").lines(),
        [
            "1 redis,version=1.0 ok 10.0.0.21:6379",
            "3 redis,version=2.0 ok 10.0.0.22:6379 10.0.0.23:6379",
            "0 redis,version=1.0 drained 10.0.0.21:6379"
        ]
    );
}

#[test]
fn one_destination_twice_stays_twice() {
    let twice = route("twice")
        .from("service=*")
        .to("redis")
        .split(1, "service=redis,version=1.0")
        .split(2, "service=redis,version=1.0");
    let resolved = resolve(&set(redis(), vec![twice]), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.11", "redis").lines(),
        ["1 redis,version=1.0 ok 10.0.0.21:6379", "2 redis,version=1.0 ok 10.0.0.21:6379"]
    );
}

#[test]
fn default_route_reaches_each_called_service() {
    let all = route("route-all-default").from("service=*").to("*").split(1, "service=*");
    let resolved = resolve(&set(redis(), vec![all]), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.11", "redis").lines(),
        ["1 redis ok 10.0.0.21:6379 10.0.0.22:6379 10.0.0.23:6379"]
    );
    assert_eq!(resolved.route_from("10.0.0.11", "web").lines(), ["1 web ok 10.0.0.11:80"]);
}

#[test]
fn outbound_tags_replace_wildcards_and_leak_into_destinations() {
    let mut dataplanes = redis();
    dataplanes.push(
        dataplane("client", "10.0.0.12")
            .inbound(80, "service=client")
            .outbound("10.9.9.9:6379", "service=redis,version=2.0"),
    );
    let wild = route("wild").from("service=*").to("redis").split(1, "service=redis,version=*");
    let resolved = resolve(&set(dataplanes.clone(), vec![wild]), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.12", "redis").lines(),
        ["1 redis,version=2.0 ok 10.0.0.22:6379 10.0.0.23:6379"],
        "with the tag on its own outbound"
    );
    assert_eq!(
        resolved.route_from("10.0.0.11", "redis").lines(),
        ["1 redis ok 10.0.0.21:6379 10.0.0.22:6379 10.0.0.23:6379"],
        "without: no constraint"
    );
    let redirect = route("redirect").from("service=*").to("redis").split(1, "service=web");
    let resolved = resolve(&set(dataplanes, vec![redirect]), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.12", "redis").lines(),
        ["1 web,version=2.0 empty"],
        "the outbound's tag comes along"
    );
    assert_eq!(resolved.route_from("10.0.0.11", "redis").lines(), ["1 web ok 10.0.0.11:80"]);
}

#[test]
fn empty_and_unknown_backends_keep_their_weight() {
    let split = route("split")
        .from("service=*")
        .to("redis")
        .split(8, "service=redis,version=1.0")
        .split(1, "service=redis,version=3.0")
        .split(1, "service=nobody");
    let resolved = resolve(&set(redis(), vec![split]), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.11", "redis").lines(),
        ["8 redis,version=1.0 ok 10.0.0.21:6379", "1 redis,version=3.0 empty", "1 nobody invalid"]
    );
}

#[test]
fn endpoints_that_are_not_ready_serve_nobody_and_still_call() {
    let dataplanes = vec![
        dataplane("redis-1", "10.0.0.21").inbound(6379, "service=redis").not_ready(),
        dataplane("web-1", "10.0.0.11").inbound(80, "service=web").not_ready(),
    ];
    let from_web = route("from-web").from("service=web").to("redis").split(1, "service=redis");
    let resolved = resolve(&set(dataplanes, vec![from_web]), &settings());
    let route = resolved.route_from("10.0.0.11", "redis");
    assert_eq!(route.policy.as_ref().map(|policy| policy.name.as_str()), Some("from-web"));
    assert_eq!(route.backends[0].state, BackendState::Empty);
    assert_eq!(
        resolved.inventory,
        ["10.0.0.11:80".parse().unwrap(), "10.0.0.21:6379".parse().unwrap()],
        "the inventory has them in any state"
    );
}

#[test]
fn mesh_without_policies_is_direct_whatever_the_setting() {
    let settings = ResolveSettings { no_route: NoRoute::Deny, ..settings() };
    let resolved = resolve(&set(redis(), Vec::new()), &settings);
    let route = resolved.route_from("10.0.0.11", "redis");
    assert_eq!(route.decision, Decision::Direct);
    assert_eq!(route.lines(), ["1 redis ok 10.0.0.21:6379 10.0.0.22:6379 10.0.0.23:6379"]);
}

#[test]
fn without_a_match_the_setting_decides() {
    let other = route("other").from("service=nobody").to("redis").split(1, "service=redis");
    let world = set(redis(), vec![other]);
    let direct = resolve(&world, &settings());
    assert_eq!(direct.route_from("10.0.0.11", "redis").decision, Decision::Direct);
    let deny = resolve(&world, &ResolveSettings { no_route: NoRoute::Deny, ..settings() });
    let route = deny.route_from("10.0.0.11", "redis");
    assert_eq!((route.decision, route.backends.len()), (Decision::Reject, 0));
}

#[test]
fn vip_carries_reals_of_its_own_family_only() {
    let dataplanes = vec![
        dataplane("redis-1", "10.0.0.21").inbound(6379, "service=redis"),
        dataplane("redis-2", "fd00::22").inbound(6379, "service=redis"),
    ];
    let resolved = resolve(&set(dataplanes, Vec::new()), &settings());
    let families: BTreeSet<bool> =
        resolved.vips_of("redis").iter().map(|vip| vip.key.addr.is_ipv4()).collect();
    assert_eq!(families.len(), 2, "one VIP per family");
    for vip in resolved.vips_of("redis") {
        let expected = if vip.key.addr.is_ipv4() {
            "1 redis ok 10.0.0.21:6379"
        } else {
            "1 redis ok [fd00::22]:6379"
        };
        assert_eq!(resolved.route_at("10.0.0.21", vip).lines(), [expected]);
    }
}

#[test]
fn other_zones_serve_only_while_this_one_cannot() {
    let world = |near_ready: bool| {
        let mut near = dataplane("a", "10.0.0.1").inbound(80, "service=web,zone=east");
        if !near_ready {
            near = near.not_ready();
        }
        let far = dataplane("b", "10.0.0.2").inbound(80, "service=web,zone=west");
        let mut world = set(vec![near, far], Vec::new());
        world.meshes.push_back(Arc::new(locality_aware_mesh()));
        world
    };
    let east = ResolveSettings { zone: Some("east".to_owned()), ..settings() };
    let lines = |near_ready, settings: &ResolveSettings| {
        resolve(&world(near_ready), settings).route_from("10.0.0.1", "web").lines()
    };
    assert_eq!(lines(true, &east), ["1 web ok 10.0.0.1:80"]);
    assert_eq!(lines(false, &east), ["1 web ok 10.0.0.2:80"]);
    assert_eq!(lines(true, &settings()), ["1 web ok 10.0.0.1:80 10.0.0.2:80"], "no zone is set");
    let mut indifferent = world(true);
    indifferent.meshes.clear();
    assert_eq!(
        resolve(&indifferent, &east).route_from("10.0.0.1", "web").lines(),
        ["1 web ok 10.0.0.1:80 10.0.0.2:80"],
        "the mesh is not locality-aware"
    );
}

#[test]
fn endpoint_without_a_zone_is_in_every_zone() {
    let dataplanes = vec![
        dataplane("a", "10.0.0.1").inbound(80, "service=web"),
        dataplane("b", "10.0.0.2").inbound(80, "service=web,zone=west"),
    ];
    let mut world = set(dataplanes, Vec::new());
    world.meshes.push_back(Arc::new(locality_aware_mesh()));
    let east = ResolveSettings { zone: Some("east".to_owned()), ..settings() };
    assert_eq!(
        resolve(&world, &east).route_from("10.0.0.1", "web").lines(),
        ["1 web ok 10.0.0.1:80"]
    );
}

#[test]
fn endpoints_are_dialled_at_the_advertised_address_first() {
    let dataplanes = vec![
        dataplane("a", "10.0.0.1").inbound(80, "service=web").at("10.1.0.1"),
        dataplane("b", "10.0.0.2")
            .inbound(80, "service=web")
            .at("10.1.0.2")
            .advertised("203.0.113.2"),
    ];
    let resolved = resolve(&set(dataplanes, Vec::new()), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.1", "web").lines(),
        ["1 web ok 10.1.0.1:80 203.0.113.2:80"]
    );
}

#[test]
fn last_http_entry_without_match_stands_in_for_a_missing_split() {
    let http = route("http")
        .from("service=*")
        .to("redis")
        .http(true, "service=nobody")
        .http(false, "service=redis,version=1.0");
    let resolved = resolve(&set(redis(), vec![http]), &settings());
    assert_eq!(
        resolved.route_from("10.0.0.11", "redis").lines(),
        ["1 redis,version=1.0 ok 10.0.0.21:6379"]
    );
}

#[test]
fn load_balancer_is_the_policys() {
    let maglev = route("maglev")
        .from("service=*")
        .to("redis")
        .split(1, "service=redis")
        .balanced(LoadBalancer::Maglev);
    let resolved = resolve(&set(redis(), vec![maglev]), &settings());
    assert_eq!(resolved.route_from("10.0.0.11", "redis").load_balancer, LoadBalancer::Maglev);
}
