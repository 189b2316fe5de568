//! Services, listeners and TCPRoutes as a whole: documents in, VIPs and routes out.

use super::world::{documents, settings};
use crate::{
    policy::PolicySet,
    resolve::{Decision, ResolveSettings, Resolved, VipOrigin, resolve},
};

/// Services `v1` and `v2` of `shop` with one endpoint each, `v1` with a second of IPv6, and `db`
/// of `data`.
const SERVICES: &str = "apiVersion: v1
kind: Service
metadata: {name: v1, namespace: shop}
spec: {clusterIP: 10.96.0.1, ports: [{name: tcp, port: 6379, targetPort: 16379}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {clusterIP: 10.96.0.2, ports: [{name: tcp, port: 6379}, {name: sctp, port: 53, protocol: SCTP}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: data}
spec: {clusterIP: 10.96.0.3, ports: [{port: 5432}]}
---
";

fn slice(name: &str, namespace: &str, port: &str, addresses: &str) -> String {
    let family = if addresses.contains("::") { "IPv6" } else { "IPv4" };
    let endpoints: Vec<String> =
        addresses.split(' ').map(|a| format!("{{addresses: ['{a}']}}")).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}-{}, namespace: {namespace}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         addressType: {family}\nports: [{{name: '{port}', port: 16379}}]\nendpoints: [{}]\n---\n",
        family.to_lowercase(),
        endpoints.join(", ")
    )
}

fn world() -> String {
    [
        SERVICES.to_owned(),
        slice("v1", "shop", "tcp", "10.0.0.1"),
        slice("v1", "shop", "tcp", "fd00::1"),
        slice("v2", "shop", "tcp", "10.0.0.2"),
        slice("db", "data", "", "10.0.0.3"),
    ]
    .concat()
}

fn gateway(name: &str, addresses: &str, listeners: &str) -> String {
    let addresses: Vec<String> =
        addresses.split_whitespace().map(|a| format!("{{value: '{a}'}}")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec: {{gatewayClassName: node, addresses: [{}], listeners: [{listeners}]}}\n---\n",
        addresses.join(", ")
    )
}

const REDIS: &str = "{name: redis, port: 6379, protocol: TCP}";

fn route(namespace: &str, name: &str, parents: &str, backends: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{parents}], rules: [{{backendRefs: [{backends}]}}]}}\n---\n"
    )
}

const SPLIT: &str = "{name: v1, port: 6379, weight: 90}, {name: v2, port: 6379, weight: 10}";

/// A Dataplane of a namespace.
fn client(name: &str, namespace: &str, address: &str) -> String {
    format!(
        "type: Dataplane\nmesh: default\nname: {name}\nlabels: {{k8s.kuma.io/namespace: {namespace}}}\n\
         networking: {{address: {address}, inbound: [{{port: 80, tags: {{kuma.io/service: {name}}}}}]}}\n---\n"
    )
}

fn set(parts: &[&str]) -> PolicySet {
    documents(&parts.concat())
}

fn resolved(parts: &[&str]) -> Resolved {
    resolve(&set(parts), &settings())
}

/// Every VIP of an object as `ADDRESS DESTINATION`.
fn vips(resolved: &Resolved) -> Vec<String> {
    let objects = resolved.vips.iter().filter(|vip| vip.destination.mesh().is_empty());
    objects.map(|vip| format!("{} {}", vip.key.addr, vip.destination)).collect()
}

/// Decision and backends of the route that a source has to a VIP.
fn route_at(resolved: &Resolved, source: &str, addr: &str) -> (Decision, Vec<String>) {
    let vip = resolved.vips.iter().find(|vip| vip.key.addr.to_string() == addr);
    let route = resolved.route_at(source, vip.unwrap_or_else(|| panic!("no VIP {addr}")));
    (route.decision, route.lines())
}

const NOBODY: &str = "192.0.2.1";

