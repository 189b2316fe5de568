//! Two sets as texts, through the pure rooms, and what is said of the difference.

use std::net::{IpAddr, SocketAddr};

use super::{Change, Changes, FlowFates, LiveFlow, Side, compare};
use crate::{
    compile::{self, Assignment, Limits, Tables},
    policy::{self, ReadOptions, SourceText},
    resolve::{self, Resolved, VipKey, tests::world::settings},
};

const WORLD: &str = "\
type: Mesh
name: default
---
{type: Dataplane, mesh: default, name: web-1, networking: {address: 10.0.0.11, inbound: [
  {port: 8080, tags: {kuma.io/service: web}}]}}
---
{type: Dataplane, mesh: default, name: redis-1, networking: {address: 10.0.0.21, inbound: [
  {port: 6379, tags: {kuma.io/service: redis, version: '1'}}]}}
";

const SECOND: &str = "\
---
{type: Dataplane, mesh: default, name: redis-2, networking: {address: 10.0.0.22, inbound: [
  {port: 6379, tags: {kuma.io/service: redis, version: '2'}}]}}
";

fn route(from: &str, first: u32, second: u32, balancer: &str) -> String {
    format!(
        "---\n{{type: TrafficRoute, mesh: default, name: canary, sources: [{{match: \
         {{kuma.io/service: {from}}}}}], destinations: [{{match: {{kuma.io/service: redis}}}}], \
         conf: {{loadBalancer: {{{balancer}: {{}}}}, split: [\n\
         {{weight: {first}, destination: {{kuma.io/service: redis, version: '1'}}}},\n\
         {{weight: {second}, destination: {{kuma.io/service: redis, version: '2'}}}}]}}}}\n"
    )
}

fn set(parts: &[&str], before: &Assignment) -> (Resolved, Tables) {
    let text = SourceText { name: "a.yaml".into(), text: parts.concat().into() };
    let reading = policy::read(vec![text], &ReadOptions::default());
    assert!(reading.report.valid(), "{:?}", reading.report);
    let resolved = resolve::resolve(&reading.set, &settings());
    let tables = compile::compile(&resolved, before, &Limits::default()).expect("it fits");
    (resolved, tables)
}

pub(super) fn changes(before: &[&str], after: &[&str], flows: Option<Vec<LiveFlow>>) -> Changes {
    let nothing = Assignment::default();
    let old = if before.is_empty() { Default::default() } else { set(before, &nothing) };
    let new = set(after, &nothing.after(&old.1));
    let side = |(resolved, tables)| Side { resolved, tables };
    compare(side((&old.0, &old.1)), side((&new.0, &new.1)), flows.map(Vec::into_iter))
}

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn equal_sets_change_nothing() {
    let world = [WORLD, SECOND, &route("web", 90, 10, "maglev")];
    let changes = changes(&world, &world, None);
    assert!(changes.none(), "{changes:?}");
    // Those of web and redis for everybody, and web's own to redis.
    assert_eq!(changes.routes_unchanged, 3);
    assert_eq!(changes.flows, None);
}

#[test]
fn new_weights_say_what_each_backend_and_real_gets_and_which_slots_move() {
    let before = [WORLD, SECOND, &route("web", 90, 10, "maglev")];
    let after = [WORLD, SECOND, &route("web", 80, 20, "maglev")];
    let changes = changes(&before, &after, None);
    let [route] = changes.routes.as_slice() else { panic!("{:?}", changes.routes) };
    assert_eq!((route.change, route.service.as_str()), (Change::Changed, "redis"));
    assert_eq!(route.from, ["default/web-1"]);
    assert_eq!((route.slots.before, route.slots.after), (Some(251), Some(251)));
    assert!(!route.rung_changes);
    let [first, second] = route.backends.as_slice() else { panic!("{:?}", route.backends) };
    assert_eq!((first.weight.before, first.weight.after), (Some(90), Some(80)));
    let slots = |share: f64| (share * 251.0).round() as u32;
    assert_eq!((slots(first.share.before), slots(first.share.after)), (226, 201));
    assert_eq!((slots(second.share.before), slots(second.share.after)), (25, 50));
    assert_eq!(second.reals[0].address, "10.0.0.22:6379");
    assert_eq!(slots(second.reals[0].share.after), 50);
    let moved = route.moved.expect("both have tables");
    // The second backend gains 25 slots; maglev moves few more than it must.
    assert!(moved.slots.is_some_and(|n| (25..40).contains(&n)), "{moved:?}");
    assert_eq!(slots(moved.least), 25);
    assert!(moved.by_hash);
}

#[test]
fn a_smaller_share_that_needs_a_larger_table_changes_the_rung() {
    let before = [WORLD, SECOND, &route("web", 90, 10, "maglev")];
    let after = [WORLD, SECOND, &route("web", 99, 1, "maglev")];
    let changes = changes(&before, &after, None);
    let route = &changes.routes[0];
    assert_eq!((route.slots.before, route.slots.after), (Some(251), Some(4093)));
    assert!(route.rung_changes);
    let moved = route.moved.expect("both have tables");
    assert_eq!(moved.slots, None);
    assert!(moved.share >= moved.least && (0.08..0.10).contains(&moved.least), "{moved:?}");
}

