//! Following small changes gives what resolving the whole gives.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    properties::{any_dataplane, any_route, any_tags},
    world::{dataplane, documents, route, set, settings},
};
use crate::{
    policy::{Edit, Edits, PolicySet},
    resolve::{Change, Parts, Resolution, Resolved, resolve},
};

/// What makes `after` of `before`.
fn edits(before: &PolicySet, after: &PolicySet) -> Edits {
    macro_rules! of_kind {
        ($edits:ident, $list:ident, $kind:ident) => {
            for old in &before.$list {
                let same = after.$list.iter().find(|new| {
                    (&new.meta.mesh, &new.meta.namespace, &new.meta.name)
                        == (&old.meta.mesh, &old.meta.namespace, &old.meta.name)
                });
                if same != Some(old) {
                    $edits.push(Edit::$kind { before: Some(old.clone()), after: same.cloned() });
                }
            }
            for new in &after.$list {
                let known = before.$list.iter().any(|old| {
                    (&new.meta.mesh, &new.meta.namespace, &new.meta.name)
                        == (&old.meta.mesh, &old.meta.namespace, &old.meta.name)
                });
                if !known {
                    $edits.push(Edit::$kind { before: None, after: Some(new.clone()) });
                }
            }
        };
    }
    let mut edits = Vec::new();
    of_kind!(edits, dataplanes, Dataplane);
    of_kind!(edits, traffic_routes, TrafficRoute);
    of_kind!(edits, mesh_tcp_routes, MeshTcpRoute);
    of_kind!(edits, mesh_http_routes, MeshHttpRoute);
    of_kind!(edits, endpoint_slices, EndpointSlice);
    of_kind!(edits, http_routes, HttpRoute);
    of_kind!(edits, grpc_routes, GrpcRoute);
    of_kind!(edits, tcp_routes, TcpRoute);
    Edits::Some(edits)
}

/// Follows from one set to the next, and holds the outcome against the whole.
pub(super) fn followed(before: &PolicySet, after: &PolicySet) -> (Change, Resolved) {
    let mut settings = settings();
    settings.zone = Some("east".to_owned());
    let mut resolution = Resolution::new(before, &settings);
    let old = resolution.resolved().clone();
    settings.assigned = old.assigned.clone();
    let change = resolution.follow(after, &settings, &edits(before, after));
    let whole = resolve(after, &settings);
    assert_eq!(*resolution.resolved(), whole);
    if let Change::Parts(parts) = &change {
        said_all(parts, &old, &whole);
    }
    (change, whole)
}

/// What differs is what the parts say.
pub(super) fn said_all(parts: &Parts, old: &Resolved, new: &Resolved) {
    assert_eq!(old.vips, new.vips);
    assert_eq!(old.classes.len(), new.classes.len());
    assert_eq!(old.assigned, new.assigned);
    assert_eq!(old.diagnostics, new.diagnostics);
    let differing = (0..old.routes.len()).filter(|at| old.routes[*at] != new.routes[*at]);
    assert_eq!(parts.routes, differing.collect::<Vec<_>>());
    for (old, new) in old.routes.iter().zip(&new.routes) {
        assert_eq!((&old.policy, old.decision), (&new.policy, new.decision));
        assert_eq!(old.load_balancer, new.load_balancer);
        let names = |route: &crate::resolve::Route| -> Vec<_> {
            route.backends.iter().map(|b| (b.destination.clone(), b.tags.clone())).collect()
        };
        assert_eq!(names(old), names(new));
    }
    for source in &old.sources {
        let stays = new.sources.contains(source);
        assert!(stays || parts.sources_removed.contains(&source.address), "{source:?}");
    }
    for source in &new.sources {
        let was = old.sources.contains(source);
        assert!(was || parts.sources_added.contains(&source.address), "{source:?}");
    }
    for (addrs, other, said) in [
        (&old.inventory, &new.inventory, &parts.inventory_removed),
        (&new.inventory, &old.inventory, &parts.inventory_added),
    ] {
        let differing = addrs.iter().filter(|addr| !other.contains(addr));
        assert_eq!(*said, differing.copied().collect::<Vec<_>>());
    }
}