#[test]
fn every_tcp_port_of_a_service_is_dialled_at_its_cluster_address() {
    let resolved = resolved(&[&world()]);
    assert_eq!(
        vips(&resolved),
        [
            "10.96.0.1:6379 v1.shop:6379",
            "10.96.0.2:6379 v2.shop:6379",
            "10.96.0.3:5432 db.data:5432"
        ]
    );
    assert!(resolved.vips.iter().all(|vip| vip.origin == VipOrigin::Service));
    assert_eq!(
        route_at(&resolved, NOBODY, "10.96.0.1:6379"),
        (Decision::Direct, vec!["1 v1.shop:6379 ok 10.0.0.1:16379".to_owned()]),
        "an address of a family takes its own family's endpoints"
    );
    assert_eq!(resolved.messages(), [""; 0]);
}

#[test]
fn a_service_without_an_address_gets_one_in_each_family_of_its_endpoints() {
    let unassigned = world().replace("clusterIP: 10.96.0.1, ", "");
    let first = resolve(&set(&[&unassigned]), &settings());
    let own = first.vips_of("v1.shop:6379");
    let families: Vec<_> = own.iter().map(|vip| (vip.key.addr.is_ipv6(), vip.origin)).collect();
    assert_eq!(families, [(false, VipOrigin::Allocated), (true, VipOrigin::Allocated)]);
    assert_eq!(
        route_at(&first, NOBODY, &own[1].key.addr.to_string()).1,
        ["1 v1.shop:6379 ok [fd00::1]:16379"]
    );
    // What was assigned stays while others come.
    let kept = ResolveSettings { assigned: first.assigned.clone(), ..settings() };
    let more = unassigned.replace("clusterIP: 10.96.0.2, ", "");
    let second = resolve(&set(&[&more]), &kept);
    let addrs = |resolved: &Resolved| {
        resolved.vips_of("v1.shop:6379").iter().map(|vip| vip.key.addr).collect::<Vec<_>>()
    };
    assert_eq!(addrs(&second), addrs(&first));
}

#[test]
fn headless_services_and_other_names_have_no_vip() {
    let headless = world().replace("clusterIP: 10.96.0.1", "clusterIP: None");
    assert_eq!(vips(&resolved(&[&headless])).len(), 2);
    let name = "apiVersion: v1\nkind: Service\nmetadata: {name: far, namespace: shop}\n\
                spec: {type: ExternalName, externalName: far.example.com, ports: [{port: 80}]}\n---\n";
    assert_eq!(vips(&resolved(&[&world(), name])).len(), 3);
}

#[test]
fn a_listener_is_dialled_at_every_address_of_its_gateway() {
    let edge = gateway(
        "edge",
        "192.0.2.10 fd01::10",
        &format!("{REDIS}, {{name: web, port: 80, protocol: HTTP}}"),
    );
    let attached = route("shop", "r", "{name: edge, sectionName: redis}", SPLIT);
    let resolved = resolved(&[&world(), &edge, &attached]);
    assert_eq!(
        vips(&resolved)[3..],
        [
            "192.0.2.10:80 edge.shop/web",
            "192.0.2.10:6379 edge.shop/redis",
            "[fd01::10]:80 edge.shop/web",
            "[fd01::10]:6379 edge.shop/redis"
        ]
    );
    assert_eq!(
        route_at(&resolved, NOBODY, "192.0.2.10:6379"),
        (
            Decision::Forward,
            vec![
                "90 v1.shop:6379 ok 10.0.0.1:16379".to_owned(),
                "10 v2.shop:6379 ok 10.0.0.2:16379".to_owned()
            ]
        )
    );
    assert_eq!(
        route_at(&resolved, NOBODY, "[fd01::10]:6379").1,
        ["90 v1.shop:6379 ok [fd00::1]:16379", "10 v2.shop:6379 empty"]
    );
    let said = resolved.messages();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(
        said[0],
        "no HTTPRoute or GRPCRoute is attached: every request is answered with 404"
    );
}

#[test]
fn a_gateway_without_addresses_gets_one_in_each_family_of_its_backends() {
    let edge = gateway("edge", "", &format!("{REDIS}, {{name: more, port: 7000, protocol: TCP}}"));
    let attached = route("shop", "r", "{name: edge}", SPLIT);
    let resolved = resolved(&[&world(), &edge, &attached]);
    let listeners: Vec<_> =
        resolved.vips.iter().filter(|vip| vip.destination.to_string().contains('/')).collect();
    assert_eq!(listeners.len(), 4, "two ports in two families");
    assert_eq!(listeners[0].key.addr.ip(), listeners[1].key.addr.ip(), "at one address");
}