#[test]
fn what_no_hash_finds_again_is_said_to_carry_shares_only() {
    let before = [WORLD, SECOND, &route("web", 90, 10, "roundRobin")];
    let after = [WORLD, SECOND, &route("web", 50, 50, "roundRobin")];
    let changes = changes(&before, &after, None);
    assert!(!changes.routes[0].moved.expect("both have tables").by_hash);
}

#[test]
fn everything_is_new_where_nothing_was() {
    let changes = changes(&[], &[WORLD, SECOND, &route("web", 90, 10, "maglev")], None);
    let services: Vec<&str> = changes.vips.iter().map(|vip| vip.service.as_str()).collect();
    assert_eq!(services, ["redis", "web"]);
    assert!(changes.vips.iter().all(|vip| vip.change == Change::Added));
    assert_eq!(changes.sources.len(), 3);
    assert_eq!(changes.classes_added, [1]);
    assert_eq!((changes.routes.len(), changes.routes_unchanged), (3, 0));
    assert!(changes.routes.iter().all(|route| route.change == Change::Added));
}

#[test]
fn a_source_whose_route_goes_is_compared_with_everybodys() {
    let before = [WORLD, SECOND, &route("web", 90, 10, "maglev")];
    let changes = changes(&before, &[WORLD, SECOND], None);
    assert_eq!(changes.classes_removed, [1]);
    assert_eq!(changes.sources.len(), 1);
    assert_eq!(changes.sources[0].change, Change::Changed);
    assert_eq!(changes.sources[0].class, super::Both { before: 1, after: 0 });
    let [route] = changes.routes.as_slice() else { panic!("{:?}", changes.routes) };
    assert_eq!((route.class.before, route.class.after), (1, 0));
    assert_eq!(route.from, ["default/web-1"]);
    assert!(route.policy.before.is_some() && route.policy.after.is_none());
    // The subsets go, and the service as a whole comes.
    let shares: Vec<(f64, f64)> =
        route.backends.iter().map(|b| (b.share.before, b.share.after)).collect();
    assert_eq!(shares.len(), 3);
    assert_eq!(shares[0], (0.0, 1.0));
    assert!(shares[1].0 > 0.8 && shares[1].1 == 0.0, "{shares:?}");
}

#[test]
fn flows_stay_drain_or_end_with_their_real() {
    let before = [WORLD, SECOND, &route("web", 50, 50, "maglev")];
    let redis = changes(&[], &before, None).vips[0].vip.clone();
    let flow = |client: &str, real: Option<&str>| LiveFlow {
        client: client.parse::<IpAddr>().expect("an address"),
        vip: VipKey::tcp(address(&redis)),
        real: real.map(address),
    };
    let (first, second) = (Some("10.0.0.21:6379"), Some("10.0.0.22:6379"));
    let flows = || {
        Some(vec![
            flow("10.0.0.11", first),
            flow("10.0.0.11", second),
            flow("10.0.0.11", second),
            // Somebody whose route is everybody's, and who stays whatever web's weights are.
            flow("10.9.9.9", second),
            // Gone before: nothing new befalls it.
            flow("10.0.0.11", Some("10.0.0.99:6379")),
            flow("10.0.0.11", None),
        ])
    };
    let fates = |changes: &Changes| changes.flows.as_ref().expect("flows were given").all;

    let same = changes(&before, &before, flows());
    assert!(same.none());
    assert_eq!(fates(&same), FlowFates { kept: 6, draining: 0, gone: 0 });

    let drained = changes(&before, &[WORLD, SECOND, &route("web", 100, 0, "maglev")], flows());
    assert_eq!(fates(&drained), FlowFates { kept: 4, draining: 2, gone: 0 });
    assert_eq!(drained.routes.len(), 1);
    assert_eq!(drained.routes[0].flows, Some(FlowFates { kept: 3, draining: 2, gone: 0 }));
    let [real] = drained.flows.as_ref().expect("flows").reals.as_slice() else { panic!() };
    assert_eq!(real.address, "10.0.0.22:6379");
    assert_eq!(real.fates, FlowFates { kept: 1, draining: 2, gone: 0 });

    let gone = changes(&before, &[WORLD, &route("web", 50, 50, "maglev")], flows());
    assert_eq!(fates(&gone), FlowFates { kept: 3, draining: 0, gone: 3 });
}

#[test]
fn flows_to_a_vip_that_goes_drain() {
    let before = [WORLD, SECOND];
    let vip = |changes: Changes| address(&changes.vips[0].vip);
    let redis = vip(changes(&[], &before, None));
    let real = Some(address("10.0.0.11:8080"));
    let flows =
        vec![LiveFlow { client: IpAddr::from([10, 9, 9, 9]), vip: VipKey::tcp(redis), real }];
    // No Dataplane offers redis any more, and the real of the flow is still there.
    let web = WORLD.split("---\n").take(2).collect::<Vec<_>>().join("---\n");
    let after = changes(&before, &[&web], Some(flows));
    assert_eq!(after.vips[0].change, Change::Removed);
    assert_eq!(after.flows.expect("flows").all.draining, 0, "it named no real of redis before");
}