/// A change of a world of any sort.
#[derive(Clone, Debug)]
enum Step {
    Remove(usize),
    Ready(usize),
    Move(usize, u8),
    Add(Box<crate::policy::Dataplane>),
    Weight(usize, u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..8usize).prop_map(Step::Remove),
        (0..8usize).prop_map(Step::Ready),
        (0..8usize, 1..20u8).prop_map(|(at, octet)| Step::Move(at, octet)),
        any_dataplane(99).prop_map(|dataplane| Step::Add(Box::new(dataplane))),
        (0..7usize, 0..3u32).prop_map(|(at, weight)| Step::Weight(at, weight)),
    ]
}

fn taken(set: &PolicySet, step: &Step) -> PolicySet {
    let mut set = set.clone();
    let (dataplanes, routes) = (set.dataplanes.len(), set.traffic_routes.len());
    match step {
        Step::Remove(at) if dataplanes > 1 => _ = set.dataplanes.remove(at % dataplanes),
        Step::Ready(at) if dataplanes > 0 => {
            let dataplane = Arc::make_mut(&mut set.dataplanes[at % dataplanes]);
            let inbound = &mut dataplane.inbounds[0];
            inbound.ready = !inbound.ready;
        }
        Step::Move(at, octet) if dataplanes > 0 => {
            let dataplane = Arc::make_mut(&mut set.dataplanes[at % dataplanes]);
            dataplane.address = crate::policy::Host::Ip([10, 0, 0, *octet].into());
        }
        Step::Add(dataplane) => {
            let new = &dataplane.meta;
            set.dataplanes.retain(|old| (&old.meta.mesh, &old.meta.name) != (&new.mesh, &new.name));
            set.dataplanes.push_back(Arc::new(dataplane.as_ref().clone()));
        }
        Step::Weight(at, weight) if routes > 0 => {
            let route = Arc::make_mut(&mut set.traffic_routes[at % routes]);
            route.conf.split[0].weight = *weight;
        }
        _ => {}
    }
    set
}

prop_compose! {
    /// Few sorts of workloads, and no outbounds: as worlds mostly are.
    fn any_plain_dataplane(index: usize)(
        octet in 1..60u8, six in prop::bool::weighted(0.2), of in any_tags(), ready in prop::bool::weighted(0.8),
    ) -> crate::policy::Dataplane {
        let address = if six { format!("fd00::{octet}") } else { format!("10.0.0.{octet}") };
        let built = dataplane(&format!("dp-{index}"), &address).inbound(80, &of);
        if ready { built } else { built.not_ready() }
    }
}

fn any_plain_world() -> impl Strategy<Value = PolicySet> {
    let dataplanes: Vec<_> = (0..16).map(any_plain_dataplane).collect();
    let routes: Vec<_> = (0..5).map(any_route).collect();
    (dataplanes, routes, 0..6usize).prop_map(|(dataplanes, mut routes, keep)| {
        routes.truncate(keep);
        for route in &mut routes {
            route.meta.mesh = "default".to_owned();
        }
        in_own_documents(set(dataplanes, routes))
    })
}

fn any_world() -> impl Strategy<Value = PolicySet> {
    let dataplanes: Vec<_> = (0..8).map(any_dataplane).collect();
    let routes: Vec<_> = (0..7).map(any_route).collect();
    (dataplanes, routes, 0..8usize).prop_map(|(dataplanes, mut routes, keep)| {
        routes.truncate(keep);
        in_own_documents(set(dataplanes, routes))
    })
}

/// Every resource in a document of its own, so that a finding concerns few of them.
fn in_own_documents(mut set: PolicySet) -> PolicySet {
    let dataplanes = set.dataplanes.iter_mut().map(|one| &mut Arc::make_mut(one).meta);
    let routes = set.traffic_routes.iter_mut().map(|one| &mut Arc::make_mut(one).meta);
    for (meta, document) in dataplanes.chain(routes).zip(0..) {
        meta.span.document = document;
    }
    set
}