#[test]
fn a_listener_without_a_route_refuses_and_says_so() {
    let resolved = resolved(&[&gateway("edge", "192.0.2.10", REDIS)]);
    assert_eq!(route_at(&resolved, NOBODY, "192.0.2.10:6379"), (Decision::Reject, Vec::new()));
    assert_eq!(resolved.messages(), ["no TCPRoute is attached: connections are refused"]);
}

#[test]
fn a_gateway_of_another_controller_gets_no_vip() {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: node}\n\
                 spec: {controllerName: example.com/other}\n---\n";
    let edge = gateway("edge", "192.0.2.10", REDIS);
    let attached = route("shop", "r", "{name: edge}", SPLIT);
    let set = set(&[&world(), class, &edge, &attached]);
    let theirs = resolve(&set, &settings());
    assert_eq!(vips(&theirs).len(), 3);
    let said = theirs.messages();
    assert!(said[0].contains("left to the controller example.com/other"), "{said:?}");
    assert_eq!(said.len(), 1, "the route is that one's to judge: {said:?}");
    let ours = ResolveSettings { gateway_controller: "example.com/other".to_owned(), ..settings() };
    assert_eq!(vips(&resolve(&set, &ours)).len(), 4);
}

#[test]
fn two_that_claim_one_address_are_both_named_and_nothing_is_lost() {
    let (a, b) = (gateway("a", "192.0.2.10", REDIS), gateway("b", "192.0.2.10", REDIS));
    let attached = route("shop", "r", "{name: a}, {name: b}", SPLIT);
    let resolved = resolved(&[&world(), &a, &b, &attached]);
    assert_eq!(route_at(&resolved, NOBODY, "192.0.2.10:6379").1.len(), 2);
    let errors: Vec<_> =
        resolved.diagnostics.iter().filter(|(_, found)| found.is_error()).collect();
    let who: Vec<_> = errors.iter().map(|(meta, _)| meta.name.as_str()).collect();
    assert_eq!(who, ["a", "b"]);
    for (own, other) in [(0, "b.shop/redis"), (1, "a.shop/redis")] {
        let found = &errors[own].1;
        assert!(
            found.message.contains(&format!("and for listener `{other}` at world.yaml:")),
            "{found:?}"
        );
        assert!(found.span.is_some() && found.related.is_some(), "{found:?}");
    }
}