proptest! {
    #[test]
    fn following_any_change_of_any_world_gives_the_whole(
        world in prop_oneof![any_world(), any_plain_world()],
        steps in prop::collection::vec(any_step(), 1..4),
    ) {
        let mut before = world;
        for step in steps {
            let after = taken(&before, &step);
            followed(&before, &after);
            before = after;
        }
    }
}

pub(super) fn parts(change: Change) -> Parts {
    match change {
        Change::Parts(parts) => parts,
        Change::Whole => panic!("resolved as a whole"),
    }
}

/// Two services with three workloads each, and a canary between versions.
fn shop() -> PolicySet {
    let workload = |service: &str, n: u8| {
        let version = if n == 3 { "v2" } else { "v1" };
        let of = format!("service={service},version={version}");
        let third = if service == "web" { 1 } else { 2 };
        dataplane(&format!("{service}-{n}"), &format!("10.0.{third}.{n}")).inbound(80, &of)
    };
    let all = ["web", "api"].iter().flat_map(|s| (1..=3).map(move |n| (s, n)));
    set(
        all.map(|(service, n)| workload(service, n)).collect(),
        vec![
            route("canary")
                .from("service=web")
                .to("api")
                .split(90, "service=api,version=v1")
                .split(10, "service=api,version=v2"),
        ],
    )
}