#[test]
fn an_address_of_a_service_that_an_outbound_names_otherwise_is_disputed() {
    let with = |service: &str| {
        let client = format!(
            "type: Dataplane\nmesh: default\nname: c\nnetworking: {{address: 10.1.0.1, inbound: \
             [{{port: 80, tags: {{kuma.io/service: c}}}}], outbound: [{{address: 10.96.0.1, port: 6379, \
             tags: {{kuma.io/service: {service}}}}}]}}\n---\n"
        );
        let resolved = resolved(&[&world(), &client]);
        let errors = resolved.diagnostics.iter().filter(|(_, found)| found.is_error());
        errors.map(|(meta, _)| meta.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(with("other"), ["v1", "c"]);
    assert_eq!(with("v1_shop_svc_6379"), [""; 0], "Kuma's name for the same Service");
    assert_eq!(with("v1.shop.svc:6379"), [""; 0], "and that of Kuma 0.5");
    assert_eq!(with("v1_shop_svc_6380"), ["v1", "c"]);
}

#[test]
fn a_vip_that_is_an_endpoint_is_refused() {
    let loops = gateway("edge", "10.0.0.1", "{name: redis, port: 16379, protocol: TCP}");
    let resolved = resolved(&[&world(), &loops]);
    let error = resolved.diagnostics.iter().find(|(_, found)| found.is_error()).unwrap();
    assert_eq!(error.0.name, "edge");
    assert!(error.1.message.contains("of the EndpointSlice v1-ipv4 (world.yaml:"), "{error:?}");
}

#[test]
fn producers_route_everybody_and_consumers_only_their_namespace() {
    let to = "{group: '', kind: Service, name: v1, namespace: shop}";
    let producer = route("shop", "producer", to, "{name: v2, port: 6379}");
    let consumer = route("team", "consumer", to, "{name: db, namespace: data, port: 5432}");
    let clients = [client("in", "team", "10.1.0.1"), client("out", "other", "10.1.0.2")].concat();
    let resolved = resolved(&[&world(), &producer, &consumer, &clients]);
    let of = |source: &str| route_at(&resolved, source, "10.96.0.1:6379").1;
    assert_eq!(of("10.1.0.1"), ["1 db.data:5432 ok 10.0.0.3:16379"], "and no grant is needed");
    assert_eq!(of("10.1.0.2"), ["1 v2.shop:6379 ok 10.0.0.2:16379"]);
    assert_eq!(of(NOBODY), ["1 v2.shop:6379 ok 10.0.0.2:16379"]);
    assert_eq!(
        route_at(&resolved, "10.1.0.1", "10.96.0.2:6379").1,
        ["1 v2.shop:6379 ok 10.0.0.2:16379"]
    );
    assert_eq!(resolved.classes.len(), 2, "one class for those of `team`");
    assert_eq!(resolved.messages(), [""; 0]);
}

#[test]
fn a_consumer_route_alone_leaves_everybody_else_to_the_service() {
    let to = "{group: '', kind: Service, name: v1, namespace: shop}";
    let consumer = route("team", "consumer", to, "{name: v2, namespace: shop, port: 6379}");
    let resolved = resolved(&[&world(), &consumer, &client("in", "team", "10.1.0.1")]);
    let of = |source: &str| route_at(&resolved, source, "10.96.0.1:6379");
    assert_eq!(of("10.1.0.1").0, Decision::Forward);
    assert_eq!(of(NOBODY).0, Decision::Direct);
}

#[test]
fn the_namespace_of_a_workload_is_its_label_tag_or_documents() {
    let to = "{group: '', kind: Service, name: v1, namespace: shop}";
    let consumer = route("team", "consumer", to, "{name: v2, namespace: shop, port: 6379}");
    let tagged = "type: Dataplane\nmesh: default\nname: tagged\nnetworking: {address: 10.1.0.2, inbound: \
                  [{port: 80, tags: {kuma.io/service: a, k8s.kuma.io/namespace: team}}]}\n---\n";
    let kubernetes = "apiVersion: kuma.io/v1alpha1\nkind: Dataplane\nmesh: default\n\
                      metadata: {name: pod, namespace: team}\nspec: {networking: {address: 10.1.0.3, \
                      inbound: [{port: 80, tags: {kuma.io/service: b}}]}}\n---\n";
    let labelled = client("labelled", "team", "10.1.0.1");
    let resolved = resolved(&[&world(), &consumer, &labelled, tagged, kubernetes]);
    for source in ["10.1.0.1", "10.1.0.2", "10.1.0.3"] {
        assert_eq!(route_at(&resolved, source, "10.96.0.1:6379").0, Decision::Forward, "{source}");
    }
}

#[test]
fn the_share_of_a_backend_that_is_not_there_is_refused() {
    let edge = gateway("edge", "192.0.2.10", REDIS);
    let backends = "{name: v1, port: 6379, weight: 2}, {name: nobody, port: 1}, \
                    {name: db, namespace: data, port: 5432}, {name: pool, kind: Pool}, \
                    {name: v2, port: 6379, weight: 0}";
    let attached = route("shop", "r", "{name: edge}", backends);
    let resolved = resolved(&[&world(), &edge, &attached]);
    assert_eq!(
        route_at(&resolved, NOBODY, "192.0.2.10:6379").1,
        [
            "2 v1.shop:6379 ok 10.0.0.1:16379",
            "1 nobody.shop:1 invalid",
            "1 db.data:5432 invalid",
            "1 pool.shop (Pool) invalid",
            "0 v2.shop:6379 drained 10.0.0.2:16379",
        ]
    );
    let said = resolved.messages();
    for (at, reason) in said.iter().zip(["BackendNotFound", "RefNotPermitted", "InvalidKind"]) {
        assert!(at.starts_with(&format!("not resolved ({reason}): ")), "{at}");
        assert!(at.ends_with("; its share of the connections is refused"), "{at}");
    }
    assert_eq!(said.len(), 3);
}

#[test]
fn the_younger_of_two_routes_says_that_it_carries_nothing() {
    let edge = gateway("edge", "192.0.2.10", REDIS);
    let dated = |name: &str, at: &str, backends: &str| {
        route("shop", name, "{name: edge}", backends).replace(
            "namespace: shop}\nspec",
            &format!("namespace: shop, creationTimestamp: '{at}'}}\nspec"),
        )
    };
    let old = dated("b", "2026-01-01T00:00:00Z", "{name: v2, port: 6379}");
    let new = dated("a", "2026-01-02T00:00:00Z", "{name: v1, port: 6379}");
    let resolved = resolved(&[&world(), &edge, &old, &new]);
    assert_eq!(
        route_at(&resolved, NOBODY, "192.0.2.10:6379").1,
        ["1 v2.shop:6379 ok 10.0.0.2:16379"]
    );
    let [(meta, found)] = resolved.diagnostics.as_slice() else {
        panic!("{:?}", resolved.messages())
    };
    assert_eq!((meta.name.as_str(), found.field.as_str()), ("a", "spec.parentRefs[0]"));
    assert_eq!(
        found.message,
        "accepted, but no connection of the listener edge.shop/redis follows it: the TCPRoute \
         shop/b is attached there too and goes first: it was created earlier"
    );
}

#[test]
fn a_route_that_is_not_accepted_says_why_and_what_there_is() {
    let edge =
        gateway("edge", "192.0.2.10", &format!("{REDIS}, {{name: web, port: 80, protocol: HTTP}}"));
    let said = |parent: &str| {
        let attached = route("shop", "r", parent, "{name: v1, port: 6379}");
        let resolved = resolved(&[&world(), &edge, &attached]);
        let mut own = resolved.diagnostics.into_iter().filter(|(meta, _)| meta.kind == "TCPRoute");
        let (_, found) = own.next().unwrap();
        assert!(!found.is_error() && found.span.is_some());
        (found.message, found.hint.unwrap())
    };
    let is = |message: &str, hint: &str| (format!("not accepted ({message}"), hint.to_owned());
    assert_eq!(
        said("{name: edg}"),
        is("NoMatchingParent): there is no Gateway shop/edg", "did you mean edge")
    );
    assert_eq!(
        said("{name: edge, sectionName: radis}"),
        is(
            "NoMatchingParent): no listener of shop/edge has the name `radis`",
            "its listeners are `redis` (6379), `web` (80)"
        )
    );
    assert_eq!(
        said("{name: v1, group: '', kind: Service, port: 1}"),
        is(
            "NoMatchingParent): no TCP port of shop/v1 has the port 1",
            "its TCP ports are `tcp` (6379)"
        )
    );
    assert_eq!(
        said("{name: db, group: '', kind: Service}"),
        is(
            "NoMatchingParent): there is no Service shop/db",
            "there is one in the namespace data: name it with `namespace: data`"
        )
    );
    assert_eq!(
        said("{name: edge, port: 80}").0,
        "not accepted (NotAllowedByListeners): `web` is no listener of TCP"
    );
    assert_eq!(
        said("{name: x, group: example.com, kind: Mesh}").0,
        "not accepted (UnsupportedValue): a TCPRoute does not attach to a Mesh of the group 'example.com'"
    );
}

#[test]
fn listeners_of_one_port_in_two_protocols_are_refused() {
    let edge = gateway(
        "edge",
        "192.0.2.10",
        "{name: a, port: 443, protocol: TCP}, {name: b, port: 443, protocol: HTTP}",
    );
    let resolved = resolved(&[&edge]);
    let errors: Vec<_> =
        resolved.diagnostics.iter().filter(|(_, found)| found.is_error()).collect();
    let [(_, found)] = errors.as_slice() else { panic!("{errors:?}") };
    assert_eq!(found.field, "spec.listeners[0].port");
    assert!(found.message.contains("the listener `b`, which is of HTTP"), "{}", found.message);
    let udp = gateway(
        "edge",
        "192.0.2.10",
        "{name: a, port: 53, protocol: TCP}, {name: b, port: 53, protocol: UDP}",
    );
    let fine = resolve(&set(&[&udp]), &settings());
    assert!(fine.diagnostics.iter().all(|(_, found)| !found.is_error()));
}