#[test]
fn an_endpoint_that_goes_changes_its_routes_and_its_source() {
    let (before, mut after) = (shop(), shop());
    after.dataplanes.retain(|one| one.meta.name != "api-2");
    let (change, resolved) = followed(&before, &after);
    let parts = parts(change);
    // The canary's route, and that of everybody else.
    assert_eq!(parts.routes.len(), 2);
    assert_eq!(parts.sources_removed, ["10.0.2.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(parts.inventory_removed, ["10.0.2.2:80".parse().unwrap()]);
    let canary = resolved.route_from("10.0.1.1", "api").lines();
    assert_eq!(canary[0], "90 api,version=v1 ok 10.0.2.1:80");
    // And comes back.
    let (change, _) = followed(&after, &before);
    assert!(matches!(change, Change::Parts(parts) if parts.inventory_added.len() == 1));
}

#[test]
fn weights_change_the_routes_of_their_policy_alone() {
    let (before, mut after) = (shop(), shop());
    let canary = Arc::make_mut(&mut after.traffic_routes[0]);
    (canary.conf.split[0].weight, canary.conf.split[1].weight) = (50, 50);
    let (change, resolved) = followed(&before, &after);
    let parts = parts(change);
    assert_eq!(parts.routes.len(), 1);
    assert_eq!(resolved.routes[parts.routes[0]].policy.as_ref().unwrap().name, "canary");
    // To nothing, and from nothing.
    let mut none = after.clone();
    Arc::make_mut(&mut none.traffic_routes[0]).conf.split[1].weight = 0;
    assert!(matches!(followed(&after, &none).0, Change::Parts(_)));
    assert!(matches!(followed(&none, &before).0, Change::Parts(_)));
}

#[test]
fn what_changes_more_than_endpoints_is_resolved_as_a_whole() {
    let before = shop();
    let whole = |change: &dyn Fn(&mut PolicySet)| {
        let mut after = before.clone();
        change(&mut after);
        assert_eq!(followed(&before, &after).0, Change::Whole);
    };
    // The share of v2 leads nowhere: a warning.
    whole(&|set| set.dataplanes.retain(|one| one.meta.name != "api-3"));
    // Another port is dialled.
    whole(&|set| Arc::make_mut(&mut set.dataplanes[0]).inbounds[0].port = 81.try_into().unwrap());
    // Another family.
    whole(&|set| {
        let address = "fd00::1".parse().unwrap();
        Arc::make_mut(&mut set.dataplanes[0]).address = crate::policy::Host::Ip(address);
    });
    // A new service.
    whole(&|set| {
        set.dataplanes.push_back(Arc::new(dataplane("n", "10.0.3.1").inbound(80, "service=n")))
    });
    // A sort of source that nobody knows.
    whole(&|set| {
        let of = "service=api,version=v3";
        set.dataplanes.push_back(Arc::new(dataplane("n", "10.0.3.1").inbound(80, of)));
    });
    // Two workloads with one address.
    whole(&|set| {
        let of = "service=api,version=v1";
        set.dataplanes.push_back(Arc::new(dataplane("n", "10.0.2.1").inbound(80, of)));
    });
    // Another destination.
    whole(&|set| Arc::make_mut(&mut set.traffic_routes[0]).destinations = vec!["web".to_owned()]);
    whole(&|set| set.traffic_routes.clear());
}

#[test]
fn a_finding_in_an_edited_document_is_found_again() {
    let mut before = shop();
    let lost = "service=api,version=v9";
    Arc::make_mut(&mut before.traffic_routes[0]).conf.split[1].destination =
        super::world::tags(lost);
    let mut after = before.clone();
    after.dataplanes.retain(|one| one.meta.name != "api-2");
    // All stand in one document, and lines may have moved in it.
    assert_eq!(followed(&before, &after).0, Change::Whole);
}

const MESH_SERVICES: &str = "\
type: MeshService
mesh: default
name: api
labels: {app: api, kuma.io/zone: east}
spec:
  selector: {dataplaneTags: {app: api}}
  ports: [{port: 80, targetPort: 8080, appProtocol: tcp}]
---
type: MeshMultiZoneService
mesh: default
name: everywhere
spec:
  selector: {meshService: {matchLabels: {app: api}}}
  ports: [{port: 80, appProtocol: tcp}]
---
type: MeshTCPRoute
mesh: default
name: split
spec:
  targetRef: {kind: Mesh}
  to:
  - targetRef: {kind: MeshService, labels: {kuma.io/display-name: api}}
    rules:
    - default:
        backendRefs:
        - {kind: MeshService, name: api, port: 80, weight: 3}
        - {kind: MeshMultiZoneService, name: everywhere, port: 80, weight: 1}
---
";

fn mesh_services(workloads: &[u8], weight: u32) -> PolicySet {
    let workload = |n: &u8| {
        format!(
            "type: Dataplane\nmesh: default\nname: api-{n}\nnetworking:\n  address: 10.0.0.{n}\n  \
             inbound: [{{port: 8080, tags: {{kuma.io/service: api-tag, app: api}}}}]\n---\n"
        )
    };
    let policies = MESH_SERVICES.replace("weight: 1}", &format!("weight: {weight}}}"));
    documents(&(policies + &workloads.iter().map(workload).collect::<String>()))
}

#[test]
fn mesh_services_and_those_that_join_them_follow_the_workloads_they_select() {
    let (before, after) = (mesh_services(&[1, 2, 3], 1), mesh_services(&[1, 3], 1));
    let (change, resolved) = followed(&before, &after);
    assert!(parts(change).routes.len() >= 2);
    let route = resolved.route_from("10.0.0.1", "api:80").lines();
    assert_eq!(route[0], "3 api:80 ok 10.0.0.1:8080 10.0.0.3:8080");
    assert_eq!(route[1], "1 everywhere:80 ok 10.0.0.1:8080 10.0.0.3:8080");
    let (change, _) = followed(&after, &mesh_services(&[1, 3], 9));
    assert_eq!(parts(change).routes.len(), 1);
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80, targetPort: 8080}]}
---
";

fn slices(ready: [bool; 3]) -> PolicySet {
    let endpoint = |(n, ready): (usize, &bool)| {
        format!("- {{addresses: [10.0.0.{n}], conditions: {{ready: {ready}}}}}\n")
    };
    let endpoints: String = ready.iter().enumerate().map(|(n, r)| endpoint((n + 1, r))).collect();
    documents(&format!(
        "{SERVICE}apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: echo-1, \
         namespace: shop, labels: {{kubernetes.io/service-name: echo}}}}\naddressType: IPv4\nports: \
         [{{port: 8080}}]\nendpoints:\n{endpoints}"
    ))
}

#[test]
fn services_of_kubernetes_follow_their_slices() {
    let (change, resolved) = followed(&slices([true, true, true]), &slices([true, false, true]));
    assert_eq!(parts(change).routes.len(), 1);
    let route = resolved.route_from("10.9.9.9", "echo.shop:80").lines();
    assert_eq!(route, ["1 echo.shop:80 ok 10.0.0.1:8080 10.0.0.3:8080"]);
}
